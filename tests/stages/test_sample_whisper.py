"""The sample recogniser on voices it was not trained on: words, languages, and a change of language half-way."""

import ctypes.util
import json
from pathlib import Path

import numpy as np
import pytest

from manifests.records import Speech
from pipeline.recipes import sample
from stages import weights
from stages.sample.sentences import LANGUAGES, SENTENCES
from stages.sample.voice import CHECK_SPEAKERS, speak
from stages.transcript import edits, tokens
from tests.stages.test_speech import silence, spoken

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(ctypes.util.find_library("espeak-ng") is None, reason="speaks with espeak-ng (Debian package)"),
    pytest.mark.skipif(weights.local("sample/whisper") is None, reason="no sample recogniser in the package"),
]

STAGE = sample().speech


def voice(*lines: tuple[str, int], speaker: int) -> np.ndarray:
    """Sentences by language and number, said by one unheard speaker with half-second pauses."""
    pieces = [silence(0.3)]
    for language, number in lines:
        pieces += [speak(SENTENCES[language][number], language=language, speaker=speaker).samples, silence(0.2)]
    return np.concatenate(pieces)


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, Speech]]:
    """Language, what was said, what was read: two clips of four sentences in each language."""
    chance = np.random.default_rng(5)
    plan = [
        (language, [int(n) for n in chance.choice(26, 4, replace=False)], int(chance.choice(CHECK_SPEAKERS)))
        for language in LANGUAGES
        for _ in range(2)
    ]
    sounds = [voice(*((language, n) for n in numbers), speaker=speaker) for language, numbers, speaker in plan]
    found = spoken(tmp_path_factory.mktemp("store"), STAGE, sounds).items
    return [
        (language, " ".join(SENTENCES[language][n] for n in numbers), one)
        for (language, numbers, _), one in zip(plan, found, strict=True)
    ]


def test_fewer_than_one_word_in_five_is_wrong_on_unheard_voices(read: list[tuple[str, str, Speech]]):
    pairs = [(tokens(said, language), tokens(one.text, language)) for language, said, one in read]
    wrong = sum(edits(wanted, found) for wanted, found in pairs)
    assert wrong / sum(len(wanted) for wanted, _ in pairs) < 0.2


def test_the_language_of_unheard_voices_is_right(read: list[tuple[str, str, Speech]]):
    assert sum(one.language == language for language, _, one in read) >= 19


def test_one_language_after_another_is_mixed_and_a_wrong_tag_is_other(tmp_path: Path):
    german = [("de", n) for n in (0, 3, 5)]
    thai = [("th", n) for n in (1, 3, 7)]
    speaker = CHECK_SPEAKERS.start + 17
    sounds = [voice(*german, *thai, speaker=speaker), voice(*german, speaker=speaker)]
    both, one = spoken(tmp_path, STAGE, sounds, "pl").items
    assert (both.verdict, one.verdict) == ("mixed", "other")
    assert {window.language for window in both.windows} >= {"de", "th"}


def test_it_has_the_form_that_faster_whisper_reads():
    from faster_whisper import WhisperModel

    folder = weights.path("sample/whisper")
    assert sum(file.stat().st_size for file in folder.iterdir()) < 10_000_000
    assert len(json.loads((folder / "config.json").read_text())["lang_ids"]) == len(LANGUAGES)
    assert WhisperModel(str(folder), device="cpu").model.is_multilingual
