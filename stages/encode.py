"""Clips written: H.264 and AAC in MP4 at 25 fps, and WAV. Equal inputs give equal bytes. PyAV."""

import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from manifests.records import RATE_HZ, SAMPLE_RATE_HZ

GOP_FRAMES = 25
"""A key frame every second, groups closed: any second can be decoded alone."""

CRF = 18
PRESET = "superfast"
"""A 512 px crop of a real 1080p speaker at crf 17: superfast 40.9 dB, 4.4 ms a frame, 1.5 Mbit/s; veryfast 40.7 dB,
6.7 ms, 1.0 Mbit/s; medium 41.1 dB, 15.5 ms, 1.05 Mbit/s; superfast at 18 40.6 dB, 1.3 Mbit/s. Cores are dearer."""

_BT601 = 6  # AVCOL_SPC_SMPTE170M
_AAC_FRAME = 1024
_ROUNDED = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP
"""Without rounding, swscale darkens every picture by 2 levels to save 0.3 ms."""


class ClipWriter:
    """An MP4 of square pictures with sound; only `finish` completes it.

    yuv420p, BT.601 limited range and tagged so: players that read the tags and tools that never do (OpenCV) then show
    the same colours at this size. One encoder thread, no scene-cut key frames and no time stamps of the day, so bytes
    depend on the pictures alone. The index stands before the data.
    """

    def __init__(self, path: Path, size_px: int) -> None:
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        self._container = av.open(str(path), "w", format="mp4", options=options)
        self._video = self._video_stream(size_px)
        self._audio: AudioStream = self._container.add_stream("aac", rate=SAMPLE_RATE_HZ)
        self._audio.codec_context.layout = "mono"
        self._audio.codec_context.bit_rate = 64_000
        self._audio.codec_context.flags |= av.codec.context.Flags.bitexact.value
        self._to_yuv = VideoReformatter()
        self.n_frames = 0

    def _video_stream(self, size_px: int) -> VideoStream:
        stream: VideoStream = self._container.add_stream("libx264", rate=RATE_HZ)
        context = stream.codec_context
        context.width = context.height = size_px
        context.pix_fmt = "yuv420p"
        context.thread_count = 1
        context.gop_size = GOP_FRAMES
        context.colorspace, context.color_range = _BT601, int(ColorRange.MPEG)
        context.flags |= av.codec.context.Flags.closed_gop.value | av.codec.context.Flags.bitexact.value
        stream.options = {"preset": PRESET, "crf": str(CRF), "sc_threshold": "0", "rc-lookahead": str(GOP_FRAMES)}
        return stream

    def write(self, image: np.ndarray) -> None:
        """Add a picture: uint8 (size, size, 3), BGR."""
        bgr = VideoFrame.from_ndarray(image, format="bgr24")
        frame = self._to_yuv.reformat(
            bgr,
            format="yuv420p",
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.MPEG,
            interpolation=_ROUNDED,
            threads=1,
        )
        frame.colorspace, frame.color_range = _BT601, int(ColorRange.MPEG)
        frame.pts, frame.time_base = self.n_frames, Fraction(1, RATE_HZ)
        self.n_frames += 1
        self._container.mux(self._video.encode(frame))

    def finish(self, sound: np.ndarray) -> None:
        """Add the sound, (n,) int16 at 16 kHz from the first picture on, and complete the file."""
        if self.n_frames:
            self._container.mux(self._video.encode(None))
        for at in range(0, len(sound), _AAC_FRAME):
            part = sound[at : at + _AAC_FRAME].astype(np.float32)[None] / 32768
            block = AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = SAMPLE_RATE_HZ, at, Fraction(1, SAMPLE_RATE_HZ)
            self._container.mux(self._audio.encode(block))
        self._container.mux(self._audio.encode(None))
        self._container.close()

    def close(self) -> None:
        """Let go of the file, complete or not."""
        self._container.close()


def write_wav(path: Path, samples: np.ndarray) -> None:
    """Write int16 mono samples (n,) at 16 kHz."""
    with wave.open(str(path), "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(SAMPLE_RATE_HZ)
        f.writeframes(samples.astype("<i2").tobytes())
