"""What training says: a line on the console, a line of JSON, and TensorBoard where it is installed."""

import json
import logging
import math
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mcdm import distributed
from mcdm.diffusion import N_TIMESTEPS
from mcdm.distributed import World
from mcdm.objectives import Loss

N_BINS = 5
"""Timesteps are logged in so many equal bins: the mean diffusion loss hides what is learned."""

PEAK_FLOPS = {
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "4090": 165e12,
    "V100": 125e12,
}
"""Dense bf16 (V100: fp16) of the makers' data sheets, by a part of the device's name; the first that fits counts."""

console = logging.getLogger("mcdm")


def peak_flops(device: torch.device) -> float | None:
    """The device's peak, None where no data sheet is known (CPUs)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for mark, peak in PEAK_FLOPS.items() if mark in name), None)


def memory_gb(device: torch.device) -> float:
    """Peak memory so far: of the device, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


class TrainingLog:
    """Collects steps and writes every `every` of them to `<run>/log.jsonl`, the console and TensorBoard.

    Silent on every rank but the first, which writes what all have seen: every one must call `step`. `flops` is of one
    global step.
    """

    def __init__(
        self,
        run: Path,
        stage: int,
        *,
        every: int,
        steps: int,
        flops: float,
        world: World,
    ) -> None:
        self.run, self.stage, self.every, self.steps = run, stage, every, steps
        self.flops, self.world = flops, world
        self.skipped: set[str] = set()
        self._board: Any = None
        if world.rank == 0 and find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(run / "tensorboard" / f"stage{stage}"))  # type: ignore[no-untyped-call]
        self._clear()

    def _clear(self) -> None:
        self._losses: list[Tensor] = []
        self._parts: dict[str, list[Tensor]] = {}
        self._rows: list[tuple[Tensor, Tensor]] = []
        self._skipped: list[str] = []
        self._waited, self._samples, self._counted, self._since = 0.0, 0, 0, time.perf_counter()

    def micro(self, loss: Loss, waited_s: float, samples: int, skipped: list[tuple[str, str]]) -> None:
        """One micro-batch went through."""
        self._waited += waited_s
        self._samples += samples
        self._losses.append(loss.total.detach())
        for name, part in loss.parts.items():
            self._parts.setdefault(name, []).append(part)
        if loss.rows is not None and loss.t is not None:
            self._rows.append((loss.rows, loss.t))
        for key, reason in skipped:
            if key not in self.skipped:
                console.warning("skipped %s: %s", key, reason)
                self.skipped.add(key)
                self._skipped.append(key)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What is done inside is no part of the steps' time."""
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began

    def due(self, step: int) -> bool:
        """Whether the step, counted from 1, is written."""
        return step % self.every == 0 or step == self.steps or step == 1

    def step(self, step: int, rate: float, norm: float, norms: dict[str, float]) -> None:
        """Write what came together on all processes since the last time, after `step` steps."""
        self._counted += 1
        if not self.due(step):
            return
        spent, world = time.perf_counter() - self._since, self.world
        loss, *parts = self._means([torch.stack(some) for some in (self._losses, *self._parts.values())])
        mine = torch.tensor([[self._waited / spent, memory_gb(world.device)]], dtype=torch.double, device=world.device)
        waited, memory = distributed.gather(mine, world).amax(0).tolist()
        self.skipped.update(distributed.gather_names(self._skipped, world))
        record: dict[str, Any] = {
            "stage": self.stage,
            "step": step,
            "loss": loss,
            "loss_parts": dict(zip(self._parts, parts, strict=True)),
            "loss_by_timestep": self._by_timestep(),
            "gradient_norm": norm,
            "gradient_norms": norms,
            "rate": rate,
            "samples_per_s": self._samples * world.size / spent,
            "data_wait_share": waited,
            "memory_gb": memory,
            "skipped_clips": len(self.skipped),
        }
        peak = peak_flops(world.device)
        if peak is not None:
            record["mfu"] = self.flops * self._counted / spent / (peak * world.size)
        self.write(record)
        self._clear()

    def write(self, record: dict[str, Any]) -> None:
        """A record to all three places."""
        if self.world.rank:
            return
        with (self.run / "log.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        flat = {name: value for name, value in record.items() if isinstance(value, float)}
        console.info("stage %d step %d/%d  %s", self.stage, record["step"], self.steps, _spelled(flat))
        for group in ("loss_by_timestep", "gradient_norms", "samples"):
            if record.get(group):
                console.info("    %s  %s", group, _spelled(record[group]))
        if self._board is not None:
            for group, values in record.items():
                for name, value in values.items() if isinstance(values, dict) else [("", values)]:
                    if value is not None:
                        self._board.add_scalar(f"{group}/{name}".rstrip("/"), value, record["step"])

    def close(self) -> None:
        """Flush TensorBoard."""
        if self._board is not None:
            self._board.close()

    def _by_timestep(self) -> dict[str, float]:
        if not self._rows:
            return {}
        rows = torch.cat([row for row, _ in self._rows])
        bins = torch.cat([t for _, t in self._rows]) * N_BINS // N_TIMESTEPS
        means = self._means([rows[bins == i] for i in range(N_BINS)])
        edges = [i * N_TIMESTEPS // N_BINS for i in range(N_BINS + 1)]
        return {f"{edges[i]}-{edges[i + 1]}": mean for i, mean in enumerate(means) if not math.isnan(mean)}

    def _means(self, values: list[Tensor]) -> list[float]:
        """The mean of each row of numbers (n,) over all processes, which have as many rows; NaN where none has any."""
        sums = torch.stack([row.double().sum() for row in values])
        counts = torch.tensor([len(row) for row in values]).to(sums)
        both = distributed.total(torch.stack([sums, counts]), self.world)
        means: list[float] = (both[0] / both[1]).tolist()
        return means


def _spelled(values: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())
