"""A run that is good for nothing, and what to give it."""

from dataclasses import replace
from pathlib import Path

import cv2

from mcdm.config import Recipe
from mcdm.course import Options, train
from tests.mcdm.nano import nano
from tests.mcdm.shards import draw, person, speech, wav, write_shards


def made_world(folder: Path, recipe: Recipe) -> Path:
    """Shards, a run of a few steps, a picture and a voice."""
    shards = write_shards(folder, people=3, clips=1, n_frames=40)
    plan = replace(nano().plans[0], steps=2)
    given = {"workers": 0, "device": "cpu", "log_every": 1, "held_out": 2, "samples_every": 0}
    train(replace(recipe, plans=(plan,) * 4), Options(shards=str(shards), run=folder / "run", **given))
    picture, _ = draw(person(0), 0.3, (0, 0))
    cv2.imwrite(str(folder / "face.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    (folder / "speech.wav").write_bytes(wav(speech(30, 1)[0]))
    return folder
