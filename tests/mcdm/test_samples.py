"""What stage 3 shows on its way: when, with which weights, and that training does not notice."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from botocore.exceptions import EndpointConnectionError

from mcdm import checkpoint
from mcdm.cli import main
from mcdm.config import tiny
from mcdm.course import Options, train
from mcdm.samples import make_samples
from mcdm.shards import Shards
from tests.mcdm.nano import nano
from tests.mcdm.shards import write_shards
from tests.mcdm.test_train import flat, options


@pytest.fixture(scope="module", autouse=True)
def _short():
    """A second, a bit longer than the clips, instead of four."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("mcdm.samples._FRAMES", 24)
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Shards and a run of four steps a stage, whose stage 3 is shown at both its checkpoints."""
    folder = tmp_path_factory.mktemp("world")
    shards = str(write_shards(folder, people=3, clips=1, n_frames=20))
    train(nano(), options(shards, folder / "run", samples_every=2))
    return folder


def records(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def pixels(path):
    return cv2.imread(str(path))


def test_stage_3_is_shown_in_numbers_and_pictures_at_its_checkpoints(world):
    shown = [record for record in records(world / "run") if "samples" in record]
    assert [(record["stage"], record["step"]) for record in shown] == [(3, 2), (3, 4)]
    assert {"ssim", "mouth_and_true_mouth", "mouth_and_loudness"} <= shown[0]["samples"].keys()
    assert all(np.isfinite(list(record["samples"].values())).all() for record in shown)
    names = sorted(path.name for path in (world / "run" / "samples").iterdir())
    assert names == ["stage3-000002.png", "stage3-000004.png"]
    first, last = (pixels(world / "run" / "samples" / name) for name in names)
    assert first.shape == last.shape == (2 * 128, 8 * 128, 3), "the one held-out video, made above true"
    assert np.array_equal(first[128:], last[128:]) and not np.array_equal(first[:128], last[:128])
    assert np.abs(first[128:].astype(int) - first[:128]).mean() > 1


def test_samples_are_made_with_the_averaged_weights(world, tmp_path):
    run = shutil.copytree(world / "run", tmp_path / "run")
    path = checkpoint.newest(run, 3)
    saved = torch.load(path, weights_only=True)
    for name in saved["ema"].keys() - {"updates"}:
        saved["model"][name].zero_()
    torch.save(saved, path)
    make_samples(run, Shards(str(world / "shards")), torch.device("cpu"), 9)
    assert np.array_equal(*(pixels(run / "samples" / f"stage3-{step:06d}.png") for step in (4, 9)))


def test_training_is_the_same_to_the_bit_with_samples_and_without(world, tmp_path):
    run = tmp_path / "run"
    for stage in range(3):
        shutil.copytree(world / "run" / f"stage{stage}", run / f"stage{stage}")
    train(nano(), options(str(world / "shards"), run, stages=(3,), samples_every=0))
    assert not (run / "samples").exists()
    one, two = (dict(flat(torch.load(checkpoint.newest(r, 3), weights_only=True))) for r in (world / "run", run))
    assert one.keys() == two.keys()
    assert all(torch.equal(v, two[k]) if isinstance(v, torch.Tensor) else v == two[k] for k, v in one.items())
    losses = [[r["loss"] for r in records(of) if "loss" in r and r["stage"] == 3] for of in (world / "run", run)]
    assert losses[0] == losses[1]
    before = torch.get_rng_state()
    make_samples(run, Shards(str(world / "shards")), torch.device("cpu"), 4)
    assert torch.equal(torch.get_rng_state(), before)


def test_samples_that_cannot_be_made_are_a_line_and_no_end(world, tmp_path, caplog):
    run = shutil.copytree(world / "run", tmp_path / "run")
    (run / "samples" / "stage3-000005.png").mkdir()
    assert make_samples(run, Shards(str(world / "shards")), torch.device("cpu"), 5) == {}
    assert "stage 3 step 5: no samples: [Errno 21]" in caplog.text
    shutil.rmtree(run / "stage2")
    assert make_samples(run, Shards(str(world / "shards")), torch.device("cpu"), 4) == {}
    assert "stage 3 step 4: no samples: stage 2 has no checkpoint" in caplog.text


def test_a_bucket_that_does_not_answer_leaves_no_samples_and_ends_nothing(world, monkeypatch, caplog):
    def gone(*_):
        raise EndpointConnectionError(endpoint_url="http://there")

    monkeypatch.setattr(Shards, "read", gone)
    assert make_samples(world / "run", Shards(str(world / "shards")), torch.device("cpu"), 4) == {}
    assert 'stage 3 step 4: no samples: Could not connect to the endpoint URL: "http://there"' in caplog.text


def test_samples_at_less_than_no_steps_are_refused(tmp_path, capsys):
    assert main(["train", "--shards", "", "--out", str(tmp_path), "--samples-every", "-1"]) == 2
    assert capsys.readouterr().err == "mcdm train: --samples-every -1: expected at least 0\n"


def test_by_default_stage_3_is_shown_five_times_and_no_other():
    plan, given = tiny().plans[3], Options(shards="", run=Path())
    assert [given.steps_between_samples(stage, plan) for stage in range(4)] == [0, 0, 0, 78]
    assert options("", None, samples_every=0).steps_between_samples(3, plan) == 0
