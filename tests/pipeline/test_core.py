"""The stage, its key, the ledger and the plain loop."""

import errno
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from manifests.codec import to_plain
from manifests.records import Video
from manifests.scratch import machine
from manifests.store import Store
from pipeline.bench import Bench
from pipeline.disk import disk_fault
from pipeline.here import run_here
from pipeline.ledger import Ledger
from pipeline.override import OverrideError, override
from pipeline.plan import plan, queue, release
from pipeline.stage import RUNTIME, Facts, PostponedError, Rejection, Resources, Stage, Work, keys
from pipeline.step import StageBrokenError, Step
from tests.pipeline.toy import Get, Media, Rate, Speak, calls, dead_pid, number, videos


def stages(log, **rate):
    return [Get(log=str(log)), Rate(log=str(log), **rate), Speak(log=str(log))]


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, Store]:
    return tmp_path / "log", Store(str(tmp_path / "store"))


def test_a_second_run_does_nothing(place):
    log, store = place
    assert run_here(stages(log), videos(20), store, "a") == 18
    before = calls(log)
    assert run_here(stages(log), videos(20), store, "b") == 18
    assert calls(log) == before == {"get": 20, "rate": 18, "speak": 18}
    assert not any(due.enter for due in plan(stages(log), videos(20), store))


def test_a_changed_parameter_redoes_that_stage_and_what_follows(place):
    log, store = place
    run_here(stages(log), videos(10), store, "a")
    run_here(stages(log, threshold=0.9), videos(10), store, "b")
    assert calls(log) == {"get": 10, "rate": 18, "speak": 18}


def test_resources_are_not_part_of_the_key():
    plain = keys([Get(), Rate()], Video)
    assert keys([Get(resources=Resources(cpus=9)), Rate(log="x")], Video) == plain
    assert keys([Get(unavailable=3), Rate()], Video)["rate"] != plain["rate"]


def test_a_need_that_nobody_gives_is_an_error():
    with pytest.raises(ValueError, match="'rate' needs Media"):
        keys([Rate()], Video)


def test_a_parameter_may_be_born_without_changing_old_keys():
    @dataclass(frozen=True, kw_only=True)
    class Rate2(Rate):
        flip: bool = field(default=False, metadata={"absent": False})

    assert keys([Get(), Rate2()], Video) == keys([Get(), Rate()], Video)
    assert keys([Get(), Rate2(flip=True)], Video) != keys([Get(), Rate()], Video)


def test_a_nested_runtime_field_is_not_part_of_the_key():
    @dataclass(frozen=True)
    class Inner:
        depth: int = 1
        threads: int = field(default=1, metadata=RUNTIME)

    @dataclass(frozen=True, kw_only=True)
    class Rate3(Rate):
        inner: Inner = Inner()

    plain = keys([Get(), Rate3()], Video)
    assert keys([Get(), Rate3(inner=Inner(threads=8))], Video) == plain
    assert keys([Get(), Rate3(inner=Inner(depth=2))], Video) != plain


def test_a_failure_is_kept_with_its_traceback_and_tried_three_times_in_all(place):
    log, store = place
    ledger, bad = Ledger(store), videos(10)[3].id
    for run, status in (("a", "failed"), ("b", "failed"), ("c", "quarantined"), ("d", "quarantined")):
        run_here(stages(log, bad=3), videos(10), store, run)
        outcome = ledger.read(keys(stages(log), Video)["rate"], bad)
        assert outcome is not None and outcome.status == status and "RuntimeError: nan" in outcome.body["error"]
    assert calls(log) == {"get": 10, "rate": 8 + 3, "speak": 8}


def test_a_failure_that_heals_leaves_one_outcome(place):
    log, store = place
    run_here(stages(log, bad=3), videos(5), store, "a")
    assert run_here(stages(log), videos(5), store, "b") == 5
    due = plan(stages(log), videos(5), store)
    assert [(d.ok, d.failed, d.quarantined) for d in due] == [(5, 0, 0)] * 3


def test_a_postponed_video_stays_due_and_leaves_no_outcome(place):
    log, store = place
    told = []
    toys = [Get(log=str(log), postpone=2), *stages(log)[1:]]
    run_here(toys, videos(5), store, "a", lambda *call: told.append(call[:2]))
    assert ("get", "postponed") in told
    assert plan(toys, videos(5), store)[0].enter == (videos(5)[2].id,)


