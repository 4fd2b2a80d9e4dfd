"""The verdict of spoken against expected language, for every tag that manifests and Whisper come up with."""

import pytest

from stages.aligners import alignable
from stages.language import Heard, called, current, languages_heard, likeliest, may_be, same, spread, subtag, verdict
from stages.speech import Transcribe

KNOWN = ("de", "en", "hr", "jv", "sr", "zh")


def window(start_s: float, end_s: float, **probabilities: float) -> Heard:
    rest = 1 - sum(probabilities.values())
    return Heard(start_s=start_s, end_s=end_s, probabilities={"xx": rest, **probabilities})


def judged(windows: list[Heard], expected: str | None) -> str:
    return verdict(windows, expected, known=KNOWN, sure=0.6, mixed_share=0.2)


GERMAN = [window(0, 6, de=0.9), window(7, 12, de=0.8)]


@pytest.mark.parametrize("expected", ["de", "de-AT", "DE", "deu", "de_CH", "de-Latn-DE"])
def test_a_region_a_script_or_a_longer_code_names_the_same_language(expected: str):
    assert judged(GERMAN, expected) == "agree"


@pytest.mark.parametrize("expected", [None, "", "und", "mul", "zxx", "x-mine"])
def test_where_nothing_is_expected_there_is_no_verdict(expected: str | None):
    assert judged(GERMAN, expected) == ""
    assert judged([], expected) == ""


def test_another_language_is_named_as_other_and_no_speech_as_unsure():
    assert judged(GERMAN, "en") == "other"
    assert judged([], "de") == "unsure"


def test_a_doubtful_reading_is_neither_for_nor_against():
    assert judged([window(0, 6, de=0.5, en=0.4)], "de") == "unsure"
    assert judged([window(0, 6, de=0.5, en=0.4)], "en") == "unsure"


def test_a_language_the_model_cannot_name_is_unsure_and_never_other():
    assert judged(GERMAN, "hsb") == "unsure"


def test_standards_of_one_spoken_language_agree_and_add_up():
    windows = [window(0, 6, hr=0.35, sr=0.3, bs=0.3)]
    assert [judged(windows, tag) for tag in ("hr", "sr-Latn", "bs", "cnr")] == ["agree"] * 4
    assert judged([window(0, 6, hr=0.9), window(6, 12, sr=0.9)], "hr") == "agree"


def test_the_language_of_a_clip_is_that_which_its_verdict_was_told_by():
    heard = {"sl": 0.36, "hr": 0.25, "bs": 0.2, "sr": 0.19}
    windows = [Heard(start_s=0, end_s=6, probabilities=heard)]
    assert (judged(windows, "hr"), likeliest(heard)) == ("agree", "hr")
    assert languages_heard(windows, sure=0.6, mixed_share=0.2) == ("hr",) and judged(windows, "de") == "other"
    assert [called("hr", tag, heard) for tag in ("sr-Latn", "cnr", "sl", None)] == ["sr", "hr", "hr", "hr"]
    assert likeliest({"de": 0.5, "en": 0.5}) == "de"


def test_two_languages_for_long_enough_are_mixed_whatever_was_expected():
    windows = [window(0, 6, de=0.9), window(6, 8, en=0.9)]
    assert judged(windows, "de") == "mixed"
    assert judged(windows, "zh") == "mixed"
    assert languages_heard(windows, sure=0.6, mixed_share=0.2) == ("de", "en")


def test_one_short_or_doubtful_window_does_not_make_a_clip_mixed():
    assert judged([window(0, 9, de=0.95), window(9, 10, en=0.9)], "de") == "agree"
    assert judged([window(0, 6, de=0.95), window(6, 9, en=0.5)], "de") == "agree"


def test_deprecated_and_whispers_own_codes_become_todays():
    tags = ("iw", "jw", "zh-Hant", "cmn", "haw", "yue", "no")
    assert [subtag(tag) for tag in tags] == ["he", "jv", "zh", "zh", "haw", "yue", "no"]
    assert same("nb", "no")
    assert same("tl", "fil")
    assert not same("zh", "yue")


def test_every_three_letter_code_of_iso_639_2_means_its_two_letter_one():
    from yt_dlp.utils import ISO639Utils

    longer = {short: ISO639Utils.short2long(short) for short in ISO639Utils._lang_map if short != "pe"}
    assert {longer[short]: subtag(longer[short]) for short in longer} == {longer[one]: subtag(one) for one in longer}
    bibliographic = "alb arm baq bur chi cze dut fre geo ger gre ice mac mao may per rum slo tib wel"
    terms = "sqi hye eus mya zho ces nld fra kat deu ell isl mkd mri msa fas ron slk bod cym"
    assert [subtag(one) for one in bibliographic.split()] == [subtag(one) for one in terms.split()]
    swedish = [window(0, 6, sv=0.9)]
    assert verdict(swedish, "swe", known=("sv", "da"), sure=0.6, mixed_share=0.2) == "agree"
    assert verdict(swedish, "dan", known=("sv", "da"), sure=0.6, mixed_share=0.2) == "other"


