"""Video files in, pictures on the 25 fps grid out, scaled or cropped; what a file holds. PyAV.

Time zero is the presentation time of the first picture, for pictures and sound. Grid instant k shows the picture whose
presentation time is nearest, except that none is shown more than half a grid period (20 ms) before its time. Thus
25 fps passes one to one however its stamps are rounded, 50 and 59.94 fps lose every second picture or so, 23.976 and
29.97 fps are early as often as late (by 20 ms at most, but 23.976 fps up to 22 ms late), and where a variable stream
holds a picture, so do we.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error
import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from manifests.records import RATE_HZ, AudioStream, VideoStream
from pipeline.stage import put_off_deadline
from stages.clock import declared_s
from stages.container import (
    Decoded,
    MediaError,
    Wanted,
    decoded,
    decoded_from,
    decoded_keys,
    every_packet,
    has_decoding_times_only,
    opened,
    packets_of,
    picture_stream,
    sound_stream,
    source_rate_hz,
    zero_s,
)
from stages.packets import needed
from stages.picture import Picture, Shape, matrix_of
from stages.sound import audio, audio_array

__all__ = [
    "Frames",
    "MediaError",
    "Probe",
    "audio",
    "audio_array",
    "frames",
    "frames_at",
    "key_frames",
    "pictures",
    "probe",
]

_HOLD_S = 600.0
"""A longer hole between two pictures is a broken clock, not a still; to follow it could fill disks with one picture."""

_LOST_FRAMES = 250
"""So many pictures in a row that do not move time forward are a broken clock as well."""

_SIGN_OF_LIFE_S = 10.0
"""So much video that has come is progress: what is done with it never takes hours, with all of a long video it may."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a file really holds.

    `duration_s` is that of the pictures whose packets are there, from the first to the end of the last, whatever the
    header claims; those that an edit list hides do not count. `declared_s` is the header's claim, of which `arrived_s`
    is there: in a file cut off on its way much less. Where the header states one length for all streams (Matroska,
    FLV), `arrived_s` is the later of the ends of pictures and sound, else `duration_s`.
    """

    duration_s: float
    declared_s: float
    arrived_s: float
    video: VideoStream | None
    audio: AudioStream | None
    n_packets: int  # of the picture stream
    n_audio_packets: int


@dataclass(frozen=True)
class Frames:
    """A batch of consecutive pictures on the 25 fps grid."""

    first_frame: int  # grid number of the first, counted from the `start_s` asked for
    images: Sequence[NDArray[np.uint8]]  # each (h, w, 3), BGR, upright, square pixels; one that is held comes again
    scale: float  # image pixels per source pixel (upright, square); smaller than 1 where pictures were shrunk


def probe(path: Path) -> Probe:
    """Read every packet and decode one picture; raises `MediaError` where no picture can be had.

    Packets are counted, not decoded, so the cost is reading the file. Streams of cover art do not count as video.
    Width and height are of the upright picture with square pixels.
    """
    with opened(path) as container:
        video = picture_stream(container)
        sound = sound_stream(container)
        origin, base = zero_s(video), video.time_base or Fraction(1, RATE_HZ)
        decoding_only = has_decoding_times_only(container)
        said_s, one_length = declared_s(container, video), not video.duration  # reading on may change them
        end_s, sound_end, counts = 0.0, 0, {True: 0, False: 0}
        for packet in packets_of(container, video, *([] if sound is None else [sound])):
            if not packet.size:
                continue
            counts[packet.stream is video] += 1
            stamp = packet.dts if packet.pts is None or decoding_only else packet.pts
            if stamp is None or packet.is_discard:
                continue
            if packet.stream is not video:
                sound_end = max(sound_end, stamp + (packet.duration or 0))
            else:
                length = (packet.duration or 0) * base or 1 / source_rate_hz(video)
                end_s = max(end_s, float(stamp * base - origin + length))
        if not counts[True]:
            raise MediaError("truncated", "no picture data")
        shape = _first_shape(path)
        duration_s = end_s or counts[True] / source_rate_hz(video)
        heard_s = float(sound_end * (sound.time_base or base) - origin) if one_length and sound is not None else 0.0
        return Probe(
            duration_s=duration_s,
            declared_s=said_s,
            arrived_s=max(duration_s, heard_s),
            video=VideoStream(
                width_px=shape.width_px,
                height_px=shape.height_px,
                rate_hz=source_rate_hz(video),
                codec=video.codec_context.name,
            ),
            audio=None if sound is None else _audio_stream(sound),
            n_packets=counts[True],
            n_audio_packets=counts[False],
        )


def _audio_stream(stream: av.AudioStream) -> AudioStream:
    context = stream.codec_context
    return AudioStream(rate_hz=context.sample_rate or 0, channels=context.channels, codec=context.name)


def _first_shape(path: Path) -> Shape:
    with opened(path) as container:
        stream = picture_stream(container)
        for found in decoded(container, stream):
            return Shape.of(found.frame, found.aspect)
    raise MediaError("undecodable", "no picture")


def _on_grid(
    path: Path,
    start_s: float,
    end_s: float | None,
    threads: int,
    wanted: Wanted = every_packet,
    *,
    rough: bool = False,
) -> Iterator[tuple[int, Decoded]]:
    """Grid numbers from `start_s` on, each with the picture to show then."""
    n_wanted = math.inf if end_s is None else math.ceil((end_s - start_s) * RATE_HZ - 1e-6)
    k = 0
    shown: Decoded | None = None
    early_s = 0.0  # how long before its time a picture is shown already
    for picture in _forward(decoded_from(path, start_s, threads, wanted, rough=rough), start_s):
        # Where nothing decodable comes before the wanted start, the first picture there is stands in.
        shown = shown or picture
        early_s = min(picture.time_s - shown.time_s, 1 / RATE_HZ) / 2
        while k < n_wanted and start_s + k / RATE_HZ + early_s < picture.time_s:
            yield k, shown
            k += 1
        shown = picture
        if k >= n_wanted:
            return
    if shown is None:
        return
    end_of_last_s = shown.time_s + min(shown.length_s, _HOLD_S)
    while k < n_wanted and start_s + k / RATE_HZ + (early_s or 0.5 / RATE_HZ) < end_of_last_s:
        yield k, shown
        k += 1


def _forward(found: Iterator[Decoded], start_s: float) -> Iterator[Decoded]:
    """Leave out pictures that do not move time forward; raise `MediaError` where the clock is broken.

    What comes puts off the deadline of whoever asks for it: that of a stage is meant for one that hangs.
    """
    last_s, lost, next_sign_s = -math.inf, 0, -math.inf
    for picture in found:
        if picture.time_s <= last_s:
            lost += 1
            if lost > _LOST_FRAMES:
                raise MediaError("timestamps", f"stand still at {last_s:.3f} s")
            continue
        if picture.time_s - max(last_s, start_s) > _HOLD_S:
            raise MediaError("timestamps", f"jump from {max(last_s, start_s):.3f} to {picture.time_s:.3f} s")
        last_s, lost = picture.time_s, 0
        if last_s >= next_sign_s:
            put_off_deadline()
            next_sign_s = last_s + _SIGN_OF_LIFE_S
        yield picture


def pictures(path: Path, *, start_s: float = 0.0, end_s: float | None = None, threads: int = 1) -> Iterator[Picture]:
    """Every grid instant's picture, not yet converted, for cropping; see `frames` for times and errors."""
    for number, found in _on_grid(path, start_s, end_s, threads):
        yield Picture(number, found.frame, Shape.of(found.frame, found.aspect))


