"""Stage 1 of `tiny` from shards for some steps: encoded beforehand or not, read beside or in turn; DDP against one."""

import json
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch

from mcdm.config import Recipe, tiny
from mcdm.course import Options, train
from mcdm.encode import encode
from mcdm.shards import Shards
from pipeline.override import override
from tests.mcdm.processes import run_processes

STEPS = 12
WAYS: dict[str, dict[str, Any]] = {
    "cached, one reader": {"cache": "auto", "workers": 1},
    "cached, read in turn": {"cache": "auto", "workers": 0},
    "no cache, one reader": {"cache": "off", "workers": 1},
    "no cache, read in turn": {"cache": "off", "workers": 0},
}

ONE_OF_TWO = """
import sys, torch
from pathlib import Path
torch.set_num_threads(1)
from mcdm.course import Options, train
from tests.proofs.speed import short
train(short(4), Options(shards=sys.argv[1], run=Path(sys.argv[2]), stages=(1,), workers=0, device="cpu"))
"""


def short(steps: int) -> Recipe:
    """`tiny` with so many steps of stage 1."""
    return override(tiny(), f"plans.1.steps={steps}")


def show(options: Namespace) -> dict[str, Any]:
    """Samples per second, data wait by way of reading; the difference that a second process makes."""
    shutil.rmtree(options.work / "speed", ignore_errors=True)
    shards = Shards(options.shards)
    encode(shards, tiny(), f"{shards.url}/encoded", device=torch.device("cpu"))
    found: dict[str, Any] = {"threads": torch.get_num_threads(), "steps": STEPS, "batch": tiny().plans[1].batch}
    for name, way in WAYS.items():
        run = options.work / "speed" / name.replace(", ", "-").replace(" ", "-")
        train(short(STEPS), Options(shards=options.shards, run=run, stages=(1,), device="cpu", log_every=4, **way))
        found[name] = settled(run / "log.jsonl")
    return {**found, "two processes against one, 4 steps": two_against_one(options, options.work / "speed")}


def settled(log: Path) -> dict[str, float]:
    """Means over the records after the first two, of steps 1 and 2 to 4, which pay for the start."""
    records = [json.loads(line) for line in log.read_text().splitlines()]
    kept = [record for record in records if "samples_per_s" in record][2:]
    names = ("samples_per_s", "data_wait_share", "memory_gb")
    return {name: sum(record[name] for record in kept) / len(kept) for name in names}


def two_against_one(options: Namespace, folder: Path) -> dict[str, float]:
    """Weights after four steps with the global batch on one process, and halved over two (DDP, gloo)."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "train.py"
    script.write_text(ONE_OF_TWO)
    states = []
    for size in (1, 2):
        run_processes(script, Path(options.shards).absolute(), (folder / f"world{size}").absolute(), size=size)
        newest = max((folder / f"world{size}" / "stage1").glob("*.pt"))
        states.append(torch.load(newest, weights_only=True)["model"])
    one, two = states
    apart = max(float((one[name].float() - two[name].float()).abs().max()) for name in one)
    largest = max(float(value.float().abs().max()) for value in one.values())
    return {"largest_difference_of_a_weight": apart, "largest_weight": largest}
