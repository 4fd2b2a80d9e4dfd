"""What a user's disk, settings and clips may be like, told before it costs or in one line."""

import json
import logging
import resource

import pytest
import torch

from mcdm import checkpoint
from mcdm.config import CodecConfig
from mcdm.course import Options, train
from mcdm.eval_page import write_page
from stages.tars import write_tar
from tests.mcdm.nano import nano_of
from tests.mcdm.shards import members


@pytest.mark.parametrize("count", [1, 20])
def test_a_disk_that_is_full_at_a_checkpoint_is_named_and_the_checkpoint_before_stays(tmp_path, count):
    before = checkpoint.write(tmp_path, {"stage": 1, "step": 1, "model": {}})
    saved = {"stage": 1, "step": 2, "model": {str(n): torch.zeros(100_000 // count) for n in range(count)}}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"step-00000002\.pt cannot be written: .*File too large"):
            checkpoint.write(tmp_path, saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "stage1").iterdir()) == [before]


def test_pictures_that_cannot_become_video_are_refused_before_anything_is_trained():
    with pytest.raises(ValueError, match=r"codec\.size_px=75: expected an even number"):
        CodecConfig(kind="dct", size_px=75, factor=5, channels=24)


def test_clips_that_are_too_short_for_a_stage_are_counted(tmp_path, caplog):
    (tmp_path / "shards").mkdir()
    lengths = {0: 14, 1: 12, 2: 14}
    made = [
        (f"video{who}-0000", members(who, n, who, "test" if who == 2 else "train", "", False))
        for who, n in lengths.items()
    ]
    write_tar(tmp_path / "shards" / "a.tar", made)
    options = Options(
        shards=str(tmp_path / "shards"), run=tmp_path / "run", stages=(0,), device="cpu", workers=0, cache="off",
        held_out=1,
    )  # fmt: skip
    with caplog.at_level(logging.INFO, "mcdm"):
        train(nano_of(1), options)
    assert (
        "stage 0: 1 of 2 clips are shorter than the 13 frames that it takes, and are not trained on" in caplog.messages
    )
    assert json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])["step"] == 1


def test_a_page_that_the_disk_does_not_take_leaves_the_one_before(tmp_path):
    (tmp_path / "eval.html").write_text("before")
    result = {"recipe": "nano", "mean": {}, "frechet": {}, "not_measured": {}, "videos": []}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_page(tmp_path / "eval.html", result, [("video0", bytes(300_000))], tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "eval.html").read_text() == "before"