def test_a_tag_in_today_s_spelling_keeps_what_follows_its_language():
    tags = ("deu", "iw", "cmn-Hant-TW", "pt-BR", "")
    assert [current(tag) for tag in tags] == ["de", "he", "zh-Hant-TW", "pt-BR", ""]


def test_three_letters_behind_chinese_name_the_language():
    tags = ("zh-yue", "ZH_YUE-Hant-HK", "zho-yue", "zh-cmn-Hans", "zh-wuu", "zh-hak", "zh-nan", "zh-min-nan", "zh-min")
    assert [subtag(tag) for tag in tags] == ["yue", "yue", "yue", "zh", "wuu", "hak", "nan", "nan", "zh"]
    assert [current(tag) for tag in ("zh-yue-HK", "zh-cmn-Hans", "zh-min-nan-TW")] == ["yue-HK", "zh-Hans", "nan-TW"]
    assert [subtag(tag) for tag in ("zh-TW", "zh-Hant-HK", "zh-156", "sgn-ase", "de-AT")] == ["zh"] * 3 + ["sgn", "de"]
    assert may_be("zh-yue", "yue") and may_be("zh-cmn", "zh") and not may_be("zh-yue", "zh")
    assert alignable("zh-yue") is None and alignable("zh-cmn") == "zh"


@pytest.mark.parametrize(("heard", "said"), [("yue", "agree"), ("zh", "other")])
def test_cantonese_is_what_is_expected_under_zh_yue(heard: str, said: str):
    windows = [Heard(start_s=0, end_s=6, probabilities={"yue": 0.05, "zh": 0.05, heard: 0.95})]
    assert verdict(windows, "zh-yue", known=("yue", "zh"), sure=0.6, mixed_share=0.3) == said
    assert called(heard, "zh-yue", ("yue", "zh")) == heard


def test_what_is_not_stated_or_counts_as_the_same_may_be_the_language_and_nothing_else():
    for hint, tag in (("iw", "he"), ("nb-NO", "no"), ("fil", "tl"), ("sr-Latn", "hr"), ("deu", "de"), ("cmn", "zh")):
        assert may_be(hint, tag) and may_be(tag, hint), hint
    assert all(may_be(hint, "de") for hint in ("und", "zxx", "mul", "", None))
    assert not may_be("en", "de") and not may_be("yue", "zh")


def test_windows_are_spread_over_the_clip_and_of_neighbours_the_longer_is_heard():
    assert spread([6.0] * 3, 5) == [0, 1, 2]
    assert spread([6.0] * 9, 5) == [0, 1, 3, 5, 7]
    assert spread([2.0, 6.0, 6.0, 1.0, 5.0, 5.5, 0.5, 4.0, 3.0], 5) == [0, 1, 4, 5, 7]
    assert spread([1.0, 3.0, 2.0], 1) == [1]
    assert spread([], 5) == []


@pytest.mark.parametrize("last_s", [3.0, 5.6, 5.9, 6.0])
@pytest.mark.parametrize("probability", [0.65, 0.97])
def test_one_misheard_window_of_four_or_five_makes_no_clip_mixed_and_of_fewer_only_if_it_is_sure(last_s, probability):
    share = Transcribe().mixed_share

    def read(n_windows: int) -> str:
        windows = [window(5.8 * n, 5.8 * (n + 1), hr=0.97) for n in range(n_windows - 1)]
        windows.append(window(60.0, 60.0 + last_s, sl=probability))
        return verdict(windows, "hr", known=("hr", "sl"), sure=0.6, mixed_share=share)

    assert [read(4), read(5)] == ["agree", "agree"]
    if probability < 0.8:
        assert "mixed" not in (read(2), read(3))
    elif last_s > 5:
        assert [read(2), read(3)] == ["mixed", "mixed"]


def test_two_doubtful_windows_of_five_make_a_clip_mixed():
    windows = [window(6 * n, 6 * n + 6, **{"de": 0.9} if n < 3 else {"en": 0.65}) for n in range(5)]
    assert verdict(windows, "de", known=KNOWN, sure=0.6, mixed_share=Transcribe().mixed_share) == "mixed"


def test_standards_of_one_language_are_heard_together_beside_another():
    windows = [window(6 * n, 6 * n + 6, **{one: 0.9}) for n, one in enumerate(("en", "en", "en", "hr", "sr"))]
    assert languages_heard(windows, sure=0.6, mixed_share=0.3) == ("en", "hr")