def test_a_video_may_be_postponed_any_number_of_times_in_one_run(place):
    log, store = place
    toys = [Get(log=str(log), postpone=2), *stages(log)[1:]]
    for _ in range(5):  # as `run wild` does, wave after wave
        run_here(toys, videos(5), store, "a")
    due = plan(toys, videos(5), store)
    assert due[0].enter == (videos(5)[2].id,) and due[0].quarantined == 0
    assert run_here(stages(log), videos(5), store, "a") == 5


def test_what_was_given_up_is_due_again_when_it_is_released(place):
    log, store = place
    for run in "abc":
        run_here(stages(log, bad=3), videos(5), store, run)
    assert [(d.enter, d.quarantined) for d in plan(stages(log), videos(5), store)][1] == ((), 1)
    (_, shown, _) = due = plan(stages(log), videos(5), store, retry=True)
    assert (shown.enter, shown.failed, shown.quarantined) == ((videos(5)[3].id,), 1, 0)
    release(due, store)
    assert run_here(stages(log), videos(5), store, "d") == 5
    assert [(d.ok, d.failed, d.quarantined) for d in plan(stages(log), videos(5), store)] == [(5, 0, 0)] * 3


def test_what_one_run_gave_up_and_another_measured_stays_measured(place):
    log, store = place
    for run in "abc":
        run_here(stages(log, bad=3), videos(5), store, run)
    (given_up,) = store.list(f"ledger/{plan(stages(log), videos(5), store)[1].key}/quarantined")
    kept = store.get(given_up)
    release(plan(stages(log), videos(5), store, retry=True), store)
    run_here(stages(log), videos(5), store, "d")
    store.put(given_up, kept)
    release(plan(stages(log), videos(5), store, retry=True), store)
    assert [(d.ok, d.enter) for d in plan(stages(log), videos(5), store)] == [(5, ())] * 3


def test_a_worker_that_begins_removes_what_a_dead_one_left_on_its_machine(place, tmp_path, monkeypatch):
    log, store = place
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    left = tmp_path / "scratch" / f"tfw-bench-{machine()}-{dead_pid()}-abc"
    left.mkdir(parents=True)
    run_here(stages(log), videos(1), store, "a")
    assert not left.exists()


def test_a_stage_that_fails_on_everything_stops_the_run(place):
    log, store = place
    with pytest.raises(StageBrokenError, match="20 videos in a row failed at rate"):
        run_here(stages(log, broken=True), videos(30), store, "a")
    assert calls(log)["rate"] == 20


def test_workers_that_die_of_every_video_on_one_machine_stop_the_run_in_one_line(place, monkeypatch):
    log, store = place

    def given_up(n: int) -> bool:
        step, video = Step(Get(log=str(log)), (), store, "a"), videos(n + 1)[n]  # a process in a dead one's place
        for _ in range(3):
            tries = step.ledger.begin(step.key, video.id, "a")
        step.ledger.complain(step.key, video.id, "Traceback:\nWorkerSpoiledError: cuda\n")
        return tries == 3 and step(to_plain(video)) == []

    assert all(given_up(n) for n in range(4))
    assert Step(Get(log=str(log)), (), store, "a")(to_plain(videos(5)[4])), "one that lives: they were the videos"
    assert not store.list("died")
    with monkeypatch.context() as later:
        later.setattr("pipeline.step._CLEARED_EVERY_S", 0.0)
        old = Step(Get(log=str(log)), (), store, "a")
        for n in range(20, 26):
            assert given_up(n)
            old(to_plain(videos(n + 21)[n + 20]))  # another on the machine gets on
    assert not store.list("died") and all(given_up(n) for n in range(5, 9))
    assert Step(Get(log=str(log), unavailable=0), (), store, "a")(to_plain(videos(12)[11])) == []  # divides by it
    assert store.list("died"), "a video that fails tells nothing of the machine"
    with monkeypatch.context() as other:
        other.setattr("socket.gethostname", lambda: "elsewhere")
        assert given_up(10)
    said = r"^workers of get died of 5 videos in a row, .*; one said: WorkerSpoiledError: cuda; "
    with pytest.raises(StageBrokenError, match=said) as end:
        given_up(9)
    assert end.value.by_request and "\n" not in str(end.value)


def test_a_full_gpu_is_held_against_no_video_and_twenty_times_in_a_row_stops_the_run(place):
    log, store = place
    for run in "abcd":
        run_here(stages(log, starves=2), videos(5), store, run)
    due = plan(stages(log), videos(5), store)[1]
    assert (due.ok, len(due.enter), due.failed, due.quarantined) == (2, 3, 0, 0)
    with pytest.raises(StageBrokenError, match=r"20 videos in a row .*CUDA out of memory") as stopped:
        run_here(stages(log, starves=2), videos(40), store, "e")
    assert stopped.value.by_request


