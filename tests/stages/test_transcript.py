"""What of a text has times of its own, and how it comes by them."""

import random

import pytest

from manifests.records import Word
from stages.sample.sentences import SENTENCES
from stages.transcript import MAX_REPETITION, UNSPACED, n_credits, placed, repetition, tokens, units, untimed


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Guten  Tag, du!", "de", ["Guten", "Tag,", "du!"]),
        ("你好。再见 OK", "zh", ["你", "好。", "再", "见", "OK"]),
        ("นี้ดีมาก", "th", ["นี้", "ดี", "ม", "า", "ก"]),
        ("你好", "yue", ["你", "好"]),
        ("", "zh", []),
        ("Vous allez bien ? Oui !", "fr", ["Vous", "allez", "bien?", "Oui!"]),
        ("« Bien sûr » — dit-il ...", "fr", ["«Bien", "sûr»—", "dit-il..."]),
        ("- Tak. - Nie. ♪", "pl", ["-Tak.-", "Nie.♪"]),
        ("... -", "en", ["...-"]),
        ("他说“好”。《书》——", "zh", ["他", "说", "“好”。", "《书》——"]),
        ("café很好 don't说 iPhone-15", "zh", ["café", "很", "好", "don't", "说", "iPhone-15"]),
        ("10,000个,10:30去3.5% $5.OK", "zh", ["10,000", "个,", "10:30", "去", "3.5%", "$5.", "OK"]),
        ("เขา “ดี” 10,000 Größe", "th", ["เ", "ข", "า", "“ดี”", "10,000", "Größe"]),
    ],
)
def test_units_are_words_and_where_no_spaces_are_written_characters(text, language, expected):
    assert units(text, language) == expected
    assert [word.text for word in untimed(text, language)] == expected


@pytest.mark.parametrize("space", [" ", "\n", "\t", "\r\n", "\u00a0", "\u2028", "\u3000", "\x85"])
def test_space_of_any_kind_parts_words(space):
    assert tokens(f"a{space}b", "de") == ["a", "b"] and tokens(f"你{space}好", "zh") == ["你", "好"]


def test_a_letter_is_the_same_however_it_is_encoded():
    assert tokens("Cafe\u0301 \uff21\uff22\uff13", "fr") == tokens("caf\u00e9 AB3", "fr") == ["caf\u00e9", "ab3"]


def test_a_token_of_several_characters_gives_each_its_share():
    words = placed("你好吗?", "zh", [("你好", 1.0, 2.0, 0.5), ("吗", 2.0, 2.25, 0.75), ("?", 2.25, 9.0, 0.1)])
    assert words == (
        Word(text="你", start_s=1.0, end_s=1.5, score=0.5),
        Word(text="好", start_s=1.5, end_s=2.0, score=0.5),
        Word(text="吗?", start_s=2.0, end_s=2.25, score=0.75),
    )


def test_a_word_of_several_tokens_has_the_mean_score_of_its_letters():
    words = placed("Tag!", "de", [(" Ta", 0.0, 0.5, 0.4), ("g", 0.5, 0.75, 1.0), ("!", 0.75, 1.0, 0.1)])
    assert words == (Word(text="Tag!", start_s=0.0, end_s=0.75, score=0.6),)


def test_a_word_lasts_as_long_as_its_letters_and_not_its_full_stop():
    words = placed(
        "So - a. -",
        "en",
        [(" So", 0.1, 0.3, 1.0), (" -", 0.3, 0.4, 1), (" a", None, None, None), (".", 0.5, 3.0, 1.0), (" -", 3, 4, 1)],
    )
    assert [(word.text, word.start_s, word.end_s) for word in words] == [("So-", 0.1, 0.3), ("a.-", None, None)]


def test_pieces_of_another_text_place_nothing():
    assert placed("Guten Tag", "de", [(" Guten", 0.0, 1.0, 1.0)]) is None


def test_letters_that_begin_at_one_instant_share_the_time_to_the_next():
    words = placed("ไว้บ้าน", "th", [("ไ", 1, 1, 0.5), ("ว้", 1, 1, 0.5), ("บ้", 1, 1.5, 0.5), ("าน", 1.5, 1.75, 1)])
    assert [word.start_s for word in words] == [1, 1.1, 1.3, 1.5, 1.625]
    assert [word.end_s for word in words] == [1.1, 1.3, 1.5, 1.625, 1.75]


def test_a_word_for_which_no_time_is_left_has_none_and_its_full_stop_gives_it_none():
    words = placed("So a. It", "en", [(" So", 0.1, 0.3, 1), (" a", 0.3, 0.3, 1), (".", 0.3, 3, 1), (" It", 3, 3, 1)])
    assert [(word.text, word.start_s, word.end_s) for word in words] == [
        ("So", 0.1, 0.3),
        ("a.", None, None),
        ("It", None, None),
    ]


@pytest.mark.parametrize("language", SENTENCES)
def test_a_loop_reads_as_repetitive_and_speech_of_any_length_does_not(language):
    once = " ".join(SENTENCES[language])
    assert all(repetition(once[:size]) < 0.8 * MAX_REPETITION for size in range(20, 500, 20))
    assert repetition(once[:30] * 5) > MAX_REPETITION


@pytest.mark.parametrize("language", SENTENCES)
def test_a_long_text_reads_as_repetitive_for_a_loop_in_it_and_not_for_its_length(language):
    said = units(" ".join(SENTENCES[language]), language)
    space = "" if language in UNSPACED else " "
    long = space.join(random.Random(0).choices(said, k=1500))
    loop = long[:30] * 15
    assert repetition(long) <= MAX_REPETITION
    for at in range(0, len(long), 450):
        assert repetition(long[:at] + loop + long[at:]) > MAX_REPETITION


def test_a_few_words_may_be_the_same():
    assert repetition("No, no, no, no, no, no, no, no, no.") == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "Untertitelung im Auftrag des ZDF, 2021",
        "Untertitelung. BR 2018",
        "SWR 2021",
        "Más información www.alimmenta.com",
        "www.multi-moto.eu",
        "字幕by索兰娅",
        "优优独播剧场——YoYo Television Series Exclusive",
    ],
)
def test_what_whisper_writes_of_silence_in_german_spanish_polish_and_chinese_is_known(text):
    assert n_credits(text)


@pytest.mark.parametrize(
    "text", ["Die Untertitelung brauchen wir.", "Wir drehten im Auftrag des ZDF.", "这个剧场的字幕很好。"]
)
def test_what_people_say_of_subtitles_and_broadcasters_is_no_credit(text):
    assert not n_credits(text)
