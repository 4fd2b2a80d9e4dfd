"""Transcripts that miss what is said, or hold what nobody said, drop their clips."""

import pytest

from stages.judge import judge
from stages.policies import LATENTSYNC, PAPER, STRICT, Policy
from tests.stages.measured import measured, speech


def broken_by(policy: Policy, language: str = "de", **said) -> list[str]:
    (verdict,) = judge([measured(speeches=(speech("v0-0000", **said),), language=language)], policy)
    return [receipt.rule for receipt in verdict.receipts]


ZH = "我们明天一起去北京看看那个很有名的老城"


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
        ("1, 2, 3, 4, 5, 6, 7, 8, 9, 10.", 6.0, "de", []),
        ("5 + 3 = 8, 8 + 4 = 12, 12 + 5 = 17.", 9.0, "de", []),
        ("$5, €3, £8.", 5.5, "en", []),
        ("Meine Nummer ist 0171 23 45 678.", 8.0, "de", []),
        ("~ ~ ~ ♪ ♪ ~ ~ ~ ... !", 6.0, "ko", ["too_few_words"]),
        *((ZH, 7.0, tag, []) for tag in ("zh", "nan", "wuu", "hak", "zh-min-nan", "en", "und")),
        ("今日はとてもいい天気", 8.0, "en", []),
        ("カレーライス", 5.0, "und", []),
        ("안녕하세요", 3.0, "mul", []),
        ("안녕하세요", 4.0, "ko", ["too_few_words"]),
        ("ሰላም ጤና ይስጥልኝ", 6.0, "am", []),
        ("ሰላም", 3.0, "am", ["too_few_words"]),
        ("OK OK OK", 5.0, "zh", ["too_few_words"]),
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
        ("請不吝點贊 訂閱 轉發 打賞支持明鏡與點點欄目", True),
        ("字幕志愿者 杨茜茜", True),
        ("中文字幕志願者 李宗盛", True),
        ("Sous-titrage MFP.", True),
        ("Sous-titres MFP", True),
        ("❤️ par SousTitreur.com", True),
        ("Субтитры подогнал «Симон»", True),
        ("Субтитры делал DimaTorzok", True),
        ("Copyright WDR 2021", True),
        ("Subs by www.zeoranger.co.uk", True),
        ("www.mooji.org", True),
        ("Untertitelung\ndes ZDF", True),
        ("Der Film hat Untertitel, und das ZDF zeigt ihn. Danke fürs Zuschauen!", False),
        ("Продолжение следует...", False),
        ("Le MFP et le WDR, c'est quoi ? Le copyright, les sous-titres, les titres.", False),
        ("这个节目没有字幕。明天志愿者也来。", False),
    ],
)
def test_who_made_the_subtitles_is_nothing_that_people_say(text, broken):
    found = ["credits" in broken_by(policy, text=text) for policy in (PAPER, STRICT, LATENTSYNC)]
    assert found == [broken, broken, False]
