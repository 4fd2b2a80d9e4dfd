"""Observer's measures of one found face: sharpness, exposure, and whether it moves by itself."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

# Where the five landmarks lie in an aligned face of side 1: the ArcFace template (insightface.utils.face_align), drawn
# in by a fifth so that chin and forehead stay in the picture.
_TEMPLATE = (np.array([(38.29, 51.70), (73.53, 51.50), (56.03, 71.74), (41.55, 92.37), (70.73, 92.20)]) - 56) / 112
TEMPLATE: NDArray[np.float64] = _TEMPLATE * 0.8 + (0.5, 0.45)

# Scaling a still by a fraction of a pixel and encoding it again changes single pixels. Blurred by two pixels, two
# photos under zoom move by 0.3 and 0.7 and live talking faces by 1.7 and more; unblurred and uncompensated it was 1.9
# and 2.9 against 2.5 and more.
_BLUR_PX = 2.0
_CONTRAST = 40.0
_LEAST_CONTRAST = 10.0


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The scale at which faces are measured."""

    size_px: int = 96  # side of the aligned face
    motion_gap_frames: int = 4  # compared with the frame this far back, so that 8 pictures a second are real changes

    def measure(
        self, image: Image, before: Image | None, landmarks: NDArray[np.floating]
    ) -> tuple[float, float, float]:
        """Sharpness, exposure and motion of one face; `landmarks` (5, 2) in pixels of `image`.

        Sharpness is the variance of the Laplacian (Pech-Pacheco et al., 2000) of the aligned grey face of `size_px`, so
        it does not depend on the face's size; blur finer than a pixel of that face goes unseen. Exposure is its median
        luma, 0..255. Motion (see `motion`) is near 0 for a still picture, also a panned or zoomed one; NaN without
        `before`.
        """
        matrix = align(landmarks, self.size_px)
        now = _warped(image, matrix, self.size_px)
        sharpness = float(cv2.Laplacian(now, cv2.CV_32F).var())
        exposure = float(np.median(now))
        moved = float("nan") if before is None else motion(_warped(before, matrix, self.size_px), now)
        return sharpness, exposure, moved


def align(landmarks: NDArray[np.floating], size_px: int) -> NDArray[np.float64]:
    """The similarity (2, 3) that puts five landmarks on the template in a square of `size_px`, by least squares."""
    source = np.asarray(landmarks, np.float64) @ (1, 1j)
    target = (TEMPLATE * size_px) @ (1, 1j)
    centred = source - source.mean()
    turn = (centred.conj() @ (target - target.mean())) / max(float((np.abs(centred) ** 2).sum()), 1e-9)
    shift = target.mean() - turn * source.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def motion(before: Image, now: Image) -> float:
    """How much the lower half of a grey aligned face changed beyond an affine movement of a flat picture.

    The movement is found by Evangelidis and Psarakis' ECC; where none fits, the whole change counts. A mean absolute
    difference in grey levels of a face of contrast (standard deviation) 40, so dim light does not look like stillness.
    """
    before, now = (cv2.GaussianBlur(face, (0, 0), _BLUR_PX) for face in (before, now))
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 15, 1e-3)
    try:
        _, matrix = cv2.findTransformECC(now, before, np.eye(2, 3, dtype=np.float32), cv2.MOTION_AFFINE, stop, None, 1)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        before = cv2.warpAffine(before, matrix, now.shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    except cv2.error:  # no texture, or nothing in common
        pass
    edge, half = len(now) // 8, len(now) // 2
    inner = (slice(half, -edge), slice(edge, -edge))
    contrast = max(float(now[edge:-edge, edge:-edge].std()), _LEAST_CONTRAST)
    return float(cv2.absdiff(before[inner], now[inner]).mean()) * _CONTRAST / contrast


def _warped(image: Image, matrix: NDArray[np.float64], size_px: int) -> Image:
    # Warp in colour, then to grey: the face is smaller than the frame.
    shape = (size_px, size_px)
    face = cv2.warpAffine(image, matrix, shape, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.cvtColor(face, cv2.COLOR_BGR2GRAY), np.uint8)
