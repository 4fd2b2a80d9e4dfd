"""Clips in the shards whose videos are not measured as the job in force has it: no command loses them by the way."""

import dataclasses
import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from manifests.records import Video
from manifests.store import Store
from pipeline import finish as finishing
from pipeline import run as running
from pipeline.cli import main
from pipeline.finish import finish, is_finished, snapshot
from pipeline.job import Job, add_videos, read_job, read_videos, write_job
from pipeline.ledger import Ledger, Outcome
from pipeline.stage import keys
from pipeline.waiting import Waiting
from stages.judge import JUDGING
from stages.shard_index import INDEX, read_index
from stages.sync import ScoreSync
from tests.stages.measured import measured, put, remember, source, stored_clip

JOB = Job(recipe="own", overrides=("policy.min_duration_s=none",))
OTHER = dataclasses.replace(JOB, overrides=(*JOB.overrides, "sync.every=1"))
REFETCH = dataclasses.replace(JOB, overrides=(*JOB.overrides, "fetch.max_height_px=480"))
GIVEN_UP = Outcome(status="quarantined", body={"error": "ValueError: nan"})
N_VIDEOS = 5


def known_of(store, video):
    one = measured(video, clips=(stored_clip(store, video, seed=int(video[1:])),))
    return dataclasses.replace(one, source=source(put(store, f"blobs/fetch-test/{video[:2]}/{video}/source", b"s")))


def put_in(store, job, one, *, until="identity", last=None):
    """Leave what a run of this job would have that measured a video up to a stage, where it ended as told."""
    add_videos(store, [one.video])
    names = keys(job.build().stages(), Video)
    passed = dict(list(names.items())[: list(names).index(until) + (last is None)])
    remember(store, passed, one)
    if last is not None:
        Ledger(store).write(names[until], one.video.id, last)


def made(place, n_videos):
    """A store of videos with a clip each, finished."""
    store = Store(str(place))
    write_job(store, JOB)
    for n in range(n_videos):
        put_in(store, JOB, known_of(store, f"v{n}"))
    finish(JOB.build(), JOB, snapshot(JOB.build(), read_videos(store), store), store)
    assert clips(store) == [f"v{n}-0000" for n in range(n_videos)]
    return store


@pytest.fixture
def store(tmp_path):
    """One of five videos."""
    return made(tmp_path / "out", N_VIDEOS)


def clips(store):
    return sorted(row.key for row in read_index(store).rows)


def results(store):
    """All that a command may change, with its bytes."""
    found = {path: store.get(path) for path in store.list("") if path.split("/")[0] not in ("ledger", "blobs")}
    assert {"job.json", "clips.parquet", "shards/index.parquet"} <= found.keys()
    return found


def broken_off(store, *, settled=1):
    """Leave what a run under other settings has left that was broken off: of all but some videos the sync waits."""
    write_job(store, OTHER)
    for n in range(N_VIDEOS):
        put_in(store, OTHER, known_of(store, f"v{n}"), until="identity" if n < settled else "clip")