def frames(
    path: Path,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    short_side_px: int | None = None,
    batch: int = 64,
    threads: int = 1,
    rough: bool = False,
) -> Iterator[Frames]:
    """The 25 fps grid from `start_s` to `end_s` (exclusive; else the end), in batches of upright BGR pictures.

    Only the wanted range is decoded, from the key frame before it. Pictures are shrunk so that their shorter side is
    `short_side_px` (never enlarged), in the same pass that converts their colours, with fast bilinear filtering: 1.0
    against 5.5 ms for bicubic per 1080p picture. Damaged pictures are left out and the one before them is held.
    Memory is one batch and the decoder's own. `rough` pictures are for looks: those that no other is made from keep the
    edges of their blocks, 0.04 of 255 on average at 320 rows, for 6 to 17 % of the decoding. Raises `MediaError`.
    """
    scaler = _Scaler(short_side_px)
    images: list[np.ndarray] = []
    first = 0
    last: tuple[VideoFrame, np.ndarray] | None = None
    for number, found in _on_grid(path, start_s, end_s, threads, rough=rough):
        if last is None or found.frame is not last[0]:
            last = found.frame, scaler.image(found.frame, found.aspect)
        images.append(last[1])
        if len(images) == batch:
            yield Frames(first, images, scaler.scale)
            first, images = number + 1, []
    if images:
        yield Frames(first, images, scaler.scale)


