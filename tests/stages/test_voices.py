"""Whoever talks over a voice, or takes over from it, is heard; one voice alone is none but itself."""

from pathlib import Path

import numpy as np
import pytest

from manifests.records import SAMPLE_RATE_HZ
from stages.policies import STRICT
from stages.sound import audio_array
from stages.voices import Voices

ROOT = Path(__file__).parents[2]
CORPUS, REAL = ROOT / "manifests/sample/corpus", ROOT.parent / "shared/clips/voices"
LIMIT = STRICT.max_other_voice_share or 1.0


@pytest.fixture(scope="module")
def voices() -> Voices:
    return Voices("cpu")


def speaker(name: str, seconds: float = 5.0) -> np.ndarray:
    """The beginning of a sample video, in which one person speaks, as loud as others."""
    sound = audio_array(CORPUS / f"{name}.mp4", start_s=0.0, end_s=seconds) / np.float32(32768)
    return sound * np.float32(0.05 / np.sqrt(np.square(sound).mean()))


PEOPLE = ("de-1", "de-3", "en-2", "th-3", "ar-3")


@pytest.mark.parametrize("who", PEOPLE)
def test_one_voice_alone_reads_none_beside_it_however_short(voices, who):
    assert voices.other_share(speaker(who)) == voices.other_share(speaker(who, 8.0)) == 0
    assert voices.other_share(speaker(who, 1.2)) == 0


@pytest.mark.parametrize(("first", "second"), [("de-1", "ar-3"), ("en-2", "de-3"), ("th-3", "en-2")])
def test_a_voice_over_another_is_heard(voices, first, second):
    assert voices.other_share(speaker(first) + speaker(second)) > 0.5 > LIMIT


@pytest.mark.parametrize("before_s", [0.0, 2.0, 11.0])
def test_a_voice_that_takes_over_is_heard_wherever_that_is(voices, before_s):
    one, other = speaker("de-1", 4.0), speaker("en-2", 4.0)
    pause = np.zeros(int(before_s * SAMPLE_RATE_HZ), np.float32)
    assert voices.other_share(np.concatenate([pause, one, other, pause])) > LIMIT


def test_where_nobody_speaks_there_is_no_other_voice(voices):
    for n in (0, 1, SAMPLE_RATE_HZ, 7 * SAMPLE_RATE_HZ):
        assert voices.other_share(np.zeros(n, np.float32)) == 0


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="no real voices in ../shared")
def test_real_voices_alone_read_none_and_two_at_once_read_both(voices):
    names = ("en_whisper_jfk.flac", "de_sadtalker_deyu.flac", "zh_sadtalker_poem1.flac")
    sounds = [audio_array(REAL / name, start_s=0.0, end_s=5.0) / np.float32(32768) for name in names]
    level = [sound * np.float32(0.05 / np.sqrt(np.square(sound).mean())) for sound in sounds]
    assert [voices.other_share(sound) for sound in level] == [0, 0, 0]
    assert min(voices.other_share(level[0] + level[1]), voices.other_share(level[1] + level[2])) > LIMIT
