"""What would keep a GPU waiting or its memory full, told on a processor by the operations that are asked for."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.utils import _to_kwargs
from torch.utils._python_dispatch import TorchDispatchMode

from mcdm import diffusion
from mcdm.course import readers
from mcdm.data import Drawn
from mcdm.distributed import World
from mcdm.memory import MemoryAttention
from mcdm.motion import Motion
from mcdm.objectives import LearnArchive, LearnMotion, LearnPresent, LearnPrior
from mcdm.train import Loop, LoopOptions
from mcdm.unet import CrossAttention
from tests.mcdm.nano import SEEING, nano, random_batch

CPU, SHAPES = torch.device("cpu"), torch.device("meta")


class Calls(TorchDispatchMode):
    """Inside, notes each operation by name, with the shape of the tensor that it begins with."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        first = tuple(args[0].shape) if args and isinstance(args[0], Tensor) else ()
        self.seen.append((func.overloadpacket.__name__, first))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("stage", range(4))
def test_nothing_of_a_step_is_looked_at_before_all_of_it_is_asked_for(tmp_path, stage, monkeypatch):
    """On a device of shapes alone there are no numbers to look at; rows go there as DDP and FSDP take them along."""
    recipe = nano(**SEEING, mouth_weight=1.0)
    motion, denoiser = Motion(recipe.motion), LearnArchive(recipe).denoiser.state_dict()
    objective = (
        lambda: LearnMotion(recipe),
        lambda: LearnArchive(recipe),
        lambda: LearnPrior(recipe, motion),
        lambda: LearnPresent(recipe, motion, denoiser),
    )[stage]()
    drawn = Drawn(random_batch(recipe, 1), ["clip"])
    monkeypatch.setattr("mcdm.train.step_flops", lambda *_: 0.0)
    loop = Loop(objective, None, drawn, LoopOptions(run=tmp_path, micro_batch=1), World(0, 1, CPU))
    objective.to(SHAPES)
    loop.wrapped = lambda *given: objective(*_to_kwargs(given, {}, SHAPES, False)[0][0])
    went = loop._accumulate(iter([drawn, drawn]))
    assert went.keys == ["clip", "clip"] and all(rows.is_meta for _, rows in went.rows) and len(went.rows) == 2
    assert all(p.grad is not None and p.grad.is_meta for p in objective.model.parameters() if p.requires_grad)


def test_what_a_schedule_needs_is_copied_to_a_device_once():
    schedule = diffusion.make_schedule("cosine")
    x, t = torch.empty(2, 3, device=SHAPES), torch.empty(2, dtype=torch.long, device=SHAPES)
    diffusion.add_noise(schedule, x, x, t)
    with Calls() as calls:
        diffusion.add_noise(schedule, x, x, t)
        diffusion.target(schedule, "v", x, x, t)
        diffusion.loss_weight(schedule, "v", t, 5.0)
    assert calls.seen and not [name for name, _ in calls.seen if name == "_to_copy"]


@pytest.mark.parametrize("prediction", ["eps", "x0"])
def test_a_target_that_is_there_already_is_not_computed(prediction):
    x, eps, t, schedule = torch.randn(2, 3), torch.randn(2, 3), torch.tensor([1, 2]), diffusion.make_schedule("cosine")
    with Calls() as calls:
        assert diffusion.target(schedule, prediction, x, eps, t) is {"eps": eps, "x0": x}[prediction]
    assert not calls.seen


def test_queries_keys_and_values_share_one_copy_in_half_precision():
    x = torch.randn(2, 5, 16, requires_grad=True)
    features = torch.randn(1, 4, 3, 16, requires_grad=True)  # (b, f, s, c)
    own = CrossAttention(16, 16, 2)
    memory = MemoryAttention(16, 2, 4, decay=0.1, mode="exact", features=8, zero_init=False, use=True)
    with torch.autocast("cpu", torch.bfloat16), Calls() as calls:
        own(x)
        memory(features, features, None)
    casts = [shape for name, shape in calls.seen if name == "_to_copy"]
    assert casts.count((2, 5, 16)) == 1
    assert casts.count((3, 8, 16)) == 1 and (3, 4, 16) not in casts, "of eight frames the last four ask"
    with Calls() as calls:
        own(x)
        memory(features, features, None)
    assert not [shape for name, shape in calls.seen if name == "_to_copy" and 16 in shape], "without autocast none"


def test_a_gpu_is_read_for_by_four_as_far_as_there_are_cores(monkeypatch):
    gpu = torch.device("cuda")
    for cores, processes, expected in ((16, 2, 4), (16, 8, 2), (4, 8, 1)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert (readers(gpu), readers(CPU)) == (expected, 1)
