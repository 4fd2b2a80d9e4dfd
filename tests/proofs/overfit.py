"""Each stage on one batch, with fresh noise at every step: the loss over fixed noise before and after."""

from argparse import Namespace
from dataclasses import replace
from typing import Any

import torch

from mcdm.config import tiny
from mcdm.course import Data, make_objective
from mcdm.data import Drawn, collate
from mcdm.encode import Encoded
from mcdm.held_out import divide
from mcdm.objectives import Objective
from mcdm.shards import Shards

STEPS = 300
ROWS = 2
LOOKS = 8
"""Draws of noise that the loss is averaged over, before and after."""


def show(options: Namespace) -> dict[str, Any]:
    """Stages 2 and 3 stand on the run's stages 0 and 1."""
    recipe, shards = tiny(), Shards(options.shards)
    data = Data(shards, divide(shards, options.run), Encoded(f"{shards.url}/encoded", recipe.encoding))
    found: dict[str, Any] = {"steps": STEPS, "rows": ROWS}
    for stage in range(4):
        objective = make_objective(stage, recipe, options.run)
        windows = data.windows(objective, data.division.train, 0)
        drawn = collate([windows[number] for number in range(ROWS)]).to(torch.device("cpu"))
        found[f"stage {stage}"] = overfit(objective, drawn)
    return found


def overfit(objective: Objective, drawn: Drawn) -> dict[str, float]:
    """Loss of the batch before and after `STEPS` steps on nothing else."""
    learning = [p for p in objective.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0)
    before = look(objective, drawn)
    objective.train()
    for step in range(STEPS):
        optimizer.zero_grad()
        objective.loss(noised(drawn, 1000 + step)).total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
    after = look(objective, drawn)
    return {"loss_before": before, "loss_after": after, "share_left": after / before}


@torch.no_grad()
def look(objective: Objective, drawn: Drawn) -> float:
    """The mean loss over `LOOKS` fixed draws of noise."""
    objective.eval()
    return float(torch.stack([objective.loss(noised(drawn, number)).total for number in range(LOOKS)]).mean())


def noised(drawn: Drawn, number: int) -> dict[str, torch.Tensor]:
    """The batch with other noise."""
    return replace(drawn, tensors={**drawn.tensors, "seed": drawn.tensors["seed"] // 2 + number}).tensors
