"""The verifier names the shard, the clip and the fault: every kind of damage it is meant to find is done here."""

import dataclasses
import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
import webdataset

from manifests.store import Store
from stages import shard_json
from stages.judge import judge
from stages.policies import PAPER
from stages.shard import shard
from stages.shard_index import INDEX, read_index, write_index
from stages.tars import TarError, join_tar, read_tar, write_tar
from stages.verify import verify
from tests.stages.measured import clip, measured, mp4_bytes, npz_bytes, put, stored_clip, wav_bytes

POLICY = dataclasses.replace(PAPER, min_duration_s=None)


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path))
    videos = [measured(name, clips=(stored_clip(store, name),), person=n) for n, name in enumerate(("v1", "v2"))]
    shard(store, videos, judge(videos, POLICY))
    return store


def paths(store):
    return sorted((store.local / "shards").glob("*.tar"))


def faults(store):
    return [(problem.key, problem.what) for problem in verify(store).problems]


def test_a_flipped_byte_is_found_in_its_member(store):
    row = read_index(store).rows[0]
    (wav,) = (one for one in row.sample.members if one.name == "wav")
    path = store.local / "shards" / row.shard
    data = bytearray(path.read_bytes())
    data[wav.offset + 1000] ^= 1
    path.write_bytes(data)
    ((key, what),) = faults(store)
    assert key == row.key and what.startswith("wav is not as the index has it")


def test_a_copy_of_the_set_under_another_name_is_held_against_its_own_index_and_sums(store):
    copy = store.local / "talking faces"
    (store.local / "shards").rename(copy)
    assert verify(store, copy.name).indexed
    path = sorted(copy.glob("*.tar"))[0]
    path.write_bytes(_with(path.read_bytes(), 600, b"damage"))
    (copy / "SHA256SUMS").write_text("")
    found = {(problem.shard, problem.what.split(":")[0]) for problem in verify(store, copy.name).problems}
    assert ("index.parquet", "SHA256SUMS lacks it") in found
    assert any(shard == path.name and what.startswith("mp4 is not as the index has it") for shard, what in found)


@pytest.mark.parametrize("left", [0.3, 0.6])
def test_a_tar_that_ends_early_is_found(store, left):
    path = paths(store)[0]
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * left)])
    assert any("not readable to its end" in what for _, what in faults(store))


def test_a_tar_cut_off_between_two_members_is_found(store):
    path = paths(store)[0]
    last = [row for row in read_index(store).rows if row.shard == path.name][-1].sample
    path.write_bytes(path.read_bytes()[: last.offset + last.length])
    ((_, what),) = faults(store)
    assert "without the end mark" in what


def test_a_missing_and_a_left_over_shard_are_found(store):
    first, *_ = paths(store)
    first.rename(first.with_name("train-000000-00000000.tar"))
    found = {(problem.shard, problem.what.split(":")[0]) for problem in verify(store).problems}
    assert found == {
        (first.name, "the index names it, but it is not there"),
        ("train-000000-00000000.tar", "the index does not name it"),
    }


@pytest.mark.parametrize(
    ("kind", "moment"), [("disk", "before"), ("disk", "after"), ("memory", "before"), ("s3", "before")]
)
def test_a_tar_that_another_command_takes_away_meanwhile_is_told_and_the_others_are_read(
    kind, moment, tmp_path, request, monkeypatch
):
    places = {"disk": lambda: str(tmp_path), "memory": lambda: f"memory://{tmp_path.name}-verify"}
    store = Store(places.get(kind, lambda: f"{request.getfixturevalue('bucket')}/verify")())
    videos = [measured(name, clips=(stored_clip(store, name),), person=n) for n, name in enumerate(("v1", "v2"))]
    first, _ = shard(store, videos, judge(videos, POLICY), size_bytes=1).index.shards
    get_file = Store.get_file

    def gone(store, path, scratch):
        if path.endswith(first) and moment == "before":
            store.delete(path)
        found = get_file(store, path, scratch)
        if path.endswith(first) and moment == "after":
            found.unlink()
        return found

    monkeypatch.setattr(Store, "get_file", gone)
    found = verify(store)
    (problem,) = found.problems
    assert (problem.shard, problem.key) == (first, "") and problem.what.startswith("gone since it was listed")
    assert (found.samples, found.shards) == (1, 1)


def test_an_index_that_says_something_else_than_the_json_is_found(store):
    index = read_index(store)
    row = dataclasses.replace(index.rows[0], language="fr", n_frames=21)
    write_index(store, dataclasses.replace(index, rows=(row, *index.rows[1:])))
    assert [what for key, what in faults(store) if key == row.key] == [
        "language is 'de' in the json, 'fr' in the index",
        "n_frames is 20 in the json, 21 in the index",
    ]


