"""One decoded picture: how it is meant to be seen, and square crops of it without converting the rest. PyAV, OpenCV."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import cv2
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import Colorspace, Interpolation
from numpy.typing import NDArray

_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
_BT709, _BT2020 = 1, (9, 10)
_MATRICES = {_BT709: int(Colorspace.ITU709), 4: int(Colorspace.FCC), 7: int(Colorspace.SMPTE240M)} | dict.fromkeys(
    _BT2020, int(Colorspace.BT2020)
)
_HD_HEIGHT_PX = 720

_LOBES = 3
_WHOLE = 1e-3
"""A corner so near to a pixel's lies on it."""

_PLANES = "gbrp"
"""What swscale converts to: into packed BGR it takes the nearest colour sample and a table that leaves green 1.4 levels
too low; into planes it interpolates and rounds, in the same time (2.3 ms a picture of 1080p)."""

_PLANAR_8BIT = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p")


def matrix_of(frame: VideoFrame) -> int:
    """swscale's number of the YCbCr matrix: what the stream states, else BT.709 from 720 lines on and BT.601 below.

    Players take the same guess; swscale by itself takes BT.601 always, which shifts the colours of untagged HD.
    """
    if frame.colorspace == _UNSPECIFIED:
        hd = min(frame.width, frame.height) >= _HD_HEIGHT_PX
        return int(Colorspace.ITU709 if hd else Colorspace.ITU601)
    return _MATRICES.get(frame.colorspace, int(Colorspace.ITU601))


@dataclass(frozen=True)
class Shape:
    """How coded pixels become the picture a viewer sees: stretched to square pixels, mirrored, turned."""

    width_px: int  # upright, square pixels: "source pixels" everywhere else
    height_px: int
    coded_width_px: int
    coded_height_px: int
    quarter_turns: int  # counter-clockwise, after mirroring
    mirrored: bool  # left and right exchanged, before turning

    @classmethod
    def of(cls, frame: VideoFrame, aspect: Fraction | None) -> "Shape":
        """The shape by the frame's display matrix and pixel aspect ratio; turns are rounded to quarters."""
        turns, mirrored = _orientation(frame)
        ratio = float(aspect) if aspect and Fraction(1, 4) <= aspect <= 4 else 1.0
        width, height = max(round(frame.width * max(ratio, 1.0)), 1), max(round(frame.height * max(1 / ratio, 1.0)), 1)
        upright = (height, width) if turns % 2 else (width, height)
        return cls(*upright, frame.width, frame.height, turns, mirrored)

    def fitted(self, box: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
        """A box x0, y0, x1, y1 on a picture of another width and height, on this one: streams change size midway.

        This one is taken to lie in the middle of the other, as large as it can without being stretched.
        """
        zoom = max(self.width_px / size[0], self.height_px / size[1])
        left, top = (self.width_px - size[0] * zoom) / 2, (self.height_px - size[1] * zoom) / 2
        x0, y0, x1, y1 = box
        return x0 * zoom + left, y0 * zoom + top, x1 * zoom + left, y1 * zoom + top

    def upright(self, image: np.ndarray) -> np.ndarray:
        """Mirror and turn an image (h, w, 3) of coded orientation."""
        image = image[:, ::-1] if self.mirrored else image
        return np.ascontiguousarray(np.rot90(image, self.quarter_turns))

    def coded_box(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """A box x0, y0, x1, y1 in source pixels, as the box in coded pixels that becomes it."""
        x0, y0, x1, y1 = box
        width, height = self.width_px, self.height_px
        for _ in range(self.quarter_turns % 4):  # undo one counter-clockwise turn
            x0, y0, x1, y1 = height - y1, x0, height - y0, x1
            width, height = height, width
        if self.mirrored:
            x0, x1 = width - x1, width - x0
        x_scale, y_scale = self.coded_width_px / width, self.coded_height_px / height
        return x0 * x_scale, y0 * y_scale, x1 * x_scale, y1 * y_scale


def _orientation(frame: VideoFrame) -> tuple[int, bool]:
    matrix = None  # looked for without a rotation as well: turning a picture upside down by a mirror is none
    with contextlib.suppress(ValueError):  # PyAV, of side data that it has no name for: EXIF of a camera, spatial video
        matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX)  # type: ignore[call-overload]
    if matrix is None:
        return round(frame.rotation / 90) % 4, False
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].astype(float)
    if a * d - b * c >= 0:
        return round(frame.rotation / 90) % 4, False
    # Mirrored: the matrix without the mirror tells the turn.
    angle = np.degrees(np.arctan2(-b, -a))
    return round(-float(angle) / 90) % 4, True


