"""One thread each: the tensors here are so small that threads cost more than they give."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mcdm import train
from mcdm.data import Drawn
from mcdm.objectives import Objective
from tests.mcdm.nano import SEEING, nano
from tests.mcdm.world import made_world

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _flops_counted_once() -> Iterator[None]:
    """To count them takes longer than all steps of a tiny model, and they depend on shapes alone."""
    known: dict[object, float] = {}
    count = train.step_flops

    def once(objective: Objective, drawn: Drawn, batch: int) -> float:
        shapes = tuple((name, tensor.dtype, tensor.shape[1:]) for name, tensor in drawn.tensors.items())
        recipe = objective.recipe
        key = (type(objective), recipe.digest, recipe.motion, recipe.unet, shapes, batch)
        if key not in known:
            known[key] = count(objective, drawn, batch)
        return known[key]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(train, "step_flops", once)
        yield


@pytest.fixture(scope="session")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of what `tiny` shows its denoiser."""
    return made_world(tmp_path_factory.mktemp("seeing"), nano(memory_zero_init=False, **SEEING))
