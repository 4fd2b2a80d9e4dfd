"""Kept clips ship byte for byte, in tars that tar, webdataset and our own verifier read, and that never half exist."""

import dataclasses
import io
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import threading
import wave
from pathlib import Path

import av
import pytest
import webdataset

from manifests.scratch import machine
from manifests.store import Store
from stages.judge import judge
from stages.policies import PAPER
from stages.shard import ChangedBlobsError, plan, shard
from stages.shard_index import INDEX, read_index
from stages.verify import verify
from tests.stages.measured import NO_FILE, clip, measured, put, speech, stored_clip, sync, wav_bytes

POLICY = dataclasses.replace(PAPER, min_duration_s=None)


def three_videos(store, n_clips=2):
    videos = []
    for number in range(3):
        name = f"video{number}"
        clips = tuple(
            stored_clip(store, name, n, seed=10 * number + n, start_s=0.8 * n, contiguous_with_prev=n > 0)
            for n in range(n_clips)
        )
        videos.append(measured(name, clips=clips, person=number, channel=f"channel {number}"))
    return videos


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    store = Store(str(tmp_path_factory.mktemp("store")))
    videos = three_videos(store)
    return store, videos, shard(store, videos, judge(videos, POLICY))


def tars(store):
    return {path.name: path.read_bytes() for path in sorted((store.local / "shards").glob("*.tar"))}


def part(store, row, of):
    """What lies where the index says that a sample or one of its members does."""
    return store.get(f"shards/{row.shard}")[of.offset : of.offset + of.length]


def test_webdataset_reads_them_and_decodes_the_members(shards):
    store, _, _ = shards
    urls = sorted(str(path) for path in (store.local / "shards").glob("*.tar"))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert sorted(one["__key__"] for one in samples) == [f"video{v}-{c:04d}" for v in range(3) for c in range(2)]
    for sample in samples:
        about = sample["json"]
        assert (about["n_frames"], about["fps"], about["transcript"]) == (20, 25, "Guten Tag")
        assert sample["box.npy"].shape == (20, 5) and sample["lmk.npy"].shape == (20, 5, 2)
        assert sample["pose.npy"].shape == (20, 3) and sample["id.npy"].shape == (64,)
        assert sample["crop.npy"].shape == (20, 4)
        with av.open(io.BytesIO(sample["mp4"])) as video:
            assert sum(1 for _ in video.decode(video=0)) == 20
        with wave.open(io.BytesIO(sample["wav"])) as sound:
            assert sound.getnframes() == 20 * 640


def test_plain_tar_lists_them(shards):
    store, _, done = shards
    path = store.local / "shards" / done.index.rows[0].shard
    listed = subprocess.run(["tar", "-tvf", path], capture_output=True, text=True, check=True, timeout=60).stdout
    first = done.index.rows[0].key
    assert f"{first}.mp4" in listed and f"{first}.box.npy" in listed and "0/0" in listed and "1970-01-01" in listed


def test_what_was_scored_is_what_ships(shards):
    store, videos, done = shards
    clips = {one.key: one for video in videos for one in video.clips.items}
    for row in done.index.rows:
        for member, ref in (("mp4", clips[row.key].video), ("wav", clips[row.key].audio)):
            (found,) = (one for one in row.sample.members if one.name == member)
            assert found.sha256 == ref.sha256
            assert part(store, row, found) == store.get(ref.path)


def test_a_sample_can_be_read_at_random_as_a_tar_of_its_own(shards):
    store, _, done = shards
    row = done.index.rows[-1]
    raw = part(store, row, row.sample)
    (sample,) = webdataset.tariterators.group_by_keys(webdataset.tariterators.tar_file_expander([
        {"url": "x", "stream": io.BytesIO(raw + bytes(1024))}
    ]))  # fmt: skip
    assert sample["__key__"] == row.key and json.loads(sample["json"])["video_id"] == row.video


def test_the_verifier_finds_nothing_wrong_and_counts_everything(shards):
    store, _, done = shards
    report = verify(store)
    assert report.problems == [] and report.indexed
    assert (report.samples, report.frames, report.by_split.total()) == (6, 120, 6)
    assert report.shards == len(done.written) == len(done.index.shards)


def test_a_second_call_does_nothing(shards):
    store, videos, done = shards
    before = {path: (store.local / path).stat().st_mtime_ns for path in store.list("shards")}
    again = shard(store, videos, judge(videos, POLICY))
    assert again.written == () and again.index == done.index
    assert {path: (store.local / path).stat().st_mtime_ns for path in store.list("shards")} == before


