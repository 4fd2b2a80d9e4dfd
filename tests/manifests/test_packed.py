"""What records hold as bytes is what was put into them, to whoever reads, compares or writes it."""

import pickle
import sys

import numpy as np
import pytest

from manifests.codec import from_json, from_plain, to_json, to_plain
from manifests.packed import Floats, Packed
from manifests.records import Identity, LanguageWindow, Word
from tests.stages.measured import identity, speech, sync

FACE = tuple(np.random.default_rng(0).normal(size=512).astype(np.float32).tolist())
WORDS = tuple(Word(text=f"wort{n}", start_s=0.4 * n, end_s=None, score=0.9) for n in range(50))
HEARD = LanguageWindow(start_s=0.0, end_s=6.0, language="de", probability=0.9)


@pytest.mark.parametrize(
    "record", [identity("a", face=FACE), speech("a", words=WORDS, windows=(HEARD,)), sync("a")], ids=type
)
def test_a_record_is_written_in_plain_json_and_read_as_it_was(record):
    kind = type(record)
    for again in (
        from_json(to_json(record), kind),
        from_plain(to_plain(record), kind),
        pickle.loads(pickle.dumps(record)),
    ):
        assert again == record and hash(again) == hash(record) and to_json(again) == to_json(record)


def test_the_json_of_what_is_held_as_bytes_is_a_plain_list():
    assert to_json(identity("a", face=(0.5, -1.0), picture_hash="", sound_hash="")) == (
        b'{"key":"a","face":[0.5,-1.0],"spread":0.8,"picture_hash":"","sound_hash":"","text_share":0.0}'
    )
    assert to_plain(speech("a", words=WORDS[:1]))["words"] == (
        {"text": "wort0", "start_s": 0.0, "end_s": None, "score": 0.9},
    )


def test_an_identity_of_before_text_was_looked_for_is_read_for_forget_looks_at_all_of_them():
    before = b'{"key":"a","face":[0.5],"spread":0.8,"picture_hash":"","sound_hash":""}'
    assert from_json(before, Identity).text_share is None


@pytest.mark.parametrize("face", [FACE, (0.1, 0.2), (float("inf"), 1e300), ()])
def test_no_digit_of_a_number_is_lost(face):
    held = identity("a", face=face).face
    assert held == face and face == held and tuple(held) == face and len(held) == len(face) and bool(held) == bool(face)
    assert held != (*face, 0.0) and np.array_equal(np.asarray(held), face)


def test_words_are_read_one_by_one_and_from_behind_as_from_a_tuple():
    words = speech("a", words=WORDS).words
    assert (words[-1], words[:2], list(words), len(words)) == (WORDS[-1], WORDS[:2], list(WORDS), 50)
    assert speech("a", words=()).words == () and not speech("a", words=()).words


def test_a_clip_s_face_and_words_take_a_seventh_of_what_their_tuples_take():
    def held(packed: Packed[object]) -> int:
        return sum(sys.getsizeof(getattr(packed, name)) for name in ("_held", "_n") if hasattr(packed, name))

    numbers = sys.getsizeof(FACE) + sum(map(sys.getsizeof, FACE))
    assert held(Floats(FACE)) < numbers / 7 and held(speech("a", words=WORDS).words) < 50 * 340 / 7
