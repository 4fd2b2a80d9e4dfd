"""Pictures and their sound into an mp4, as they come; named only when it is whole."""

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from manifests.records import RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from manifests.scratch import is_alive, machine
from mcdm.faces import Bytes, Floats

_H264 = {"crf": "18", "preset": "veryfast", "mbtree": "0"}
"""Without the macroblock tree: with AVX-512 it made other bytes of the same pictures of 32 px, at random."""


class VideoWriter:
    """H.264 at 25 fps and AAC. A context manager; on an error nothing is left behind, and of a process that was killed
    only until the same video is made again. Sound and picture are muxed side by side, so neither is kept for long."""

    def __init__(self, path: Path, height_px: int, *, width_px: int = 0) -> None:
        self.path = path
        self._begun = f".{path.stem}.{machine()}-"
        self._temporary = path.with_name(f"{self._begun}{os.getpid()}.mp4")
        self._size_px = (width_px or height_px, height_px)
        self._shown, self._said, self._waiting = 0, 0, np.zeros(0, np.int16)

    def __enter__(self) -> "VideoWriter":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for left in self.path.parent.glob(f"{glob.escape(self._begun)}*.mp4"):
            if not is_alive(int(left.stem.removeprefix(self._begun))):
                left.unlink(missing_ok=True)
        self._temporary.touch()  # libav opens it with the first picture, and does not say which file it cannot
        self._container = av.open(str(self._temporary), "w", format="mp4")
        self._picture = self._container.add_stream("libx264", rate=RATE_HZ, options=_H264)
        self._picture.width, self._picture.height = self._size_px
        self._picture.pix_fmt = "yuv420p"
        self._sound = self._container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")
        return self

    def listen(self, chunks: Iterable[Floats]) -> Iterator[Floats]:
        """Pass samples (n,) in [-1, 1] through and remember them for the pictures that they belong to."""
        for samples in chunks:
            self.hear(samples)
            yield samples

    def hear(self, samples: Floats) -> None:
        """Samples (n,) that follow those heard before."""
        level = (samples * 32767).clip(-32768, 32767).astype(np.int16)
        self._waiting = np.concatenate([self._waiting, level])

    def show(self, pictures: Bytes) -> None:
        """Pictures (n, side, side, 3) that follow those shown before, with as much sound as belongs to them."""
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            self._container.mux(self._picture.encode(frame))
        self._shown += len(pictures)
        due = self._shown * SAMPLES_PER_FRAME - self._said
        now, self._waiting = self._waiting[:due], self._waiting[due:]
        if len(now):
            sound = av.AudioFrame.from_ndarray(now[None], format="s16", layout="mono")
            sound.sample_rate, sound.pts = SAMPLE_RATE_HZ, self._said
            self._said += len(now)
            self._container.mux(self._sound.encode(sound))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            try:
                if error is None:
                    self._container.mux(self._picture.encode())
                    self._container.mux(self._sound.encode())
            finally:
                self._container.close()
            if error is None:
                self._temporary.replace(self.path)
        finally:
            self._temporary.unlink(missing_ok=True)
