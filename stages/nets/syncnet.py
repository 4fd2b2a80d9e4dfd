"""SyncNet: two small networks that put 0.2 s of lips and 0.2 s of voice into one space, near if they belong together.

J. S. Chung and A. Zisserman, "Out of time: automated lip sync in the wild", 2016. Layer names, sizes and inputs are
those of the published `syncnet_v2.model`. A state dict with other sizes makes a network of those sizes; one whose first
lip layer reads one channel is the small variant: it looks at the mouth only, in luma and at half the face crop's scale.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from stages.weights import UNREADABLE

FACE_PX = 224
"""Side of the face crop that every variant is fed."""

MOUTH_PX = 112
MOUTH_TOP_PX, MOUTH_LEFT_PX = 72, 56
"""The part of the face crop that the small variant reads, halved to 56 px: from below the eyes to the chin."""

WINDOW_FRAMES = 5
"""Frames that one lip feature sees (25 fps)."""

WINDOW_COLUMNS = 20
COLUMNS_PER_FRAME = 4
"""MFCC columns (100 Hz) that one voice feature sees, and their step per video frame."""

_LUMA = (0.114, 0.587, 0.299)  # BT.601, BGR


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Output channels of the six convolutions of each half, of the hidden layer and of the embedding."""

    audio: tuple[int, ...] = (64, 192, 384, 256, 256, 512)
    lip: tuple[int, ...] = (96, 256, 256, 256, 256, 512)
    hidden: int = 512
    embedding: int = 1024
    colours: int = 3  # 3: 224 px face, BGR 0..255; 1: 56 px mouth, luma 0..255

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> "Sizes":
        """Read the sizes from a state dict; raises `KeyError` if a layer of the layout is missing."""
        return cls(
            audio=tuple(len(state[f"netcnnaud.{i}.weight"]) for i in (0, 4, 8, 11, 14, 18)),
            lip=tuple(len(state[f"netcnnlip.{i}.weight"]) for i in (0, 4, 8, 11, 14, 18)),
            hidden=len(state["netfclip.0.weight"]),
            embedding=len(state["netfclip.3.weight"]),
            colours=state["netcnnlip.0.weight"].shape[1],
        )


PUBLISHED = Sizes()


class SyncNet(nn.Module):
    """The two halves. Attribute names are those of the published state dict."""

    def __init__(self, sizes: Sizes = PUBLISHED) -> None:
        super().__init__()
        self.sizes = sizes
        self.netcnnaud = _audio_layers(sizes.audio)
        self.netcnnlip = _lip_layers(sizes.lip, sizes.colours)
        self.netfcaud = _head(sizes.audio[-1], sizes)
        self.netfclip = _head(sizes.lip[-1], sizes)

    def voices(self, windows: Tensor) -> Tensor:
        """MFCC windows (n, 13, 20) to features (n, embedding)."""
        features: Tensor = self.netfcaud(self.netcnnaud(windows.unsqueeze(1)).flatten(1))
        return features

    def lips(self, frames: Tensor, every: int = 1) -> Tensor:
        """Consecutive inputs (tracks, colours, t, px, px) to features (tracks * windows, embedding), track by track.

        There are t - 4 windows, or with `every` those that start at frames 0, `every`, 2 `every`... One pass of the
        convolutions over the whole track gives what a pass per five-frame window gives, since only the first layer
        looks across time.
        """
        seen = frames.contiguous(memory_format=torch.channels_last_3d)
        if every == 1:  # as modules, so that hooks (a count of multiply-adds is one) see the first layer too
            maps = self.netcnnlip(seen)
        else:
            first = self.netcnnlip[0]
            assert isinstance(first, nn.Conv3d)
            maps = self.netcnnlip[1:](F.conv3d(seen, first.weight, first.bias, (every, *first.stride[1:])))
        features: Tensor = self.netfclip(maps.flatten(2).transpose(1, 2).flatten(0, 1))
        return features

    def inputs(self, faces: NDArray[np.uint8], device: torch.device) -> Tensor:
        """Face crops (t, 224, 224, 3) BGR to what `lips` reads: (1, colours, t, px, px) float."""
        pixels = torch.from_numpy(faces)
        if self.sizes.colours == 1:
            rows = slice(MOUTH_TOP_PX, MOUTH_TOP_PX + MOUTH_PX)
            columns = slice(MOUTH_LEFT_PX, MOUTH_LEFT_PX + MOUTH_PX)
            mouths = pixels[:, rows, columns].to(device).float()
            return F.avg_pool2d(mouths @ torch.tensor(_LUMA, device=device), 2)[None, None]
        return pixels.to(device).float().permute(3, 0, 1, 2)[None]


def load(path: Path) -> SyncNet:
    """Read a plain state dict (never a pickled module) and return the network in evaluation mode.

    Weights stored in half precision are computed with in single. Raises `ValueError` if the file is anything but a
    complete state dict of this layout.
    """
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
        state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
        network = SyncNet(Sizes.of(state))
        network.load_state_dict(state, strict=True)
    except (*UNREADABLE, AttributeError) as error:
        why = (str(error).strip() or repr(error)).splitlines()[0]
        raise ValueError(f"{path} is no SyncNet state dict: {why}") from error
    network.eval()
    network.netcnnlip = _pooled_early(network.netcnnlip)
    # this layout made the lip half 2.3 times faster on a CPU (measured)
    network.netcnnlip.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    network.netcnnaud.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 1.2 times
    return network


