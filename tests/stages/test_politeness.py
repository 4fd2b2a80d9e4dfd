"""One pace per host for all workers, wherever they are, and a breaker that all of them see."""

import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from manifests.store import Store
from stages import politeness
from stages.politeness import HostClosedError, Manners, Refusal, SharedPace, host_of, standing
from tests.stages.fetching import keep_the_interval

BRISK = Manners(interval_s=0.0, refusals=3, closed_s=60.0, longest_wait_s=5.0)


def turns(url: str, interval_s: float, count: int, together, results) -> None:
    pace = SharedPace(url, Manners(interval_s=interval_s))
    together.wait(600)
    taken = []
    for _ in range(count):
        pace.ask("example.org")
        taken.append(time.time())
    results.put(taken)


def asked_by_processes(url: str, interval_s: float, processes: int, count: int) -> list[float]:
    context = multiprocessing.get_context("spawn")
    results, together = context.Queue(), context.Barrier(processes)
    given = (url, interval_s, count, together, results)
    workers = [context.Process(target=turns, args=given) for _ in range(processes)]
    for worker in workers:
        worker.start()
    taken = sorted(at for _ in workers for at in results.get(timeout=600))
    for worker in workers:
        worker.join(10)
    return taken


def test_two_processes_together_keep_the_interval(tmp_path):
    taken = asked_by_processes(str(tmp_path), 0.25, processes=2, count=4)
    assert len(taken) == 8
    keep_the_interval(Store(str(tmp_path)), taken, 0.25)


def test_two_processes_keep_the_interval_over_a_bucket(bucket):
    taken = asked_by_processes(bucket, 0.5, processes=2, count=2)
    assert len(taken) == 4
    keep_the_interval(Store(bucket), taken, 0.5)


@pytest.mark.parametrize("kind", ["folder", "memory", "bucket"])
def test_an_object_is_created_once(kind, tmp_path, request):
    url = {"folder": str(tmp_path), "memory": f"memory://{tmp_path.name}"}.get(kind)
    store = Store(url or request.getfixturevalue("bucket"))
    assert store.create("turns/1", b"mine")
    assert not store.create("turns/1", b"yours")
    assert store.get("turns/1") == b"mine"


def test_without_an_interval_nobody_waits(tmp_path):
    pace = SharedPace(str(tmp_path), BRISK)
    begin = time.monotonic()
    for _ in range(50):
        pace.ask("example.org")
    assert time.monotonic() - begin < 20


def test_hosts_do_not_wait_for_each_other(tmp_path):
    pace = SharedPace(str(tmp_path), Manners(interval_s=30.0, longest_wait_s=1.0))
    pace_b = SharedPace(str(tmp_path), BRISK)
    pace_b.refused("a.org", 100.0)
    with pytest.raises(HostClosedError):
        pace.ask("a.org")
    pace_b.ask("b.org")


CROWDED = Manners(interval_s=0.2, refusals=2, closed_s=60.0, longest_wait_s=0.4)  # turns for two or three at a time


def test_of_more_workers_than_there_are_turns_to_take_ahead_each_gets_one_and_none_is_sent_away(tmp_path):
    def ask(_: int) -> float:
        SharedPace(str(tmp_path), CROWDED).ask("example.org")
        return time.time()

    with ThreadPoolExecutor(12) as pool:
        taken = sorted(pool.map(ask, range(12)))
    keep_the_interval(Store(str(tmp_path)), taken, CROWDED.interval_s)  # at the pace agreed on, all the same


def taken_until(folder: str, at_s: float) -> None:
    store, interval_s = Store(folder), CROWDED.interval_s
    for number in range(int(time.time() / interval_s), int(at_s / interval_s)):
        store.put(f"example.org/turn-{number * interval_s:.3f}", b"")


def test_who_waits_for_a_turn_hears_that_the_host_was_closed_meanwhile(tmp_path):
    taken_until(str(tmp_path), time.time() + 30.0)
    other, begin = SharedPace(str(tmp_path), CROWDED), time.monotonic()
    told = [threading.Timer(0.5, other.refused, ("example.org", 0.0)) for _ in range(2)]
    for timer in told:
        timer.start()
    with pytest.raises(HostClosedError, match="refused 2 times"):
        SharedPace(str(tmp_path), CROWDED).ask("example.org")
    assert time.monotonic() - begin < 25.0


