"""Five landmarks to an aligned grey face, and what is read off it: motion targets and the mouth's opening.

The shards hold five landmarks per frame (eyes, nose tip, mouth corners; crop pixels). Stage 0's targets are made from
them and from the pixels: *lip motion* is the aligned mouth patch and the mouth corners, *expression* is the aligned
upper face and the eyes. Both as differences from the clip's mean, so that they say what moves and not who it is.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from stages.quality import onto

Floats: TypeAlias = NDArray[np.float32]
Bytes: TypeAlias = NDArray[np.uint8]

CANON: Floats = np.array([[0.315, 0.34], [0.685, 0.34], [0.5, 0.53], [0.345, 0.71], [0.655, 0.71]], np.float32)
"""Where the landmarks lie in an aligned face, as shares of its side: wider than ArcFace's crop, to hold the chin."""

MOUTH = (0.56, 0.98, 0.2, 0.8)
"""The mouth patch: top, bottom, left, right, as shares of the aligned side."""

UPPER = (0.06, 0.54, 0.1, 0.9)
"""The upper face: brows and eyes."""

_SMOOTH = np.array([1, 2, 3, 2, 1], np.float32) / 9


def smooth(landmarks: Floats) -> Floats:
    """Landmarks (F, 5, 2) averaged over five frames: detectors jitter by about a pixel."""
    padded = np.pad(landmarks, ((2, 2), (0, 0), (0, 0)), mode="edge")
    windows = np.stack([padded[i : i + len(landmarks)] for i in range(5)])
    smoothed: Floats = np.tensordot(_SMOOTH, windows, 1).astype(np.float32)
    return smoothed


@dataclass(frozen=True)
class View:
    """The square of a clip's crop that the models are shown, in crop pixels; the same for all its frames."""

    left: int
    top: int
    side: int

    def cut(self, frames: Bytes) -> Bytes:
        """Frames (n, h, w, 3) to (n, side, side, 3)."""
        return frames[:, self.top : self.top + self.side, self.left : self.left + self.side]

    def move(self, points: Floats) -> Floats:
        """Points (..., 2) of the crop as points of the view."""
        moved: Floats = points - np.array([self.left, self.top], np.float32)
        return moved


def view_of(landmarks: Floats, size_px: int, share: float) -> View:
    """The view of a clip whose crop has `size_px`: `share` of its side, around the median face, inside the crop."""
    side = round(share * size_px)
    centre = np.median(landmarks.mean(1), axis=0)
    left, top = (int(np.clip(round(float(at) - side / 2), 0, size_px - side)) for at in centre)
    return View(left, top, side)


def similarity(landmarks: Floats, side_px: int) -> Floats:
    """The 2 x 3 similarity that takes landmarks (5, 2) to `CANON` by least squares (Umeyama 1991)."""
    return onto(landmarks, CANON.astype(np.float64) * side_px).astype(np.float32)


def align(frames: Bytes, landmarks: Floats, side_px: int) -> tuple[Bytes, Floats]:
    """Frames (F, h, w, 3) and their landmarks (F, 5, 2), pixels, to grey faces (F, side, side) and aligned landmarks
    (F, 5, 2) as shares of the side."""
    faces = np.zeros((len(frames), side_px, side_px), np.uint8)
    aligned = np.zeros((len(frames), 5, 2), np.float32)
    for i, (frame, points) in enumerate(zip(frames, landmarks, strict=True)):
        matrix = similarity(points, side_px)
        faces[i] = warped(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), matrix, side_px)
        aligned[i] = (points @ matrix[:, :2].T + matrix[:, 2]) / side_px
    return faces, aligned


def warped(picture: Bytes, matrix: NDArray[np.floating[Any]], side_px: int) -> Bytes:
    """A square (side, side, ...) of a picture (h, w, ...) moved by a similarity (2, 3); the borders are repeated.

    `cv2.warpAffine` has no filter for pictures that it shrinks (it takes `INTER_AREA` for linear): of a large face it
    showed one pixel in many, 2.5 grey levels from the mean of their areas. So the picture is shrunk by areas to twice
    the size wanted, moved, and halved: 0.8 levels.
    """
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale >= 1:
        return _moved(picture, matrix, side_px)
    if scale < 0.5:
        height, width = picture.shape[:2]
        small = max(round(2 * scale * width), 1), max(round(2 * scale * height), 1)
        picture = np.asarray(cv2.resize(picture, small, interpolation=cv2.INTER_AREA), np.uint8)
        matrix = matrix @ _about_middles(width / small[0], height / small[1])
    fine = _moved(picture, (_about_middles(2, 2) @ np.vstack([matrix, (0, 0, 1)]))[:2], 2 * side_px)
    return np.asarray(cv2.resize(fine, (side_px, side_px), interpolation=cv2.INTER_AREA), np.uint8)


def _moved(picture: Bytes, matrix: NDArray[np.floating[Any]], side_px: int) -> Bytes:
    size = (side_px, side_px)
    return np.asarray(
        cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8
    )


def _about_middles(x: float, y: float) -> NDArray[np.float64]:
    """Pixel numbers times x and y, as the middles of pixels lie half a pixel from their corners: (3, 3)."""
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])


def mouth_opening(faces: Bytes) -> Floats:
    """How open the mouth of aligned grey faces (F, side, side) is, in shares of the mouth patch, (F,).

    The share of the patch's middle that is darker than three fifths of the cheeks' median: the gap between the lips is
    dark whatever the skin. A measure to correlate over time inside one clip, not to compare between people.
    """
    side = faces.shape[-1]
    rows, columns = slice(round(0.64 * side), round(0.84 * side)), slice(round(0.36 * side), round(0.64 * side))
    inside = faces[:, rows, columns].astype(np.float32)
    skin = np.median(faces[:, round(0.45 * side) : round(0.62 * side), :].astype(np.float32), axis=(1, 2))
    depth = np.clip(0.8 - inside / np.maximum(skin, 1)[:, None, None], 0, None)
    opening: Floats = depth.mean((1, 2)).astype(np.float32)
    return opening
