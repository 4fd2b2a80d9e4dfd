"""What the ledger says where two runs share a store, machines are taken away, and a store does not answer."""

import io

import msgspec
import pytest
from rich.console import Console

from manifests.codec import to_plain
from manifests.records import Video
from manifests.store import Store, UnreachableError
from pipeline.facts import measured
from pipeline.here import run_here
from pipeline.ledger import MAX_LOST, Ledger, Outcome
from pipeline.plan import plan, release
from pipeline.recipes import own, sample
from pipeline.report import print_tables, write_report
from pipeline.stage import keys
from pipeline.step import MAX_TRIES, StageBrokenError, Step
from stages.fetch import Fetch
from stages.policies import PAPER
from stages.politeness import Manners, SharedPace
from tests.pipeline.test_core import stages
from tests.pipeline.toy import videos

FAILED = Outcome(status="failed", body={"error": "x"}, attempt=2, run="b")
OK = Outcome(status="ok", body={"a": 1}, attempt=2, run="a")
GONE = Outcome(status="rejected", body={"reason": "gone", "measured": {}}, attempt=2)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.mark.parametrize("status", ["failed", "quarantined"])
@pytest.mark.parametrize("found", [OK, GONE])
def test_what_one_run_found_out_outlives_the_failure_of_another(store, found, status):
    ledger = Ledger(store)
    ledger.write("k", "v", FAILED)
    ledger.write("k", "v", found)
    assert ledger.videos("k", "failed") == set()
    ledger.write("k", "v", Outcome(status=status, body={"error": "x"}, attempt=3, run="b"))
    assert ledger.read("k", "v") == found


def test_an_outcome_is_there_before_the_one_goes_whose_place_it_takes(store, monkeypatch):
    def killed(path):
        raise KeyboardInterrupt

    ledger = Ledger(store)
    ledger.write("k", "v", FAILED)
    monkeypatch.setattr(store, "delete", killed)
    with pytest.raises(KeyboardInterrupt):
        ledger.write("k", "v", OK)
    assert ledger.read("k", "v") == OK


def test_what_a_worker_says_that_dies_of_a_call_which_was_forgotten_meanwhile_is_not_kept(store):
    ledger = Ledger(store)
    ledger.begin("k", "v", "run")
    ledger.forget("k", "v")
    ledger.complain("k", "v", "killed")
    assert store.list("ledger") == []


def test_of_two_outcomes_that_two_runs_left_a_plan_counts_the_one_that_is_read(store):
    ledger, (key,), (video,) = Ledger(store), keys([Fetch()], Video).values(), videos(1)
    ledger.write(key, video.id, OK)
    ledger.write(key, video.id, GONE)
    (due,) = plan([Fetch()], [video], store)
    assert ledger.read(key, video.id) == OK and (due.ok, due.rejected, due.enter) == (1, 0, ())


@pytest.mark.parametrize(("listed", "found"), [(FAILED, GONE), (GONE, None)])
def test_a_video_that_is_tried_again_or_forgotten_while_it_is_read_counts_as_it_is_read(
    store, listed, found, monkeypatch
):
    recipe, (video,) = sample().stages(), videos(1)
    ledger, key = Ledger(store), plan(recipe, [video], store)[0].key
    ledger.write(key, video.id, listed)
    read = Ledger.read

    def meanwhile(self, *call):
        monkeypatch.undo()
        ledger.forget(key, video.id)
        if found is not None:
            ledger.write(key, video.id, found)
        return read(self, *call)

    monkeypatch.setattr(Ledger, "read", meanwhile)
    (one,) = measured(recipe, [video], store)
    assert (one.rejected, one.failed) == (("fetch", "gone", {}) if found else None, None)


def test_an_empty_outcome_of_a_power_cut_elsewhere_is_none_and_due_again_once_it_was_met(store):
    """The disk is another machine's: no start of this one has its ledger swept."""
    recipe, (video,) = sample().stages(), videos(1)
    ledger, key = Ledger(store), plan(recipe, [video], store)[0].key
    reads = (
        lambda: measured(recipe, [video], store)[0].source is None,
        lambda: ledger.read(key, video.id) is None,
        lambda: ledger.look(key, video.id)[0] is None,
        lambda: ledger.passed([key], video.id) == {},
    )
    for is_none in reads:
        store.put(f"ledger/{key}/ok/{video.id[:2]}/{video.id}.json", b"")
        assert plan(recipe, [video], store)[0].enter == (), "by listings alone"
        assert is_none() and plan(recipe, [video], store)[0].enter == (video.id,)


def test_an_empty_outcome_hides_none_that_says_something(store):
    ledger = Ledger(store)
    ledger.write("k", "v", FAILED)
    store.put("ledger/k/ok/v/v.json", b"")
    assert ledger.read("k", "v") == FAILED


def test_attempts_of_which_a_power_cut_left_nothing_are_begun_anew(store):
    store.put("ledger/k/tries/v/v.json", b"")
    ledger = Ledger(store)
    assert ledger.postponed("k", {"v"}) == {} and ledger.last_words("k", "v") == ""
    store.put("ledger/k/tries/v/v.json", b"")
    assert ledger.begin("k", "v", "run") == 1


def test_no_record_of_the_ledger_waits_for_the_disk(store, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda opened: pytest.fail("two thirds of the ledger's time"))
    ledger = Ledger(store)
    assert ledger.begin("k", "v", "run") == 1
    ledger.complain("k", "v", "killed")
    ledger.put_off("k", "v", "run", 1, "no room on the GPU")
    ledger.write("k", "v", FAILED)
    assert ledger.read("k", "v") == FAILED and ledger.postponed("k", {"v"}) == {"v": "no room on the GPU"}


