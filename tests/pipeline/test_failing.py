"""Videos that fail: they are tried by three runs, and end none."""

import itertools
from dataclasses import dataclass, field

import pandas as pd
import pytest

from manifests.codec import to_plain
from manifests.records import Video
from pipeline import run as running
from pipeline.cli import main
from pipeline.here import run_here
from pipeline.ledger import Ledger, Outcome
from pipeline.plan import plan, release
from pipeline.stage import RUNTIME, keys
from pipeline.step import MAX_FAILURES_IN_A_ROW, MAX_TRIES, StageBrokenError, Step, left_behind
from tests.pipeline.toy import Get, Media, Rate, videos

N_VIDEOS = 100


@dataclass(frozen=True, kw_only=True)
class Brittle(Rate):
    """Fails on one video of so many."""

    every: int = field(default=4, metadata=RUNTIME)

    def open(self):
        rate = super().open()

        def brittle(facts, bench):
            if facts[Media].frames // 25 % self.every == self.every - 1:
                raise RuntimeError("nan")
            return rate(facts, bench)

        return brittle


STAGES = Get(), Brittle()


def counts(store, stages=STAGES, **given):
    """Of the second stage: those that passed, failed and were given up."""
    due = plan(stages, videos(N_VIDEOS), store, **given)[1]
    return due.ok, due.failed, due.quarantined


def test_a_run_with_nothing_to_do_but_what_failed_before_comes_to_its_end(store):
    """Of 100,000 videos hundreds fail, and the next run finds them one after another."""
    told = []
    for run in "abc":
        told.append([])
        run_here(STAGES, videos(N_VIDEOS), store, run, lambda *call: told[-1].append(call[:2]))
    ok, failed, given_up = counts(store)
    assert failed == 0 and ok == 64 and given_up == 22 > MAX_FAILURES_IN_A_ROW
    assert [calls.count(("rate", "failed")) for calls in told] == [22, 22, 0]


def test_so_does_one_that_tries_what_was_given_up_again(store):
    for run in "abc":
        run_here(STAGES, videos(N_VIDEOS), store, run)
    assert release(plan(STAGES, videos(N_VIDEOS), store, retry=True), store)
    for run, left in (("d", (64, 22, 0)), ("e", (64, 0, 22))):
        run_here(STAGES, videos(N_VIDEOS), store, run)
        assert counts(store) == left
    assert not release(plan(STAGES, videos(N_VIDEOS), store), store)


def test_what_another_run_has_measured_since_the_plan_stays_measured(store):
    run_here(STAGES[:1], videos(1), store, "a")
    ledger, key, id = Ledger(store), keys(STAGES, Video)["rate"], videos(1)[0].id
    ledger.write(key, id, Outcome(status="quarantined", body={"error": "nan"}))
    due = plan(STAGES, videos(1), store, retry=True)
    ledger.write(key, id, measured := Outcome(status="ok", run="b"))
    assert due[1].enter == (id,) and not release(due, store) and ledger.read(key, id) == measured


def test_a_stage_that_breaks_after_some_videos_failed_is_told_by_the_others(store):
    run_here(STAGES, videos(N_VIDEOS // 2), store, "a")
    with pytest.raises(StageBrokenError, match="20 videos in a row failed at rate"):
        run_here([Get(), Brittle(broken=True)], videos(N_VIDEOS), store, "b")
    assert counts(store)[2] == 0


def test_failures_that_lie_between_videos_that_pass_stop_no_run(store):
    run_here([Get(), Brittle(every=2)], videos(N_VIDEOS), store, "a")
    assert counts(store)[1] > 2 * MAX_FAILURES_IN_A_ROW


def test_a_worker_that_rejects_a_video_is_no_dead_one(store):
    step = Step(Get(), (), store, "a")
    store.put(step._deaths, b"4")
    assert step(to_plain(videos(7)[6])) == [] and not store.exists(step._deaths)


def test_of_all_that_goes_wrong_once_a_run_stops_the_first_is_told(store):
    step = Step(Get(), (), store, "a")
    assert [str(step._broken(said)) for said in ("the cause", "what came of it")] == ["the cause", "what came of it"]
    assert str(left_behind(store, "a", ValueError("Ray's word"))) == "the cause"


def test_what_failed_in_a_run_is_left_to_the_next_though_the_run_meets_it_again(store):
    """As in the waves of a search, or where a worker dies that had the parts of a source to fetch."""
    told = []
    for _ in range(MAX_TRIES):
        run_here(STAGES, videos(4), store, "a", lambda *call: told.append(call[:2]))
    assert counts(store)[1:] == (1, 0) and told.count(("rate", "failed")) == MAX_TRIES
    assert Ledger(store).begin(keys(STAGES, Video)["rate"], videos(4)[3].id, "a") == 2, "it was begun once"


def test_what_another_run_has_settled_meanwhile_is_told_as_what_it_is(store):
    told = []
    run_here(STAGES[:1], videos(7), store, "a")
    run_here(STAGES[:1], videos(7), store, "b", lambda *call: told.append(call))
    assert sorted(told) == [("get", "known", 0.0)] * 6 + [("get", "rejected", 0.0)]


@pytest.mark.parametrize("runs", ["a", "ab"])
def test_a_video_that_kills_every_worker_is_given_up_by_two_runs_that_take_turns_too(runs, store):
    ledger = Ledger(store)
    begun = [(run, ledger.begin("k", "v", run)) for _ in range(MAX_TRIES + 1) for run in runs]
    assert begun == [(run, n + 1) for n, run in itertools.product(range(MAX_TRIES + 1), runs)]
    assert [ledger.begin("k", "v", run) for run in "cdef"] == [1] * 4, "runs that were killed are no fault of the video"


def test_what_is_rejected_again_for_another_reason_is_in_the_results(store, tmp_path, monkeypatch):
    listed = tmp_path / "list.txt"
    listed.write_text("https://h.invalid/a.mp4\n")
    reasons = iter(("private", "gone"))

    def carry(this, everything, due):
        for id in due[0].enter:
            assert Ledger(store).read(due[0].key, id) is None, "else no step tries it"
            body = {"reason": next(reasons), "measured": {}}
            Ledger(store).write(due[0].key, id, Outcome(status="rejected", body=body))

    monkeypatch.setattr(running, "_carry", carry)
    monkeypatch.setattr(running, "_prepare", lambda *_: None)
    command = ["run", "sample", "--manifest", str(listed), "--store", store.url]

    def reason(*more):
        assert main([*command, *more]) == 0
        return pd.read_parquet(store.at("videos.parquet")).reason.tolist()

    assert [reason(), reason("--retry")] == [["private"], ["gone"]]
    written = (store.local / "report.html").stat().st_mtime_ns
    assert reason("--retry") == ["gone"], "nothing is tried again"
    assert (store.local / "report.html").stat().st_mtime_ns == written