@pytest.mark.parametrize(
    ("member", "data", "said"),
    [
        ("mp4", mp4_bytes(19), "mp4 has 19 frames at 25 Hz, json says 20 at 25"),
        ("wav", wav_bytes(21), "wav has 13440 samples"),
        ("npz", npz_bytes(19), "box.npy has shape (19, 5), not (20, 5)"),
    ],
)
def test_lengths_that_do_not_agree_are_found(tmp_path, member, data, said):
    store = Store(str(tmp_path))
    parts = {"mp4": mp4_bytes(20), "wav": wav_bytes(20), "npz": npz_bytes(20)} | {member: data}
    files = tuple(put(store, f"blobs/x/v1/v1/0.{name}", content) for name, content in parts.items())
    video = measured("v1", clips=(clip("v1", n_frames=20, files=files),))
    shard(store, [video], judge([video], POLICY))
    assert any(what.startswith(said) for _, what in faults(store))


def test_a_clip_that_does_not_decode_is_found(tmp_path):
    store = Store(str(tmp_path))
    whole = mp4_bytes(20)
    files = (put(store, "a.mp4", whole[: len(whole) // 2]), put(store, "a.wav", wav_bytes(20)))
    video = measured("v1", clips=(clip("v1", n_frames=20, files=(*files, put(store, "a.npz", npz_bytes(20)))),))
    shard(store, [video], judge([video], POLICY))
    assert any("mp4 cannot be read" in what for _, what in faults(store))


def two_clips_in_one_shard(tmp_path, *numbers):
    store = Store(str(tmp_path))
    clips = tuple(stored_clip(store, "v1", number, seed=n, start_s=9.0 * n) for n, number in enumerate(numbers))
    video = measured("v1", clips=clips)
    shard(store, [video], judge([video], POLICY))
    return store


def test_clips_in_another_order_than_that_of_their_numbers_are_found(tmp_path):
    store = two_clips_in_one_shard(tmp_path, 9999, 10000)
    assert verify(store).ok
    (path,), index, digest = paths(store), read_index(store), hashlib.sha256()
    written = write_tar(path, [(sample.key, data) for sample, data in read_tar(path)][::-1], digest)
    moved = zip(index.rows, written[::-1], strict=True)
    rows = tuple(row.moved(row.shard, digest.hexdigest(), sample) for row, sample in moved)
    write_index(store, dataclasses.replace(index, rows=rows))
    assert faults(store) == [("", "clips are not in the order of their keys")]


def test_clips_that_only_the_index_or_only_the_tar_has_are_found(tmp_path):
    store = two_clips_in_one_shard(tmp_path, 0, 1)
    index = read_index(store)
    rows = (index.rows[0], dataclasses.replace(index.rows[1], key="v1-0002"))
    write_index(store, dataclasses.replace(index, rows=rows))
    assert faults(store) == [("v1-0001", "in the tar, not in the index"), ("v1-0002", "in the index, not in the tar")]


def test_a_json_of_another_clip_and_of_no_split_is_found(tmp_path, monkeypatch):
    describe = shard_json.describe
    wrong = {"clip_no": 7, "split": "dev"}
    monkeypatch.setattr("stages.shard.describe", lambda one, verdict, **known: describe(one, verdict, **known) | wrong)
    store = two_clips_in_one_shard(tmp_path, 0)
    assert [what for _, what in faults(store)] == [
        "split is 'dev' in the json, 'train' in the index",
        "split is 'dev', none of train, val, test",
        "the key is not the json's video and number",
    ]


def test_a_video_in_two_shards_and_a_person_in_two_splits_are_found_in_any_set(tmp_path):
    store = Store(str(tmp_path))
    (tmp_path / "theirs").mkdir()
    for name, video, split in (("0", "v1", "train"), ("1", "v1", "train"), ("2", "v2", "val")):
        about = json.dumps({"video_id": video, "speaker_id": "p1", "split": split}).encode()
        write_tar(tmp_path / f"theirs/{name}.tar", [(f"k{name}", {"json": about})])
    found = [(one.shard, one.key, one.what) for one in verify(store, "theirs").problems]
    assert found == [
        ("1.tar", "k1", "its video v1 is also in 0.tar"),
        ("2.tar", "k2", "its speaker p1 is in train and in val"),
    ]


def test_somebody_elses_webdataset_is_checked_without_an_index(tmp_path):
    store = Store(str(tmp_path))
    (tmp_path / "theirs").mkdir()
    for n in range(2):
        with webdataset.TarWriter(str(tmp_path / f"theirs/{n:05d}.tar")) as sink:
            for key in ("one", "two"):
                sink.write({"__key__": f"{key}{n}", "mp4": mp4_bytes(10), "wav": wav_bytes(10), "json": {"a": 1}})
    report = verify(store, "theirs")
    assert report.ok and not report.indexed and (report.shards, report.samples, report.frames) == (2, 4, 40)


def test_faults_of_somebody_elses_webdataset_are_found(tmp_path):
    store = Store(str(tmp_path))
    (tmp_path / "theirs").mkdir()
    with webdataset.TarWriter(str(tmp_path / "theirs/0.tar")) as sink:
        sink.write({"__key__": "good", "npy": np.zeros(3), "json": {}})
        sink.write({"__key__": "same", "npy": np.zeros(3), "json": {}})
    with webdataset.TarWriter(str(tmp_path / "theirs/1.tar")) as sink:
        sink.write({"__key__": "same", "npy": np.zeros(3), "json": {}})
        sink.write({"__key__": "less", "json": {}})
    with tarfile.open(tmp_path / "theirs/2.tar", "w") as tar:
        for name in ("bad.json", "bad.npy", "bad.wav"):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"xyz"))
    (tmp_path / "theirs/3.tar").write_bytes(b"no tar at all" * 100)
    found = {(one.shard, one.key, one.what.split(":")[0]) for one in verify(store, "theirs").problems}
    assert found == {
        ("1.tar", "same", "its key was there before, in 0.tar"),
        ("2.tar", "bad", "json cannot be read"),
        ("2.tar", "bad", "npy cannot be read"),
        ("2.tar", "bad", "wav cannot be read"),
        ("3.tar", "", "not readable to its end"),
        ("", "", "2 samples lack or exceed the usual members ['json', 'npy']"),
    }


def _with(data, at, new):
    return data[:at] + new + data[at + len(new) :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: _with(data, len(data) // 4, bytes([255] * 16)),
        lambda data: data.replace(b"person", b"perso_"),
    ],
)
def test_a_damaged_index_is_told_by_its_place(store, damage):
    store.put(INDEX, damage(store.get(INDEX)))
    with pytest.raises(ValueError, match=f"{INDEX} is not a shard index"):
        verify(store)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("wav", _with(wav_bytes(10), 18, b"\1"), "it ends early"),  # the format's length, beyond the file
        ("wav", _with(wav_bytes(10), 24, bytes(4)), "its sample rate is 0 Hz"),
        ("json", b"[" * 200_000, "maximum recursion depth exceeded"),
        ("a.npy", b"\x93NUMPY\1\0\x17\0{'descr': '<f4', (3,)  ", "no array: ('EOF in multi-line statement'"),
    ],
)
def test_what_readers_stumble_over_is_one_fault_of_its_clip_and_the_rest_is_read(tmp_path, name, data, said):
    store, good = Store(str(tmp_path)), {"mp4": mp4_bytes(10), "wav": wav_bytes(10), "json": b"{}"}
    with np.load(io.BytesIO(npz_bytes(10))) as arrays, io.BytesIO() as file:
        np.save(file, arrays["box"])
        good["a.npy"] = file.getvalue()
    (tmp_path / "theirs").mkdir()
    write_tar(tmp_path / "theirs/0.tar", [("bad", good | {name: data}), ("good", good)])
    report = verify(store, "theirs")
    ((key, what),) = ((problem.key, problem.what) for problem in report.problems)
    assert (key, report.samples) == ("bad", 2) and what.startswith(f"{name} cannot be read: {said}")