def test_a_worker_that_finds_no_room_on_a_gpu_to_open_postpones_its_videos_until_it_does(place):
    log, store = place
    said = "CUDA failed with error out of memory"
    run_here(stages(log, shut=said), videos(5), store, "a")
    due = plan(stages(log), videos(5), store)[1]
    assert (len(due.enter), due.failed, due.quarantined) == (5, 0, 0)
    with pytest.raises(StageBrokenError, match=f"20 videos in a row .*{said}") as stopped:
        run_here(stages(log, shut=said), videos(40), store, "b")
    assert stopped.value.by_request
    with pytest.raises(StageBrokenError, match="rate cannot start: RuntimeError"):
        run_here(stages(log, shut="no kernel image"), videos(5), store, "c")
    assert run_here(stages(log), videos(5), store, "d") == 5


@pytest.mark.parametrize("who", ["python", "PyAV", "yt-dlp"])
def test_a_full_disk_is_not_held_against_the_videos(place, who):
    log, store = place
    for run in "abcd":
        with pytest.raises(StageBrokenError, match="No space left on device: ") as stopped:
            run_here(stages(log, fills=who), videos(5), store, run)
        assert stopped.value.by_request, "told in one line, exit code 2"
    assert [(d.ok, d.failed, d.quarantined) for d in plan(stages(log), videos(5), store)][1] == (0, 0, 0)
    assert run_here(stages(log), videos(5), store, "e") == 5


def test_a_full_disk_is_told_where_the_store_has_no_room_to_say_so(place, monkeypatch):
    log, store = place
    monkeypatch.setattr(store, "create", lambda path, data: Path("/dev/full").write_bytes(data))
    with pytest.raises(StageBrokenError, match="No space left on device"):
        run_here(stages(log, fills="python"), videos(5), store, "a")


def test_of_two_paths_the_full_disk_is_the_one_written_to():
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "scratch/made", None, "store/kept")  # as `shutil` has it
    assert disk_fault(full) == "No space left on device: store/kept; mend that and run the same command again"
    assert disk_fault(ValueError("nan")) is None


def test_a_forgotten_video_is_not_due_again(place):
    log, store = place
    store.put(f"tombstones/{videos(3)[1].id}.json", b"{}")
    assert len(plan(stages(log), videos(3), store)[0].enter) == 2


def test_a_video_that_is_forgotten_while_it_waits_is_not_fetched(place):
    log, store = place
    store.put(f"tombstones/{videos(3)[1].id}.json", b"{}")
    told = []
    assert run_here(stages(log), videos(3), store, "a", lambda *call: told.append(call[:2])) == 2
    assert calls(log)["get"] == 2 and told.count(("get", "forgotten")) == 1
    assert not [path for folder in ("ledger", "blobs") for path in store.list(folder) if videos(3)[1].id in path]


def test_videos_whose_facts_were_forgotten_meanwhile_are_passed_over_and_stop_no_run(place):
    log, store = place
    step = Step(Rate(log=str(log)), [Get()], store, "a")
    for video in videos(30):
        store.put(f"tombstones/{video.id}.json", b"{}")
        assert step(to_plain(video)) == []
    assert not calls(log) and not store.list("ledger") and step.failures_in_a_row == 0


def test_a_video_whose_facts_another_run_has_taken_back_waits_for_the_next_plan(place):
    log, store = place
    run_here(stages(log)[:1], videos(30), store, "a")
    due, ledger = plan(stages(log), videos(30), store), Ledger(store)
    for id in due[1].enter:
        ledger.forget(due[0].key, id)
    step = Step(Rate(log=str(log)), [Get()], store, "b")
    assert not any(step(to_plain(video)) for video in videos(30) if video.id in due[1].enter)
    assert len(due[1].enter) == 26 and not ledger.videos(step.key, "failed") and step.failures_in_a_row == 0
    why = ledger.postponed(step.key, set(due[1].enter))
    assert set(why.values()) == {"another run has taken its Media back"} and len(why) == 26
    assert set(due[1].enter) <= set(plan(stages(log), videos(30), store)[0].enter)


def test_scratch_dies_with_the_call(place, tmp_path, monkeypatch):
    log, store = place
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    run_here(stages(log, bad=3), videos(5), store, "a")
    assert list((tmp_path / "scratch").iterdir()) == []


