"""Phonemes with times to mouth curves: which lip shapes a sound needs, and how neighbours blend."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

Phoneme = tuple[str, float, float]
"""espeak-ng's or IPA name, start and end in seconds."""

Floats = NDArray[Any]

CHANNELS = ("jaw", "upper", "lower", "wide", "round", "press", "tuck", "tongue")

_V = dict[str, float]
_VISEMES: dict[str, tuple[_V, float]] = {  # targets and how firmly a sound insists on them against its neighbours
    "rest": ({}, 0.8),
    "closed": ({"press": 0.9}, 4.0),
    "teeth_on_lip": ({"tuck": 1.0, "upper": 0.3, "jaw": 0.06}, 3.0),
    "th": ({"jaw": 0.16, "lower": 0.4, "upper": 0.25, "tongue": 0.8}, 1.6),
    "tip": ({"jaw": 0.16, "lower": 0.35, "upper": 0.22, "tongue": 0.95}, 1.0),  # t d n
    "l": ({"jaw": 0.28, "lower": 0.35, "upper": 0.25, "tongue": 1.0}, 1.1),
    "s": ({"jaw": 0.05, "wide": 0.4, "lower": 0.8, "upper": 0.50}, 1.8),
    "sh": ({"jaw": 0.10, "round": 0.62, "lower": 0.65, "upper": 0.65}, 2.0),
    "r": ({"jaw": 0.16, "round": 0.40, "lower": 0.3, "upper": 0.15, "tongue": 0.4}, 1.0),
    "back": ({"jaw": 0.22, "lower": 0.15, "upper": 0.1}, 0.5),  # k g h
    "w": ({"jaw": 0.10, "round": 1.0}, 2.0),
    "i": ({"jaw": 0.16, "wide": 0.95, "lower": 0.45, "upper": 0.35}, 1.3),
    "e": ({"jaw": 0.42, "wide": 0.65, "lower": 0.35, "upper": 0.30}, 1.2),
    "a": ({"jaw": 0.85, "wide": 0.15, "lower": 0.25, "upper": 0.25}, 1.4),
    "schwa": ({"jaw": 0.38, "lower": 0.15, "upper": 0.15}, 0.8),
    "o": ({"jaw": 0.62, "round": 0.70}, 1.4),
    "open_o": ({"jaw": 0.80, "round": 0.45}, 1.3),
    "u": ({"jaw": 0.20, "round": 1.0}, 1.5),
    "y": ({"jaw": 0.14, "round": 0.90, "lower": 0.2}, 1.5),
    "oe": ({"jaw": 0.40, "round": 0.70, "lower": 0.2}, 1.4),
}
_OF = {
    "closed": "mbpɓ",
    "teeth_on_lip": "fvɱʋ",
    "th": "θðTD",
    "tip": "tdnɲɳʈɖN",
    "l": "lɫɭʎL",
    "s": "szcʦʣɕʑ",
    "sh": "ʃʒSZʂʐ",
    "r": "rɹɾRʁʀɻ",
    "back": "kgɡhxɣŋqχħʕɦɟ?ʔGHXQçC",
    "w": "wʍɥ",
    "i": "iIɪjɨ",
    "e": "eEɛ",
    "a": "aAɑæɐʌ",
    "schwa": "ə@ɜ3ɘɚɝɵVɤ",
    "o": "oO",
    "open_o": "ɔɒ0",
    "u": "uUʊɯ",
    "y": "yʏY",
    "oe": "øœW",
}
_VISEME_OF = {letter: viseme for viseme, letters in _OF.items() for letter in letters}
_LABIAL_FIRST = {
    "pf": "closed",
    "tʃ": "sh",
    "dʒ": "sh",
    "tS": "sh",
    "dZ": "sh",
    "ts": "s",
    "dz": "s",
    "tɕ": "sh",
    "dʑ": "sh",
    "ʈʂ": "sh",
    "tʂ": "sh",
}


def visemes(name: str) -> tuple[str, ...]:
    """The mouth shapes of one phoneme, in order: two for a diphthong, one else; `rest` for a pause."""
    plain = name.strip("ˈˌ'_,:;|~-^ ")
    if not plain:
        return ("rest",)
    for start, viseme in _LABIAL_FIRST.items():
        if plain.startswith(start):
            return (viseme,)
    found = [_VISEME_OF[letter] for letter in plain if letter in _VISEME_OF]
    if not found:
        return ("schwa",)
    if len(found) > 1 and found[0] in _VOWELS and found[1] in _VOWELS and found[0] != found[1]:
        return found[0], found[1]
    return (found[0],)


_VOWELS = frozenset(("i", "e", "a", "schwa", "o", "open_o", "u", "y", "oe"))
_FINE_HZ = 200.0


def mouth_curves(phonemes: tuple[Phoneme, ...], n_frames: int, rate_hz: float) -> dict[str, Floats]:
    """Curves (n_frames,) of each of `CHANNELS`, and `speaking` 0..1.

    Co-articulation after Cohen and Massaro (1993): every sound pulls towards its targets with a dominance that rises
    before it and falls after it; a curve is the dominance-weighted mean. Lips close for m, b and p whatever surrounds.
    """
    n = int(np.ceil(n_frames / rate_hz * _FINE_HZ)) + 1
    time = (np.arange(n) / _FINE_HZ).astype(np.float64)
    total = np.full(n, 1e-3)
    sums = {name: np.zeros(n) for name in CHANNELS}
    speaking = np.zeros(n)
    for name, start_s, end_s in phonemes:
        shapes = visemes(name)
        span = (end_s - start_s) / len(shapes)
        if shapes != ("rest",):
            speaking[int(start_s * _FINE_HZ) : int(end_s * _FINE_HZ) + 1] = 1
        for k, shape in enumerate(shapes):
            targets, strength = _VISEMES[shape]
            low, high = start_s + k * span, start_s + (k + 1) * span
            lo, hi = np.searchsorted(time, (low - 0.2, high + 0.2))
            away = np.maximum(low - time[lo:hi], time[lo:hi] - high).clip(0)
            dominance = strength * np.exp(-away / 0.042)
            total[lo:hi] += dominance
            for channel, target in targets.items():
                sums[channel][lo:hi] += dominance * target
    curves = {name: gaussian_filter1d(values / total, 0.014 * _FINE_HZ) for name, values in sums.items()}
    closed = np.clip((curves["press"] - 0.45) / 0.3, 0, 1)
    for name in ("jaw", "upper", "lower"):
        curves[name] *= 1 - 0.95 * closed if name != "jaw" else 1 - 0.85 * closed
    curves["speaking"] = gaussian_filter1d(speaking, 0.03 * _FINE_HZ)
    at = (np.arange(n_frames) + 0.5) / rate_hz
    return {name: np.interp(at, time, values).astype(np.float32) for name, values in curves.items()}