def test_shards_are_read_side_by_side_with_the_same_findings(fragile_parser, store):
    row = read_index(store).rows[0]
    path = store.local / "shards" / row.shard
    path.write_bytes(path.read_bytes()[: row.sample.offset + row.sample.length // 2])
    copy = path.with_name("val-99-0000.tar")
    copy.write_bytes(path.read_bytes())
    alone, beside = verify(store, workers=1), verify(store, workers=4)
    assert alone == beside and len(alone.problems) > 1


def test_a_folder_without_tars_is_no_data_set(tmp_path):
    with pytest.raises(FileNotFoundError, match="no tar in"):
        verify(Store(str(tmp_path)))


def test_tars_read_back_as_they_were_written_and_parts_of_them_as_if_written_alone(tmp_path):
    samples = [(f"k{n}", {"a": bytes([n]) * (200 * n), "b.c": b"x" * n}) for n in range(1, 6)]
    written = write_tar(tmp_path / "all.tar", samples)
    assert [sample for sample, _ in read_tar(tmp_path / "all.tar")] == list(written)
    assert [data for _, data in read_tar(tmp_path / "all.tar")] == [data for _, data in samples]
    joined = join_tar(tmp_path / "some.tar", tmp_path / "all.tar", written[1::2])
    assert joined == write_tar(tmp_path / "alone.tar", samples[1::2])
    assert (tmp_path / "some.tar").read_bytes() == (tmp_path / "alone.tar").read_bytes()


@pytest.mark.parametrize("key", ["", "a.b", "a/b"])
def test_a_key_that_webdataset_would_misread_is_refused(tmp_path, key):
    with pytest.raises(ValueError, match="cannot be a WebDataset key"):
        write_tar(tmp_path / "x.tar", [(key, {"a": b""})])


def test_a_member_that_is_there_twice_and_a_link_are_refused(tmp_path):
    for name, kind in (("twice", tarfile.REGTYPE), ("link", tarfile.SYMTYPE)):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            for _ in range(2):
                info = tarfile.TarInfo("k.a")
                info.type = kind
                tar.addfile(info)
        with pytest.raises(TarError, match=r"twice|not a plain file"):
            list(read_tar(tmp_path / f"{name}.tar"))
