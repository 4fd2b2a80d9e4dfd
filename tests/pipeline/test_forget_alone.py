"""A part whose times were wrong goes alone, and the corrected row of the same footage takes its place."""

import dataclasses

import pytest

from manifests.codec import to_json
from manifests.records import Video
from manifests.store import Store
from pipeline.cli import main
from pipeline.finish import finish, snapshot
from pipeline.forget import forget_all
from pipeline.job import Job, add_videos, read_videos, write_job
from pipeline.recipes import TalkingFaces
from pipeline.stage import keys
from stages.policies import PAPER
from stages.shard_index import read_index
from stages.verify import verify
from tests.pipeline.test_forget import cut_short
from tests.stages.measured import identity, measured, put, random_hash, remember, source, stored_clip

RECIPE = TalkingFaces(policy=dataclasses.replace(PAPER, min_duration_s=None), shard_bytes=1_000_000)
WRONG, RIGHT, OTHER = (
    Video.of("https://films.example/long.mp4", start_s=start_s, end_s=end_s)
    for start_s, end_s in ((10.0, 20.0), (10.0, 20.1), (60.0, 70.0))
)
COPIED = Video.of("https://films.example/again.mp4")  # of OTHER


def measure(store, video, shows):
    """As if a run had taken it in; clips that show the same are copies."""
    names = keys(RECIPE.stages(), Video)
    clip = stored_clip(store, video.id, seed=shows)
    prints = {"picture_hash": random_hash(f"p{shows}", 128), "sound_hash": random_hash(f"s{shows}", 256)}
    one = measured(video.id, clips=(clip,), identities=(identity(clip.key, person=shows, **prints),))
    file = put(store, f"blobs/{names['fetch']}/{video.id[:2]}/{video.id}/source.mp4", b"source")
    one = dataclasses.replace(one, video=video, source=source(file, page_url="https://films.example/long"))
    add_videos(store, [video])
    remember(store, names, one)


def written(store):
    finish(RECIPE, Job(recipe="own"), snapshot(RECIPE, read_videos(store), store), store)
    return {row.video for row in read_index(store).rows}


@pytest.fixture
def store(tmp_path):
    """A list had the wrong part, which was measured."""
    store = Store(str(tmp_path / "out"))
    measure(store, WRONG, 1)
    measure(store, OTHER, 2)
    assert written(store) == {WRONG.id, OTHER.id}
    return store


def forget(store, video, **how):
    return forget_all(store, RECIPE, read_videos(store), [f"video:{video.id}"], **how)


def test_the_corrected_row_takes_the_place_of_the_part_that_goes_alone(store):
    """Beside it, it was dropped as a copy."""
    measure(store, RIGHT, 1)
    assert written(store) == {WRONG.id, OTHER.id}
    gone = forget(store, WRONG, alone=True)
    assert gone.videos == [WRONG.id] and gone.copies == [] and dict(gone.alike) == {RIGHT.id: 1.0}
    assert written(store) == {RIGHT.id, OTHER.id} and verify(store).ok
    assert not any(WRONG.id in path for folder in ("blobs", "ledger", "shards") for path in store.list(folder))


@pytest.mark.parametrize(("alone", "comes_in"), [(True, True), (False, False)])
def test_the_corrected_row_comes_in_after_the_part_that_went_alone_and_that_never_again(store, alone, comes_in):
    forget(store, WRONG, alone=alone)
    videos = add_videos(store, [WRONG, RIGHT, Video.of("https://films.example/long")])
    assert WRONG not in videos and (RIGHT in videos) is comes_in and len(videos) == 1 + 2 * comes_in


@pytest.mark.parametrize("writes", [1, 2, 5, 12])
def test_a_call_alone_that_was_cut_short_is_finished_as_such_by_a_call_that_is_not(store, monkeypatch, writes):
    measure(store, RIGHT, 1)
    cut_short(store, monkeypatch, writes, lambda: forget(store, WRONG, alone=True))
    assert forget(store, OTHER).videos == sorted([WRONG.id, OTHER.id])
    assert not store.list("forgetting") and written(store) == {RIGHT.id}
    assert RIGHT in add_videos(store, [Video.of(RIGHT.url, start_s=10.0, end_s=20.2)]) and len(read_videos(store)) == 2


def test_a_call_that_was_cut_short_takes_its_copies_though_the_next_goes_alone(store, monkeypatch):
    measure(store, RIGHT, 1)
    measure(store, COPIED, 2)
    cut_short(store, monkeypatch, 3, lambda: forget(store, OTHER))
    gone = forget(store, WRONG, alone=True)
    assert gone.videos == sorted([WRONG.id, OTHER.id, COPIED.id]) and gone.copies == [COPIED.id]
    assert add_videos(store, [dataclasses.replace(COPIED, id="again")]) == (RIGHT,)


def test_a_call_that_an_older_version_left_takes_its_copies(store):
    measure(store, RIGHT, 1)
    store.put("forgetting/old.json", to_json({"what": [f"video:{WRONG.id}"], "asked": [WRONG.id], "copies": []}))
    gone = forget(store, OTHER)
    assert gone.videos == sorted([WRONG.id, OTHER.id, RIGHT.id]) and gone.copies == [RIGHT.id]


@pytest.mark.parametrize("what", ["channel:Anna", "person:p-x", "v0"])
def test_only_videos_go_alone(store, what, capsys):
    write_job(store, Job(recipe="own"))
    assert main(["forget", f"video:{WRONG.id}", what, "--alone", "--store", store.url]) == 2
    assert f"forget {what} --alone: only videos go alone, as video:ID" in " ".join(capsys.readouterr().err.split())
    assert WRONG in read_videos(store)


def test_a_dry_call_that_would_take_copies_says_how_they_stay(store):
    measure(store, RIGHT, 1)
    way = "near-duplicates stay where a video goes alone: forget video:ID --alone"
    assert way in forget(store, WRONG, dry=True).lines()
    alone = forget(store, WRONG, dry=True, alone=True)
    assert way not in alone.lines() and alone.videos == [WRONG.id] and way not in forget(store, OTHER, dry=True).lines()
