"""One decoded picture: how it is meant to be seen, and square crops of it without converting the rest. PyAV, OpenCV."""

import math
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation

_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
_BT709, _BT2020 = 1, (9, 10)
_MATRICES = {_BT709: int(Colorspace.ITU709), 4: int(Colorspace.FCC), 7: int(Colorspace.SMPTE240M)} | dict.fromkeys(
    _BT2020, int(Colorspace.BT2020)
)
_HD_HEIGHT_PX = 720

_PLANAR_8BIT = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p")
_CROP_FILTER = Interpolation.BICUBIC | Interpolation.ACCURATE_RND
"""1.2 ms per 512 x 512 px and true to one level; unrounded it is 0.1 ms and darkens by 2, full chroma takes 3.7 ms."""


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
    matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX) if frame.rotation else None  # type: ignore[call-overload]
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
    time_s: float
    frame: VideoFrame
    shape: Shape

    def crop(self, box: tuple[float, float, float, float], size_px: int) -> np.ndarray:
        """The square box x0, y0, x1, y1 (source pixels, may be fractional) as uint8 (size, size, 3), BGR.

        Only the box is converted. Shrinking averages areas; enlarging and fractional positions are bicubic. Where the
        box leaves the picture, the border pixels are repeated.
        """
        x0, y0, x1, y1 = self.shape.coded_box(box)
        left, right = _whole_span(x0, x1, self.shape.coded_width_px)
        top, bottom = _whole_span(y0, y1, self.shape.coded_height_px)
        patch = self._bgr(left, top, right, bottom)
        above, below, before, after = (max(math.ceil(v), 0) for v in (top - y0, y1 - bottom, left - x0, x1 - right))
        if above or below or before or after:
            patch = cv2.copyMakeBorder(patch, above, below, before, after, cv2.BORDER_REPLICATE)
            left, top = left - before, top - above
        square = _resample(patch, (x0 - left, y0 - top, x1 - left, y1 - top), size_px)
        return self.shape.upright(square)

    def _bgr(self, left: int, top: int, right: int, bottom: int) -> np.ndarray:
        frame = self.frame
        if frame.format.name not in _PLANAR_8BIT:  # 10 bit, interleaved chroma, RGB: rare; the whole picture
            whole = frame.reformat(
                format="bgr24", src_colorspace=matrix_of(frame), interpolation=_CROP_FILTER, threads=1
            )
            return np.ascontiguousarray(whole.to_ndarray()[top:bottom, left:right])
        part = VideoFrame(right - left, bottom - top, frame.format.name)
        for source, target in zip(frame.planes, part.planes, strict=True):
            x_step, y_step = round(frame.width / source.width), round(frame.height / source.height)
            rows = np.frombuffer(memoryview(source), np.uint8).reshape(-1, source.line_size)
            x, y = left // x_step, top // y_step
            out = np.frombuffer(memoryview(target), np.uint8).reshape(-1, target.line_size)
            out[: target.height, : target.width] = rows[y : y + target.height, x : x + target.width]
        part.color_range = frame.color_range
        bgr = part.reformat(format="bgr24", src_colorspace=matrix_of(frame), interpolation=_CROP_FILTER, threads=1)
        return bgr.to_ndarray()


def _whole_span(low: float, high: float, size: int) -> tuple[int, int]:
    """The even-aligned whole pixels that cover a span inside the picture, at least two."""
    start = min(max(_floor_even(low), 0), max((size - 2) // 2 * 2, 0))
    end = max(min(-_floor_even(-high), size), start + min(2, size - start))
    return start, end


def _floor_even(value: float) -> int:
    """The largest even number not above `value` (chroma planes of 4:2:0 start at even pixels)."""
    return math.floor(value / 2) * 2


def _resample(patch: np.ndarray, box: tuple[float, float, float, float], size_px: int) -> np.ndarray:
    x0, y0, x1, y1 = box
    height, width = patch.shape[:2]
    x_zoom, y_zoom = (x1 - x0) / size_px, (y1 - y0) / size_px  # patch pixels per output pixel
    if max(abs(x0), abs(y0), abs(width - x1), abs(height - y1)) < 1e-3:
        shrink = x_zoom >= 1 and y_zoom >= 1
        square = cv2.resize(patch, (size_px, size_px), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC)
        return np.asarray(square)
    if x_zoom > 1 or y_zoom > 1:  # areas first, so that the bicubic step below neither shrinks nor aliases
        reduced = max(round(width / max(x_zoom, 1.0)), 1), max(round(height / max(y_zoom, 1.0)), 1)
        patch = cv2.resize(patch, reduced, interpolation=cv2.INTER_AREA)
        x_ratio, y_ratio = reduced[0] / width, reduced[1] / height
        x0, x1, y0, y1 = x0 * x_ratio, x1 * x_ratio, y0 * y_ratio, y1 * y_ratio
        x_zoom, y_zoom = (x1 - x0) / size_px, (y1 - y0) / size_px
    # Pixel centres lie at half coordinates: output i is seen at x0 + (i + 0.5) * zoom - 0.5 of the patch.
    inverse = np.array([[x_zoom, 0, x0 + 0.5 * x_zoom - 0.5], [0, y_zoom, y0 + 0.5 * y_zoom - 0.5]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(patch, inverse, (size_px, size_px), flags=flags, borderMode=cv2.BORDER_REPLICATE))
