"""Temporal attention with a history of 8 to 4,096 frames before 8 present ones: exact against FAVOR+.

The exact one twice: torch's fused kernel, which never holds the whole matrix, and written out. Memory is what torch
allocates during one call, at its highest.
"""

import statistics
import time
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from mcdm.memory import attend, orthogonal_features

HISTORY = (8, 64, 256, 1024, 4096)
PRESENT, PLACES, HEADS, WIDTH, FEATURES = 8, 64, 2, 48, 64
REPEATS = 5
COUNTS = (64, 256, 1024)
SPREADS = (0.5, 0.7, 1.0)
"""Standard deviation of what queries and keys hold: fresh layers over normalised features give 0.7."""

ERROR_HISTORY = 64


def show(_: Namespace) -> dict[str, Any]:
    """Seconds and MB by mode and length of history, and the error of FAVOR+ against the exact answer."""
    torch.manual_seed(0)
    projection = orthogonal_features(WIDTH, FEATURES)
    modes: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
        "exact, fused": lambda q, k, v: attend(q, k, v, "exact"),
        "exact, written out": lambda q, k, v: (q @ k.transpose(-1, -2) / WIDTH**0.5).softmax(-1) @ v,
        "favor": lambda q, k, v: attend(q, k, v, "favor", projection),
    }
    shape = {"present": PRESENT, "places": PLACES, "heads": HEADS, "head_width": WIDTH, "features": FEATURES}
    found: dict[str, Any] = {"shape": shape, "all_frames_ask": {}, "present_frames_ask": {}}
    for part, asking in (("all_frames_ask", None), ("present_frames_ask", PRESENT)):
        for history in HISTORY:
            if asking is None and history > 1024:
                continue
            k, v = (torch.randn(PLACES, HEADS, history + PRESENT, WIDTH) for _ in range(2))
            q = torch.randn(PLACES, HEADS, asking or history + PRESENT, WIDTH)
            row = {
                name: {"ms": 1e3 * seconds(call, q, k, v), "mb": peak_mb(call, q, k, v)} for name, call in modes.items()
            }
            exact, favor = modes["exact, fused"](q, k, v), modes["favor"](q, k, v)
            found[part][str(history)] = {**row, "favor_relative_error": float((exact - favor).norm() / exact.norm())}
    found["favor_relative_error_by_spread_of_q_and_k_and_features"] = {
        str(spread): {str(count): round(favor_error(spread, count), 3) for count in COUNTS} for spread in SPREADS
    }
    return found


@torch.no_grad()
def favor_error(spread: float, count: int) -> float:
    """Of present frames that ask `ERROR_HISTORY` frames, against the exact answer: mean over several projections."""
    k, v = (torch.randn(PLACES, HEADS, ERROR_HISTORY, WIDTH) for _ in range(2))
    q = torch.randn(PLACES, HEADS, PRESENT, WIDTH)
    exact = attend(spread * q, spread * k, v, "exact")
    made = [
        attend(spread * q, spread * k, v, "favor", orthogonal_features(WIDTH, count, seed)) for seed in range(REPEATS)
    ]
    return statistics.mean(float((exact - one).norm() / exact.norm()) for one in made)


@torch.no_grad()
def seconds(call: Callable[..., Tensor], *given: Tensor) -> float:
    """The median time of a call."""
    call(*given)
    spent = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call(*given)
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


@torch.no_grad()
def peak_mb(call: Callable[..., Tensor], *given: Tensor) -> float:
    """The highest sum of what is allocated and not yet freed during a call, inputs left out."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call(*given)
    now = peak = 0
    events: Any = recorded.profiler.kineto_results.events()
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak / 1e6
