"""Videos made on the spot, seconds long, whose every frame and sound a test can name: PyAV and numpy, nothing else.

A frame can carry its own number (`numbered`, read back by `read_number` after any scaling, re-encoding or cropping to
the numbered area); flashes and clicks mark the same instants in picture and sound (`click_flash`). Pictures are BGR.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation

TICKS_HZ = 90_000
"""Time base of the files written here: fine enough for every rate below."""

RATES: dict[str, Fraction] = {
    "23.976": Fraction(24_000, 1001),
    "24": Fraction(24),
    "25": Fraction(25),
    "29.97": Fraction(30_000, 1001),
    "30": Fraction(30),
    "50": Fraction(50),
    "59.94": Fraction(60_000, 1001),
}
"""Frame rates in use, by their customary names."""

_GRID = 4  # a number is drawn as 4 x 4 cells, 16 bits


@dataclass(frozen=True, kw_only=True)
class Sound:
    """What to put on the sound track: int16 samples (n,) or (n, channels), and how."""

    samples: np.ndarray
    rate_hz: int = 48_000
    codec: str = "aac"
    start_s: float = 0.0  # presentation time of the first sample


@dataclass(frozen=True, kw_only=True)
class Look:
    """How to encode the pictures."""

    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    gop: int = 25
    b_frames: int = 2
    crf: int = 12
    colorspace: int = 2  # AVColorSpace: 1 BT.709, 2 unspecified, 6 BT.601 (SMPTE 170M)
    full_range: bool = False
    rotation_deg: int = 0  # display rotation stored in the container, counter-clockwise
    pixel_aspect: Fraction = Fraction(1)
    tick_s: Fraction = Fraction(1, TICKS_HZ)  # time base; for AVI the frame period, since AVI knows no other times


def times_at(rate: Fraction, duration_s: float, start_s: float = 0.0) -> list[Fraction]:
    """Presentation times of a constant-rate stream."""
    first = Fraction(start_s).limit_denominator(TICKS_HZ)
    return [first + i / rate for i in range(round(duration_s * rate))]


def times_variable(duration_s: float, seed: int = 0) -> list[Fraction]:
    """Presentation times of a phone-like variable-rate stream: 15 to 60 fps, with one hole of 0.4 s in the middle."""
    rng = np.random.default_rng(seed)
    times, now = [], Fraction(0)
    while now < duration_s:
        times.append(now)
        hole = len(times) > 1 and times[-2] < duration_s / 2 <= now
        step = 0.4 if hole else float(rng.uniform(1 / 60, 1 / 15))
        now += Fraction(round(step * TICKS_HZ), TICKS_HZ)
    return times


def numbered(number: int, width_px: int = 320, height_px: int = 240) -> np.ndarray:
    """A picture (h, w, 3) that shows a 16-bit number as 4 x 4 dark and bright cells over its whole area."""
    bits = (number >> np.arange(_GRID * _GRID)) & 1
    cells = np.where(bits.reshape(_GRID, _GRID), 210, 45).astype(np.uint8)
    grey = cv2.resize(cells, (width_px, height_px), interpolation=cv2.INTER_NEAREST)
    return np.repeat(grey[:, :, None], 3, axis=2)


def read_number(image: np.ndarray) -> int:
    """The number that `numbered` drew, from the picture at any size."""
    grey = image.mean(axis=2) if image.ndim == 3 else image
    height, width = grey.shape
    bits = 0
    for cell in range(_GRID * _GRID):
        row, column = divmod(cell, _GRID)
        y, x = int((row + 0.5) * height / _GRID), int((column + 0.5) * width / _GRID)
        near = grey[max(y - height // 16, 0) : y + height // 16 + 1, max(x - width // 16, 0) : x + width // 16 + 1]
        bits |= int(near.mean() > 127) << cell
    return bits


def write_video(
    path: Path,
    frames: Iterable[tuple[Fraction, np.ndarray]],
    *,
    look: Look | None = None,
    sound: Sound | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode (presentation time in seconds, BGR picture) pairs; the suffix of `path` picks the container.

    Times may be uneven, start late (MP4 then holds an empty edit) or below zero (MP4 then holds an edit that skips).
    Odd sizes need a `pix_fmt` without chroma subsampling, such as yuv444p.
    """
    look = look or Look()
    keep_times = {"avoid_negative_ts": "disabled"} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", options={**keep_times, **(options or {})}) as container:
        if sound is not None:
            tone = container.add_stream(sound.codec, rate=sound.rate_hz)
            tone.codec_context.layout = "mono" if sound.samples.ndim == 1 else "stereo"
        stream = None
        pairs = iter(frames)
        ahead = list(islice(pairs, 2))
        for time, image in chain(ahead, pairs):
            if stream is None:
                rate = 1 / (ahead[1][0] - ahead[0][0]) if len(ahead) == 2 else Fraction(25)
                stream = _video_stream(container, look, image, rate.limit_denominator(1001))
            frame = _coloured(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24"), look)
            frame.pts, frame.time_base = round(time / look.tick_s), look.tick_s
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode(None))
        if sound is not None:
            for block in _sound_frames(sound, tone.codec_context):
                container.mux(tone.encode(block))
            container.mux(tone.encode(None))
    return path