@dataclass(frozen=True)
class Picture:
    """A decoded picture and its place on the 25 fps grid; valid until the next one is asked for."""

    number: int
    frame: VideoFrame
    shape: Shape

    def crop(self, box: tuple[float, float, float, float], size_px: int) -> np.ndarray:
        """The square box x0, y0, x1, y1 (source pixels, may be fractional) as uint8 (size, size, 3), BGR.

        Only the box is cut, then converted and scaled in one pass: shrinking averages areas, enlarging is bicubic.
        Where its corner lies between pixels, a Lanczos filter (three lobes) moves them there first. A side that is not
        an even number of coded pixels is rounded to one, about its middle. Outside the picture its border is repeated.
        """
        x0, y0, x1, y1 = self.shape.coded_box(box)
        width, height = _even(x1 - x0), _even(y1 - y0)
        part = self._part((x0 + x1 - width) / 2, (y0 + y1 - height) / 2, width, height)
        shrink = size_px <= min(width, height)
        planes = part.reformat(
            width=size_px,
            height=size_px,
            format=_PLANES,
            src_colorspace=matrix_of(self.frame),
            interpolation=(Interpolation.AREA if shrink else Interpolation.BICUBIC) | Interpolation.ACCURATE_RND,
            threads=1,
        )
        return self.shape.upright(planes.to_ndarray(format="bgr24", threads=1))

    def _part(self, left: float, top: float, width: int, height: int) -> VideoFrame:
        """Coded pixels of a window, in the format of the frame where that is planar."""
        frame = self.frame
        if frame.format.name not in _PLANAR_8BIT:  # 10 bit, interleaved chroma, RGB: rare; all of it is converted
            return VideoFrame.from_ndarray(_window(self._converted, left, top, width, height), "bgr24")
        part = VideoFrame(width, height, frame.format.name)
        for source, target in zip(frame.planes, part.planes, strict=True):
            x, y = left / round(frame.width / source.width), top / round(frame.height / source.height)
            plane = _samples(source)[: source.height, : source.width]
            _samples(target)[: target.height, : target.width] = _window(plane, x, y, target.width, target.height)
        part.color_range = frame.color_range
        return part

    @cached_property
    def _converted(self) -> NDArray[np.uint8]:
        """All coded pixels (h, w, 3), BGR. Once for all faces in a picture: 40 ms of one in 4K, a crop takes 1.6."""
        whole = self.frame.reformat(
            format=_PLANES, src_colorspace=matrix_of(self.frame), interpolation=Interpolation.ACCURATE_RND, threads=1
        )
        return np.asarray(whole.to_ndarray(format="bgr24", threads=1), np.uint8)


def _samples(plane: VideoPlane) -> NDArray[np.uint8]:
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)


def _window(samples: NDArray[np.uint8], left: float, top: float, width: int, height: int) -> NDArray[np.uint8]:
    """Samples (height, width, ...) from a corner on, which may lie between them and outside."""
    x, y = round(left), round(top)
    if max(abs(left - x), abs(top - y)) < _WHOLE:
        return _padded(samples, x, y, width, height)
    x, y = math.floor(left), math.floor(top)
    size = width + 2 * _LOBES - 1, height + 2 * _LOBES - 1
    around = _padded(samples, x - _LOBES + 1, y - _LOBES + 1, *size)
    moved = cv2.sepFilter2D(around, -1, _lanczos(left - x), _lanczos(top - y), anchor=(0, 0))
    return np.ascontiguousarray(moved[:height, :width], np.uint8)


def _lanczos(fraction: float) -> NDArray[np.float64]:
    """Weights of the samples about a place between two of them, `fraction` past the first."""
    distance = np.arange(1 - _LOBES, _LOBES + 1) - fraction
    weights = np.sinc(distance) * np.sinc(distance / _LOBES)
    return np.asarray(weights / weights.sum())


def _padded(samples: NDArray[np.uint8], x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
    """Samples from (x, y) on; outside, the nearest that there is."""
    rows, columns = samples.shape[:2]
    x0, y0 = min(max(x, 0), columns - 1), min(max(y, 0), rows - 1)
    inside = samples[y0 : max(y + height, y0 + 1), x0 : max(x + width, x0 + 1)]
    missing_y, missing_x = height - inside.shape[0], width - inside.shape[1]
    if not missing_x and not missing_y:
        return inside
    above, before = min(max(-y, 0), missing_y), min(max(-x, 0), missing_x)
    border = above, missing_y - above, before, missing_x - before
    return np.asarray(cv2.copyMakeBorder(inside, *border, borderType=cv2.BORDER_REPLICATE), np.uint8)


def _even(size: float) -> int:
    """Chroma planes of 4:2:0 have half of it. Where a size lies half way between two even numbers, as over wide pixels,
    the noise in its last digit must not have it change from picture to picture."""
    return max(2 * round(round(size, 6) / 2), 2)
