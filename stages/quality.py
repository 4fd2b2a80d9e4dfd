"""Measures of faces: sharpness, exposure, whether one moves by itself, for how long it does not, and its detail.

And what is made of them over a span of frames, a whole track or a piece of it: `FaceMeasures`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from manifests.records import RATE_HZ

Image = NDArray[np.uint8]

LOOKS = ("sharpness", "exposure", "motion")
"""What `Quality.measure` gives, in its order."""

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

STILL_MOTION = 0.3
"""A frozen picture moves by less. Coarse key frames cut up 4 of 40 freezes of 1.5 to 2.8 s, coded in eight ways; of
three silent people, coded in six ways, one at crf 36 moves less for 1.28 s, the others for 0.64 s at most."""

# Faces have one spectrum, whatever their size: its power falls by 10 dB an octave from 4 cycles a face on. Of 24 real
# clips 18 lack nowhere 8 dB to that line, also coded at crf 30, and the others read 58 px and more. Enlarged faces that
# were 13 to 100 px, coded at crf 18 to 30, read 0.67 to 1.23 of that in 9 of 10 cases; noise of coding hid 4 of 462.
_LOWEST_CYCLES, _OCTAVES, _ANCHOR_BANDS = 4.0, 0.35, 4
_FALL_DB = 10.0
_MISSING_DB = 8.0
_ROLL_OFF = 1.25
"""Filters fall slowly: where so much is missing lies this far above the last detail (4 times smaller and back)."""

DETAIL_PX = 128
"""A larger face is shrunk to this before its detail is looked for: what has so much has enough."""


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
        matrix = onto(landmarks, TEMPLATE * self.size_px)
        now = _warped(image, matrix, self.size_px)
        sharpness = float(cv2.Laplacian(now, cv2.CV_32F).var())
        exposure = float(np.median(now))
        moved = float("nan") if before is None else motion(_warped(before, matrix, self.size_px), now)
        return sharpness, exposure, moved


def onto(landmarks: NDArray[np.floating], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """The similarity (2, 3) that puts landmarks (5, 2) on those of `target`, by least squares."""
    source, wanted = np.asarray(landmarks, np.float64) @ (1, 1j), target @ (1, 1j)
    centred = source - source.mean()
    turn = (centred.conj() @ (wanted - wanted.mean())) / max(float((np.abs(centred) ** 2).sum()), 1e-9)
    shift = wanted.mean() - turn * source.mean()
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


def measures(arrays: Mapping[str, NDArray[Any]], *, width_px: int, height_px: int) -> dict[str, float]:
    """The values of `FaceMeasures` by name, over n consecutive frames of a track in a picture of this size.

    `arrays` are those that `stages.watch` keeps of the track, or the same slice of each: `box` (n, 5), `pose` (n, 3)
    and those of `LOOKS` (n,), NaN where not looked. 0 where nothing is known.
    """
    x0, y0, x1, y1, score = (arrays["box"][:, i].astype(np.float64) for i in range(5))
    turned = np.abs(arrays["pose"])
    inside = (x0 >= 0) & (y0 >= 0) & (x1 <= width_px) & (y1 <= height_px)
    return {
        "detected_share": float((score > 0).mean()),
        "face_px": _median(np.sqrt((x1 - x0) * (y1 - y0))),
        "face_share": _median((y1 - y0) / height_px),
        "score": _median(score[score > 0]),
        "yaw_deg": _median(turned[:, 0]),
        "pitch_deg": _median(turned[:, 1]),
        "roll_deg": _median(turned[:, 2]),
        "yaw_p95_deg": float(np.percentile(turned[:, 0], 95)),
        "inside_share": float(inside.mean()),
        **{name: _median(arrays[name]) for name in LOOKS},
    }


def _median(values: NDArray[Any]) -> float:
    """Of the values that are known; 0 where none is (a face seen only in the first frames has no motion)."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else 0.0


def longest_still_s(moved: NDArray[np.floating], found: NDArray[np.bool_]) -> float:
    """Seconds from the first to the last look of the longest spell in which the face does not move, of the motion
    (n,) of consecutive frames, NaN where not measured, and whether a look found the face there (n,).

    A look shows stillness four frames after a freeze began, so with one every 8 frames a freeze lasts 0.2 to 0.76 s
    longer than this says. A look that did not find the face is passed over. One that found it and did not measure its
    motion, as in crowds, ends a spell: two still looks far apart are often a pause in each, not a freeze.
    """
    looks = np.flatnonzero(found)
    still = np.concatenate([[False], moved[looks] < STILL_MOTION, [False]])
    begin, end = np.flatnonzero(np.diff(still.astype(np.int8))).reshape(-1, 2).T
    return float((looks[end - 1] - looks[begin]).max(initial=0)) / RATE_HZ


def face_power(face: Image) -> NDArray[np.float64]:
    """Power by spatial frequency (bands,) of a square picture (n, n, 3) BGR of a face, up to half a cycle a pixel."""
    grey = cv2.cvtColor(face, cv2.COLOR_BGR2GRAY).astype(np.float32)
    hann, band, counts = _bands(len(grey))
    power = np.abs(np.fft.rfft2((grey - grey.mean()) * hann)) ** 2 / (hann**2).sum()
    return np.asarray(np.bincount(band, power.ravel(), len(counts))[1:-1] / counts[1:-1])


@lru_cache(maxsize=16)
def _bands(size: int) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.float64]]:
    """For a side in pixels: the window, the band of every frequency (the first and last are none), and their counts."""
    hann = np.outer(np.hanning(size), np.hanning(size))
    cycles = np.hypot(np.fft.fftfreq(size, 1 / size)[:, None], np.fft.rfftfreq(size, 1 / size))
    n_bands = max(int(np.log2(size / 2 / _LOWEST_CYCLES) / _OCTAVES), 0)
    band = np.floor(np.log2(np.maximum(cycles, 1) / _LOWEST_CYCLES) / _OCTAVES).clip(-1, n_bands).astype(np.intp) + 1
    return hann, band.ravel(), np.maximum(np.bincount(band.ravel(), minlength=n_bands + 2), 1).astype(np.float64)


def effective_px(power: NDArray[np.float64], face_px: float) -> float:
    """The side of the smallest face that would hold all the detail of one of `face_px`, in its pixels.

    `power` as `face_power` has it, the mean of a few pictures. Detail ends where a band first lacks 8 dB to what the
    lowest bands lead to expect. What noise or a coarse encoder put in its place hides that: then it is `face_px`.
    """
    if len(power) <= _ANCHOR_BANDS:
        return face_px
    octave = (np.arange(len(power)) + 0.5) * _OCTAVES
    excess = 10 * np.log10(power + 1e-6) + _FALL_DB * octave
    missing = excess[:_ANCHOR_BANDS].mean() - _MISSING_DB - excess
    if not (missing > 0).any():
        return face_px
    first = int(np.argmax(missing > 0))
    before, after = missing[max(first - 1, 0)], missing[first]
    last = octave[first] - (_OCTAVES * after / (after - before) if first else 0.0)
    return min(face_px, float(2 * _LOWEST_CYCLES * 2**last / _ROLL_OFF))


def _warped(image: Image, matrix: NDArray[np.float64], size_px: int) -> Image:
    # Warp in colour, then to grey: the face is smaller than the frame.
    shape = (size_px, size_px)
    face = cv2.warpAffine(image, matrix, shape, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.cvtColor(face, cv2.COLOR_BGR2GRAY), np.uint8)