def frames_at(path: Path, numbers: Collection[int], *, threads: int = 1) -> Iterator[tuple[int, np.ndarray]]:
    """Some numbers of the 25 fps grid and their upright BGR pictures, as `frames` has them; no other is converted, and
    none after the last is decoded, of a clip of ours few others (`stages.packets`). Numbers past the end are left out.
    Raises `MediaError`."""
    scaler = _Scaler(None)
    end_s = (max(numbers, default=-1) + 1) / RATE_HZ
    for number, found in _on_grid(path, 0.0, end_s, threads, needed(path, numbers)):
        if number in numbers:
            yield number, scaler.image(found.frame, found.aspect)


def key_frames(
    path: Path, *, short_side_px: int, end_s: float | None = None, threads: int = 1
) -> Iterator[tuple[float, np.ndarray]]:
    """Times and pictures of the key frames alone, before `end_s` and shrunk as in `frames`; see
    `stages.container.decoded_keys`."""
    scaler = _Scaler(short_side_px)
    for found in decoded_keys(path, threads):
        if end_s is not None and found.time_s >= end_s:
            return
        yield found.time_s, scaler.image(found.frame, found.aspect)


class _Scaler:
    """One conversion per picture: size, colours, orientation. The size is settled by the first picture; one of another
    shape is put into its middle with black borders (`Shape.fitted` finds things again)."""

    def __init__(self, short_side_px: int | None) -> None:
        self._short_side_px = short_side_px
        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None
        self.scale = 1.0

    def image(self, frame: VideoFrame, aspect: Fraction | None) -> np.ndarray:
        shape = Shape.of(frame, aspect)
        if self._size is None:
            short = min(shape.width_px, shape.height_px)
            self.scale = min(1.0, (self._short_side_px or short) / short)
            self._size = max(round(shape.width_px * self.scale), 1), max(round(shape.height_px * self.scale), 1)
        across, down = self._size
        share = min(across / shape.width_px, down / shape.height_px)
        inside = round(shape.width_px * share), round(shape.height_px * share)
        if max(across - inside[0], down - inside[1]) <= 1:  # of the same shape, but for rounding
            inside = self._size
        width, height = inside[::-1] if shape.quarter_turns % 2 else inside
        bgr = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="bgr24",
            src_colorspace=matrix_of(frame),
            interpolation="FAST_BILINEAR",
            threads=1,
        )
        image = shape.upright(bgr.to_ndarray())
        if inside == self._size:
            return image
        left, top = (across - inside[0]) // 2, (down - inside[1]) // 2
        borders = (top, down - inside[1] - top, left, across - inside[0] - left)
        bordered: np.ndarray = cv2.copyMakeBorder(image, *borders, cv2.BORDER_CONSTANT)
        return bordered
