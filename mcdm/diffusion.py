"""The noise process, apart from any network: schedules, targets, weights and the DDIM step as pure functions.

Notation of DDPM (Ho et al. 2020): z_t = sqrt(abar_t) x + sqrt(1 - abar_t) eps; v of Salimans & Ho 2022.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Prediction: TypeAlias = Literal["eps", "v", "x0"]

N_TIMESTEPS = 1000

_LEAST_SIGNAL = 0.01  # of an amplitude of 1: the cosine schedule's last seven timesteps have less, SD's none


@dataclass(frozen=True)
class Schedule:
    """Signal and noise amplitudes by timestep: `alpha` and `sigma`, (T,), float32, alpha^2 + sigma^2 = 1."""

    alpha: Tensor
    sigma: Tensor
    _moved: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False, compare=False)

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Both on a device, copied there once: each copy waits for all that the GPU has still to do."""
        if device not in self._moved:
            self._moved[device] = self.alpha.to(device), self.sigma.to(device)
        return self._moved[device]

    def at(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Amplitudes of timesteps (b,), shaped to broadcast over `like` (b, ...)."""
        shape = (-1,) + (1,) * (like.dim() - 1)
        alpha, sigma = self.on(like.device)
        return alpha[t].view(shape), sigma[t].view(shape)

    def timesteps(self, steps: int) -> list[int]:
        """Evenly spaced from the last to near the first ("trailing" spacing: the first is pure noise)."""
        return [round(N_TIMESTEPS - i * N_TIMESTEPS / steps) - 1 for i in range(steps)]


def make_schedule(kind: Literal["scaled_linear", "cosine"], *, zero_snr: bool = False) -> Schedule:
    """`scaled_linear`: SD 1.5's, beta 0.00085 to 0.012. `cosine`: squaredcos_cap_v2 of Nichol & Dhariwal.

    `zero_snr` shifts and scales so that the last step holds no signal (Lin et al. 2023).
    """
    if kind == "scaled_linear":
        beta = torch.linspace(0.00085**0.5, 0.012**0.5, N_TIMESTEPS, dtype=torch.float64) ** 2
    else:
        at = torch.arange(N_TIMESTEPS + 1, dtype=torch.float64) / N_TIMESTEPS
        bar = torch.cos((at + 0.008) / 1.008 * math.pi / 2) ** 2
        beta = (1 - bar[1:] / bar[:-1]).clamp(max=0.999)
    root = torch.cumprod(1 - beta, 0).sqrt()
    if zero_snr:
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return Schedule(root.float(), (1 - root**2).sqrt().float())


def add_noise(schedule: Schedule, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """z_t of clean x and noise eps (b, ...) at timesteps t (b,)."""
    alpha, sigma = schedule.at(t, x)
    return alpha * x + sigma * eps


def target(schedule: Schedule, prediction: Prediction, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """What a network with this kind of prediction should answer."""
    if prediction != "v":
        return eps if prediction == "eps" else x
    alpha, sigma = schedule.at(t, x)
    return alpha * eps - sigma * x


def split(schedule: Schedule, prediction: Prediction, z: Tensor, answer: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Clean estimate and noise estimate (x, eps) of a network's answer at z_t.

    Where hardly any signal is left, a noise estimate says nothing of it: an error of 1 % in the last step of the cosine
    schedule would be a hundred times the signal. There x is 0, the mean of latents and of normalised tokens.
    """
    alpha, sigma = schedule.at(t, z)
    if prediction == "v":
        return alpha * z - sigma * answer, sigma * z + alpha * answer
    if prediction == "x0":
        return answer, (z - alpha * answer) / sigma.clamp(min=1e-4)
    x = (z - sigma * answer) / alpha.clamp(min=_LEAST_SIGNAL)
    return torch.where(alpha < _LEAST_SIGNAL, 0.0, x), answer


def loss_weight(schedule: Schedule, prediction: Prediction, t: Tensor, gamma: float) -> Tensor:
    """Min-SNR weights (Hang et al. 2023) of the squared error, (b,); ones where gamma is 0."""
    if not gamma:
        return torch.ones(len(t), device=t.device)
    alpha, sigma = (amplitudes[t] for amplitudes in schedule.on(t.device))
    snr = alpha**2 / sigma.clamp(min=1e-4) ** 2
    capped = snr.clamp(max=gamma)
    return {"x0": capped, "eps": capped / snr, "v": capped / (snr + 1)}[prediction]


def ddim_step(schedule: Schedule, x: Tensor, eps: Tensor, t_next: int) -> Tensor:
    """z at the next, smaller timestep; the clean estimate itself where t_next < 0 (Song et al. 2021, eta = 0)."""
    if t_next < 0:
        return x
    return float(schedule.alpha[t_next]) * x + float(schedule.sigma[t_next]) * eps


_LARGE = 1 << 16  # numbers in a row, from which on threads pay


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1))


def draw_normal(seeds: Tensor, salt: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Normal noise (b, *shape), row i a function of (seeds[i], salt) alone: the same in any batch and world.

    Large rows are drawn side by side, for a GPU into pinned memory: one after another and stacked, those of recipe
    `small` took 0.2 to 0.3 s of a step, most of it for memory that was touched for the first time.
    """
    noise, known = torch.empty((len(seeds), *shape), pin_memory=device.type == "cuda"), seeds.tolist()

    def draw(row: int) -> None:
        torch.randn(shape, generator=generator(known[row], salt), out=noise[row])

    list((_threads().map if math.prod(shape) >= _LARGE else map)(draw, range(len(seeds))))
    return noise.to(device, non_blocking=True)


def draw_uniform(seeds: Tensor, salt: int, n: int, device: torch.device) -> Tensor:
    """Uniform numbers (b, n) in [0, 1), like `draw_normal`."""
    drawn = torch.empty((len(seeds), n), pin_memory=device.type == "cuda")
    for row, seed in zip(drawn, seeds.tolist(), strict=True):
        torch.rand(n, generator=generator(seed, salt), out=row)
    return drawn.to(device, non_blocking=True)


def generator(seed: int, salt: int) -> torch.Generator:
    """A generator on the CPU, so that CPU and GPU draw the same numbers."""
    return torch.Generator().manual_seed((seed * 0x9E3779B97F4A7C15 + salt * 0xBF58476D1CE4E5B9) % (1 << 63))
