"""One process or many: DDP under `torchrun`, FSDP2 for models that do not fit, the same code for one."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mcdm.precision import Precision, takes_bf16
from mcdm.prior import CausalBlock, TemporalBlock
from mcdm.unet import Block, ResBlock
from stages.cuda import torch_device


@dataclass(frozen=True)
class World:
    """Which process this is, of how many, and the device it computes on."""

    rank: int
    size: int
    device: torch.device


def start(device: str = "auto", precision: Precision = "auto") -> World:
    """Join the process group that `torchrun` (or Ray Train) describes in the environment; alone, there is none. On a
    GPU float32 is computed with TF32, except where it is the `precision` that is asked for.

    Raises `ValueError` for a device that is not there or that torch cannot use, and for more processes than GPUs.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"--device {device}: expected auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no GPU here")
    if device == "auto" and not torch.cuda.is_available():
        try:
            torch_device("auto", gpus=1)
        except ValueError as error:  # the driver has one: torch would go on unseen, at the price of the GPU
            raise ValueError(f"{error}; --device cpu does without") from error
    cuda = torch.cuda.is_available() if device == "auto" else device == "cuda"
    chosen = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda and local >= torch.cuda.device_count():
        raise ValueError(f"process {local + 1} of this machine has no GPU: there are {torch.cuda.device_count()}")
    if cuda:
        torch.cuda.set_device(chosen)
        exact = precision == "fp32"  # as a processor: TF32 has 11 bits of the 24
        torch.set_float32_matmul_precision("highest" if exact else "high")
        torch.backends.cudnn.allow_tf32 = not exact
        # the motion encoders' layers: fused, which they are out of training, their GELU is another on a GPU (tanh)
        torch.backends.mha.set_fastpath_enabled(False)
    if "RANK" in os.environ and not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo")
    if not dist.is_initialized():
        return World(0, 1, chosen)
    return World(dist.get_rank(), dist.get_world_size(), chosen)


def described(device: torch.device, precision: Precision) -> str:
    """What networks compute on and in, in words."""
    on = f"cuda, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else "the processor"
    return f"{on}, {'bf16' if takes_bf16(precision, device) else 'fp32'}"


def start_alone(command: str, device: str, precision: Precision = "auto") -> World:
    """`start` for what one process does. Raises `ValueError` under `torchrun` with several, who would all do it."""
    size = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
    if size > 1:
        raise ValueError(f"{command} is the work of one process, and torchrun started {size}: start it without")
    return start(device, precision)


def wrap(objective: nn.Module, world: World, *, sharded: bool) -> nn.Module:
    """DDP, or FSDP2 over all processes with `sharded`; the objective itself where it is alone."""
    if sharded:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        if not dist.is_initialized():
            raise ValueError("FSDP needs a process group: start it with torchrun")
        mesh = init_device_mesh(world.device.type, (world.size,))
        for part in objective.modules():
            if isinstance(part, (Block, ResBlock, CausalBlock, TemporalBlock)):
                fully_shard(part, mesh=mesh)
        fully_shard(objective, mesh=mesh)
        if world.device.type == "cpu":
            for part in objective.modules():
                if isinstance(part, FSDPModule):  # gloo takes a reduce-scatter of means for one of sums, and is silent
                    part.set_force_sum_reduction_for_comms(enable=True)
        return objective
    if world.size == 1:
        return objective
    ids = [world.device.index] if world.device.type == "cuda" else None
    return DistributedDataParallel(objective, device_ids=ids, gradient_as_bucket_view=True)  # gradients lie there once


def share_weights(wrapped: nn.Module) -> None:
    """Under FSDP: let go of weights that a `forward` without a backward has left gathered; what is written into those
    would be lost."""
    from torch.distributed.fsdp import FSDPModule

    for part in wrapped.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


@contextmanager
def hold_gradients(wrapped: nn.Module) -> Iterator[None]:
    """While it accumulates: do not exchange gradients yet. Under FSDP too every process then keeps them whole."""
    from torch.distributed.fsdp import FSDPModule

    if isinstance(wrapped, DistributedDataParallel):
        with wrapped.no_sync():
            yield
    elif isinstance(wrapped, FSDPModule):
        wrapped.set_requires_gradient_sync(False)
        yield
        wrapped.set_requires_gradient_sync(True)
    else:
        yield


def total(value: Tensor, world: World) -> Tensor:
    """The sum over all processes."""
    if world.size > 1:
        dist.all_reduce(value)
    return value


def anywhere(holds: Callable[[], bool], world: World) -> bool:
    """Whether it holds on any process."""
    if world.size == 1:
        return holds()
    return bool(total(torch.tensor(float(holds()), device=world.device), world))


def gather(value: Tensor, world: World) -> Tensor:
    """The rows of all processes, which have equally many, in the order of ranks."""
    if world.size == 1:
        return value
    found = [torch.empty_like(value) for _ in range(world.size)]
    dist.all_gather(found, value.contiguous())
    return torch.cat(found)


def gather_names(names: list[str], world: World) -> list[str]:
    """The names of all processes."""
    if world.size == 1:
        return names
    found: list[list[str]] = [[] for _ in range(world.size)]
    dist.all_gather_object(found, names)
    return [name for part in found for name in part]


def barrier(world: World) -> None:
    """Wait for all processes."""
    if world.size > 1:
        dist.barrier()


@contextmanager
def together(world: World, longest: timedelta = timedelta(days=7)) -> Iterator[None]:
    """Leave the block when all processes have come to its end. The work inside may take hours longer on one than on
    another: they wait in a group of their own, while in all others a hang is still noticed within minutes."""
    if world.size == 1:
        yield
        return
    group = dist.new_group(backend="gloo", timeout=longest)
    yield
    dist.barrier(group)
    dist.destroy_process_group(group)
