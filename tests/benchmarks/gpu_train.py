"""The trainer on a GPU: steps of its own loop in bfloat16, and every stage's loss held against a processor's."""

import dataclasses
import json
import statistics
from typing import Any

import torch
from torch import Tensor

from mcdm import distributed
from mcdm.config import RECIPES, Recipe
from mcdm.course import readers
from mcdm.data import Drawn, RandomWindows, collate
from mcdm.objectives import Batch, Objective
from mcdm.precision import autocast
from mcdm.train import Loop, LoopOptions, step_flops
from stages.cuda import exactly
from tests.benchmarks.gpu_parts import Given
from tests.benchmarks.record import Findings
from tests.mcdm.nano import nano, random_batch
from tests.mcdm.test_model import objectives

STAGES = (0, 1, 2, 3)
_READY = 32
_EVERY = 10
_HELD_OUT = 4


class _Drawn(RandomWindows):
    """In place of windows of clips, random numbers of their shapes, ready in memory."""

    def __init__(self, recipe: Recipe, needs: tuple[str, ...], seed: int) -> None:
        batch = random_batch(recipe, _READY, seed)
        self.seed, self._batch = seed, {name: batch[name] for name in needs}

    def __getitem__(self, number: int) -> tuple[dict[str, Tensor], str, list[tuple[str, str]]]:
        row = {name: member[number % _READY] for name, member in self._batch.items()}
        return {**row, "seed": torch.tensor(number)}, str(number), []

    def __len__(self) -> int:
        return _READY


def steps(given: Given, stage: int) -> Findings:
    """Samples per second, MFU and memory of one stage."""
    recipe = {**RECIPES, "nano": nano}[given.size.recipe]()
    plan = dataclasses.replace(recipe.plans[stage], steps=given.size.steps)
    recipe = dataclasses.replace(recipe, plans=(plan, plan, plan, plan))
    world = distributed.start(given.device)
    torch.manual_seed(0)
    objective = made(recipe, stage)
    windows = _Drawn(recipe, objective.needs, 0)
    held_out: Drawn = collate([windows[number] for number in range(_HELD_OUT)])
    options = LoopOptions(
        run=given.folder,
        bf16=True,
        workers=readers(world.device),
        log_every=_EVERY,
        save_every=plan.steps,
        validate_every=plan.steps,
    )
    Loop(objective, windows, held_out, options, world).run()
    log = [json.loads(line) for line in (given.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    records: list[dict[str, Any]] = [one for one in log if "loss" in one][1:]
    later = records[1:] or records  # the second record still has what is planned at the first steps
    numbers: dict[str, Any] = {
        "recipe, batch": f"{recipe.name}, {plan.batch}",
        "T operations of a step": step_flops(objective, held_out, plan.batch) / 1e12,
        **{
            name: statistics.median(one[name] for one in later)
            for name in ("samples_per_s", "mfu", "data_wait_share")
            if name in later[0]
        },
        "memory_gb": records[-1]["memory_gb"],
        "losses are finite": all(torch.isfinite(torch.tensor(one["loss"])).item() for one in records),
    }
    return Findings(numbers=numbers)


def made(recipe: Recipe, stage: int) -> Objective:
    """A stage's objective with random weights, on random ones of the stages before."""
    found: Objective = objectives(recipe)[stage]  # type: ignore[no-untyped-call]
    return found


def loss_on(recipe: Recipe, stage: int, device: str, *, bf16: bool = False) -> float:
    """The loss of a random batch, with weights that are the same on every device."""
    torch.manual_seed(0)
    objective, where = made(recipe, stage).to(device), torch.device(device)
    batch: Batch = Drawn(random_batch(recipe), []).to(where).tensors
    with torch.no_grad(), exactly(), autocast(where, bf16=bf16):
        return float(objective.loss(batch).total)


def compared(given: Given) -> Findings:
    """Relative differences of each stage's loss, in float32 and in bfloat16, from the processor's in float32."""
    numbers = {}
    for stage in STAGES:
        exact = loss_on(nano(), stage, "cpu")
        for name, bf16 in (("float32", False), ("bfloat16", True)):
            found = loss_on(nano(), stage, given.device, bf16=bf16)
            numbers[f"stage {stage}, {name}: relative difference of the loss"] = abs(found - exact) / abs(exact)
    return Findings(numbers=numbers)