def test_a_worker_for_which_no_turn_ever_comes_puts_its_video_off_before_a_deadline_kills_it(tmp_path, monkeypatch):
    monkeypatch.setattr(politeness, "_LONGEST_TURNLESS_S", 0.5)
    taken_until(str(tmp_path), time.time() + 30.0)
    begin = time.monotonic()
    with pytest.raises(HostClosedError, match="no turn came"):
        SharedPace(str(tmp_path), CROWDED).ask("example.org")
    assert time.monotonic() - begin < 25.0


def test_a_refusal_makes_all_workers_wait_as_long_as_was_asked(tmp_path):
    first, second = SharedPace(str(tmp_path), BRISK), SharedPace(str(tmp_path), BRISK)
    first.refused("example.org", 0.7)
    begin = time.monotonic()
    second.ask("example.org")
    assert 0.6 < time.monotonic() - begin < 20


def test_a_refusal_for_longer_than_we_care_to_wait_postpones_at_once(tmp_path):
    pace = SharedPace(str(tmp_path), BRISK)
    pace.refused("example.org", 3600.0)
    begin = time.monotonic()
    with pytest.raises(HostClosedError, match="refused 1 times"):
        pace.ask("example.org")
    assert time.monotonic() - begin < BRISK.longest_wait_s


def test_enough_refusals_close_the_host_for_all_and_a_success_between_prevents_it(tmp_path):
    first, second = SharedPace(str(tmp_path), BRISK), SharedPace(str(tmp_path), BRISK)
    for _ in range(2):
        first.ask("example.org")
        first.refused("example.org", 0.0)
    second.ask("example.org")
    second.served("example.org")
    for _ in range(3):
        first.ask("example.org")
        first.refused("example.org", 0.0)
    with pytest.raises(HostClosedError):
        second.ask("example.org")


def test_a_success_does_not_forgive_what_came_after_its_question(tmp_path):
    slow, other = SharedPace(str(tmp_path), BRISK), SharedPace(str(tmp_path), BRISK)
    slow.ask("example.org")
    for _ in range(3):
        other.refused("example.org", 0.0)
    slow.served("example.org")
    with pytest.raises(HostClosedError):
        slow.ask("example.org")


def test_a_closed_host_may_be_tried_again_later_and_closes_at_the_first_refusal():
    refusals = [Refusal(at_s=100.0, until_s=100.0) for _ in range(3)]
    assert standing(refusals, 110.0, BRISK) == (160.0, True)
    assert standing(refusals, 161.0, BRISK) == (161.0, False)
    assert standing([*refusals, Refusal(161.0, 161.0)], 162.0, BRISK) == (221.0, True)
    assert standing([Refusal(100.0, 500.0)] * 3, 200.0, BRISK) == (500.0, True)
    assert standing([], 5.0, BRISK) == (5.0, False)


def test_turns_of_the_past_are_swept_away(tmp_path):
    pace = SharedPace(str(tmp_path), Manners(interval_s=0.01))
    store = Store(str(tmp_path))
    for number in range(20):
        store.put(f"example.org/turn-{1000.0 + number:.3f}", b"")
    pace.ask("example.org")
    assert all(float(name.rpartition("-")[2]) > 2000 for name in store.list("example.org"))


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://www.youtube.com/watch?v=a", "youtube.com"),
        ("https://music.youtube.com/watch?v=a", "youtube.com"),
        ("https://youtu.be/a", "youtube.com"),
        ("https://ARCHIVE.org/details/a", "archive.org"),
        ("http://127.0.0.1:8080/a.mp4", "127.0.0.1:8080"),
    ],
)
def test_all_names_of_a_site_are_one_host(url, host):
    assert host_of(url) == host


def test_who_has_a_turn_does_not_use_it_if_the_host_has_sent_others_away_while_it_waited(tmp_path, monkeypatch):
    pace, other = (SharedPace(str(tmp_path), Manners(interval_s=0.2)) for _ in range(2))
    sleep, begin, naps = time.sleep, time.monotonic(), []

    def nap(seconds):
        if not naps:
            other.refused("example.org", 0.7)
        naps.append(seconds)
        sleep(seconds)

    monkeypatch.setattr("stages.politeness.time.sleep", nap)
    pace.ask("example.org")
    assert time.monotonic() - begin > 0.6 and len(naps) >= 2