@dataclass(frozen=True, kw_only=True)
class Recipe:
    get: Get = field(default_factory=Get)
    rate: Rate = field(default_factory=Rate)
    sizes: tuple[int, ...] = (1, 2)


def test_override_reads_text_by_the_type_of_the_field():
    changed = override(override(Recipe(), "rate.threshold=0.7"), "get.resources.cpus=2")
    assert changed.rate.threshold == 0.7 and changed.get.resources.cpus == 2.0
    assert override(Recipe(), "sizes=[3,4]").sizes == (3, 4)


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("rate.treshold=1", "Rate has no 'treshold', only .*threshold"),
        ("rate.threshold=abc", "Expected `float`"),
        ("rate.threshold", "expects name=value"),
        ("rate.threshold.x=1", "float has no 'x', only nothing"),
        ("rate.threshold=nan", "rate.threshold=nan: expected a finite number"),
        ("get.resources.cpus_beside_gpu=-inf", "expected a finite number, or none where there may be none"),
    ],
)
def test_a_wrong_override_says_what_is_allowed(assignment, says):
    with pytest.raises(OverrideError, match=says):
        override(Recipe(), assignment)


@dataclass(frozen=True, kw_only=True)
class Range:
    low: int = 1
    high: int = 2

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low lies above high")


@dataclass(frozen=True, kw_only=True)
class Ranged:
    range: Range = field(default_factory=Range)


def test_overrides_that_need_each_other_are_taken_in_either_order():
    assert override(Ranged(), "range.low=5", "range.high=6") == override(Ranged(), "range.high=6", "range.low=5")
    with pytest.raises(ValueError, match="low lies above high"):
        override(Ranged(), "range.low=5")


@dataclass(frozen=True, kw_only=True)
class Babble(Stage[Media]):
    """Says half a letter in every way that there is, and gives a fact that is none."""

    name, needs, gives = "babble", (Video,), Media

    def open(self) -> Work[Media]:
        def babble(facts: Facts, bench: Bench) -> Media | Rejection:
            n, half = number(facts), "\ud83d"
            if n == 0:
                return Rejection("said", {"said": half})
            if n == 1:
                raise RuntimeError(half)
            if n == 2:
                raise PostponedError(half)
            return Media(frames=np.float32(4)) if n == 3 else Media(frames=4)  # type: ignore[arg-type]

        return babble


def test_nothing_that_a_stage_says_or_gives_ends_the_run_because_it_cannot_be_written(tmp_path):
    store, ids = Store(str(tmp_path)), [video.id for video in videos(5)]
    assert run_here([Babble()], videos(5), store, "a") == 1
    ledger, key = Ledger(store), keys([Babble()], Video)["babble"]
    found = [ledger.read(key, id) for id in ids]
    assert [one and one.status for one in found] == ["rejected", "failed", None, "failed", "ok"]
    assert found[0].body["measured"] == {"said": "\ufffd"}
    assert ledger.postponed(key, set(ids)) == {ids[2]: "\ufffd"}
    assert "RuntimeError: \ufffd" in found[1].body["error"] and "numpy.float32" in found[3].body["error"]


def test_the_longest_come_first_and_parts_of_a_source_stay_together():
    short, long = Video.of("a", duration_s=10.0), Video.of("b", duration_s=50.0)
    late, early = Video.of("c", start_s=9.0, duration_s=20.0), Video.of("c", start_s=1.0)
    whole = Video.of("c")
    every = [short, late, whole, long, early]
    assert queue(every, together=True) == [[long], [early, late, whole], [short]]
    assert [one for (one,) in queue(every, together=False)][:3] == [long, late, short]


def test_what_was_made_in_scratch_is_moved_and_what_lies_elsewhere_is_copied(tmp_path):
    store = Store(str(tmp_path / "store"))
    own = tmp_path / "mine.mp4"
    own.write_bytes(b"mine")
    with Bench(store, "key", "video") as bench:
        made = bench.scratch / "made.mp4"
        made.write_bytes(b"made")
        kept = [bench.keep(made, "made.mp4"), bench.keep(own, "mine.mp4")]
        assert not made.exists() and own.exists()
    assert [store.get(ref.path) for ref in kept] == [b"made", b"mine"]
    assert [(ref.size_bytes, ref.sha256) for ref in kept] == [
        (4, hashlib.sha256(data).hexdigest()) for data in (b"made", b"mine")
    ]
