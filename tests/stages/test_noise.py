"""The voice of a clip stands above music and noise by as much as they were put under it."""

import numpy as np
import pytest

from manifests.records import SAMPLE_RATE_HZ
from stages.noise import snr_db
from stages.whisper import Voiced
from tests.stages.test_speech import babble

SPOKEN = Voiced(start_s=1.0, end_s=7.0, speech_s=6.0)


def voice() -> np.ndarray:
    """6 s of a voice with short gaps between its sounds, a second of silence on either side; in -1..1."""
    sound = np.zeros(8 * SAMPLE_RATE_HZ, np.float32)
    sound[SAMPLE_RATE_HZ : 7 * SAMPLE_RATE_HZ] = babble(6.0).astype(np.float32) / 32768
    return sound


def beds(n: int) -> dict[str, np.ndarray]:
    """White noise, and chords that change twice a second, of power 1."""
    rng = np.random.default_rng(0)
    time_s = np.arange(n) / SAMPLE_RATE_HZ
    roots_hz = rng.choice([196.0, 220.0, 262.0, 294.0], n * 2 // SAMPLE_RATE_HZ + 1)[(time_s * 2).astype(int)]
    phase = np.cumsum(roots_hz) / SAMPLE_RATE_HZ
    chords = sum(np.sin(2 * np.pi * ratio * phase) for ratio in (1, 1.25, 1.5, 2))
    made = {"noise": rng.standard_normal(n), "music": np.asarray(chords)}
    return {name: bed / np.sqrt(np.mean(bed**2)) for name, bed in made.items()}


@pytest.mark.parametrize("bed", ["noise", "music"])
@pytest.mark.parametrize("wanted_db", [0, 5, 10, 15, 20])
def test_what_is_under_a_voice_is_measured_within_three_decibels(bed, wanted_db):
    sound = voice()
    power = np.mean(sound[SAMPLE_RATE_HZ : 7 * SAMPLE_RATE_HZ] ** 2)
    under = beds(len(sound))[bed] * np.sqrt(power) * 10 ** (-wanted_db / 20)
    found = snr_db((sound + under).astype(np.float32), [SPOKEN])
    assert found == pytest.approx(wanted_db, abs=3)


def test_a_pause_within_a_stretch_does_not_count_as_voice():
    sound = (voice() + 1e-3 * beds(8 * SAMPLE_RATE_HZ)["noise"]).astype(np.float32)
    wide = Voiced(start_s=0.0, end_s=8.0, speech_s=6.0)
    assert snr_db(sound, [wide]) == pytest.approx(snr_db(sound, [SPOKEN]), abs=0.1)


def test_a_voice_on_digital_silence_reads_a_number_and_no_voice_none():
    clean = snr_db(voice(), [SPOKEN])
    assert clean is not None and 60 < clean < 100
    assert snr_db(voice(), []) is None
    assert snr_db(np.zeros(200, np.float32), [Voiced(0.0, 0.0125, 0.0125)]) is None


def test_what_was_taken_for_a_voice_and_is_less_than_what_is_always_there_reads_minus_twenty():
    sound = beds(8 * SAMPLE_RATE_HZ)["noise"].astype(np.float32) * np.float32(0.1)
    sound[2 * SAMPLE_RATE_HZ : 3 * SAMPLE_RATE_HZ] = 0
    assert snr_db(sound, [Voiced(2.0, 3.0, 1.0)]) == pytest.approx(-20)
