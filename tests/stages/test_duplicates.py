"""Near-duplicates are found among many clips without comparing all pairs."""

import numpy as np
import pytest

from stages.duplicates import copies
from tests.stages.measured import identity

LIMITS = {"max_picture_distance": 0.15, "max_sound_distance": 0.25}


def bits_to_hex(bits):
    return np.packbits(bits).tobytes().hex()


def made(rng, pictures=8, words=40):
    return rng.random(pictures * 64) < 0.5, rng.random(words * 16) < 0.5


def noisy(rng, bits, share):
    return bits ^ (rng.random(len(bits)) < share)


def known(key, picture, sound):
    return identity(key, 0, picture_hash=bits_to_hex(picture), sound_hash=bits_to_hex(sound))


@pytest.mark.parametrize(("flipped", "recall"), [(0.0, 1.0), (0.05, 0.99), (0.1, 0.9)])
def test_copies_with_some_bits_changed_are_found_and_no_others(flipped, recall):
    rng = np.random.default_rng(1)
    clips, expected = {}, set()
    for n in range(200):
        picture, sound = made(rng)
        clips[f"a-{n:04d}"] = known(f"a-{n:04d}", picture, sound)
        clips[f"b-{n:04d}"] = known(f"b-{n:04d}", noisy(rng, picture, flipped), noisy(rng, sound, flipped))
        expected.add((f"a-{n:04d}", f"b-{n:04d}"))
    found = {(one.first, one.second) for one in copies(clips, **LIMITS)}
    assert found <= expected and len(found) >= recall * len(expected)


def test_a_copy_that_begins_one_picture_later_is_found():
    rng = np.random.default_rng(2)
    picture, sound = made(rng)
    later = np.concatenate([picture[64:], picture[-64:]])
    clips = {"a-0": known("a-0", picture, sound), "b-0": known("b-0", later, sound)}
    assert [(one.first, one.second) for one in copies(clips, **LIMITS)] == [("a-0", "b-0")]


def test_same_picture_other_sound_and_same_sound_other_picture_are_no_copies():
    rng = np.random.default_rng(3)
    picture, sound = made(rng)
    clips = {
        "a-0": known("a-0", picture, sound),
        "b-0": known("b-0", picture, made(rng)[1]),
        "c-0": known("c-0", made(rng)[0], sound),
    }
    assert copies(clips, **LIMITS) == ()


@pytest.mark.parametrize(("other", "found"), [("b-0", True), ("a-1", False)])
def test_the_same_pictures_played_faster_are_a_copy_in_another_video_and_not_in_the_same(other, found):
    rng = np.random.default_rng(6)
    picture, sound = made(rng, words=150)
    faster = sound.reshape(-1, 16)[np.rint(np.arange(142) * 1.05).astype(int)]
    clips = {"a-0": known("a-0", picture, sound), other: known(other, picture, faster)}
    assert [one.second for one in copies(clips, **LIMITS)] == [other] * found


def test_no_limit_means_no_search_and_empty_hashes_match_nothing():
    rng = np.random.default_rng(4)
    one = known("a-0", *made(rng))
    empty = identity("b-0", 0, picture_hash="", sound_hash="")
    assert copies({"a-0": one, "c-0": one}, max_picture_distance=None, max_sound_distance=0.2) == ()
    assert copies({"a-0": one, "b-0": empty, "c-0": empty}, **LIMITS) == ()


def test_thirty_copies_are_found_among_ten_thousand_clips():
    rng = np.random.default_rng(5)
    pictures = rng.integers(0, 256, (10_000, 64), np.uint8)
    pictures[1:9991:333] = pictures[0:9990:333]
    clips = {
        f"v-{n:06d}": identity(f"v-{n:06d}", 0, picture_hash=row.tobytes().hex(), sound_hash="ab" * 40)
        for n, row in enumerate(pictures)
    }
    assert len(copies(clips, **LIMITS)) == 30