def _pooled_early(layers: nn.Sequential) -> nn.Sequential:
    """The same function, to the bit, with every pool before the normalisation that it follows: a quarter of the values
    to normalise, a tenth of the lip half's time.

    The largest of x is the largest of a x + b where a is not negative; where it is, the convolution's channel changes
    its sign, and the normalisation's with it. Only for a network that has learned.
    """
    early: list[nn.Module] = []
    for layer in layers:
        if not isinstance(layer, nn.MaxPool3d):
            early.append(layer)
            continue
        convolution, normalisation, _ = early[-3:]
        assert isinstance(convolution, nn.Conv3d) and isinstance(normalisation, nn.BatchNorm3d)
        mean = normalisation.running_mean
        assert convolution.bias is not None and mean is not None
        with torch.no_grad():
            sign = torch.where(normalisation.weight < 0, -1.0, 1.0)
            convolution.weight *= sign[:, None, None, None, None]
            for of_channel in (convolution.bias, normalisation.weight, mean):
                of_channel *= sign
        early.insert(-2, layer)
    return nn.Sequential(*early)


def voice_windows(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    """MFCC windows (n, 13, 20) of mono 16 kHz sound, one per video frame that has 0.2 s of sound before it ends.

    Window i covers columns 4 i to 4 i + 20 of python_speech_features' MFCC with its defaults (13 coefficients, 100 Hz),
    on the int16 scale.
    """
    from python_speech_features import mfcc

    columns = mfcc(samples, 16_000).T.astype(np.float32)
    if columns.shape[1] < WINDOW_COLUMNS:
        return np.empty((0, len(columns), WINDOW_COLUMNS), np.float32)
    every = np.lib.stride_tricks.sliding_window_view(columns, WINDOW_COLUMNS, axis=1)[:, ::COLUMNS_PER_FRAME]
    windows: NDArray[np.float32] = np.ascontiguousarray(every.transpose(1, 0, 2))
    return windows


def distances(lips: Tensor, voices: Tensor, reach: int, every: int = 1) -> Tensor:
    """Distance of every lip feature to the voices around it: (n, 2 reach + 1), column k that of k - reach frames later.

    Lip feature i belongs to voice i `every`.
    Voices before the start and after the end are zero vectors, and 1e-6 is added to each difference, as
    syncnet-python's `calc_pdist` does it.
    """
    padded = F.pad(voices, (0, 0, reach, reach))
    around = padded.unfold(0, 2 * reach + 1, every)[: len(lips)]  # (n, embedding, 2 reach + 1)
    # 128 rows of the published 1024 numbers at reach 15 take 16 MB at a time
    starts = range(0, len(lips), 128)
    rows = [F.pairwise_distance(lips[i : i + 128, None], around[i : i + 128].transpose(1, 2)) for i in starts]
    return torch.cat(rows)


def _head(inputs: int, sizes: Sizes) -> nn.Sequential:
    hidden = sizes.hidden
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, sizes.embedding)
    )


def _audio_layers(widths: tuple[int, ...]) -> nn.Sequential:
    a, b, c, d, e, f = widths
    return nn.Sequential(
        *_convolved2d(1, a, 3, padding=1),
        nn.MaxPool2d(1, 1),
        *_convolved2d(a, b, 3, padding=1),
        nn.MaxPool2d(3, stride=(1, 2)),
        *_convolved2d(b, c, 3, padding=1),
        *_convolved2d(c, d, 3, padding=1),
        *_convolved2d(d, e, 3, padding=1),
        nn.MaxPool2d(3, stride=2),
        *_convolved2d(e, f, (5, 4), padding=0),
    )


def _lip_layers(widths: tuple[int, ...], colours: int) -> nn.Sequential:
    a, b, c, d, e, f = widths
    if colours > 1:
        first = nn.Conv3d(colours, a, (WINDOW_FRAMES, 7, 7), (1, 2, 2))
        pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2))
    else:  # a quarter of the side to begin with: leaves 54 px maps as the two above do
        first, pool = nn.Conv3d(colours, a, (WINDOW_FRAMES, 3, 3)), nn.MaxPool3d(1, 1)
    return nn.Sequential(
        first,
        nn.BatchNorm3d(a),
        nn.ReLU(inplace=True),
        pool,
        *_convolved3d(a, b, 5, stride=2),
        nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        *_convolved3d(b, c, 3),
        *_convolved3d(c, d, 3),
        *_convolved3d(d, e, 3),
        nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
        nn.Conv3d(e, f, (1, 6, 6)),
        nn.BatchNorm3d(f),
        nn.ReLU(inplace=True),
    )


def _convolved2d(inputs: int, outputs: int, kernel: int | tuple[int, int], *, padding: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, padding=padding), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _convolved3d(inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv3d(inputs, outputs, (1, kernel, kernel), (1, stride, stride), (0, 1, 1))
    return [convolution, nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)]
