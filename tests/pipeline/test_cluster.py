"""The same stages on Ray: equal ledgers, isolated failures, quarantine, resume."""

import dataclasses
import logging
import os
import socket
import time
from argparse import Namespace
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from rich.console import Console

from manifests.codec import to_plain
from manifests.records import Video
from manifests.store import Store, UnreachableError
from pipeline import cluster as clustering
from pipeline import run as running
from pipeline.cluster import Cluster, _tell_of_no_gpu, _Worker, run_on_ray
from pipeline.here import run_here
from pipeline.job import Job
from pipeline.ledger import Ledger
from pipeline.plan import plan
from pipeline.stage import keys
from pipeline.step import StageBrokenError, left_behind
from tests.pipeline import test_core
from tests.pipeline.toy import SMALL, Get, Rate, calls, note, videos

pytestmark = pytest.mark.usefixtures("ray_here")

ALONE = dataclasses.replace(SMALL, workers=(1, 1))


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, Store]:
    return tmp_path / "log", Store(str(tmp_path / "store"))


def stages(log, **rate):
    """With one worker each: a second, which Ray would start where two videos wait, takes longer than all toy calls."""
    return [dataclasses.replace(stage, resources=ALONE) for stage in test_core.stages(log, **rate)]


def outcomes(store, count):
    ledger = Ledger(store)
    found = {}
    for key in keys(stages(""), Video).values():
        for video in videos(count):
            outcome = ledger.read(key, video.id)
            found[key, video.id] = outcome and dataclasses.replace(outcome, seconds=0, run="", worker="")
    return found


def test_ray_and_the_plain_loop_leave_equal_ledgers_and_every_call_is_told(place, tmp_path):
    log, store = place
    told = []
    growing = test_core.stages(log)
    assert run_on_ray(growing, videos(20), store, "a", lambda *call: told.append(call[:2])) == 18
    here = Store(str(tmp_path / "here"))
    assert run_here(stages(""), videos(20), here, "a") == 18
    assert outcomes(store, 20) == outcomes(here, 20)
    assert store.list("blobs") == here.list("blobs") and len(store.list("blobs")) == 18
    assert sorted(told) == sorted(
        [("get", "ok")] * 18 + [("get", "rejected")] * 2 + [("rate", "ok")] * 18 + [("speak", "ok")] * 18
    )


def test_one_bad_video_does_not_touch_its_neighbours(place):
    log, store = place
    assert run_on_ray(stages(log, bad=3), videos(10), store, "a") == 8
    before = calls(log)
    assert run_on_ray(stages(log, bad=3), videos(10), store, "b") == 0  # only the failed one was due
    after = calls(log)
    assert after["get"] == before["get"] and after["rate"] == before["rate"] + 1 and after["speak"] == 8


@pytest.mark.parametrize("how", ["deadly", pytest.param("spoils", marks=pytest.mark.slow)])
def test_a_video_that_kills_its_worker_is_quarantined_after_three_tries(place, how):
    log, store = place
    assert run_on_ray(stages(log, **{how: 3}), videos(10), store, "a") == 8
    dead = Ledger(store).read(keys(stages(log), Video)["rate"], videos(10)[3].id)
    assert dead is not None and dead.status == "quarantined" and "its worker died 3 times" in dead.body["error"]
    assert ("WorkerSpoiledError: cuda" in dead.body["error"]) == (how == "spoils"), "the cause, where it could be told"
    assert sum(line.startswith("rate 3 ") for line in log.read_text().splitlines()) == 3


@pytest.mark.slow  # a minute: three times a worker is given up and started anew
def test_a_video_that_hangs_native_code_is_quarantined(place):
    log, store = place
    assert run_on_ray(stages(log, hangs=2, deadline_s=2.0), videos(5), store, "a") == 4
    stuck = Ledger(store).read(keys(stages(log), Video)["rate"], videos(5)[2].id)
    assert stuck is not None and stuck.status == "quarantined"


def test_resume_enters_each_video_where_it_was_left(place):
    log, store = place
    run_here(stages(log)[:1], videos(10), store, "a")
    run_here(stages(log)[:2], videos(5), store, "b")
    log.unlink()
    assert run_on_ray(stages(log), videos(10), store, "c") == 9
    assert calls(log) == {"rate": 4, "speak": 9}


def test_a_run_lists_nothing_for_its_waves_and_starts_none_with_nothing_to_do(place, monkeypatch):
    log, store = place
    run_here(stages(log)[:2], videos(6), store, "a")
    run_here(stages(log), videos(5), store, "b")
    log.unlink()
    due, listed, started = plan(stages(log), videos(10), store), [], []
    listing, wave = store.list, clustering._wave
    monkeypatch.setattr(store, "list", lambda path: listed.append(path) or listing(path))
    monkeypatch.setattr(clustering, "WAVE", 3)
    monkeypatch.setattr(clustering, "_wave", lambda *given: started.append(given[1]) or wave(*given))
    options = Namespace(until=None, manifest="list.csv", address=None, cpus=None)
    recipe = SimpleNamespace(stages=lambda: tuple(stages(log)))
    this = running._Run(options, Console(quiet=True), store, Job(recipe="own"), recipe, "c")
    running._carry(this, videos(10), due)
    assert calls(log) == {"get": 4, "rate": 3, "speak": 4}
    assert listed == ["tombstones"], "for what was forgotten meanwhile"
    entering = [[[video.title for video in at] for at in wave] for wave in started]
    assert entering == [[["6", "7"], [], ["5"]], [["8", "9"], [], []]]
    assert run_on_ray(stages(log), videos(10), store, "d") == 0 and len(started) == 2
    assert len(listed) == 1 + 1 + 3 * 4, "once, where no plan is given"


