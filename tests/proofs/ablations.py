"""The paper's claims at small scale: archived clip and memory taken away, trained anew each time, three seeds.

Scale: `tiny` with a UNet of 32 and 64 channels and short plans, stage 3 over two clips in a row with the memory carried
over; stages 0 and 2 are those of the run. Without archive: the archived clip is always the reference repeated, in
training and in use. Without memory: temporal attention over the present clip alone. Beyond the end of a held-out clip
its sound and its true pictures start over. The loss on held-out windows, with fixed noise, tells apart what generated
pictures do not.
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
from mcdm.config import Recipe, override, tiny
from mcdm.course import Options, train
from mcdm.evaluate import EvaluateOptions, evaluate

SEEDS = (0, 1, 2)
FRAMES, VIDEOS = 1800, 2
SCALE = [
    *("unet.channels=32,64", "unet.sampling_steps=1", "prior.sampling_steps=5"),
    *("plans.1.steps=120", "plans.3.steps=80", "unet.unroll=2"),
]
VARIANTS = {
    "full": [],
    "without archived clip": ["archive.start_share=1.0"],
    "without memory": ["unet.use_memory=false"],
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
        for one_number in ("contrast_kept", "stage 1, held-out loss", "stage 3, held-out loss"):
            found[name][one_number] = spread([run[one_number] for run in runs])
    return found


def spread(values: list[float | None]) -> dict[str, Any]:
    """Mean and every seed's value."""
    known = [value for value in values if value is not None]
    return {"mean": statistics.mean(known), "by_seed": known} if known else {"mean": None}


def one(options: Namespace, name: str, seed: int) -> dict[str, Any]:
    """Train one variant with one seed and measure it."""
    recipe = override(tiny(), [*SCALE, *VARIANTS[name]])
    run = options.work / "ablations" / f"{name.replace(' ', '-')}-{seed}"
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
            use_archive=name != "without archived clip",
            carry_memory=name != "without memory",
            device="cpu",
        )
        evaluate(asked)
    mean: dict[str, Any] = json.loads(done.read_text())["mean"]
    return mean | {f"stage {stage}, held-out loss": held_out_loss(run, stage) for stage in (1, 3)}


def held_out_loss(run: Path, stage: int) -> float:
    """The last one of the log."""
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    found: float = [r["held_out_loss"] for r in records if r["stage"] == stage and "held_out_loss" in r][-1]
    return found


def borrow(source: Path, run: Path, recipe: Recipe) -> None:
    """Stages 0 and 2 of a finished run, under the name of another recipe: their models do not depend on the UNet."""
    for stage in (0, 2):
        path = checkpoint.newest(source, stage)
        assert path is not None
        saved = torch.load(path, weights_only=True)
        saved |= {"recipe": recipe.name, "digest": recipe.digest}
        saved["step"] = recipe.plans[stage].steps
        checkpoint.write(run, saved)
