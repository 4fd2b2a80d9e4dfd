"""How a person moves: head, eyes, brows and, from phonemes with their times, the mouth."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from manifests.sample.head import SHAPES
from manifests.sample.visemes import Phoneme, mouth_curves

Floats = NDArray[Any]


@dataclass(frozen=True)
class Motion:
    """Everything that changes, per frame. Angles in degrees; `shift` in decimetres; `gaze` about -1..1."""

    yaw: Floats  # (F,), positive: turned to the viewer's right
    pitch: Floats  # (F,), positive: chin down
    roll: Floats  # (F,), positive: clockwise as the viewer sees it
    shift: Floats  # (F, 3)
    shapes: Floats  # (F, len(SHAPES))
    tongue: Floats  # (F,), 1: tip up behind the upper teeth
    gaze: Floats  # (F, 2), x to the viewer's right, y up

    def __len__(self) -> int:
        return len(self.yaw)


def talk(
    phonemes: tuple[Phoneme, ...],
    n_frames: int,
    seed: int,
    *,
    rate_hz: float = 25.0,
    yaw_deg: float = 0.0,
    pitch_deg: float = 0.0,
    liveliness: float = 1.0,
    loudness: Floats | None = None,
) -> Motion:
    """Move for `n_frames` while saying `phonemes` (name, start_s, end_s); none: a listener, mouth at rest.

    The lips are where the sound is: frame i shows time (i + 0.5) / rate_hz, so the audio offset of what this returns
    is zero. `loudness` (F,), 0..1, opens the jaw wider and raises the brows where the voice is louder.
    """
    rng = np.random.default_rng([seed, 0x3A])
    n = n_frames
    loud = np.full(n, 0.6, np.float32) if loudness is None else loudness.astype(np.float32)
    mouth = mouth_curves(phonemes, n, rate_hz)
    shapes = np.zeros((n, len(SHAPES)), np.float32)
    for name, curve in mouth.items():
        if name in SHAPES:
            shapes[:, SHAPES.index(name)] = curve
    articulation = rng.uniform(0.85, 1.2)
    for name in ("jaw", "upper", "lower", "wide", "round"):
        shapes[:, SHAPES.index(name)] *= articulation
    shapes[:, SHAPES.index("jaw")] *= 0.80 + 0.35 * gaussian_filter1d(loud, 1.0 * rate_hz / 25)
    speaking = mouth["speaking"]
    accent = gaussian_filter1d(speaking * loud, 0.10 * rate_hz)
    shapes[:, SHAPES.index("smile")] += 0.12 + 0.16 * _wander(rng, n, rate_hz, 0.15)
    brow = (
        0.35 * _wander(rng, n, rate_hz, 0.4)
        + 0.5 * (accent - accent.mean())
        + 0.25 * _pulses(rng, n, rate_hz, 0.25, 0.5)
    )
    shapes[:, SHAPES.index("brow_up")] = np.clip(brow, 0, 1.0)
    shapes[:, SHAPES.index("brow_down")] = np.clip(-brow, 0, 0.8)
    lids = 1.0 - _blinks(rng, n, rate_hz)
    shapes[:, SHAPES.index("lid_upper")] = np.clip(lids * (1.0 + 0.06 * brow), 0, 1.2)
    shapes[:, SHAPES.index("lid_lower")] = 0.55 + 0.45 * lids
    reach = liveliness
    nod = reach * 5.0 * (accent - gaussian_filter1d(accent, 0.8 * rate_hz))
    return Motion(
        yaw=(
            yaw_deg + reach * 5.0 * _wander(rng, n, rate_hz, 0.22) + reach * 1.2 * _wander(rng, n, rate_hz, 0.9)
        ).astype(np.float32),
        pitch=(pitch_deg + reach * 2.6 * _wander(rng, n, rate_hz, 0.3) + nod).astype(np.float32),
        roll=(reach * 2.2 * _wander(rng, n, rate_hz, 0.2)).astype(np.float32),
        shift=(reach * np.stack([_wander(rng, n, rate_hz, 0.2) * s for s in (0.06, 0.02, 0.05)], -1)).astype(
            np.float32
        ),
        shapes=shapes.astype(np.float32),
        tongue=mouth["tongue"].astype(np.float32),
        gaze=_saccades(rng, n, rate_hz),
    )


def still(motion: Motion, frame: int = 0) -> Motion:
    """The same picture throughout: every array held at one frame."""
    return pick(motion, np.full(len(motion), frame))


def pick(motion: Motion, frames: NDArray[np.integer]) -> Motion:
    """The motion at these frames."""
    return Motion(**{name: getattr(motion, name)[frames] for name in Motion.__dataclass_fields__})


def _wander(rng: np.random.Generator, n: int, rate_hz: float, hz: float) -> Floats:
    """Smooth noise of unit variance with content up to about `hz`."""
    sigma = rate_hz / (2 * np.pi * hz) * 0.9
    pad = int(4 * sigma) + 2
    smooth = gaussian_filter1d(rng.normal(size=n + 2 * pad), sigma)[pad:-pad]
    unit: Floats = (smooth * np.sqrt(2 * np.sqrt(np.pi) * sigma)).astype(np.float32)
    return np.clip(unit, -2.2, 2.2)


def _pulses(rng: np.random.Generator, n: int, rate_hz: float, per_s: float, length_s: float) -> Floats:
    hits = (rng.random(n) < per_s / rate_hz).astype(np.float64)
    sigma = length_s * rate_hz / 2.5
    return np.asarray(gaussian_filter1d(hits, sigma) * sigma * 2.5, np.float32)


def _blinks(rng: np.random.Generator, n: int, rate_hz: float) -> Floats:
    """Closure of the lids: about 17 blinks a minute, 120 ms down, 200 ms up."""
    time = np.arange(n) / rate_hz
    shut = np.zeros(n)
    at = rng.uniform(0.3, 3.0)
    while at < n / rate_hz:
        since = time - at
        shut = np.maximum(shut, np.interp(since, [-0.10, -0.01, 0.04, 0.22], [0, 1, 1, 0]))
        at += 0.4 + rng.exponential(3.2)
    return shut.astype(np.float32)


def _saccades(rng: np.random.Generator, n: int, rate_hz: float) -> Floats:
    """Where the eyes look: mostly at the camera, jumping off and back."""
    gaze = np.zeros((n, 2), np.float32)
    at, where = 0, np.zeros(2)
    while at < n:
        length = max(2, round(rate_hz * rng.gamma(2.0, 0.5)))
        gaze[at : at + length] = where
        where = rng.normal(size=2) * (0.22, 0.10) if rng.random() < 0.55 else rng.normal(size=2) * 0.03
        at += length
    return np.asarray(gaussian_filter1d(gaze, 0.35 * rate_hz / 25, axis=0), np.float32)
