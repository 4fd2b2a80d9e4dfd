"""FID and FVD: Fréchet distances of network features of true and made pictures, by networks that are given as files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mcdm.faces import Bytes
from stages.cuda import exactly

FVD_FRAMES = 16
"""Of one video that FVD looks at, as StyleGAN-V and the paper's peers have it: I3D wants no fewer."""

_AT_ONCE = 64
"""Pictures that a network sees at once."""

_ASK = ("rescale", "resize", "return_features")
"""What the public files are told: to bring uint8 to [-1, 1] and pictures to 224 px by themselves (I3D; off unless it is
asked for), and to answer with features, not classes."""


def frechet(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Fréchet distance of two sets of features (n, d), float64, as normal distributions (Heusel et al. 2017).

    The trace of the root of a product of covariances is the sum of the roots of its eigenvalues, which holds for fewer
    samples than features too, where a matrix root does not converge.
    """
    mean = one.mean(0) - other.mean(0)
    a, b = np.atleast_2d(np.cov(one, rowvar=False)), np.atleast_2d(np.cov(other, rowvar=False))
    root = np.sqrt(np.linalg.eigvals(a @ b).real.clip(min=0)).sum()
    return float(mean @ mean + np.trace(a) + np.trace(b) - 2 * root)


class FrechetNetwork:
    """A TorchScript file: uint8 pictures (n, 3, h, w), or videos (n, 3, 16, h, w), to features (n, d).

    The Inception (FID) and I3D (FVD) files of StyleGAN-V have this form. Raises `ValueError` for another file.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        try:
            self._network = torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{path}: no TorchScript network ({str(error).splitlines()[0]})") from error
        known = {argument.name for argument in self._network.forward.schema.arguments}
        self._asked = {name: True for name in _ASK if name in known}
        self._path, self._device = path, device

    @torch.no_grad()
    def features(self, shown: NDArray[np.uint8]) -> NDArray[Any]:
        """Features (n, d) of pictures or videos (n, ..., 3); raises `ValueError` where the network refuses them."""
        moved = torch.from_numpy(np.moveaxis(shown, -1, 1).copy()).to(self._device)
        try:
            with exactly():
                features = self._network(moved, **self._asked)
        except (RuntimeError, torch.jit.Error) as error:
            what = f"uint8 {tuple(moved.shape)}: {str(error).strip().splitlines()[-1]}"
            raise ValueError(f"{self._path}: the network does not take {what}") from error
        rows: NDArray[Any] = features.float().flatten(1).cpu().numpy()
        return rows

    def of_video(self, pictures: Bytes, *, videos: bool) -> list[NDArray[Any]]:
        """Features of a video (F, h, w, 3), in parts: of its pictures, or of its pieces of `FVD_FRAMES` in a row."""
        if videos:
            whole = len(pictures) // FVD_FRAMES
            cut = pictures[: whole * FVD_FRAMES].reshape(whole, FVD_FRAMES, *pictures.shape[1:])
            return [self.features(cut[i : i + 1]) for i in range(whole)]
        return [self.features(pictures[i : i + _AT_ONCE]) for i in range(0, len(pictures), _AT_ONCE)]


def distance(true: Sequence[NDArray[Any]], made: Sequence[NDArray[Any]]) -> tuple[float | None, int]:
    """Distance and number of samples of two sets of features, each in parts; None for fewer than two samples."""
    n = min(sum(map(len, parts)) for parts in (true, made))
    return (frechet(*(np.concatenate(parts).astype(np.float64) for parts in (true, made))) if n > 1 else None), n
