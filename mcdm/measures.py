"""Measures of generated against true video: numbers from arrays, nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mcdm.faces import Bytes, Floats

HORIZONS = (30, 300, 1800)
"""Numbers of frames generated at which the paper reads off SSIM (figure 5b)."""

AT_FRAMES = 30
"""A reading at n frames is the mean over the frames n - 30 to n: single frames blink."""

N_SHIFTS = 20


def ssim(true: Bytes, made: Bytes) -> Floats:
    """SSIM per frame, (n,), of RGB pictures (n, h, w, 3)."""
    from skimage.metrics import structural_similarity

    pairs = zip(true, made, strict=True)
    similar: Any = structural_similarity
    return np.array([similar(a, b, channel_axis=2) for a, b in pairs], np.float32)


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


def frechet(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Fréchet distance of two sets of features (n, d) as normal distributions (Heusel et al. 2017)."""
    from scipy.linalg import sqrtm

    mean = one.mean(0) - other.mean(0)
    a, b = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = np.real(sqrtm(a @ b))
    return float(mean @ mean + np.trace(np.atleast_2d(a + b - 2 * root)))


class FrechetNetwork:
    """A TorchScript file: uint8 pictures (n, 3, h, w), or video (n, 3, t, h, w), to features (n, d).

    The public Inception (FID) and I3D (FVD) files of StyleGAN-V have this form. Raises `ValueError` for another file.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        try:
            self._network = torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{path}: no TorchScript network ({str(error).splitlines()[0]})") from error
        self._device = device
        self._features: dict[str, list[NDArray[Any]]] = {"true": [], "made": []}

    @torch.no_grad()
    def add(self, kind: str, pictures: NDArray[np.uint8]) -> None:
        """Take pictures (n, ..., 3) of `kind` true or made into account."""
        moved = torch.from_numpy(np.moveaxis(pictures, -1, 1).copy()).to(self._device)
        self._features[kind].append(self._network(moved, return_features=True).float().cpu().numpy())

    def distance(self) -> float:
        """Of all that was added."""
        return frechet(*(np.concatenate(self._features[kind]) for kind in ("true", "made")))