def test_the_parts_of_a_source_come_to_one_worker_and_go_on_one_by_one(place):
    log, store = place

    class Where(Get):
        def open(self):
            get = super().open()

            def where(facts, bench):
                with Path(self.log).open("a") as f:
                    f.write(f"at {facts[Video].url} {os.getpid()}\n")
                patience = 600 if facts[Video].title == "4" else 0  # the last part waits for the first to have gone on
                while patience and "rate " not in Path(self.log).read_text():
                    time.sleep(0.1)
                    patience -= 1
                return get(facts, bench)

            return where

    sources = [f"toy://{letter}" for letter in "abc"]
    parts = [Video.of(url, start_s=n, title=str(n)) for n in range(5) for url in sources]
    first = Where(log=str(log), resources=dataclasses.replace(SMALL, workers=(2, 2)))
    assert run_on_ray([first, *stages(log)[1:]], parts, store, "a") == 15
    lines = [line.split() for line in log.read_text().splitlines()]
    places = [(url, pid) for what, url, pid in lines if what == "at"]
    assert len(places) == 15 and len(set(places)) == 3, "one worker for each source"
    for worker in {pid for _, pid in places}:
        asked = [url for url, pid in places if pid == worker]
        assert len(list(groupby(asked))) == len(set(asked)), "a source's parts follow one another"
    order = [(what, n) for what, n, _ in lines]
    assert min(i for i, (what, _) in enumerate(order) if what == "rate") < order.index(("get", "4"))


def test_a_stage_that_fails_on_everything_stops_the_run_with_its_cause(place):
    log, store = place
    said = ": 20 videos in a row failed at rate, the last with RuntimeError"
    with pytest.raises(StageBrokenError, match=said) as stopped:
        run_on_ray(stages(log, broken=True)[:2], videos(30), store, "a")
    assert str(stopped.value).startswith(f"{socket.gethostname()}: "), "the machine, of a cluster of many"


def test_what_stages_log_as_an_error_on_any_machine_the_user_hears_once(place, caplog):
    log, store = place

    class Loud(Get):
        def open(self):
            get = super().open()

            def loud(facts, bench):
                logging.getLogger("stages.site").warning("a hint")
                logging.getLogger("stages.site").error("the cookies are no longer valid")
                return get(facts, bench)

            return loud

    assert run_on_ray([Loud(log=str(log))], videos(6), store, "a") == 6
    assert caplog.messages == ["the cookies are no longer valid"]


def test_a_full_disk_stops_the_run_and_is_told_even_where_the_store_could_not_take_the_word(place):
    log, store = place
    with pytest.raises(StageBrokenError, match="No space left on device: ") as stopped:
        run_on_ray(stages(log, fills="python")[:2], videos(3), store, "a")
    assert stopped.value.by_request
    for left in (b"", b'["No sp', None):
        store.delete("broken") if left is None else store.put("broken/a.json", left)
        told = left_behind(store, "a", stopped.value.__cause__)
        assert told.by_request and str(told) == str(stopped.value)


def test_a_stage_that_cannot_open_stops_the_run_with_its_own_words(place):
    log, store = place

    class Shut(Get):
        def open(self):
            raise ValueError("weights 'x' are not here: put them there")

    with pytest.raises(StageBrokenError, match="put them there") as stopped:
        run_on_ray([Shut(log=str(log))], videos(3), store, "a")
    assert stopped.value.by_request and "in open" in stopped.value.trace


def test_a_worker_that_asks_ray_for_no_gpu_sees_none(place):
    log, store = place

    class Looking(Get):
        def open(self):
            Path(self.log).write_text(f"devices {os.environ.get('CUDA_VISIBLE_DEVICES')!r}\n")
            return super().open()

    assert run_on_ray([Looking(log=str(log))], videos(1), store, "a") == 1
    assert "devices ''" in log.read_text()


def test_a_stage_with_a_weight_is_given_the_cores_that_one_worker_of_each_leaves(place):
    log, store = place

    class Crowd(Rate):
        def open(self):
            rate = super().open()

            def together(facts, bench):
                note(self.log, "pid", os.getpid())
                patience = 1800  # of those that are started at once, each waits for all
                while patience and len(pids(log)) < 5:
                    time.sleep(0.1)
                    patience -= 1
                return rate(facts, bench)

            return together

    def pids(log):
        return {line.split()[1] for line in log.read_text().splitlines() if line.startswith("pid ")}

    wide = dataclasses.replace(SMALL, workers=(1, None), weight=1.0)
    get, _, speak = stages(log)
    assert run_on_ray([get, Crowd(log=str(log), resources=wide), speak], videos(12), store, "a") == 11
    assert len(pids(log)) >= 5, "of four cores 0.4 are left free, and two other stages hold one"