@pytest.mark.parametrize("workers", [1, 4])
def test_bytes_do_not_depend_on_workers_on_order_or_on_the_store(shards, tmp_path, workers):
    store, _, _ = shards
    other = Store(str(tmp_path))
    videos = three_videos(other)[::-1]
    shard(other, videos, judge(videos, POLICY)[::-1], workers=workers)
    assert tars(other) == tars(store)
    assert other.get(INDEX) == store.get(INDEX)


def test_threads_that_write_shards_never_parse_two_arrays_at_once(fragile_parser, tmp_path):
    store = Store(str(tmp_path))
    videos = three_videos(store)
    done = shard(store, videos, judge(videos, POLICY), size_bytes=1, workers=4)
    assert len(done.written) == 3


def test_a_store_without_a_disk_holds_the_same_shards(shards):
    store, _, done = shards
    remote = Store("memory://shard-test")
    videos = three_videos(remote)
    shard(remote, videos, judge(videos, POLICY))
    assert {name: remote.get(f"shards/{name}") for name in done.index.shards} == tars(store)
    assert verify(remote).ok


def test_the_next_clips_of_an_object_store_are_fetched_while_one_is_written(monkeypatch):
    remote = Store("memory://shard-ahead-test")
    videos = three_videos(remote, n_clips=3)[:1]
    together, get_file = threading.Barrier(3), Store.get_file

    def one_of_three(store, path, scratch):
        together.wait(20)
        return get_file(store, path, scratch)

    monkeypatch.setattr(Store, "get_file", one_of_three)
    assert len(shard(remote, videos, judge(videos, POLICY), workers=1).index.rows) == 3


@pytest.mark.parametrize("left", [b"", bytes(10240), b"half of a tar"])
def test_what_a_power_cut_left_without_its_bytes_is_written_anew(left, tmp_path):
    store = Store(str(tmp_path))
    videos = three_videos(store, n_clips=1)
    first = shard(store, videos, judge(videos, POLICY))
    whole = tars(store)
    store.put(INDEX, b"")
    store.put(f"shards/{first.index.shards[0]}", left)
    again = shard(store, videos, judge(videos, POLICY))
    assert again.index == first.index == read_index(store) and tars(store) == whole and verify(store).ok


def test_after_a_crash_before_the_index_finished_shards_are_kept_as_they_are(tmp_path):
    store = Store(str(tmp_path))
    videos = three_videos(store)
    whole = shard(store, videos, judge(videos, POLICY), size_bytes=1)
    assert len(whole.written) > 1
    index = store.get(INDEX)
    lost, *left = sorted(whole.written)
    store.delete(INDEX)
    store.delete(f"shards/{lost}")
    before = {name: (tmp_path / "shards" / name).stat().st_mtime_ns for name in left}
    again = shard(store, videos, judge(videos, POLICY), size_bytes=1)
    assert again.written == (lost,) and sorted(again.found) == left
    assert {name: (tmp_path / "shards" / name).stat().st_mtime_ns for name in left} == before
    assert store.get(INDEX) == index


def _shard_all(url):
    store = Store(url)
    videos = pickle.loads(store.get("videos.pickle"))
    shard(store, videos, judge(videos, POLICY), size_bytes=1, workers=1)


def _shard_some_and_die(url):
    writing, done = Store.writing, []

    def dies_at_the_fourth(store, path):
        if len(done) == 3:
            (store.local / path).with_name(f".partial-{machine()}-{os.getpid()}-0").write_bytes(bytes(1000))
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(path)
        return writing(store, path)

    Store.writing = dies_at_the_fourth
    _shard_all(url)


def test_a_run_killed_in_the_middle_resumes_to_the_same_bytes(tmp_path):
    whole, killed = Store(str(tmp_path / "whole")), Store(str(tmp_path / "killed"))
    for store in (whole, killed):
        videos = [measured(f"v{n}", clips=(stored_clip(store, f"v{n}", seed=n),), person=n) for n in range(12)]
        store.put("videos.pickle", pickle.dumps(videos))
    _shard_all(whole.url)
    process = multiprocessing.get_context("spawn").Process(target=_shard_some_and_die, args=(killed.url,))
    process.start()
    process.join()
    left = tars(killed)
    assert process.exitcode == -signal.SIGKILL and len(left) == 3 and not killed.exists(INDEX)
    before = {name: (tmp_path / "killed" / "shards" / name).stat().st_mtime_ns for name in left}
    _shard_all(killed.url)
    assert tars(killed) == tars(whole) and killed.get(INDEX) == whole.get(INDEX)
    assert {name: (tmp_path / "killed" / "shards" / name).stat().st_mtime_ns for name in left} == before
    assert not list((tmp_path / "killed" / "shards").glob(".partial-*"))


