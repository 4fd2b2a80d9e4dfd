"""What the run learned, on clips that it never saw: each measure after one step of every stage, and after all of them.

Controls: another's sound in the place of the video's own; the true motion tokens in the place of the prior's.
"""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mcdm import diffusion, evaluate, measures
from mcdm.checkpoint import learned
from mcdm.config import Recipe, tiny
from mcdm.course import Data, Options, make_objective, train
from mcdm.data import collate
from mcdm.diffusion import draw_normal
from mcdm.encode import Encoded
from mcdm.encoders import make_codec
from mcdm.evaluate import EvaluateOptions
from mcdm.generate import State, Talker
from mcdm.held_out import divide
from mcdm.motion import motion_target
from mcdm.objectives import LearnArchive, LearnMotion
from mcdm.shards import Shards
from mcdm.sketch import counted
from mcdm.truth import Truth
from pipeline.override import override

FRAMES = 200
VIDEOS = 11
KEPT = (
    *("ssim", "mouth_and_true_mouth", "mouth_and_true_mouth_shuffled", "mouth_and_loudness", "true_mouth_and_loudness"),
    *("motion_cosine", "contrast_kept", "identity_at", "ssim_at", "sync"),
)


class Driven(Talker):
    """A talker whose motion tokens are the true ones: what the denoiser makes of perfect motion."""

    truths: list[Truth]

    def _move(self, state: State, audio: Tensor, heads: Tensor | None) -> Tensor:
        f = self.recipe.frames
        at = np.arange(state.number * f, (state.number + 1) * f)
        rows = [truth.tokens[at.clip(max=len(truth.tokens) - 1)] for truth in self.truths]
        return torch.from_numpy(np.stack(rows)).to(self.device)


def show(options: Namespace) -> dict[str, Any]:
    """Numbers by stage; the whole by `evaluate`, before, after, and for the two controls."""
    before, recipe = options.work / "before", tiny()
    first = override(recipe, *[f"plans.{stage}.steps=1" for stage in range(4)])
    train(first, Options(shards=options.shards, run=before, workers=0, device="cpu"))
    shards = Shards(options.shards)
    division = divide(shards, options.run)
    held_out = {"clips": len(division.held_out), "of": len(shards.clips), "by": division.by}
    data = Data(shards, division, Encoded(f"{shards.url}/encoded", recipe.encoding))
    found: dict[str, Any] = {"held_out": held_out, "frames": FRAMES}
    stages: dict[str, Callable[[Recipe, Path, Data], Any]] = {
        "stage 0, share of lip and face motion that the decoder gives back": motion_explained,
        "stage 1, the clip after the archived one": next_clip,
    }
    for name, measure in stages.items():
        found[name] = {"before": measure(recipe, before, data), "after": measure(recipe, options.run, data)}
    ways: dict[str, dict[str, Any]] = {
        "before": {"run": before, "name": "eval-before"},
        "after": {"run": options.run, "name": "eval"},
        "after, with another's sound": {"run": options.run, "name": "eval-shuffled", "shuffle_sound": True},
    }
    for name, way in ways.items():
        asked = EvaluateOptions(
            shards=options.shards, frames=FRAMES, n_videos=VIDEOS, sync="sample/sync", device="cpu", **way
        )
        found[f"whole, {name}"] = kept(evaluate.evaluate(asked)["mean"])
    found["stage 3, true motion tokens"] = {
        "before": driven(before, shards, options),
        "after": driven(options.run, shards, options),
    }
    return found


def kept(mean: dict[str, Any]) -> dict[str, Any]:
    return {name: mean[name] for name in KEPT if mean.get(name) not in (None, {})}


@torch.no_grad()
def motion_explained(recipe: Recipe, run: Path, data: Data) -> float:
    """One minus the error of lip and face motion over its size, on 16 held-out windows."""
    objective = make_objective(0, recipe, run)
    assert isinstance(objective, LearnMotion)
    objective.motion.load_state_dict(learned(run, 0, recipe))
    drawn = collate([data.windows(objective, data.division.held_out, 0)[number] for number in range(16)])
    objective.eval()
    size = torch.cat(motion_target(drawn.tensors["face"], drawn.tensors["points"]), 2).abs().mean()
    return 1 - float(objective.loss(drawn.tensors).parts["self"] / size)


@torch.no_grad()
def next_clip(recipe: Recipe, run: Path, data: Data) -> dict[str, float]:
    """64 held-out present clips made from their archived clip and reference, without motion tokens.

    SSIM, and the share explained of what differs from the reference with its head where it was last seen: one minus
    error over difference in pixels, squared and absolute, where the recipe paints.
    """
    objective = make_objective(1, recipe, run)
    assert isinstance(objective, LearnArchive)
    objective.denoiser.load_state_dict(learned(run, 1, recipe))
    objective.eval()
    windows = data.windows(objective, data.division.held_out, 0)
    rows = collate([windows[number] for number in range(64)]).to(torch.device("cpu")).tensors
    denoiser, config = objective.denoiser, recipe.unet
    past, x = denoiser.archive(rows["reference"], rows["archived"]), rows["present"]
    base, gate = objective.base(rows)
    beside = denoiser.beside(rows["reference"], rows["archived"], base, x.shape[1])
    z = draw_normal(rows["seed"], 0, tuple(x.shape[1:]), x.device)
    steps = denoiser.schedule.timesteps(config.sampling_steps)
    for t, t_next in zip(steps, [*steps[1:], -1], strict=True):
        at = torch.full((len(z),), t)
        answer, _ = denoiser(z, at, past, None, beside=beside, gate=gate)
        clean, eps = diffusion.split(denoiser.schedule, config.prediction, z, answer, at)
        z = diffusion.ddim_step(denoiser.schedule, clean, eps, t_next)
    codec = make_codec(recipe.codec)
    z = denoiser.unwrap(z, base)
    true, made, known = (codec.decode(one.flatten(0, 1)) for one in (x, z, base.expand_as(x)))
    pictures = [((one + 1) * 127.5).byte().permute(0, 2, 3, 1).numpy() for one in (true, made)]
    side = recipe.codec.size_px
    where = counted(rows["head"][:, -x.shape[1] :], side, 0.0, gate).flatten(0, 1)
    off, before = ((one - true) * where.sqrt() for one in (made, known))
    return {
        "ssim": float(measures.ssim(*pictures).mean()),
        "explained": float(1 - off.square().sum() / before.square().sum()),
        "explained_absolute": float(1 - (off.abs() * where.sqrt()).sum() / (before.abs() * where.sqrt()).sum()),
    }


def driven(run: Path, shards: Shards, options: Namespace) -> dict[str, float]:
    """SSIM and mouth of videos whose motion tokens are the true ones."""
    talker = Driven(run, torch.device("cpu"))
    asked = EvaluateOptions(run=run, shards=options.shards, frames=FRAMES, n_videos=VIDEOS, face_pack="")
    talker.truths = list(evaluate.held_out_truths(shards, talker, asked))
    videos = evaluate.roll_out(talker, talker.truths, asked)
    numbers = evaluate.mean_of([evaluate.of_video(truth, made, {}) for truth, made in videos])
    return {name: numbers[name] for name in KEPT[:3]}