def _video_stream(container: Any, look: Look, image: np.ndarray, rate: Fraction) -> Any:
    height, width = image.shape[:2]
    stream = container.add_stream(look.codec, rate=rate)
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = width, height, look.pix_fmt
    context.time_base = look.tick_s
    context.gop_size, context.max_b_frames = look.gop, look.b_frames
    context.sample_aspect_ratio = look.pixel_aspect
    context.colorspace, context.color_range = look.colorspace, 2 if look.full_range else 1
    context.thread_count = 1
    if look.codec == "libx264":
        stream.options = {"preset": "ultrafast", "crf": str(look.crf), "bf": str(look.b_frames)}
    elif look.codec == "libvpx-vp9":
        stream.options = {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "0"}
    else:
        context.bit_rate = 4_000_000
    if look.rotation_deg:
        stream.set_display_rotation(look.rotation_deg)
    return stream


def _coloured(frame: av.VideoFrame, look: Look) -> av.VideoFrame:
    matrix = {1: 1, 6: 5, 2: 5}[look.colorspace]  # swscale's numbers: 1 BT.709, 5 BT.601
    flags = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP
    colour_range = 2 if look.full_range else 1
    yuv = frame.reformat(
        format=look.pix_fmt, dst_colorspace=matrix, dst_color_range=colour_range, interpolation=flags, threads=1
    )
    yuv.colorspace = look.colorspace
    return yuv


