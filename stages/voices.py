"""Whether others are heard beside the voice of a clip: an interviewer, an interpreter, somebody who talks over it."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from manifests.records import SAMPLE_RATE_HZ
from stages.whisper import quiet

_HEARD = 5 * SAMPLE_RATE_HZ
"""Samples that the network hears at once, as it was trained to; it tells up to three voices apart within them."""

_STEP = _HEARD // 2
"""From one such part to the next, so that whoever takes over lies well within one."""

_ACTIVE = 0.5
"""Of a voice's probability, from which on it counts as heard."""


class Voices:
    """The segmentation network of Bredin and Laurent (arXiv 2104.04045), which whisperx brings to find voice by."""

    def __init__(self, device: str) -> None:
        spec = importlib.util.find_spec("whisperx")
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError("whisperx, which the weights of pyannote's segmentation come with")
        with quiet():
            from pyannote.audio import Model

            net: Any = Model.from_pretrained(Path(spec.origin).parent / "assets" / "pytorch_model.bin")
        self._net = net.eval().to(device)
        self._device = device

    def other_share(self, sound: NDArray[np.float32]) -> float:
        """Of the time in which anybody speaks, the share in which others than the one who speaks most do, alone or at
        once with that one, in the five seconds where it is largest. 0 where nobody is heard.

        `sound` (n,) is mono in -1..1 at 16 kHz.
        """
        import torch

        later = max(-(-(len(sound) - _HEARD) // _STEP), 0)  # parts after the first
        padded = np.pad(sound, (0, _HEARD + later * _STEP - len(sound)))
        parts = sliding_window_view(padded, _HEARD)[::_STEP]
        with torch.inference_mode():
            found = self._net(torch.from_numpy(parts[:, None].copy()).to(self._device))
        active = found.cpu().numpy() > _ACTIVE  # (parts, frames, 3)
        most = active.sum(axis=1).argmax(axis=1)
        others = (active & (np.arange(active.shape[2]) != most[:, None, None])).any(axis=2).sum(axis=1)
        anybody = active.any(axis=2).sum(axis=1)
        return float((others / np.maximum(anybody, 1)).max())