def test_no_more_workers_start_than_the_machine_s_memory_holds(place):
    log, store = place

    class Large(Get):
        def open(self):
            note(self.log, "open", os.getpid())
            return super().open()

    fits_once = 0.6e-9 * ray.cluster_resources()["memory"]
    asked = dataclasses.replace(SMALL, cpus=0.1, workers=(1, None), memory_gb=fits_once, weight=1.0)
    assert run_on_ray([Large(log=str(log), delay_s=0.2, resources=asked)], videos(12), store, "a") == 11
    assert calls(log)["open"] == 1


def test_a_ray_without_a_gpu_says_that_it_works_on_the_processor(place, tmp_path, caplog, monkeypatch):
    log, store = place
    monkeypatch.setattr("pipeline.cluster._DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    asking = Get(log=str(log), resources=dataclasses.replace(SMALL, gpus=0.1))
    assert run_on_ray([asking], videos(1), store, "a") == 1
    assert not caplog.records, "on one's own machine nothing can come"
    (tmp_path / "nvidia0").touch()
    _tell_of_no_gpu([asking], Cluster())
    (said,) = caplog.messages
    assert said.startswith("no GPU in the Ray of this machine, though it has one: get will work on the processor; ")
    caplog.clear()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    _tell_of_no_gpu([asking], Cluster())
    assert not caplog.records, "it is not wanted"
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert run_on_ray([asking, stages(log)[1]], videos(2), store, "b") == 2
    (said,) = caplog.messages
    assert said.startswith("no GPU in the Ray at auto: get will work on the processor; ") and "TFW_AUTOSCALES=1" in said


@pytest.mark.parametrize("seen", [True, False])
def test_a_gpu_that_ray_gives_is_left_visible_and_one_that_cuda_does_not_find_ends_the_run(place, monkeypatch, seen):
    log, store = place
    monkeypatch.setattr("ray.get_gpu_ids", lambda: [1])
    monkeypatch.setattr("pipeline.cluster.has_gpu", lambda: seen)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    worker, ticket = _Worker(Get(log=str(log)), (), store, "a"), to_plain(videos(1)[0])
    if seen:
        assert worker(ticket) == [ticket] and os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    else:
        with pytest.raises(StageBrokenError, match=r"^\S+: get: Ray announces a GPU, but CUDA finds none") as stopped:
            worker(ticket)
        assert stopped.value.by_request and plan([worker.stage], videos(1), store)[0].enter == (ticket["id"],)


def test_a_preempted_node_is_held_against_no_video_and_a_worker_that_died_alone_is(place):
    log, store = place
    worker, ticket = _Worker(Get(log=str(log)), (), store, "a"), to_plain(videos(1)[0])
    for _ in range(3):  # on a node that Ray does not have
        worker.ledger.begin(worker.key, ticket["id"], "a", "spot", worker.is_lost)
    assert worker.node() and not worker.is_lost(worker.node()) and worker.is_lost("spot")
    assert worker(ticket) == [ticket]
    other = to_plain(videos(2)[1])
    for _ in range(3):
        worker.ledger.begin(worker.key, other["id"], "a", worker.node(), worker.is_lost)
    assert worker(other) == [] and worker.ledger.read(worker.key, other["id"]).status == "quarantined"


@pytest.mark.parametrize("at", ["put", "put_file"])
def test_a_store_that_does_not_answer_a_worker_is_told_in_one_line(place, at):
    log, store = place

    class Away(Store):
        def __reduce__(self):
            return Away, (self.url,)

    def away(*_, **__):
        raise UnreachableError("s3://bucket/set does not answer: Service Unavailable")

    setattr(Away, at, away)
    said = r"^\S+: s3://bucket/set does not answer: Service Unavailable; "
    with pytest.raises(StageBrokenError, match=said) as stopped:
        run_on_ray(stages(log)[:1], videos(3), Away(store.url), "a")
    assert stopped.value.by_request
    assert [(d.failed, d.quarantined) for d in plan(stages(log), videos(3), store)] == [(0, 0)] * 3


def test_a_node_on_which_the_store_is_a_folder_of_its_own_ends_the_run_in_one_line(place, tmp_path):
    log, store = place

    class Elsewhere(Store):
        def __reduce__(self):
            return Store, (str(tmp_path / "elsewhere"),)

    said = r"^\S+: the store .*/elsewhere is not the folder here that it is for the command: on a cluster give --store "
    with pytest.raises(StageBrokenError, match=said) as stopped:
        run_on_ray(stages(log)[:1], videos(3), Elsewhere(store.url), "a")
    assert stopped.value.by_request and not log.exists() and str(stopped.value).endswith("that all nodes share")
    assert run_on_ray(stages(log)[:1], videos(3), store, "b") == 3
    assert [*store.local.glob("driver-*")] == [], "what the workers looked for"
