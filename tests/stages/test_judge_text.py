"""Transcripts that miss what is said, or hold what nobody said, drop their clips."""

import pytest

from stages.judge import judge
from stages.policies import LATENTSYNC, PAPER, STRICT, Policy
from tests.stages.measured import measured, speech


def broken_by(policy: Policy, language: str = "de", **said) -> list[str]:
    (verdict,) = judge([measured(speeches=(speech("v0-0000", **said),), language=language)], policy)
    return [receipt.rule for receipt in verdict.receipts]


@pytest.mark.parametrize(
    ("text", "speech_s", "language", "broken"),
    [
        ("Ja.", 28.5, "de", ["too_few_words"]),
        ("", 28.5, "de", ["too_few_words"]),
        ("Thank you for watching!", 28.5, "en", ["too_few_words"]),
        ("Thank you for watching!", 2.0, "en", []),
        ("I speak very slowly.", 5.0, "en", []),
        ("我们明天去北京", 3.0, "zh-Hant", []),
        ("谢谢", 10.0, "zh", ["too_few_words"]),
        ("السَّلَامُ عَلَيْكُم", 2.5, "ar", []),
        ("", 0.0, "de", []),
    ],
)
def test_a_text_that_is_too_short_for_its_voice_is_no_transcript(text, speech_s, language, broken):
    assert broken_by(PAPER, language, text=text, speech_s=speech_s, words=()) == broken


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("Untertitelung des ZDF, 2020", True),
        ("Wir sehen uns morgen. Untertitel im Auftrag des ZDF für funk, 2017", True),
        ("Sous-titrage Société Radio-Canada", True),
        ("Subtítulos realizados por la comunidad de Amara.org", True),
        ("Napisy stworzone przez społeczność Amara.org", True),
        ("Prijevod i obrada: www.titlovi.com", True),
        ("Субтитры сделал DimaTorzok", True),
        ("ترجمة نانسي قنقر", True),
        ("คำบรรยายโดยชุมชน Amara.org", True),
        ("请不吝点赞 订阅 转发 打赏支持明镜与点点栏目", True),
        ("字幕由Amara.org社区提供", True),
        ("Der Film hat Untertitel, und das ZDF zeigt ihn. Danke fürs Zuschauen!", False),
        ("Продолжение следует...", False),
    ],
)
def test_who_made_the_subtitles_is_nothing_that_people_say(text, broken):
    found = ["credits" in broken_by(policy, text=text) for policy in (PAPER, STRICT, LATENTSYNC)]
    assert found == [broken, broken, False]
