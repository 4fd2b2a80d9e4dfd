"""An evaluation of what is short, cut short or in part not there."""

import json

import pytest

from mcdm import evaluate
from mcdm.__main__ import main
from mcdm.course import Options, train
from mcdm.evaluate import mean_of
from tests.mcdm.nano import nano_of
from tests.mcdm.shards import write_shards


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    shards = write_shards(folder, people=3, clips=1, n_frames=40)
    train(nano_of(1), Options(shards=str(shards), run=folder / "run", workers=0, device="cpu", held_out=2))
    return folder


def test_videos_too_short_for_sync_have_none_and_encoders_are_made_once_for_all(world, monkeypatch):
    made, make_audio = [], evaluate.make_audio
    monkeypatch.setattr(evaluate, "make_audio", lambda config: made.append(config) or make_audio(config))
    with (world / "run" / "log.jsonl").open("a") as log:
        log.write('{"stage": 3, "st')  # a run that was killed as it wrote
    given = ["evaluate", "--run", world / "run", "--shards", world / "shards", "--device", "cpu", "--frames", "3"]
    given += ["--splits", "train,test", "--face-pack", "none", "--sync", "sample/sync"]
    assert main([str(word) for word in given]) == 0
    result = json.loads((world / "run" / "eval.json").read_text())
    assert len(result["videos"]) == 3 and len(made) == 1
    assert not any("sync" in one for one in (result["mean"], *result["videos"]))
    assert result["not_measured"]["sync"] == "all videos are too short"
    assert (world / "run" / "eval.html").read_text().count("data:image/png;base64,") == 2, "SSIM, and the losses"


def test_means_are_over_the_videos_that_have_a_number_whichever_comes_first():
    assert mean_of([{"a": 1}, {"a": 3, "sync": {"made": 4.0}}, {"b": None}]) == {"a": 2.0, "sync": {"made": 4.0}}
