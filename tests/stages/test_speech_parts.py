"""What of a clip is transcribed at once, in which language, and what becomes of parts that hold too much text."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.stage import deadline
from stages.aligners import Aligners
from stages.language import Heard
from stages.speech import Part, Transcribe, _mean_logprob, _whole
from stages.whisper import Said, Voiced
from tests.stages.test_speech import LATIN, babble, heard, random_aligner, spoken, timed
from tests.stages.tiny_whisper import make


def test_a_clip_is_transcribed_in_its_language_and_a_mixed_one_part_by_part():
    stage = Transcribe()
    voiced = [Voiced(0.0, 6.0, 5.0), Voiced(6.5, 12.0, 5.0), Voiced(12.5, 18.0, 5.0)]
    german, english, doubtful = {"de": 0.9, "en": 0.1}, {"de": 0.1, "en": 0.9}, {"de": 0.45, "en": 0.55}

    def parts(*probabilities: dict[str, float]) -> list[Part]:
        heard = [
            Heard(start_s=one.start_s, end_s=one.end_s, probabilities=known)
            for one, known in zip(voiced, probabilities, strict=True)
        ]
        return stage.parts(voiced, heard)

    assert parts(german, german, german) == [Part(0.0, 18.0, "de")]
    assert parts(german, doubtful, german) == [Part(0.0, 18.0, "de")]
    assert parts(german, german, english) == [Part(0.0, 12.0, "de"), Part(12.5, 18.0, "en")]
    assert parts(german, english, german) == [Part(0, 6, "de"), Part(6.5, 12, "en"), Part(12.5, 18, "de")]


def test_a_clip_that_agrees_is_transcribed_in_the_expected_of_the_languages_that_count_as_one(tmp_path: Path):
    voiced = [Voiced(0.0, 6.0, 5.0), Voiced(6.5, 12.0, 5.0)]
    south = {"sl": 0.36, "hr": 0.3, "bs": 0.2, "sr": 0.14}
    serbian, english = {"sr": 0.55, "hr": 0.45, "en": 0.0}, {"en": 0.9, "sr": 0.06, "hr": 0.04}
    for first, second, expected, spoken_in in (
        (south, south, "hr", ["hr"]),
        (serbian, serbian, "hr-HR", ["hr"]),
        (serbian, serbian, None, ["sr"]),
        (serbian, english, "hr", ["hr", "en"]),
    ):
        heard = [
            Heard(start_s=one.start_s, end_s=one.end_s, probabilities=known)
            for one, known in zip(voiced, (first, second), strict=True)
        ]
        assert [part.language for part in Transcribe().parts(voiced, heard, expected)] == spoken_in
    stage = Transcribe(model=str(make(tmp_path, languages=["hr", "bs", "sr"])), align=False, beam=1)
    for expected in ("hr", "bs", "sr"):
        (one,) = spoken(tmp_path / "store", stage, [babble(3)], expected).items
        assert (one.language, one.verdict) == (expected, "agree") and one.language_probability == pytest.approx(1.0)


def test_a_part_that_holds_more_than_the_model_can_say_is_heard_again_in_halves_but_no_loop_is():
    voiced = [Voiced(start_s, start_s + 5.5, 5.0) for start_s in (0.0, 6.0, 12.0, 18.0, 24.0)]

    def whole(most_s: float, text: str, *parts: Part) -> tuple[list[tuple[float, float]], float]:
        """Spans of what is kept, and what the clip's log-probability says of a model with room for so many seconds."""
        (said,) = _whole(
            [parts],
            [voiced],
            lambda some: [Said(text, -0.2, cut_off=part.end_s - part.start_s > most_s) for _, part in some],
        )
        return [(part.start_s, part.end_s) for part, _ in said], _mean_logprob(said)

    part = Part(0.0, 29.5, "th")
    assert whole(30, "Guten Tag", part) == ([(0, 29.5)], -0.2)
    assert whole(18, "Guten Tag", part) == ([(0, 11.5), (12, 29.5)], pytest.approx(-0.2))
    kept, _ = whole(9, "a", part, Part(30, 36, "de"))
    assert kept == [(0, 5.5), (6, 11.5), (12, 17.5), (18, 23.5), (24, 29.5), (30, 36)]
    assert whole(9, "a", Part(40, 50, "de"))[0] == [(40, 45), (45, 50)]  # a voice without a pause
    assert whole(0, "a", Part(0, 5.5, "de")) == ([(0, 5.5)], -10)
    assert whole(18, "Guten Tag, " * 50, part) == ([(0, 29.5)], -10)


def test_no_part_is_longer_than_whisper_hears():
    stage = Transcribe()
    voiced = [Voiced(start, start + 5.5, 5.0) for start in range(0, 60, 6)]
    heard = [Heard(start_s=0.0, end_s=5.5, probabilities={"de": 1.0})]
    found = stage.parts(voiced, heard)
    assert [(part.start_s, part.end_s) for part in found] == [(0, 29.5), (30, 59.5)]
    short = Transcribe(part_s=12.0).parts(voiced, heard)
    assert [(part.start_s, part.end_s) for part in short] == [(start, start + 11.5) for start in range(0, 60, 12)]


def test_each_batch_that_is_listened_to_and_each_that_is_transcribed_puts_off_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Five windows of each of 64 clips pass a large model's encoder before the first text: hours on two cores."""
    armed: list[float] = []
    monkeypatch.setattr("faulthandler.dump_traceback_later", lambda seconds, **_: armed.append(seconds))
    stage = Transcribe(model=str(make(tmp_path)), align=False, beam=1, batch=1)
    with deadline(9000.0):
        found = spoken(tmp_path / "store", stage, [babble(3, seed) for seed in range(9)]).items
    heard_in = sum(len(one.windows) for one in found)
    assert heard_in >= 9 and len(armed) >= 1 + heard_in + 9, "once for the call, for each window, for each clip"


def test_an_aligner_places_what_counts_as_its_language_and_a_clip_is_aligned_only_where_all_parts_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TFW_MODELS", str(tmp_path))
    random_aligner(tmp_path / "align-hr", LATIN)
    sound, aligners = babble(8).astype(np.float32) / 32768, Aligners("cpu")
    bosnian, english = heard("To je to", "bs"), heard("This is it", "en", start_s=4.0)
    for expected in ("hr", "sr-Latn", "bs"):
        assert timed(sound, bosnian, aligners, expected)[1], expected
    words, aligned = timed(sound, [*bosnian, *english], aligners, "sr")
    assert [word.text for word in words] == ["To", "je", "to", "This", "is", "it"] and not aligned
    assert [word.start_s for word in words[3:]] == [4.0, 4.1, 4.2]


def test_a_long_part_says_more_of_how_sure_a_text_is_than_a_short_one():
    said = [(Part(0.0, 1.0, "de"), Said("Ja.", -1.0)), (Part(2.0, 5.0, "de"), Said("Guten Tag.", -0.2))]
    assert _mean_logprob(said) == pytest.approx(-0.4)


def test_a_stretch_whose_language_nobody_asked_for_has_that_of_the_nearest_one():
    voiced = [Voiced(0.0, 6.0, 5.0), Voiced(6.2, 8.0, 1.8), Voiced(9.0, 15.0, 5.0)]
    listened = [
        Heard(start_s=0.0, end_s=6.0, probabilities={"de": 0.9, "en": 0.1}),
        Heard(start_s=9.0, end_s=15.0, probabilities={"de": 0.1, "en": 0.9}),
    ]
    assert Transcribe().parts(voiced, listened) == [Part(0.0, 8.0, "de"), Part(9.0, 15.0, "en")]
