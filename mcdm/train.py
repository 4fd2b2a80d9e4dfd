"""The loop, which knows nothing but `objective.loss(batch)`."""

import contextlib
import copy
import logging
import math
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mcdm import checkpoint, distributed
from mcdm.checkpoint import gathered
from mcdm.config import StagePlan
from mcdm.data import DRAWS, Drawn, RandomWindows, batches
from mcdm.distributed import World
from mcdm.ema import Ema
from mcdm.local_weights import digests
from mcdm.log import TrainingLog
from mcdm.objectives import Batch, Loss, Objective
from mcdm.precision import autocast
from mcdm.prior import CausalBlock, TemporalBlock
from mcdm.sigterm import untold
from mcdm.unet import Block, ResBlock, SpatialTransformer

log = logging.getLogger("mcdm")


_MOST_GRAPHS = 64


class NotFiniteError(ValueError):
    """A loss or a gradient that is not finite: which step, which clips."""


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """How the loop runs; see `mcdm.course.Options`."""

    run: Path
    bf16: bool = False
    micro_batch: int = 0
    workers: int = 0
    compiled: bool = False
    sharded: bool = False
    save_every: int = 200
    save_share: float = 0.0  # of the time: a checkpoint that would take more waits; 0: none waits
    log_every: int = 20
    validate_every: int = 100
    samples_every: int = 0  # 0: never
    stop_after: int = 0


@dataclass
class _Went:
    """What went through this process in a step: all clips, those of each micro-batch with `Loss.rows`, and each
    `Loss.seen`. To look at a tensor of it is to wait for the GPU."""

    keys: list[str] = field(default_factory=list)
    rows: list[tuple[list[str], Tensor]] = field(default_factory=list)
    seen: list[Tensor] = field(default_factory=list)


def rate_at(plan: StagePlan, step: int) -> float:
    """Learning rate of a step: linear warm-up, then a cosine to `final_rate` of it."""
    if step < plan.warmup:
        return plan.rate * (step + 1) / plan.warmup
    done = (step - plan.warmup) / max(plan.steps - plan.warmup, 1)
    return plan.rate * (plan.final_rate + (1 - plan.final_rate) * (1 + math.cos(math.pi * done)) / 2)


