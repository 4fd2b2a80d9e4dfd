"""What is known of a store is read once, and anew only where it is another."""

import dataclasses
import io
import time
from argparse import Namespace

import pytest
from rich.console import Console

from manifests.codec import to_plain
from manifests.records import Speeches, Video
from manifests.store import Store
from pipeline import run as running
from pipeline.facts import measured
from pipeline.finish import snapshot
from pipeline.job import Job, add_videos
from pipeline.ledger import STATUSES, Ledger, Outcome
from pipeline.recipes import own
from pipeline.stage import keys
from tests.stages.measured import measured as made
from tests.stages.measured import remember, speech

RECIPE = own()
KEYS = keys(RECIPE.stages(), Video)
GONE = Outcome(status="rejected", body={"reason": "gone", "measured": {}})


class Read(Store):
    """Remembers the outcomes that it was asked for."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.asked: list[str] = []

    def get(self, path: str) -> bytes:
        if path.startswith("ledger/"):
            self.asked.append(path)
        return super().get(path)


@pytest.fixture
def store(tmp_path):
    return Read(str(tmp_path))


def known(store, *names):
    found = [made(name) for name in names]
    for one in found:
        remember(store, KEYS, one)
    return add_videos(store, [one.video for one in found])


@pytest.mark.parametrize("status", STATUSES)
def test_an_outcome_is_read_by_one_request_whatever_it_is(store, status):
    body = {"error": "x"} if status in ("failed", "quarantined") else to_plain(made().source)
    Ledger(store).write(KEYS["fetch"], "v0", GONE if status == "rejected" else Outcome(status=status, body=body))
    (one,) = measured(RECIPE.stages(), [made().video], store)
    assert bool(one.source) == (status == "ok") and len(store.asked) == 1


def test_of_two_outcomes_that_two_runs_left_the_one_that_counts_is_read(store):
    Ledger(store).write(KEYS["fetch"], "v0", Outcome(status="failed", body={"error": "x"}))
    Ledger(store).write(KEYS["fetch"], "v0", GONE)
    (one,) = measured(RECIPE.stages(), [made().video], store)
    assert one.rejected and not one.failed and len(store.asked) == 1


def test_only_news_is_read_anew(store):
    before = snapshot(RECIPE, known(store, "v0", "v1"), store, is_marked=True)
    store.asked.clear()
    after = snapshot(RECIPE, known(store, "v2"), store, before)
    assert {path.rpartition("/")[2] for path in store.asked} == {"v2.json"} and len(store.asked) == len(KEYS)
    assert [one.video.id for one in after.known] == ["v0", "v1", "v2"]
    assert after.known[0] is before.known[0] and after.known == measured(RECIPE.stages(), after.videos, store)


def test_of_what_is_read_once_no_stamp_is_asked_for(store, monkeypatch):
    videos = known(store, "v0", "v1")
    monkeypatch.setattr(Store, "stamps", None)
    before = snapshot(RECIPE, videos, store)
    assert before.known == measured(RECIPE.stages(), videos, store) and not before.marks
    assert snapshot(RECIPE, known(store, "v2"), store, before).known[:2] == before.known


@pytest.mark.parametrize("is_marked", [False, True])
def test_of_one_reading_each_folder_of_the_ledger_is_listed_once(store, monkeypatch, is_marked):
    videos, listed, real = known(store, "v0"), [], Store.list
    monkeypatch.setattr(Store, "list", lambda self, prefix: listed.append(prefix) or real(self, prefix))
    snapshot(RECIPE, videos, store, is_marked=is_marked)
    folders = sorted(prefix for prefix in listed if prefix.startswith("ledger/"))
    assert folders == sorted(f"ledger/{key}/{status}" for key in KEYS.values() for status in STATUSES)


def heard_anew(store):
    now = Speeches(items=(speech("v0-0000", text="Guten Abend"),), model="made up")
    Ledger(store).write(KEYS["speech"], "v0", Outcome(status="ok", body=to_plain(now)))


def taken_back(store):
    Ledger(store).forget(KEYS["identity"], "v0")


def rejected(store):
    taken_back(store)
    Ledger(store).write(KEYS["identity"], "v0", GONE)


def told_otherwise(store):
    add_videos(store, [dataclasses.replace(made("v0").video, licence="CC BY-SA")])


@pytest.mark.parametrize("change", [heard_anew, taken_back, rejected, told_otherwise])
def test_what_has_changed_since_is_not_taken_for_what_it_was(store, change):
    before = snapshot(RECIPE, known(store, "v0", "v1"), store, is_marked=True)
    time.sleep(0.01)  # the grain of the clock that stamps files
    change(store)
    after = snapshot(RECIPE, known(store, "v2"), store, before)
    assert after.known[0] != before.known[0] and after.known[1] is before.known[1]
    assert after.known == measured(RECIPE.stages(), after.videos, store)


def test_one_that_was_forgotten_is_not_known_any_more(store):
    before = snapshot(RECIPE, known(store, "v0", "v1"), store, is_marked=True)
    store.put("tombstones/v0.json", b"{}")
    assert [one.video.id for one in snapshot(RECIPE, known(store, "v2"), store, before).known] == ["v1", "v2"]


def test_one_that_was_put_off_is_not_said_to_be_once_it_was_begun_again(store):
    videos = add_videos(store, [made("v0").video])
    Ledger(store).put_off(KEYS["fetch"], "v0", "a", 1, "x.invalid: refused")
    before = snapshot(RECIPE, videos, store, is_marked=True)
    Ledger(store).begin(KEYS["fetch"], "v0", "b")
    after = snapshot(RECIPE, known(store, "v1"), store, before)
    assert before.known[0].postponed and not after.known[0].postponed


def test_what_a_video_lacks_beyond_the_stages_that_were_asked_about_is_not_asked_for(store):
    videos = known(store, "v0")
    (one,) = measured(RECIPE.stages()[:4], videos, store)
    assert one.syncs and not one.speeches and not one.postponed


def test_a_search_reads_each_outcome_once_however_many_waves_it_has(store, monkeypatch):
    found = [[made(f"v{n}").video] for n in range(3)]
    search = type("Search", (), {
        "troubles": (), "next_wave": lambda *_: tuple(found.pop(0) if found else ()), "short": lambda *_: (),
    })()  # fmt: skip
    monkeypatch.setattr(running, "_carry", lambda this, videos, due: remember(store, KEYS, made(due[0].enter[0])))
    options = Namespace(until=None)
    this = running._Run(options, Console(file=io.StringIO()), store, Job(recipe="own"), RECIPE, "r")
    seen = running._search(this, search, add_videos(store, ()))
    assert [one.video.id for one in seen.known] == ["v0", "v1", "v2"]
    assert len(store.asked) == len(set(store.asked)) == 3 * len(KEYS)


@pytest.mark.parametrize("kind", ["folder", "memory", "bucket"])
def test_what_is_written_anew_has_another_stamp_and_what_is_not_the_same(kind, tmp_path, request):
    url = {"folder": str(tmp_path), "memory": f"memory://{tmp_path.name}"}.get(kind)
    store = Store(url or f"{request.getfixturevalue('bucket')}/a")
    for name in "xy":
        store.put(f"ledger/{name}", b"1")
    before = store.stamps("ledger")
    assert before == store.stamps("ledger") and before.keys() == {"ledger/x", "ledger/y"}
    time.sleep(0.01)
    store.put("ledger/x", b"2")
    after = store.stamps("ledger")
    assert before["ledger/x"] != after["ledger/x"] and before["ledger/y"] == after["ledger/y"]
    assert store.stamps("nowhere") == {}
