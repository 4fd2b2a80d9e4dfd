"""Measures of generated against true video: numbers from arrays, nothing else."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcdm.faces import Bytes, Floats

HORIZONS = (30, 300, 1800)
"""Numbers of frames generated at which the paper reads off SSIM (figure 5b)."""

AT_FRAMES = 30
"""A reading at n frames is the mean over the frames n - 30 to n: single frames blink."""

N_SHIFTS = 20


def ssim(true: Bytes, made: Bytes) -> Floats:
    """SSIM per frame, (n,), of RGB pictures (n, h, w, 3): on all cores, as one takes 64 ms for a frame of 512 px."""
    from skimage.metrics import structural_similarity

    pairs = zip(true, made, strict=True)
    similar: Any = structural_similarity
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return np.array(list(pool.map(lambda pair: similar(*pair, channel_axis=2), pairs)), np.float32)


def at_horizons(values: Floats) -> dict[str, float | None]:
    """A per-frame series (n,), NaN where unknown, at each horizon; None where it does not reach so far."""
    found: dict[str, float | None] = {}
    for horizon in HORIZONS:
        part = values[horizon - AT_FRAMES : horizon]
        part = part[np.isfinite(part)]
        found[str(horizon)] = float(part.mean()) if len(values) >= horizon and len(part) else None
    return found


def correlation(one: Floats, other: Floats) -> float:
    """Pearson's, 0 where either does not move."""
    a, b = one - one.mean(), other - other.mean()
    norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / norm if norm > 1e-9 else 0.0


def shuffled_correlation(one: Floats, other: Floats, seed: int = 0) -> float:
    """Mean correlation with the other series turned round by random amounts of at least a tenth: what chance gives."""
    rng, n = np.random.default_rng(seed), len(one)
    least = max(n // 10, 1)
    shifts = rng.integers(least, max(n - least, least + 1), N_SHIFTS)
    return float(np.mean([correlation(one, np.roll(other, int(shift))) for shift in shifts]))


def loudness(samples: Floats, per_frame: int) -> Floats:
    """Root mean square per video frame, (F,), of samples (per_frame F,)."""
    frames = samples[: len(samples) // per_frame * per_frame].reshape(-1, per_frame)
    level: Floats = np.sqrt((frames**2).mean(1)).astype(np.float32)
    return level


def cosine(one: NDArray[Any], other: NDArray[Any]) -> Floats:
    """Cosine similarity of flattened rows (n, ...), (n,)."""
    a, b = one.reshape(len(one), -1), other.reshape(len(other), -1)
    norm = np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-9)
    similarity: Floats = ((a * b).sum(1) / norm).astype(np.float32)
    return similarity