COMMANDS = (
    ["judge", "--policy", "strict"], ["judge", "--set", "policy.max_yaw_deg=30"], ["shard"],
    ["shard", "--bytes", "9000"], ["report"], ["report", "--sheet", "SHEET"], ["score"],
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_that_measures_nothing_refuses_to_lose_clips_that_wait(command, store, capsys, tmp_path):
    broken_off(store)
    before, sheet = results(store), tmp_path / "sheet.png"
    assert main([str(sheet) if word == "SHEET" else word for word in command] + ["--store", store.url]) == 2
    assert results(store) == before and not sheet.exists()
    said = capsys.readouterr().err
    assert said.startswith("error: 4 of 5 clips in the shards are of videos ") and "(stages: sync)" in said
    assert said.endswith("; nothing was changed\n") and said.count("\n") == 1


def test_so_it_does_after_the_version_of_a_stage_was_raised(store, monkeypatch, capsys):
    monkeypatch.setattr(ScoreSync, "version", 1_000)
    before = results(store)
    assert main(["report", "--store", store.url]) == 2
    assert results(store) == before and "error: 5 of 5 clips in the shards" in capsys.readouterr().err


def test_so_it_does_after_a_run_of_other_settings_that_was_to_stop_early(store, tmp_path, monkeypatch, capsys):
    listed = tmp_path / "list.txt"
    listed.write_text("a.mp4\n")
    listed.with_name("a.mp4").touch()
    monkeypatch.setattr(running, "_carry", lambda this, videos, due: None)
    monkeypatch.setattr(running, "_prepare", lambda *_: None)
    monkeypatch.setattr(running, "out_of_sight", lambda *_: set())
    before = {path: data for path, data in results(store).items() if path.startswith("shards/")}
    command = ["run", "--manifest", str(listed), "--store", store.url, "--until", "fetch"]
    assert main([*command, "--set", "fetch.max_height_px=480"]) == 0
    assert main(["shard", "--store", store.url]) == 2
    assert "(stages: fetch)" in capsys.readouterr().err
    assert {path: data for path, data in results(store).items() if path.startswith("shards/")} == before


def test_judging_that_writes_nothing_says_the_same_and_goes_on(store, capsys):
    broken_off(store)
    before = results(store)
    assert main(["judge", "--dry", "--policy", "strict", "--store", store.url]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("4 of 5 clips in the shards are of videos ") and others[0].startswith("kept 1 clips before")
    assert results(store) == before


def test_limits_are_proposed_with_the_same_word_first(store, capsys):
    broken_off(store, settled=0)
    assert main(["calibrate", "--store", store.url]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("5 of 5 clips in the shards are of videos ") and others[0].startswith("no clip has a sync")


def rejected(reason):
    return Outcome(status="rejected", body={"reason": reason, "measured": {}})


@pytest.mark.parametrize("ended", [rejected("no_track"), GIVEN_UP], ids=lambda ended: ended.status)
def test_clips_of_videos_that_are_settled_otherwise_now_leave_the_shards(ended, store):
    broken_off(store, settled=4)
    put_in(store, OTHER, known_of(store, "v4"), until="sync", last=ended)
    assert main(["report", "--store", store.url]) == 0
    assert clips(store) == ["v0-0000", "v1-0000", "v2-0000", "v3-0000"]


def test_one_that_failed_and_will_be_tried_again_waits(store, capsys):
    broken_off(store, settled=4)
    failed = Outcome(status="failed", body={"error": "ValueError: nan"})
    put_in(store, OTHER, known_of(store, "v4"), until="sync", last=failed)
    assert main(["report", "--store", store.url]) == 2
    assert "error: 1 of 5 clips in the shards" in capsys.readouterr().err


def test_videos_that_are_in_no_shard_yet_hold_nothing_up(store):
    put_in(store, JOB, known_of(store, "v7"), until="clip")
    add_videos(store, [Video.of("b.mp4")])
    assert main(["report", "--store", store.url]) == 0 and main(["shard", "--store", store.url]) == 0
    assert len(clips(store)) == N_VIDEOS


def test_nor_does_a_store_that_has_no_shards(store):
    broken_off(store)
    for path in store.list("shards"):
        store.delete(path)
    assert main(["report", "--store", store.url]) == 0 and clips(store) == ["v0-0000"]


def test_what_is_forgotten_leaves_the_shards_and_what_waits_stays_in_them(store, capsys):
    broken_off(store)
    assert main(["forget", "video:v4", "--store", store.url]) == 0
    assert clips(store) == ["v0-0000", "v1-0000", "v2-0000", "v3-0000"]
    assert "3 of 4 clips in the shards are of videos " in capsys.readouterr().out
    assert main(["verify", "--store", store.url]) == 0
    assert main(["forget", "video:v0", "--store", store.url]) == 0 and len(clips(store)) == 3


def ended(store, job=OTHER):
    """The end of a run of this job after its stages: exit code, and what it said."""
    console = Console(file=io.StringIO(), width=200)
    options = SimpleNamespace(until=None, manifest="own.csv")
    code = running._end(running._Run(options, console, store, job, job.build(), "r"), 0.0, None)
    return code, console.file.getvalue()


def test_a_run_that_came_to_its_end_goes_on_without_the_few_that_wait_and_says_how_many(store):
    """They may wait for ever: for a host that lets nobody in, or a disk that is gone."""
    broken_off(store, settled=3)
    fetch = keys(OTHER.build().stages(), Video)["fetch"]
    for video in ("v3", "v4"):
        Ledger(store).forget(fetch, video)
        Ledger(store).put_off(fetch, video, "r", 1, "x.invalid: refused")
    code, said = ended(store)
    assert code == 0 and clips(store) == ["v0-0000", "v1-0000", "v2-0000"]
    assert "2 of 5 clips left the shards, as their videos wait (stages: fetch)" in said
    assert "postponed: 2 of 5 videos" in said
    assert read_job(store) == dataclasses.replace(OTHER, stages=keys(OTHER.build().stages(), Video))
    assert main(["report", "--store", store.url]) == 0, "what left them holds nothing up"
    assert "left the shards" not in ended(store)[1]


def test_a_run_leaves_the_results_as_they_were_where_most_clips_would_leave(store):
    """A host that closes at the first of a thousand videos must not cost the set of before."""
    broken_off(store, settled=2)
    Ledger(store).put_off(keys(OTHER.build().stages(), Video)["sync"], "v4", "r", 1, "no memory")
    before = results(store)
    code, said = ended(store)
    assert code == 1 and results(store) == before
    assert "3 of 5 clips in the shards are of videos " in said and "(stages: sync)" in said
    assert f"delete {store.at(INDEX)} first" in said.replace("\n", " ") and "postponed: 1 of 5 videos" in said


def test_once_the_index_alone_is_deleted_the_same_run_writes_what_there_is_and_leaves_what_was_encoded(store):
    broken_off(store, settled=2)
    encoded = "shards/encoded/E/v0-0000.C.k.npy"
    store.put(encoded, b"days of a GPU")
    store.delete(INDEX)
    assert ended(store)[0] == 0 and clips(store) == ["v0-0000", "v1-0000"]
    assert store.exists(encoded) and main(["verify", "--store", store.url]) == 0


def run_anew(store, until, last, *, settled):
    """Leave what a run has left that fetched all again, where all but some videos ended as told."""
    write_job(store, REFETCH)
    for n in range(N_VIDEOS):
        one = known_of(store, f"v{n}")
        if n < settled:
            put_in(store, REFETCH, one)
        else:
            put_in(store, REFETCH, one, until=until, last=last)


LOST = pytest.mark.parametrize(
    ("until", "last"),
    [("fetch", rejected("gone")), ("fetch", rejected("private")), ("speech", GIVEN_UP)],
    ids=["gone", "private", "given up"],
)


@LOST
def test_a_run_says_how_many_clips_left_as_their_videos_are_gone_by_now_or_were_given_up(until, last, store):
    run_anew(store, until, last, settled=3)
    code, said = ended(store, REFETCH)
    assert code == 0 and clips(store) == ["v0-0000", "v1-0000", "v2-0000"]
    why = f"their videos wait, were given up or could not be fetched (stages: {until})"
    assert f"2 of 5 clips left the shards, as {why}" in said


@LOST
def test_it_leaves_the_results_as_they_were_where_most_clips_would_leave_for_that(until, last, store):
    run_anew(store, until, last, settled=2)
    before = results(store)
    code, said = ended(store, REFETCH)
    assert code == 1 and results(store) == before
    assert "3 of 5 clips in the shards" in said and "`--retry` perhaps the 3 given up or not fetched" in said


def test_what_is_rejected_for_what_it_is_holds_nothing_up(store):
    run_anew(store, "fetch", rejected("too_long"), settled=2)
    code, said = ended(store, REFETCH)
    assert code == 0 and clips(store) == ["v0-0000", "v1-0000"] and "left the shards" not in said


def test_a_trial_of_two_clips_does_not_hold_back_a_set_that_is_no_smaller(tmp_path):
    store = made(tmp_path / "out", 2)
    write_job(store, OTHER)
    for n in range(4):
        put_in(store, OTHER, known_of(store, f"v{n}"), until="clip" if n < 2 else "identity")
    code, said = ended(store)
    assert code == 0 and clips(store) == ["v2-0000", "v3-0000"] and "2 of 2 clips left the shards" in said


def test_a_run_with_the_settings_of_before_has_its_results_at_once(store):
    before = results(store)
    broken_off(store)
    code, said = ended(store, JOB)
    assert code == 0 and "wait" not in said
    assert {**results(store), "job.json": b""} == {**before, "job.json": b""} and is_finished(
        store, JOB.build(), read_videos(store)
    )


def test_a_first_run_ships_what_it_has_though_videos_wait(store):
    for n in range(5, 30):
        add_videos(store, [Video.of(f"{n}.mp4")])
    put_in(store, JOB, known_of(store, "v5"))
    code, said = ended(store, JOB)
    assert code == 0 and len(clips(store)) == N_VIDEOS + 1 and "left the shards" not in said


def test_results_of_another_way_to_judge_are_not_vouched_for(store, monkeypatch):
    assert is_finished(store, JOB.build(), read_videos(store))
    monkeypatch.setattr(finishing, "JUDGING", JUDGING + 1)
    assert not is_finished(store, JOB.build(), read_videos(store)), "the next run judges anew"


def test_a_clip_of_a_video_that_waits_is_in_no_shard_whatever_the_policy(tmp_path):
    store, job = Store(str(tmp_path / "out")), Job(recipe="own", policy="latentsync", overrides=JOB.overrides)
    write_job(store, job)
    for n, until in enumerate(("identity", "clip", "sync", "speech")):
        put_in(store, job, known_of(store, f"v{n}"), until=until)
    assert main(["report", "--store", store.url]) == 0
    assert clips(store) == ["v0-0000"] and read_job(store) == job


def test_clips_are_what_is_weighed_and_not_videos_and_half_of_them_are_not_most(monkeypatch, tmp_path):
    rows = [SimpleNamespace(video=video) for video in ("v0", "v0", "v0", "v1", "v2")]
    monkeypatch.setattr("pipeline.waiting.read_index", lambda store: SimpleNamespace(rows=rows))
    known = [dataclasses.replace(measured("v0"), syncs=None), measured("v1"), measured("v2")]
    waiting = Waiting.of(Store(str(tmp_path)), known)
    assert waiting == Waiting(3, 5, ("sync",)) and waiting.outweigh(2)
    assert not Waiting(2, 4, ("sync",)).outweigh(0)
