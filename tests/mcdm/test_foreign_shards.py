"""Shards that others packed: folders in the tar, clips without a json member."""

import io
import logging
import tarfile

import pytest

from mcdm.shards import SampleError, Shards
from tests.mcdm.shards import write_shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"), people=3, clips=1, n_frames=4, index=False)


def packed(folder, to, below="", without=(), damage=None):
    """A copy of the train shard whose members lie in a folder, as `tar cf a.tar .` names them `./`."""
    with tarfile.open(next(folder.glob("train*.tar"))) as old, tarfile.open(to / "a.tar", "w") as new:
        for info in old:
            if info.name not in without:
                data = old.extractfile(info)
                if damage is not None and info.name.endswith(".npy"):
                    data = io.BytesIO(damage(data.read()))
                info.name = below + info.name
                new.addfile(info, data)
    return str(to)


@pytest.mark.parametrize(("below", "key"), [("./", ""), ("data/", "data-"), ("data.v1/x/", "data.v1-x-")])
def test_the_clips_of_a_tar_are_found_whatever_folder_they_lie_in_and_their_keys_name_files(
    folder, tmp_path, below, key
):
    shards = Shards(packed(folder, tmp_path, below))
    assert [clip.key for clip in shards.clips] == [f"{key}video0-0000", f"{key}video1-0000"]
    assert len(shards.sound(shards.clips[1])) == 4 * 640


def test_clips_of_one_name_in_two_folders_are_two_clips(folder, tmp_path):
    with tarfile.open(next(folder.glob("train*.tar"))) as old, tarfile.open(tmp_path / "a.tar", "w") as new:
        contents = [(info.name, old.extractfile(info).read()) for info in old if info.name.startswith("video0-")]
        for below in ("one/", "two/"):
            for name, data in contents:
                info = tarfile.TarInfo(below + name)
                info.size = len(data)
                new.addfile(info, io.BytesIO(data))
    assert [clip.key for clip in Shards(str(tmp_path)).clips] == ["one-video0-0000", "two-video0-0000"]


def test_a_clip_without_a_json_member_is_left_out_by_name(folder, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "mcdm"):
        clips = Shards(packed(folder, tmp_path, without=("video0-0000.json",))).clips
    assert [clip.key for clip in clips] == ["video1-0000"]
    assert caplog.messages == ["a.tar: 1 clips have no json member and are left out, video0-0000 for one"]


def test_shards_whose_clips_all_lack_the_json_member_are_not_said_to_be_missing(folder, tmp_path):
    place = packed(folder, tmp_path, without=("video0-0000.json", "video1-0000.json"))
    with pytest.raises(ValueError, match=r": no clips in the shards, a clip has a json member$"):
        Shards(place)


@pytest.mark.parametrize("of", [b")", b"'"])
def test_an_array_with_a_damaged_header_is_a_fault_of_its_clip(folder, tmp_path, of):
    shards = Shards(packed(folder, tmp_path, damage=lambda data: data[:10] + data[10:].replace(of, b" ", 1)))
    with pytest.raises(SampleError, match=r"video0-0000: pose\.npy is no array"):
        shards.array(shards.clips[0], "pose.npy", (4, 3))


def test_a_damaged_index_is_named(folder, tmp_path):
    packed(folder, tmp_path)
    (tmp_path / "index.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"index\.parquet is not a shard index"):
        Shards(str(tmp_path))