class Loop:
    """One stage of training: from its newest checkpoint, or from the start, to the end of its plan. `show` makes
    samples with the newest checkpoint, of a step; `told` says whether this process is to end."""

    def __init__(
        self,
        objective: Objective,
        windows: RandomWindows,
        held_out: Drawn,
        options: LoopOptions,
        world: World,
        show: Callable[[int], dict[str, float]] = lambda _: {},
        told: Callable[[], bool] = lambda: False,
    ) -> None:
        recipe, self.told = objective.recipe, told
        self.objective, self.windows, self.options, self.world, self.show = objective, windows, options, world, show
        self.recipe, self.stage, self.plan = recipe, objective.stage, recipe.plans[objective.stage]
        self.share = self.plan.batch // world.size
        self._saved_at, self._save_s = 0.0, 0.0
        self.micro = options.micro_batch or self.share
        self.held_out = held_out.to(world.device)
        flops = step_flops(objective, self.held_out, self.plan.batch)
        objective.to(world.device).train()
        if options.compiled:
            compile_blocks(objective, world.device)
        self.wrapped = distributed.wrap(objective, world, sharded=options.sharded)
        self.learning = [p for p in objective.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.learning,
            lr=self.plan.rate,
            betas=recipe.optimizer.betas,
            weight_decay=recipe.optimizer.weight_decay,
            fused=True,
        )
        self.ema = Ema(objective.model, recipe.optimizer.ema_decay)
        self.ground = checkpoint.ground(options.run, self.stage, recipe)
        self.published = digests(recipe, self.stage)
        self.log = TrainingLog(
            options.run,
            self.stage,
            every=options.log_every,
            steps=self.plan.steps,
            flops=flops,
            world=world,
        )

    def run(self) -> None:
        """Train. Raises `NotFiniteError` before a bad step is taken: the last checkpoint stays good."""
        options = self.options
        with self.log.pause():
            first = self._resume()
            last = min(self.plan.steps, first + options.stop_after) if options.stop_after else self.plan.steps
            with untold():
                stream = batches(
                    self.windows,
                    batch=self.plan.batch,
                    micro=self.micro,
                    first_step=first,
                    steps=last,
                    rank=self.world.rank,
                    world=self.world.size,
                    workers=options.workers,
                    pin=self.world.device.type == "cuda",
                )
        saved = first
        for step in range(first, last):
            ends = self._step(step, stream)
            done = step + 1
            with self.log.pause():
                if done % options.validate_every == 0 or done == self.plan.steps:
                    self.log.write({"stage": self.stage, "step": done, "held_out_loss": self.validate()})
                if ends or done == last or (done % options.save_every == 0 and self._may_save()):
                    self._save(done)
                    every = options.samples_every
                    if every and not ends and (done // every > saved // every or done == self.plan.steps):
                        self._sample(done)
                    saved = done
            if ends:
                break
        self.log.close()

    def _resume(self) -> int:
        path = checkpoint.newest(self.options.run, self.stage)
        if path is None:
            return 0
        saved = checkpoint.read(path, self.recipe, self.stage, mapped=True)  # once a machine, not once a process
        checkpoint.check_seed(path, saved, self.windows.seed)
        checkpoint.check_idle(path, saved, idle=self.objective.idle)
        checkpoint.check_resumable(path, saved, self.objective.model, self.ema)
        self.published |= saved.get("published", {})  # what it started from need not be named again
        log.info("stage %d goes on from %s", self.stage, path)
        if saved.get("draws") != DRAWS:
            log.info("stage %d drew clips and noise as all others did until now, from here on its own", self.stage)
        return checkpoint.restore(saved, self.objective.model, self.ema, self.optimizer)

    def _may_save(self) -> bool:
        """Whether the last checkpoint is long enough ago for what it took, on every process."""
        spent = time.perf_counter() - self._saved_at
        waits = torch.tensor(float(self._save_s > self.options.save_share * spent), device=self.world.device)
        return not self.options.save_share or not float(distributed.total(waits, self.world))

    def _save(self, step: int) -> None:
        began, objective = time.perf_counter(), self.objective
        state, writes = (objective.model, self.ema, self.optimizer), self.world.rank == 0
        saved = checkpoint.contents(self.recipe, self.stage, step, *state, writes=writes)
        saved |= {"seed": self.windows.seed, "draws": DRAWS, "idle": self.objective.idle, "ground": self.ground}
        saved["published"] = self.published
        with distributed.together(self.world):  # 14 GB with `paper`: NCCL gives up waiting after ten minutes
            if writes:
                checkpoint.write(self.options.run, saved)
        self._saved_at = time.perf_counter()
        self._save_s = self._saved_at - began

    def _sample(self, step: int) -> None:
        with distributed.together(self.world):
            if self.world.rank == 0 and (numbers := self.show(step)):
                self.log.write({"stage": self.stage, "step": step, "samples": numbers})

    def _step(self, step: int, stream: Iterator[Drawn]) -> bool:
        """Whether it is the last, as a process was told to end."""
        rate = rate_at(self.plan, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        went = self._accumulate(stream)
        norms = {}
        if self.log.due(step + 1):
            norms = {name: gradient_norm(group) for name, group in self.objective.groups().items()}
        norm = float(gathered(nn.utils.clip_grad_norm_(self.learning, self.recipe.optimizer.clip_norm)))
        if not math.isfinite(norm):
            raise NotFiniteError(self._not_finite(step, went))
        ends = distributed.anywhere(self.told, self.world)  # here, where the GPU is waited for anyhow
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if went.seen:
            self.objective.observe(distributed.gather(torch.stack(went.seen), self.world), self.micro)
        self.ema.update(self.objective.model)
        self.log.step(step + 1, rate, norm, norms)
        return ends

    def _accumulate(self, stream: Iterator[Drawn]) -> _Went:
        """Gradients of one global step."""
        went = _Went()
        parts = self.share // self.micro
        for part in range(parts):
            began = time.perf_counter()
            drawn = next(stream)
            waited = time.perf_counter() - began
            drawn = drawn.to(self.world.device)
            exchange = contextlib.nullcontext() if part == parts - 1 else distributed.hold_gradients(self.wrapped)
            with exchange:
                loss = self._loss(drawn.tensors)
                (loss.total / parts).backward()  # type: ignore[no-untyped-call]
            went.keys += drawn.keys
            if loss.rows is not None:
                went.rows.append((drawn.keys, loss.rows))
            if loss.seen is not None:
                went.seen.append(loss.seen)
            self.log.micro(loss, waited, len(drawn.keys), drawn.skipped)
        return went

    def _loss(self, rows: Batch) -> Loss:
        """Not `objective.loss`: FSDP gathers weights in `forward`."""
        moved = {name: tensor for name, tensor in rows.items() if name != "seed"}
        with autocast(self.world.device, bf16=self.options.bf16):
            loss: Loss = self.wrapped(moved, tuple(rows["seed"].tolist()))
        return loss

    def _not_finite(self, step: int, went: _Went) -> str:
        path = checkpoint.newest(self.options.run, self.stage)
        kept = f"the last good checkpoint is {path}" if path else "there is no checkpoint yet"
        bad = [keys[row] for keys, rows in went.rows for row in (~rows.isfinite()).nonzero().flatten().tolist()]
        keys = distributed.gather_names(bad, self.world) or distributed.gather_names(went.keys, self.world)
        named = ", ".join(sorted(set(keys))[:4])
        calmer = f"--set plans.{self.stage}.rate below {self.plan.rate:g}" + (
            " or --precision fp32" if self.options.bf16 else ""
        )
        return (
            f"stage {self.stage} step {step + 1}: loss or gradient is not finite, from clip {named}; {kept}; "
            f"the next run draws the same clips: give it {calmer}"
        )

    @torch.no_grad()
    def validate(self) -> float:
        """The loss of the fixed held-out batch, whose noise is fixed too, with the averaged weights, which are what
        `generate` and the next stage take. Every process takes a part of it."""
        self.objective.eval()
        self.ema.swap(self.objective.model)
        tensors, count, size = self.held_out.tensors, len(self.held_out.keys), self.world.size
        least = min(self.micro, math.ceil(count / size))  # no more at once than in training
        starts = list(range(0, count, least))
        total = torch.zeros((), device=self.world.device)
        for turn in range(0, len(starts), size):
            # one that has no part left goes through the first again: FSDP gathers weights in `forward`, with all
            start = (starts[turn:] + [0] * size)[self.world.rank]
            rows = {name: tensor[start : start + least] for name, tensor in tensors.items()}
            loss = self._loss(rows)
            if turn + self.world.rank < len(starts):
                total += loss.total.float() * min(least, count - start) / count
        distributed.share_weights(self.wrapped)
        self.ema.swap(self.objective.model)
        self.objective.train()
        return float(distributed.total(total, self.world))


def gradient_norm(parameters: list[nn.Parameter]) -> float:
    """L2 norm of all gradients of a group together."""
    gradients: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return 0.0
    return float(gathered(nn.utils.get_total_norm(gradients)))


def step_flops(objective: Objective, drawn: Drawn, batch: int) -> float:
    """Floating point operations of a global step, forward and backward without recomputation.

    Counted by torch on shapes alone, for one row; pictures that still have to be encoded are left out.
    """
    shadow = copy.deepcopy(objective).to("meta").train()
    for part in shadow.modules():
        if isinstance(part, SpatialTransformer):
            part.checkpointing = False
    tensors = {name: tensor[:1] for name, tensor in drawn.tensors.items()}
    side, channels = objective.recipe.codec.latent_px, objective.recipe.codec.channels
    for name, tensor in tensors.items():
        if tensor.dtype == torch.uint8:
            tensors[name] = torch.empty(1, tensor.shape[1], channels, side, side)
    rows = {name: tensor if name == "seed" else tensor.to("meta") for name, tensor in tensors.items()}
    with FlopCounterMode(display=False) as counter:
        shadow.loss(rows).total.backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops() * batch)


def check_compiler(device: torch.device) -> None:
    """Raise `ValueError` for what `torch.compile` lacks to build with: Inductor writes C++ for a processor, Triton C to
    start a GPU's kernels; both include Python's headers. Only these names and variables are looked at."""
    gpu = device.type == "cuda"
    kind, variable, names = ("C", "CC", ("gcc", "clang")) if gpu else ("C++", "CXX", ("g++",))
    given = os.environ.get(variable)
    if not any(shutil.which(name) for name in ([given] if given else names)):
        where = f"{variable}={given} is none" if given else "none is on the PATH"
        raise ValueError(
            f"--compile needs a {kind} compiler ({' or '.join(names)}, or its path in {variable}); {where}."
            f" Debian's package is {names[0]}"
        )
    include = Path(sysconfig.get_path("include", "posix_prefix"))
    if not (include / "Python.h").is_file():
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-dev"
        raise ValueError(f"--compile needs Python's headers: {include} has no Python.h. Debian's package is {package}")


def compile_blocks(objective: Objective, device: torch.device) -> None:
    """`torch.compile` for every transformer and residual block: the same graphs serve all parts of one shape. Raises
    `ValueError` where there is no compiler."""
    check_compiler(device)
    # A graph per shape, and again without gradients: `small` has more shapes of ResBlock than the 8 graphs of a
    # function after which torch silently computes without.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_GRAPHS)
    for part in objective.model.modules():
        if isinstance(part, (Block, ResBlock, CausalBlock, TemporalBlock)):
            part.compile()  # type: ignore[no-untyped-call]
