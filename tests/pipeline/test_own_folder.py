"""A folder of videos that results were written into: what runs copied and cut is no new footage."""

from uuid import uuid4

import pytest

from manifests.store import Store
from manifests.table import ManifestError
from pipeline.job import Job, add_videos, write_job
from pipeline.ledger import Ledger
from pipeline.sources import own_videos


@pytest.fixture(params=["disk", "bucket"])
def place(request, tmp_path):
    """A folder with one video of one's own."""
    store = Store(str(tmp_path) if request.param == "disk" else f"memory://{uuid4().hex}/videos")
    store.put("mine/a.mp4", b"x")
    return store


def ran(place, below):
    """Leave in a store what a run over the folder does, as far as a list is concerned."""
    store = Store(place.at(below) if below else place.url)
    (video,) = own_videos(place.url, None)
    write_job(store, Job(recipe="own"))
    add_videos(store, [video])
    Ledger(store).begin("fetch-0", video.id, "r")
    store.put(f"blobs/fetch-0/{video.id[:2]}/{video.id}/source.mp4", b"x")
    return video


@pytest.mark.parametrize("below", ["out", "", "sets/ledger/7"])
def test_a_second_run_finds_no_videos_in_the_results_of_the_first(below, place, caplog):
    video = ran(place, below)
    assert own_videos(place.url, None) == (video,)
    (said,) = (one for one in caplog.messages if "left out" in one)
    root = f"{place.url}/{below}".rstrip("/").removeprefix("memory:/")
    assert said == f"{place.url}: 2 files left out that runs wrote into {root}/blobs/, {root}/ledger/"


@pytest.mark.parametrize("lacking", ["job.json", "ledger"])
def test_a_folder_of_blobs_that_is_no_store_is_footage(lacking, place):
    ran(place, "out")
    place.delete(f"out/{lacking}")
    assert len(own_videos(place.url, None)) == 2


def test_a_folder_of_results_alone_holds_no_videos(place):
    ran(place, "out")
    with pytest.raises(ManifestError, match="no videos in it"):
        own_videos(place.at("out"), None)
