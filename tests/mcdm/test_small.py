"""The recipe `small` at its own size on a processor: two steps of every stage, and two clips of video out of it."""

import json

import av
import cv2
import pytest

from mcdm.cli import main
from tests.mcdm.shards import draw, person, speech, wav, write_shards

SHORT = [
    *(f"plans.{stage}.steps=2" for stage in range(4)),
    *("plans.0.batch=4", "plans.1.batch=1", "plans.2.batch=2", "plans.3.batch=1", "prior.sampling_steps=2"),
]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_small_trains_all_stages_and_generates(tmp_path):
    shards, run = write_shards(tmp_path, people=3, clips=1, n_frames=60), tmp_path / "run"
    sets = [word for setting in SHORT for word in ("--set", setting)]
    train = ["train", "--shards", str(shards), "--recipe", "small", "--stages", "0-3", "--out", str(run), *sets]
    few = ["--device", "cpu", "--workers", "0", "--log-every", "1", "--held-out", "2"]
    assert main([*train, *few]) == 0
    logged = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = {(one["stage"], one["step"]) for one in logged if "loss" in one}
    assert steps == {(stage, step) for stage in range(4) for step in (1, 2)}
    assert {one["stage"] for one in logged if "held_out_loss" in one} == set(range(4))
    picture, _ = draw(person(0), 0.3, (0, 0))
    cv2.imwrite(str(tmp_path / "face.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    (tmp_path / "speech.wav").write_bytes(wav(speech(20, 1)[0]))
    given = ["--run", run, "--reference", tmp_path / "face.png", "--audio", tmp_path / "speech.wav"]
    out = tmp_path / "talk.mp4"
    generate = ["generate", *given, "--face-pack", "none", "--steps", "2", "--out", out, "--device", "cpu"]
    assert main([str(word) for word in generate]) == 0
    with av.open(str(out)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(pictures) == 20 and pictures[0].shape == (256, 256, 3)