def test_an_outcome_that_is_broken_otherwise_is_told_with_its_place(store):
    store.put("ledger/k/ok/v/v.json", b"{")
    with pytest.raises(msgspec.DecodeError, match=f"{store.at('ledger')}.*v.json: "):
        Ledger(store).read("k", "v")


def test_an_attempt_that_ends_with_its_node_is_not_counted_unless_there_are_too_many(store):
    ledger, gone = Ledger(store), {"spot"}
    assert ledger.begin("k", "v", "run", "spot", gone.__contains__) == 1
    assert [ledger.begin("k", "v", "run", "spot", gone.__contains__) for _ in range(MAX_LOST)] == [1] * MAX_LOST
    assert ledger.begin("k", "v", "run", "firm", gone.__contains__) == 2
    assert ledger.begin("k", "v", "run", "firm", gone.__contains__) == 3, "that worker died, not its node"


def test_a_node_that_is_lost_after_a_call_was_put_off_gives_no_attempt_away(store):
    ledger = Ledger(store)
    ledger.put_off("k", "v", "run", ledger.begin("k", "v", "run", "spot"), "closed")
    assert [ledger.begin("k", "v", "run", "spot", lambda _: False) for _ in range(MAX_TRIES)] == [1, 2, 3]


def test_why_a_call_was_put_off_is_known_until_it_is_begun_again(store):
    ledger = Ledger(store)
    ledger.put_off("k", "v", "run", ledger.begin("k", "v", "run"), "x.invalid: refused 5 times")
    assert ledger.postponed("k", {"v", "w"}) == {"v": "x.invalid: refused 5 times"}
    ledger.begin("k", "v", "run")
    assert ledger.postponed("k", {"v"}) == {}


def test_a_host_that_sends_videos_away_is_named_with_how_many_of_them_wait(store):
    for _ in range(5):
        SharedPace(store.at("pace"), Manners()).refused("x.invalid", 600.0)
    recipe, rows = own().stages(), [Video.of(f"http://x.invalid/{n}") for n in range(3)]
    run_here(recipe[:1], rows, store, "a")
    figures, out = write_report(store, measured(recipe, rows, store), (), PAPER, provenance={}), io.StringIO()
    (line,) = figures.outlook
    said = "postponed: 3 of 3 videos, taken up by the next run: x.invalid: refused 5 times, not asked for another "
    print_tables(Console(file=out, width=200), figures)
    assert line.startswith(said) and line in out.getvalue() and line in store.get("report.html").decode()


def test_where_no_video_waits_nobody_asks_why(store, monkeypatch):
    recipe, (video,) = sample().stages(), videos(1)
    Ledger(store).write(plan(recipe, [video], store)[0].key, video.id, GONE)
    monkeypatch.setattr(Ledger, "postponed", None)
    (one,) = measured(recipe, [video], store)
    assert one.rejected and one.postponed is None


def test_what_may_pass_is_due_again_with_retry_and_what_is_gone_is_not(store):
    ledger, key = Ledger(store), keys([Fetch()], Video)["fetch"]
    reasons = ("age", "blocked", "geo", "gone", "live", "members_only", "private", "truncated")
    rows = {reason: Video.of(f"http://x.invalid/{reason}") for reason in reasons}
    for reason, row in rows.items():
        ledger.write(key, row.id, Outcome(status="rejected", body={"reason": reason, "measured": {}}))
    assert plan([Fetch()], rows.values(), store)[0].enter == ()
    (due,) = plan([Fetch()], rows.values(), store, retry=True)
    assert (set(due.enter), due.rejected) == ({row.id for reason, row in rows.items() if reason != "gone"}, 1)
    release([due], store)
    assert plan([Fetch()], rows.values(), store)[0] == due and ledger.videos(key, "rejected") == {rows["gone"].id}


@pytest.mark.parametrize("at", ["put", "get", "put_file"])
def test_a_store_that_does_not_answer_stops_the_run_and_is_held_against_no_video(store, tmp_path, monkeypatch, at):
    log = tmp_path / "log"

    def away(*_, **__):
        raise UnreachableError("s3://bucket/set does not answer: Service Unavailable")

    for run in "abcd":
        monkeypatch.setattr(Store, at, away)
        with pytest.raises((StageBrokenError, UnreachableError), match="s3://bucket/set does not answer"):
            run_here(stages(log), videos(3), store, run)
        monkeypatch.undo()
    assert {(d.ok, d.failed, d.quarantined) for d in plan(stages(log), videos(3), store)} == {(0, 0, 0)}
    assert run_here(stages(log), videos(3), store, "e") == 3


class Counting(Store):
    """Says how often an object store is waited for."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.waits: list[str] = []

    def get(self, path: str) -> bytes:
        self.waits.append(f"get {path}")
        return super().get(path)

    def get_some(self, paths):
        before = len(self.waits)
        found = super().get_some(paths)
        self.waits[before:] = [f"get {len(paths)} at once"] if paths else []
        return found

    def put(self, path: str, data: bytes, *, is_synced: bool = True) -> None:
        self.waits.append(f"put {path}")
        super().put(path, data, is_synced=is_synced)

    def exists(self, path: str) -> bool:
        self.waits.append(f"exists {path}")
        return super().exists(path)


def test_a_call_waits_for_its_store_four_times_besides_what_it_fetches_and_keeps(tmp_path):
    every, (video,) = stages(tmp_path / "log"), videos(1)
    store = Counting(str(tmp_path / "store"))
    for at in range(len(every)):
        store.waits.clear()
        assert Step(every[at], every[:at], store, "a")(to_plain(video)), every[at].name
        looked, begun, facts, ended = store.waits
        assert looked == "get 5 at once" and "/tries/" in begun and "/ok/" in ended
        assert facts == (f"get {at} at once" if at else f"exists tombstones/{video.id}.json")
