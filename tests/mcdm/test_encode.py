"""Encoding as training and the command line do it: in shares, to the same cache, which is then enough to train from."""

import shutil
import time
from contextlib import nullcontext
from threading import Barrier

import numpy as np
import pytest
import torch

from mcdm import course
from mcdm import encode as encoding
from mcdm.cli import main
from mcdm.config import RECIPES, small, tiny
from mcdm.course import Options
from mcdm.distributed import World
from mcdm.encode import encode
from mcdm.shards import Shards
from pipeline.override import override
from tests.mcdm.nano import nano
from tests.mcdm.processes import run_processes
from tests.mcdm.shards import write_shards

CPU = torch.device("cpu")

PREPARE = """
import os, sys, time, torch, torch.distributed as dist
from datetime import timedelta
from pathlib import Path
torch.set_num_threads(1)
from mcdm import encode
from mcdm.course import Options, prepare
from mcdm.distributed import start
from mcdm.shards import Shards
from tests.mcdm.nano import nano
rank, (_, shards, cache) = int(os.environ["RANK"]), sys.argv
store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), 2, rank == 0)
store.set(f"here {rank}", "")
store.wait(["here 0", "here 1"])
dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=10))
mine, encode_clip = [], encode.encode_clip
def slow(shards, clip, *given):
    mine.append(clip.key)
    arrays = encode_clip(shards, clip, *given)
    if rank == 0 and len(mine) == 2:
        store.wait(["done"])
        time.sleep(14)
    if rank == 1:
        store.set("done", "")
    return arrays
encode.encode_clip = slow
encoded = prepare(Shards(shards), nano(), Options(shards=shards, run=Path("unused"), cache=cache), start("cpu"))
assert len(encoded.whole(Shards(shards).clips)) == 3
Path(f"{cache}-{rank}").write_text(" ".join(mine))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("world"), people=3, clips=1, n_frames=20)


def test_two_processes_encode_a_share_each_to_the_cache_of_one_however_long_one_waits_for_the_other(folder, tmp_path):
    shards = Shards(str(folder))
    encode(shards, nano(), str(tmp_path / "alone"), device=torch.device("cpu"))
    (tmp_path / "prepare.py").write_text(PREPARE)
    run_processes(tmp_path / "prepare.py", folder, tmp_path / "shared", size=2)
    shares = [(tmp_path / f"shared-{rank}").read_text().split() for rank in range(2)]
    assert [len(share) for share in shares] == [2, 1]
    assert sorted(shares[0] + shares[1]) == sorted(clip.key for clip in shards.clips)
    alone, shared = (
        {path.name: path.read_bytes() for path in (tmp_path / name / nano().encoding).iterdir()}
        for name in ("alone", "shared")
    )
    assert alone == shared and len(alone) == 3 * len(encoding.KINDS)


def test_training_encodes_as_many_clips_at_once_as_the_command_does(folder, tmp_path, monkeypatch):
    asked, shards = [], Shards(str(folder))
    monkeypatch.setitem(RECIPES, "tiny", nano)
    monkeypatch.setattr(course, "encode", lambda *_, workers, **__: asked.append(workers))
    for workers in ([], ["--workers", "5"]):
        given = ["encode", "--shards", str(folder), "--cache", str(tmp_path), "--device", "cpu", *workers]
        assert main(given) == 0
    for number in (None, 0, 5):
        options = Options(shards=str(folder), run=tmp_path, workers=number, cache=str(tmp_path))
        course.prepare(shards, nano(), options, World(0, 1, CPU))
    assert asked == [2, 5, 2, 2, 5]


def test_threads_that_encode_never_parse_two_arrays_at_once(fragile_parser, folder, tmp_path):
    shards = Shards(str(folder))
    assert encode(shards, nano(), str(tmp_path), device=torch.device("cpu"), workers=3) == []


def test_on_a_gpu_threads_prepare_clips_side_by_side_and_take_turns_with_the_encoders(folder, tmp_path, monkeypatch):
    """Two decode at once, or the barrier breaks; none encodes beside another. The lock that a GPU brings is put in."""
    encode(Shards(str(folder)), nano(), str(tmp_path / "one"), device=CPU, workers=1)
    meet, busy, most, decode, encode_pictures = Barrier(2), [], [], encoding.decode, encoding.encode_pictures

    def met(key, *given):
        if key != "video2-0000":
            meet.wait(60)
        return decode(key, *given)

    def counted(codec, pictures):
        busy.append(None)
        time.sleep(0.05)
        latents = encode_pictures(codec, pictures)
        most.append(len(busy))
        busy.pop()
        return latents

    turn = encoding._turn(torch.device("cuda"))
    assert isinstance(encoding._turn(CPU), nullcontext) and not isinstance(turn, nullcontext)
    monkeypatch.setattr(encoding, "_turn", lambda _: turn)
    monkeypatch.setattr(encoding, "decode", met)
    monkeypatch.setattr(encoding, "encode_pictures", counted)
    assert encode(Shards(str(folder)), nano(), str(tmp_path / "two"), device=CPU, workers=2) == []
    assert most == [1, 1, 1]
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.npy")} for name in ("one", "two"))
    assert one == two and len(one) == 3 * len(encoding.KINDS)


def test_pictures_of_the_wanted_size_are_not_made_again():
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    assert encoding.resize(frames, 8) is frames and encoding.resize(frames, 4).shape == (2, 4, 4, 3)


def test_encodings_are_named_by_the_weights_that_made_them_and_not_by_where_these_lie(tmp_path):
    def named(path):
        return override(tiny(), f"codec.path={path}").encoding

    vae = tmp_path / "vae"
    vae.mkdir()
    assert named(vae) == named(f"{vae}/") != named(tmp_path / "nowhere"), "with nothing there by the path in full"
    (vae / "config.json").write_text("{}")
    (vae / "model.safetensors").write_bytes(bytes(100_000))
    name = named(vae)
    assert name == named(f"{vae}/") == named(shutil.copytree(vae, tmp_path / "elsewhere"))
    (vae / "README.md").write_text("of another day")
    assert named(vae) == name
    (vae / "model.safetensors").write_bytes(bytes(99_999) + b"1")
    assert named(vae) != name, "other weights of the same size"
    (vae / "model.safetensors").write_bytes(bytes(100_000))
    (vae / "config.json").write_text("[]")
    assert named(vae) != name
    assert (tiny().encoding, small().encoding) == ("4cbb9e7dea", "6e6e20e3bb"), "a new one encodes every set anew"


def test_what_the_command_line_has_encoded_training_does_not_encode_again(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(RECIPES, "tiny", nano)
    encoded, encode_clip = [], encoding.encode_clip
    monkeypatch.setattr(encoding, "encode_clip", lambda *given: encoded.append(given[1].key) or encode_clip(*given))
    given = ["--shards", str(folder), "--cache", str(tmp_path / "cache"), "--device", "cpu"]
    assert main(["encode", *given, "--workers", "1"]) == 0
    assert sorted(encoded) == ["video0-0000", "video1-0000", "video2-0000"]
    assert "0 clips cannot be used" in capsys.readouterr().err
    more = ["--out", str(tmp_path / "run"), "--stages", "0", "--workers", "0", "--held-out", "2", "--stop-after", "1"]
    assert main(["train", *given, *more]) == 0
    assert len(encoded) == 3 and (tmp_path / "run" / "stage0" / "step-00000001.pt").exists()
    assert main(["encode", *given]) == 0
    assert len(encoded) == 3
