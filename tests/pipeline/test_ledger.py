"""What the ledger says where two runs share a store, machines are taken away, and a store does not answer."""

import pytest

from manifests.store import Store, UnreachableError
from pipeline.facts import measured
from pipeline.here import run_here
from pipeline.ledger import MAX_LOST, Ledger, Outcome
from pipeline.plan import plan
from pipeline.recipes import sample
from pipeline.step import MAX_TRIES, StageBrokenError
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


def test_an_attempt_that_ends_with_its_node_is_not_counted_unless_there_are_too_many(store):
    ledger, gone = Ledger(store), {"spot"}
    assert ledger.begin("k", "v", "run", "spot", gone.__contains__) == 1
    assert [ledger.begin("k", "v", "run", "spot", gone.__contains__) for _ in range(MAX_LOST)] == [1] * MAX_LOST
    assert ledger.begin("k", "v", "run", "firm", gone.__contains__) == 2
    assert ledger.begin("k", "v", "run", "firm", gone.__contains__) == 3, "that worker died, not its node"


def test_a_node_that_is_lost_after_a_call_was_put_off_gives_no_attempt_away(store):
    ledger = Ledger(store)
    ledger.put_off("k", "v", "run", ledger.begin("k", "v", "run", "spot"))
    assert [ledger.begin("k", "v", "run", "spot", lambda _: False) for _ in range(MAX_TRIES)] == [1, 2, 3]


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
