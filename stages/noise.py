"""How far a voice stands above what lies under it: music, noise, other voices."""

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from manifests.records import SAMPLE_RATE_HZ
from stages.whisper import Voiced

_HOP = SAMPLE_RATE_HZ // 100
_WINDOW = 5
"""Hops whose mean power counts: 50 ms, in which chords and noise are steady and the gaps within a word still show."""

_NOISE_CENTILE = 10.0
"""Of the power in a clip's windows, that taken for what is always there. Nobody fills nine tenths of the time: even
where voice activity sees no pause, stops are silent for 50 to 100 ms."""

_QUANTISED = 1 / 12 / 32768**2
"""Power of the rounding to 16 bits: less than that under a voice is silence."""

_LEAST = 0.01
"""Of the noise's power, that a voice has at least: what was taken for one may be less than what is always there."""


def snr_db(sound: NDArray[np.float32], voiced: Sequence[Voiced]) -> float | None:
    """Power of the voice against that of what else is heard, decibels, from -20 to about 90; None where no voice is.

    `sound` (n,) is mono in -1..1 at 16 kHz. The noise is the tenth centile of the power of windows of 50 ms, the voice
    what its stretches have above that. White noise and two pieces of music put under 24 real voices at 0, 5, 10, 15 and
    20 dB read, in the median, 0 to 2, 5, 10, 14 and 17, as those recordings have noise of their own.
    """
    hops = len(sound) // _HOP
    spoken_s = sum(one.speech_s for one in voiced)
    if hops < _WINDOW or spoken_s <= 0:
        return None
    power = np.square(sound[: hops * _HOP], dtype=np.float64).reshape(hops, _HOP).mean(axis=1)
    noise = max(float(np.percentile(sliding_window_view(power, _WINDOW).mean(axis=1), _NOISE_CENTILE)), _QUANTISED)
    per_s = SAMPLE_RATE_HZ / _HOP
    spoken = [power[round(one.start_s * per_s) : round(one.end_s * per_s)] for one in voiced]
    voice = float((np.concatenate(spoken) - noise).sum()) / (spoken_s * per_s)
    return float(10 * np.log10(max(voice, _LEAST * noise) / noise))
