"""Sound files as a stream of 16 kHz mono samples, and as feature rows at 25 fps, at constant memory."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from manifests.records import RATE_HZ, SAMPLES_PER_FRAME
from mcdm.encoders import Wav2Vec2Audio
from mcdm.faces import Floats
from stages.container import MediaError, opened, picture_stream, sound_stream, zero_s
from stages.sound import audio

CHUNK_FRAMES = 250
"""Features are made ten seconds at a time."""

CONTEXT_FRAMES = 25
"""Sound on either side of a chunk that the encoder hears too, so that chunks meet without a seam."""

PAST_FRAMES = 500
"""The same before a chunk for wav2vec 2.0, whose first layer is levelled over all that it hears: a short last chunk of
little more than a pause would come out as loud as speech. With the chunk it is 30 s, the longest clip of training."""


class SoundFile:
    """A sound file for a wanted time: repeated where it is shorter. Iterates over samples (n,) in [-1, 1]."""

    def __init__(self, path: Path, frames: int) -> None:
        self.path, self.frames = path, frames

    def __iter__(self) -> Iterator[Floats]:
        left = self.frames * SAMPLES_PER_FRAME
        while left > 0:
            for samples in _decode(self.path):
                yield samples[:left]
                left -= len(samples[:left])
                if left <= 0:
                    return


def sound_chunks(path: Path, seconds: float | None = None) -> SoundFile:
    """Open a sound file for so many seconds, at least a frame, None for its own length; raises `ValueError` for one
    without sound."""
    if seconds is not None and not 0 < seconds * RATE_HZ < math.inf:
        raise ValueError(f"--seconds {seconds:g}: expected a length above 0")
    frames = max(round(seconds * RATE_HZ), 1) if seconds is not None else 0
    if not frames:
        frames = sum(len(samples) for samples in _decode(path)) // SAMPLES_PER_FRAME
    elif next(_decode(path), None) is None:
        frames = 0
    if not frames:
        raise ValueError(f"{path}: no sound in it")
    return SoundFile(path, frames)


def feature_rows(samples: Iterator[Floats], encoder: nn.Module, device: torch.device) -> Iterator[Tensor]:
    """Audio features (v, c), one row per frame, of a stream of samples.

    An encoder that wants its sound at one level (wav2vec 2.0) has it at that of all samples so far, and hears what came
    before: pieces that are levelled each by itself would not meet, and a silent one would be blown up to noise.
    """
    level = Level()
    buffer: NDArray[np.float32] = np.zeros(0, np.float32)
    size, context = CHUNK_FRAMES * SAMPLES_PER_FRAME, CONTEXT_FRAMES * SAMPLES_PER_FRAME
    past = PAST_FRAMES * SAMPLES_PER_FRAME if isinstance(encoder, Wav2Vec2Audio) else context
    before = 0  # samples of the buffer that were answered for already
    ended = False
    while not ended:
        while len(buffer) < before + size + context and not ended:
            more = next(samples, None)
            ended = more is None
            if more is not None:
                buffer = np.concatenate([buffer, more])
                level.add(more)
        stop = len(buffer) if ended else before + size
        heard = torch.from_numpy(buffer[: stop if ended else stop + context]).to(device)
        with torch.no_grad():
            if isinstance(encoder, Wav2Vec2Audio):
                rows = encoder.levelled(heard, level.mean, level.spread)
            else:
                rows = encoder(heard)
        yield from rows[before // SAMPLES_PER_FRAME : stop // SAMPLES_PER_FRAME]
        cut = max(stop - past, 0)
        buffer, before = buffer[cut:], stop - cut


class Level:
    """Mean and standard deviation of a stream of samples."""

    def __init__(self) -> None:
        self._count, self._sum, self._squares = 0, 0.0, 0.0

    def add(self, samples: Floats) -> None:
        """Take in more of it."""
        exact = samples.astype(np.float64)
        self._count += len(exact)
        self._sum += float(exact.sum())
        self._squares += float(np.square(exact).sum())

    @property
    def mean(self) -> float:
        """Of all samples so far; 0 of none."""
        return self._sum / max(self._count, 1)

    @property
    def spread(self) -> float:
        """The standard deviation as torch has it, with one sample less in the divisor."""
        return math.sqrt(max(self._squares - self._count * self.mean**2, 0.0) / max(self._count - 1, 1))


def _decode(path: Path) -> Iterator[Floats]:
    """Samples (n,) as the pipeline hears them, from the first of the sound; raises `ValueError`."""
    try:
        for block in audio(path, start_s=_begins_s(path)):
            yield block.astype(np.float32) / np.float32(32768)
    except (MediaError, OSError) as error:
        why = error.reason if isinstance(error, MediaError) else type(error).__name__
        raise ValueError(f"{path}: no sound that can be read ({why})") from error


def _begins_s(path: Path) -> float:
    """When the sound of a file begins on the clock of its pictures; 0 without these."""
    with opened(path) as container:
        sound = sound_stream(container)
        try:
            pictures = picture_stream(container)
        except MediaError:
            return 0.0
        return 0.0 if sound is None else float(zero_s(sound) - zero_s(pictures))
