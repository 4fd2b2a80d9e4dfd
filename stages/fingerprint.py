"""Fingerprints of pictures and of sound that survive re-encoding, and how far two of them are apart. Pure.

Both are hex strings. A picture fingerprint is a row of 64-bit hashes, one per frame (16 digits each); a sound
fingerprint a row of 16-bit words, one per 64 ms (4 digits each).

Measured on 91 real clips and 10 voices. Sound: copies (AAC and MP3 at 32 kbit/s, Opus at 16, noise at 20 dB, gain,
trims) are at most 0.17 apart, sounds that are no copies at least 0.36: a limit of 0.25 tells them apart. Of 33 copies
each, 3 to 5 % faster or slower, all are below 0.14 at their tempo where the pitch was kept; where it went along, below
0.31, and 9 of 10 (4 % faster, PAL), 7 (4 % slower) and 5 (5 % faster) below 0.25. Others stay above 0.38 (2080 pairs).
"""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from manifests.records import SAMPLE_RATE_HZ

_PICTURE_PX = 32
_PICTURE_BITS = 64
_HOP = 1024  # samples: 64 ms
_WINDOW = 4096  # samples: 256 ms, so that a trim between two hops changes few bits
_BANDS_HZ = (250.0, 3700.0)  # survives telephone bandwidth and low bit rates
_WORD_BITS = 16
_WORD_DIGITS = 4
_SPAN_WORDS = 3  # words over which the change is taken: 0.2 s
_OVERLAP_S = 3.0  # two sounds are compared where at least so much of both meets
_LEAST_WORDS = round(_OVERLAP_S * SAMPLE_RATE_HZ / _HOP)
_EXCERPT_WORDS = 64  # 4 s, over which half a step between two tempos adds up to a third of a word
_TEMPOS = np.linspace(0.94, 1.06, 13)  # re-uploads are played up to 5 % faster or slower than what they copy

Bits = NDArray[np.bool_]
Words = NDArray[np.uint16]


