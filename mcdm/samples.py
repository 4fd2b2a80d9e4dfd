"""What stage 3 has learned so far, made with its newest checkpoint: a short roll-out of held-out clips, as `generate`
would make it, in a few numbers and a strip of pictures."""

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from manifests.store import mendable
from mcdm.evaluate import EvaluateOptions, Made, held_out_truths, mean_of, of_video, roll_out
from mcdm.faces import Bytes
from mcdm.generate import Talker
from mcdm.shards import Shards
from mcdm.truth import Truth

log = logging.getLogger("mcdm")

_VIDEOS, _FRAMES = 2, 100
_SHOWN, _SHOWN_PX = 8, 128
"""Pictures of a video in a strip, and the side of each."""

_NUMBERS = ("ssim", "mouth_and_true_mouth", "mouth_and_true_mouth_shuffled", "mouth_and_loudness", "contrast_kept")


def make_samples(run: Path, shards: Shards, device: torch.device, step: int, *, bf16: bool = False) -> dict[str, float]:
    """Write `<run>/samples/stage3-<step>.png`, the made pictures above the true ones; means over the videos by name.

    Nothing, but a line that says why, where it cannot be: training goes on, and its random state is as it was.
    """
    cuda = device.type == "cuda"
    told: tuple[type[Exception], ...] = (torch.OutOfMemoryError, *mendable())
    try:
        with torch.random.fork_rng([device] if cuda else []):
            videos = _rolled_out(run, shards, device, bf16=bf16)
        path = run / "samples" / f"stage3-{step:06d}.png"
        path.parent.mkdir(exist_ok=True)
        _, png = cv2.imencode(".png", cv2.cvtColor(strip(videos), cv2.COLOR_RGB2BGR))
        path.write_bytes(png.tobytes())  # `cv2.imwrite` does not raise where the disk does not take it
    except told as error:
        log.warning("stage 3 step %d: no samples: %s", step, str(error).partition("\n")[0])
        return {}
    finally:
        if cuda:
            torch.cuda.empty_cache()  # what the roll-out took is training's again
    means = mean_of([of_video(truth, made, {}) for truth, made in videos])
    return {name: means[name] for name in _NUMBERS}


def _rolled_out(run: Path, shards: Shards, device: torch.device, *, bf16: bool) -> list[tuple[Truth, Made]]:
    """In a function of its own, at whose end the models are gone from the device."""
    options = EvaluateOptions(run=run, shards=shards.url, n_videos=_VIDEOS, frames=_FRAMES, face_pack="")
    talker = Talker(run, device, bf16=bf16)
    return list(roll_out(talker, held_out_truths(shards, talker, options), options))


def strip(videos: list[tuple[Truth, Made]]) -> Bytes:
    """Two rows for every video, made above true, of pictures at equal distances in time: one RGB picture."""
    rows: list[Any] = []
    for truth, made in videos:
        at = np.linspace(0, len(truth.pictures) - 1, _SHOWN).round().astype(int)
        rows += [np.concatenate(list(pictures[at]), 1) for pictures in (made.shown(), truth.pictures)]
    size = (_SHOWN * _SHOWN_PX, len(rows) * _SHOWN_PX)
    shrinks = len(videos[0][0].pictures[0]) > _SHOWN_PX
    way = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(np.concatenate(rows), size, interpolation=way), np.uint8)
