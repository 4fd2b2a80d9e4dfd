"""The paper's claims at small scale: archived clip and memory taken away, trained anew each time, three seeds.

Scale: `tiny` with a UNet of 32 and 64 channels and short plans, stage 3 over two clips in a row with the memory carried
over; stages 0 and 2 are those of the run. Without archive: the archived clip is always the reference repeated, in
training and in use; so it learns one clip at a time, as the second of a row is seen with the first whatever that began
with, and has no loss there. Without memory: temporal attention over the present clip alone. One clip at a time: nothing
in training asks what a memory of several clips is good for. Beyond the end of a held-out clip its sound and its true
pictures start over. The loss is of held-out windows, over two clips in a row.
"""

import json
import os
import shutil
import statistics
from argparse import Namespace
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from mcdm import checkpoint
from mcdm.config import Recipe, tiny
from mcdm.course import Data, Options, cache_url, make_objective, train
from mcdm.data import collate
from mcdm.encode import Encoded
from mcdm.evaluate import EvaluateOptions, evaluate
from mcdm.held_out import divide
from mcdm.shards import Shards
from pipeline.override import override

SEEDS = (0, 1, 2)
FRAMES, VIDEOS, WINDOWS = 1800, 2, 64
LOSSES = ("held-out loss, a clip", "held-out loss, the clip after it")
SCALE = [
    *("unet.channels=32,64", "unet.sampling_steps=1", "prior.sampling_steps=5"),
    *("plans.1.steps=120", "plans.3.steps=80", "unet.unroll=2"),
]
NO_ARCHIVE = "without archived clip"
VARIANTS = {
    "full": [],
    NO_ARCHIVE: ["archive.start_share=1.0", "unet.unroll=1"],
    "without memory": ["unet.use_memory=false"],
    "memory, but one clip at a time in training": ["unet.unroll=1"],
}


def show(options: Namespace) -> dict[str, Any]:
    """Means and spread over seeds of SSIM and identity at each horizon, and of the held-out loss. As many runs side by
    side as there are cores, a thread each. Finished ones are taken from `--work`.
    """
    found: dict[str, Any] = {"scale": SCALE, "frames": FRAMES, "videos": VIDEOS, "seeds": SEEDS}
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        made = {(name, seed): pool.submit(one, options, name, seed) for seed in SEEDS for name in VARIANTS}
    for name in VARIANTS:
        runs = [made[name, seed].result() for seed in SEEDS]
        found[name] = {
            measure: {at: spread([run[measure].get(at) for run in runs]) for at in ("30", "300", "1800")}
            for measure in ("ssim_of_repeated_truth_at", "identity_at")
        }
        for one_number in ("contrast_kept", *LOSSES):
            found[name][one_number] = spread([run[one_number] for run in runs])
    return found


def spread(values: list[float | None]) -> dict[str, Any]:
    """Mean and every seed's value."""
    known = [value for value in values if value is not None]
    return {"mean": statistics.mean(known), "by_seed": known} if known else {"mean": None}


def one(options: Namespace, name: str, seed: int) -> dict[str, Any]:
    """Train one variant with one seed and measure it."""
    recipe = override(tiny(), *SCALE, *VARIANTS[name])
    run = options.work / "ablations" / f"{name.replace(',', '').replace(' ', '-')}-{seed}"
    done = run / "eval.json"
    if not done.exists():
        shutil.rmtree(run, ignore_errors=True)
        borrow(options.run, run, recipe)
        shutil.copy(options.run / "held_out.json", run / "held_out.json")
        train(recipe, Options(shards=options.shards, run=run, stages=(1, 3), seed=seed, workers=0, device="cpu"))
        asked = EvaluateOptions(
            run=run,
            shards=options.shards,
            frames=FRAMES,
            n_videos=VIDEOS,
            seed=seed,
            use_archive=name != NO_ARCHIVE,
            carry_memory=name != "without memory",
            device="cpu",
        )
        evaluate(asked)
    mean: dict[str, Any] = json.loads(done.read_text())["mean"]
    first, after = held_out_losses(options.shards, run, recipe)
    return mean | dict(zip(LOSSES, (first, None if name == NO_ARCHIVE else after), strict=True))


@torch.no_grad()
def held_out_losses(url: str, run: Path, recipe: Recipe) -> tuple[float, float]:
    """Of stage 3, on fixed windows of two clips with fixed noise: of the first clip, and of the one after it."""
    recipe, shards = override(recipe, "unet.unroll=2"), Shards(url)
    objective = make_objective(3, recipe, run)
    objective.model.load_state_dict(checkpoint.learned(run, 3, recipe))
    encoded = Encoded(cache_url(shards, "auto"), recipe.encoding)
    division = divide(shards, run)
    windows = Data(shards, division, encoded).windows(objective, division.held_out, seed=0)
    fixed = collate([windows[number] for number in range(WINDOWS)]).to(torch.device("cpu")).tensors
    both = float(objective.eval().loss(fixed).total)
    objective.clips = 1
    first = float(objective.loss(fixed).total)
    return first, 2 * both - first


def borrow(source: Path, run: Path, recipe: Recipe) -> None:
    """Stages 0 and 2 of a finished run, under the name of another recipe: their models do not depend on the UNet."""
    for stage in (0, 2):
        path = checkpoint.newest(source, stage)
        assert path is not None
        saved = torch.load(path, weights_only=True)
        saved |= {"recipe": recipe.name, "digest": recipe.digest}
        saved["step"] = recipe.plans[stage].steps
        checkpoint.write(run, saved)