def _zigzag() -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Row and column of the 64 lowest frequencies but the mean, lowest first."""
    pairs = sorted((v + u, v, u) for v in range(12) for u in range(12) if v + u > 0)[:_PICTURE_BITS]
    return np.array([v for _, v, _ in pairs]), np.array([u for _, _, u in pairs])


_ROWS, _COLUMNS = _zigzag()
_MIRRORED = _COLUMNS % 2 == 1  # mirroring changes the sign of the coefficients with odd horizontal frequency


def picture_hash(pictures: Iterable[NDArray[np.uint8]]) -> str:
    """Fingerprint of frames (h, w, 3) or (h, w): signs of the 64 lowest DCT coefficients of each, at 32 x 32 luma.

    After C. Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010 (pHash). All frames are
    mirrored if that makes their left halves the brighter on the whole: a mirrored copy has the same fingerprint.
    """
    import cv2

    found = []
    for picture in pictures:
        luma = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) if picture.ndim == 3 else picture
        small = cv2.resize(luma, (_PICTURE_PX, _PICTURE_PX), interpolation=cv2.INTER_AREA)
        found.append(cv2.dct(small.astype(np.float32))[_ROWS, _COLUMNS])
    if not found:
        return ""
    coefficients = np.stack(found)
    if coefficients[:, (_ROWS == 0) & (_COLUMNS == 1)].sum() < 0:
        coefficients = np.where(_MIRRORED, -coefficients, coefficients)
    return _hex(coefficients > 0)


def picture_distance(a: str, b: str) -> float:
    """Share of differing bits, 0..1, between frames that match best, mirrored or not. 1.0 if one is empty.

    Each frame of the one is matched with its nearest of the other, so that a different trim costs little; the mean over
    frames is taken, and the larger of both directions.
    """
    if not a or not b:
        return 1.0
    first, second = _bits(a, _PICTURE_BITS), _bits(b, _PICTURE_BITS)
    straight = _nearest(first, second)
    return min(straight, _nearest(first, second ^ _MIRRORED))


def sound_hash(samples: NDArray[np.int16]) -> str:
    """Fingerprint of mono 16 kHz sound: a bit per band and time says whether the slope over the bands grows.

    After J. Haitsma and T. Kalker, "A highly robust audio fingerprinting system", 2002, in coarser steps. Gain does not
    enter. Sound shorter than half a second gives "".
    """
    if len(samples) < _WINDOW + (_SPAN_WORDS + 1) * _HOP:
        return ""
    windows = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_HOP]
    spectrum = np.abs(np.fft.rfft(windows * np.hanning(_WINDOW).astype(np.float32), axis=1)) ** 2
    edges = np.geomspace(*_BANDS_HZ, _WORD_BITS + 2) / SAMPLE_RATE_HZ * _WINDOW
    energy = np.log(np.add.reduceat(spectrum, edges.astype(int), axis=1)[:, :-1] + 1.0)
    slope = np.diff(energy, axis=1)
    return _hex(slope[_SPAN_WORDS:] > slope[:-_SPAN_WORDS])


def sound_distance(a: str, b: str) -> float:
    """Share of differing bits, 0..1, at the shift where two sounds meet best. 1.0 if one is empty.

    Sounds of which one is a trim of the other are found if 3 s (or half of the shorter, if that is less) are common.
    Where both are silent (words of 0) nothing is compared: a silence is like any other, and says nothing of the rest.
    """
    if not a or not b:
        return 1.0
    n, m = len(a) // _WORD_DIGITS, len(b) // _WORD_DIGITS
    least = min(_LEAST_WORDS, (min(n, m) + 1) // 2)
    size = 1 << (n + m - 2).bit_length()  # no shift wraps; a power of two, so that few sizes of one sound are kept
    met = _spectra(a, size).conj() * _spectra(b, size)
    shifts = np.arange(least - n, m - least + 1)
    # Sums of whole numbers up to 16 per word, which single precision has within 0.01 over half a minute.
    agree, silent = np.rint(np.fft.irfft([met[:-1].sum(0), met[-1]], size)[:, shifts])
    words = np.minimum(shifts + n, m) - np.maximum(shifts, 0)
    differ, loud = (words * _WORD_BITS - agree) / 2, words - silent
    enough = loud >= least
    return float(np.min(differ[enough] / loud[enough], initial=_WORD_BITS)) / _WORD_BITS


@lru_cache(maxsize=1024)  # a clip meets those of its own video one after the other; 72 MB where all are of 30 s
def _spectra(text: str, size: int) -> NDArray[np.complex64]:
    """Of each bit of a sound over time, as 1 and -1, then of its silence, as 0 and 1; zeros behind its end."""
    bits = _bits(text, _WORD_BITS).T
    planes = np.concatenate([np.where(bits, 1, -1), ~bits.any(0, keepdims=True)])
    return np.fft.rfft(planes.astype(np.float32), size).astype(np.complex64, copy=False)


def sound_distance_at_tempos(a: str, b: str) -> float:
    """The same between the middle of the shorter sound, 4 s of it, and the other played up to 6 % slower or faster.

    1.0 where that middle is shorter than 3 s, or silent but for less: a silence is like any other.
    """
    first, second = (_words(text) for text in sorted((a, b), key=lambda text: (len(text), text)))
    n = min(_EXCERPT_WORDS, len(first) * 9 // 10)
    middle = first[(len(first) - n) // 2 :][:n]
    if np.count_nonzero(middle) < _LEAST_WORDS:
        return 1.0
    differ = np.bitwise_count(middle[:, None] ^ second[None])
    rows, least = np.arange(n), n * _WORD_BITS
    for tempo in _TEMPOS:
        columns = np.rint(rows * tempo).astype(int)
        shifts = np.arange(len(second) - columns[-1])
        least = min(least, int(differ[rows[:, None], columns[:, None] + shifts].sum(0, dtype=np.uint16).min()))
    return least / (n * _WORD_BITS)


def _nearest(first: Bits, second: Bits) -> float:
    differ = (first[:, None] ^ second[None]).mean(2)
    return float(max(differ.min(0).mean(), differ.min(1).mean()))


def _hex(bits: Bits) -> str:
    return np.packbits(bits, axis=1).tobytes().hex()


def _bits(text: str, width: int) -> Bits:
    rows = np.frombuffer(bytes.fromhex(text), np.uint8).reshape(-1, width // 8)
    return np.unpackbits(rows, axis=1).astype(bool)


def _words(text: str) -> Words:
    return np.frombuffer(bytes.fromhex(text), np.uint16)