def test_of_two_commands_that_end_at_once_neither_leaves_an_index_without_its_shards(tmp_path, monkeypatch):
    store = Store(str(tmp_path))
    videos = three_videos(store)
    alive = store.local / "shards" / f".partial-{machine()}-{os.getpid()}-0"
    writing, done = Store.writing, []

    def the_other_ends_meanwhile(store, path):
        if done.append(path) or len(done) == 3:
            monkeypatch.setattr(Store, "writing", writing)
            alive.write_bytes(b"")
            removed = shard(store, videos[:1], judge(videos[:1], POLICY), size_bytes=1).removed
            assert len(removed) == 2
        return writing(store, path)

    monkeypatch.setattr(Store, "writing", the_other_ends_meanwhile)
    found = shard(store, videos, judge(videos, POLICY), size_bytes=1, workers=1)
    assert len(tars(store)) == 3 and set(found.index.shards) == set(tars(store)) and verify(store).ok
    assert alive.exists(), "a living process writes it"


def test_the_old_set_stands_until_the_new_one_is_whole(tmp_path, monkeypatch):
    store = Store(str(tmp_path))
    videos = three_videos(store)
    old = shard(store, videos, judge(videos, POLICY))

    def dies(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("stages.shard.write_index", dies)
    stricter = dataclasses.replace(POLICY, min_confidence=5.0)
    worse = [dataclasses.replace(videos[0], syncs=dataclasses.replace(videos[0].syncs, items=()))]
    with pytest.raises(KeyboardInterrupt):
        shard(store, worse + videos[1:], judge(worse + videos[1:], stricter))
    assert read_index(store) == old.index and set(old.index.shards) <= set(tars(store))
    monkeypatch.undo()
    new = shard(store, worse + videos[1:], judge(worse + videos[1:], stricter))
    assert set(tars(store)) == set(new.index.shards) and verify(store).ok
    assert {row.video for row in new.index.rows} == {"video1", "video2"}


def videos_of_100_bytes(n):
    file = dataclasses.replace(NO_FILE, size_bytes=50)
    names = [f"video{i}" for i in range(n)]
    return [measured(name, clips=(clip(name, files=(file,) * 3),), person=i) for i, name in enumerate(names)]


def test_the_mean_of_shards_is_at_most_their_size():
    videos = videos_of_100_bytes(60)
    verdicts = judge(videos, dataclasses.replace(POLICY, val_share=0.0, test_share=0.0))
    assert len(plan(videos, verdicts, size_bytes=1000)) == 8


def test_one_video_less_leaves_the_other_shards_alone():
    videos = videos_of_100_bytes(200)
    verdicts = judge(videos, POLICY)
    whole = {one.name for one in plan(videos, verdicts, size_bytes=1000)}
    less = {one.name for one in plan(videos[1:], [v for v in verdicts if v.video != "video0"], size_bytes=1000)}
    assert len(whole) > 16 and len(less - whole) <= 1


def test_a_video_never_lies_in_two_shards_and_keys_ascend():
    videos = [
        measured(f"video{n}", clips=tuple(clip(f"video{n}", c, start_s=4.0 * c) for c in range(3)), person=n)
        for n in range(40)
    ]
    planned = plan(videos, judge(videos, POLICY), size_bytes=8)
    assert len(planned) > 8
    homes = {}
    for one in planned:
        assert [entry.clip.key for entry in one.entries] == sorted(entry.clip.key for entry in one.entries)
        for entry in one.entries:
            assert homes.setdefault(entry.video, one.name) == one.name


def test_a_dropped_clip_between_two_is_a_gap():
    clips = tuple(clip("v0", n, start_s=4.0 * n, contiguous_with_prev=n > 0) for n in range(4))
    syncs = tuple(sync(one.key, 1.0 if one.number == 1 else 7.0) for one in clips)
    (planned,) = plan([one := measured(clips=clips, syncs=syncs)], judge([one], POLICY), size_bytes=10**9)
    assert [(entry.clip.number, entry.contiguous_with_prev) for entry in planned.entries] == [
        (0, False),
        (2, False),
        (3, True),
    ]
    assert {json.loads(entry.description)["n_clips_in_video"] for entry in planned.entries} == {3}


@pytest.mark.parametrize("policy", [POLICY, dataclasses.replace(POLICY, one_speaker=False)], ids=["one", "both"])
def test_a_clip_does_not_go_on_from_another_face_s_clip_that_ends_when_it_begins(policy):
    again = clip("v0", 2, track=0, start_s=4.0, contiguous_with_prev=True)
    clips = (clip("v0", 0, track=0), clip("v0", 1, track=1), again)
    syncs = tuple(sync(one.key, 6.0 + one.number) for one in clips)
    (planned,) = plan([one := measured(clips=clips, syncs=syncs)], judge([one], policy), size_bytes=10**9)
    assert [entry.clip.number for entry in planned.entries] == ([1, 2] if policy.one_speaker else [0, 1, 2])
    assert not planned.entries[-1].contiguous_with_prev


def test_a_clip_that_was_heard_or_seen_otherwise_gives_a_shard_of_another_name():
    videos = [measured(), measured(speeches=(speech("v0-0000", text="Guten Abend"),)), measured(person=2)]
    assert len({plan([one], judge([one], POLICY), size_bytes=10**9)[0].name for one in videos}) == 3


@pytest.mark.parametrize("late_frames", [0, 3], ids=["as they are", "shifted"])
def test_bytes_that_were_not_scored_are_not_shipped(tmp_path, late_frames):
    store = Store(str(tmp_path))
    one = stored_clip(store, "v0")
    videos = [measured(clips=(one,), syncs=(sync(one.key, offset_frames=late_frames),))]
    store.put(one.audio.path, wav_bytes(one.n_frames + 1))
    policy = dataclasses.replace(POLICY, max_offset_frames=6, shift_audio=True)
    with pytest.raises(ValueError, match=r"v0/0000.wav is not the file that was scored"):
        shard(store, videos, judge(videos, policy))
    assert read_index(store) is None


def test_all_videos_whose_bytes_were_not_scored_are_named_at_once_and_the_other_shards_are_written(tmp_path):
    store = Store(str(tmp_path))
    videos = three_videos(store)
    (sound, _), (_, arrays) = (video.clips.items for video in videos[:2])
    store.put(sound.audio.path, b"something else")
    store.put(arrays.arrays.path, b"something else")
    for size_bytes in (1, 10**9):  # a shard for each, and one for both
        store.delete("shards")
        with pytest.raises(ChangedBlobsError) as changed:
            shard(store, videos, judge(videos, POLICY), size_bytes=size_bytes)
        assert changed.value.videos == {"video0", "video1"}
        planned = plan(videos, judge(videos, POLICY), size_bytes=size_bytes)
        whole = {one.name for one in planned if {entry.video for entry in one.entries} == {"video2"}}
        assert set(tars(store)) == whole


def test_no_kept_clip_leaves_an_empty_index_and_no_shard(tmp_path):
    store = Store(str(tmp_path))
    videos = three_videos(store, 1)
    shard(store, videos, judge(videos, POLICY))
    nothing = shard(store, videos, judge(videos, dataclasses.replace(POLICY, min_confidence=99.0)))
    assert nothing.index.rows == () and tars(store) == {} and verify(store).ok


def test_the_language_heard_ships_with_the_expected_one_beside_it(tmp_path):
    store = Store(str(tmp_path))
    one = stored_clip(store, "v0")
    heard = measured(clips=(one,), speeches=(speech(one.key, language="fr", verdict="other"),), language="deu")
    policy = dataclasses.replace(POLICY, allow_other_language=True)
    (row,) = shard(store, [heard], judge([heard], policy)).index.rows
    about = json.loads(Path(store.local / "shards" / row.shard).read_bytes()[slice(*_span(row, "json"))])
    assert (about["language"], about["language_expected"], row.language) == ("fr", "de", "fr")


def _span(row, name):
    (member,) = (one for one in row.sample.members if one.name == name)
    return member.offset, member.offset + member.length


def test_an_index_that_is_none_is_refused(tmp_path):
    store = Store(str(tmp_path))
    put(store, INDEX, b"PAR0")
    with pytest.raises(ValueError, match="is not a shard index"):
        read_index(store)
