"""What of a text has times of its own, and how it comes by them."""

import pytest

from manifests.records import Word
from stages.transcript import placed, units, untimed


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Guten  Tag, du!", "de", ["Guten", "Tag,", "du!"]),
        ("你好。再见 OK", "zh", ["你", "好。", "再", "见", "OK"]),
        ("นี้ดีมาก", "th", ["นี้", "ดี", "ม", "า", "ก"]),
        ("你好", "yue", ["你", "好"]),
        ("", "zh", []),
    ],
)
def test_units_are_words_and_where_no_spaces_are_written_characters(text, language, expected):
    assert units(text, language) == expected
    assert [word.text for word in untimed(text, language)] == expected


def test_a_token_of_several_characters_gives_each_its_share():
    words = placed("你好吗?", "zh", [("你好", 1.0, 2.0, 0.5), ("吗", 2.0, 2.25, 0.75), ("?", 2.25, 9.0, 0.1)])
    assert words == (
        Word(text="你", start_s=1.0, end_s=1.5, score=0.5),
        Word(text="好", start_s=1.5, end_s=2.0, score=0.5),
        Word(text="吗?", start_s=2.0, end_s=2.25, score=0.75),
    )


def test_a_word_lasts_as_long_as_its_letters_and_not_its_full_stop():
    words = placed(
        "So a. -", "en", [(" So", 0.1, 0.3, 1.0), (" a", None, None, None), (".", 0.5, 3.0, 1.0), (" -", 3, 4, 1)]
    )
    assert [(word.text, word.start_s, word.end_s) for word in words] == [
        ("So", 0.1, 0.3),
        ("a.", None, None),
        ("-", None, None),
    ]


def test_pieces_of_another_text_place_nothing():
    assert placed("Guten Tag", "de", [(" Guten", 0.0, 1.0, 1.0)]) is None