def _sound_frames(sound: Sound, context: Any) -> Iterator[av.AudioFrame]:
    layout = "mono" if sound.samples.ndim == 1 else "stereo"
    size = 1024
    resampler = av.AudioResampler(format=context.format, layout=layout, rate=sound.rate_hz)
    start = round(sound.start_s * sound.rate_hz)
    for at in range(0, len(sound.samples), size):
        packed = np.ascontiguousarray(sound.samples[at : at + size].reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = sound.rate_hz, start + at, Fraction(1, sound.rate_hz)
        yield from resampler.resample(frame)


def numbered_video(
    path: Path,
    times: Sequence[Fraction],
    *,
    width_px: int = 160,
    height_px: int = 96,
    look: Look | None = None,
    sound: Sound | None = None,
) -> Path:
    """A video whose i-th frame shows the number i at `times[i]`."""
    frames = ((time, numbered(i, width_px, height_px)) for i, time in enumerate(times))
    return write_video(path, frames, look=look, sound=sound)


def hum(duration_s: float, *, rate_hz: int = 48_000, channels: int = 2, seed: int = 0) -> np.ndarray:
    """Soft noise, int16 (n, channels), or (n,) for one channel: sound that is there, and says nothing."""
    rng = np.random.default_rng(seed)
    samples = (rng.standard_normal(round(duration_s * rate_hz)) * 300).astype(np.int16)
    return samples if channels == 1 else np.repeat(samples[:, None], channels, axis=1)


def clicks(events_s: Sequence[float], duration_s: float, *, rate_hz: int = 48_000, start_s: float = 0.0) -> np.ndarray:
    """Silence, int16 (n, 2), with a 20 ms burst of 1 kHz beginning at each event; the first sample is at `start_s`."""
    samples = np.zeros(round((duration_s - start_s) * rate_hz), np.int16)
    burst = (20_000 * np.sin(2 * np.pi * 1000 * np.arange(rate_hz // 50) / rate_hz)).astype(np.int16)
    for event in events_s:
        at = round((event - start_s) * rate_hz)
        if 0 <= at <= len(samples) - len(burst):
            samples[at : at + len(burst)] = burst
    return np.repeat(samples[:, None], 2, axis=1)


def click_flash(
    path: Path,
    times: Sequence[Fraction],
    events_s: Sequence[float],
    *,
    width_px: int = 160,
    height_px: int = 96,
    audio_start_s: float = 0.0,
    audio_codec: str = "aac",
    audio_rate_hz: int = 48_000,
    look: Look | None = None,
) -> Path:
    """Dark pictures that turn bright for 0.2 s at each event, and a click in the sound at that very instant.

    The first frame at or after the event is the first bright one, as a camera would have it. `audio_start_s` makes the
    sound track begin late (or before the pictures, if `times` start later).
    """
    duration_s = float(times[-1]) + 0.04

    def frames() -> Iterator[tuple[Fraction, np.ndarray]]:
        for time in times:
            bright = any(event - 1e-6 <= time < event + 0.2 for event in events_s)
            yield time, np.full((height_px, width_px, 3), 220 if bright else 30, np.uint8)

    samples = clicks(events_s, duration_s, rate_hz=audio_rate_hz, start_s=audio_start_s)
    sound = Sound(samples=samples, rate_hz=audio_rate_hz, codec=audio_codec, start_s=audio_start_s)
    return write_video(path, frames(), look=look, sound=sound)


def flash_frames(brightness: np.ndarray, level: float = 125.0) -> list[int]:
    """Indices of the frames at which the mean brightness (n,) rises through `level`."""
    above = np.concatenate([[False], np.asarray(brightness) > level])
    return [int(i) for i in np.flatnonzero(above[1:] & ~above[:-1])]


def click_times(samples: np.ndarray, rate_hz: int = 16_000, level: float = 4000.0) -> list[float]:
    """Seconds at which int16 sound (n,) rises through `level` after at least 0.1 s below it."""
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > level)
    first = [i for n, i in enumerate(loud) if n == 0 or i - loud[n - 1] > rate_hz // 10]
    return [i / rate_hz for i in first]


def painted_video(
    path: Path,
    paint: Callable[[float], np.ndarray],
    duration_s: float,
    *,
    rate: Fraction = Fraction(25),
    look: Look | None = None,
    sound: Sound | None = None,
) -> Path:
    """A video of `paint(time_s)`, a BGR picture for every instant."""
    return write_video(path, ((t, paint(float(t))) for t in times_at(rate, duration_s)), look=look, sound=sound)


def with_cover_art(path: Path, duration_s: float = 1.0) -> Path:
    """An MP4 with sound and a cover picture, and no video stream of its own."""
    sound = Sound(samples=hum(duration_s))
    with av.open(str(path), "w") as container:
        tone = container.add_stream("aac", rate=sound.rate_hz)
        tone.codec_context.layout = "stereo"
        cover = container.add_stream("mjpeg", rate=1)
        cover.codec_context.width, cover.codec_context.height, cover.codec_context.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(numbered(7, 64, 64), format="bgr24").reformat(format="yuvj420p")
        picture.pts = 0
        container.mux(cover.encode(picture))
        for block in _sound_frames(sound, tone.codec_context):
            container.mux(tone.encode(block))
        container.mux(tone.encode(None))
    return path


def cut_off(source: Path, target: Path, share: float) -> Path:
    """The first `share` of a file's bytes: a download that ended early."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def scarred(source: Path, target: Path, start_share: float, end_share: float, seed: int = 0) -> Path:
    """A copy of a file whose bytes between two shares of its length are replaced by noise."""
    data = bytearray(source.read_bytes())
    start, end = int(len(data) * start_share), int(len(data) * end_share)
    data[start:end] = np.random.default_rng(seed).bytes(end - start)
    target.write_bytes(bytes(data))
    return target


def not_a_video(path: Path) -> Path:
    """A text file under a video's name."""
    path.write_text("<html><body>Sorry, this video is unavailable.</body></html>\n" * 40)
    return path
