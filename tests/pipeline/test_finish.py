"""Results are vouched for only while they are there and of one mind."""

import io

import pytest
from rich.console import Console

from manifests.records import Video
from manifests.store import Store
from pipeline import finish as finishing
from pipeline.cli import main
from pipeline.finish import finish, is_finished, snapshot
from pipeline.job import Job, add_videos, write_job
from pipeline.ledger import Ledger, Outcome
from pipeline.show import show
from pipeline.stage import keys


@pytest.fixture
def finished(tmp_path):
    """A store of one video that was never run, judged and written."""
    store, job = Store(str(tmp_path)), Job(recipe="sample")
    write_job(store, job)
    videos = add_videos(store, [Video.of("a.mp4")])
    finish(job.build(), job, snapshot(job.build(), videos, store), store)
    return store, job, videos


def test_a_finished_store_is_finished_and_one_of_another_policy_is_not(finished):
    store, job, videos = finished
    assert is_finished(store, job.build(), videos)
    assert not is_finished(store, job.changed("strict", ()).build(), videos)


@pytest.mark.parametrize("lost", ["shards", "report.html", "clips.parquet", "videos.parquet"])
def test_results_that_were_deleted_are_not_vouched_for(finished, lost):
    store, job, videos = finished
    store.delete(lost)
    assert not is_finished(store, job.build(), videos)


def test_results_do_not_vouch_for_what_a_run_added_while_they_were_written(finished):
    store, job, videos = finished
    seen = snapshot(job.build(), videos, store)
    key = keys(job.build().stages(), Video)["fetch"]
    Ledger(store).write(key, videos[0].id, Outcome(status="rejected", body={"reason": "gone", "measured": {}}))
    finish(job.build(), job, seen, store)
    assert not is_finished(store, job.build(), videos)


def test_a_judging_that_broke_off_leaves_nothing_finished(finished, monkeypatch):
    store, job, videos = finished

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(finishing, "write_report", full)
    with pytest.raises(OSError, match="no space"):
        finish(job.changed("strict", ()).build(), job, snapshot(job.build(), videos, store), store)
    assert not is_finished(store, job.build(), videos), "the shards may be those of strict"


def test_judging_reads_what_is_known_once(finished, monkeypatch):
    store, _, _ = finished
    calls = []
    measured = finishing.measured
    monkeypatch.setattr(finishing, "measured", lambda *given: calls.append(1) or measured(*given))
    assert main(["judge", "--policy", "strict", "--store", store.url]) == 0
    assert len(calls) == 1


def test_brackets_in_an_address_are_shown(tmp_path):
    store = Store(str(tmp_path))
    write_job(store, Job(recipe="sample"))
    (video,) = add_videos(store, [Video.of("/videos/Talk [dQw4w9WgXcQ] [/b].mp4")])
    console = Console(file=io.StringIO(), width=200)
    options = type("Options", (), {"store": store.url, "id": video.id})()
    assert show(options, console) == 0
    assert f"{video.id}  {video.url}" in console.file.getvalue()
