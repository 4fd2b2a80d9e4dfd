"""Near-duplicates are found among many clips without comparing all pairs."""

import numpy as np
import pytest

from stages import duplicates
from stages.duplicates import Copy, copies
from stages.rivals import Contender, worse_copies
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


@pytest.mark.parametrize(("untouched", "found"), [(2, True), (1, False)])
def test_pairs_are_measured_that_share_two_quarters_of_a_picture_and_none_that_share_one(untouched, found):
    rng = np.random.default_rng(11)
    picture, sound = made(rng, pictures=1)
    changed, heard = picture.copy(), sound.copy()
    changed[16 * untouched :: 16] ^= True  # a bit of each other quarter
    heard[::32] ^= True  # no two neighbouring words are as they were
    clips = {"a-0": known("a-0", picture, sound), "b-0": known("b-0", changed, heard)}
    assert [one.second for one in copies(clips, **LIMITS)] == ["b-0"] * found


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


def adverts(rng, flipped):
    """An advert with so many bits changed, and up to eight words of its sound cut off, once for each of `flipped`."""
    picture, sound = made(rng, words=80)
    cuts = rng.integers(0, 9, len(flipped)) * 16
    changed = [(noisy(rng, picture, share), noisy(rng, sound, share)) for share in flipped]
    return {f"a{n:03d}-0": known("", one, other[cuts[n] :]) for n, (one, other) in enumerate(changed)}


def with_black_frames(rng, n):
    """Other clips, each with a black picture and a silence among others."""
    clips = {}
    for number in range(n):
        picture, sound = made(rng)
        picture[:64], sound[:48] = False, False
        clips[f"v{number:04d}-0"] = known("", picture, sound)
    return clips


@pytest.mark.parametrize("flipped", [[0.0] * 250, [0.01] * 250, [0.002] * 240 + [0.04] * 10], ids=["0", "1 %", "mixed"])
def test_an_advert_in_250_videos_is_one_crowd_and_clips_that_share_a_black_frame_are_none(flipped):
    rng = np.random.default_rng(7)
    spots = adverts(rng, flipped)
    found = copies(spots | with_black_frames(rng, 500), **LIMITS)
    assert {one.crowd for one in found} == {found[0].crowd} <= {*spots} and len(found) == 249
    assert {key for one in found for key in (one.first, one.second)} == {*spots}


def test_a_copy_that_a_crowd_shares_no_sound_with_piece_by_piece_joins_it():
    rng = np.random.default_rng(12)
    picture, sound = made(rng, words=80)
    other, late = picture.copy(), sound.copy()
    other[-64:] ^= True  # of half of the crowd: so no more than 200 share any piece of that picture
    late[::32] ^= True  # no two neighbouring words are as they were
    clips = {f"a{n:03d}-0": known("", other if n % 2 else picture, sound) for n in range(250)}
    found = copies(clips | {"z-0": known("", picture, late)}, **LIMITS)
    assert len(found) == 250 and len({one.crowd for one in found}) == 1 and found[0].crowd


def test_neither_a_black_frame_nor_an_advert_costs_the_square_of_its_clips(monkeypatch):
    rng, measured = np.random.default_rng(8), []
    clips = adverts(rng, [0.005] * 600) | with_black_frames(rng, 1500)
    distance = duplicates.picture_distance
    monkeypatch.setattr(duplicates, "picture_distance", lambda *two: measured.append(two) or distance(*two))
    assert len(copies(clips, **LIMITS)) == 599 and len(measured) < 10 * len(clips)


def test_of_copies_that_are_no_crowd_every_pair_is_listed():
    spots = adverts(np.random.default_rng(9), [0.07] * 60)
    assert len(copies(spots, max_picture_distance=0.25, max_sound_distance=0.25)) == 60 * 59 / 2


def contender(key, confidence):
    return Contender(key=key, video=key, track=0, start_s=0.0, end_s=4.0, n_frames=100, confidence=confidence)


@pytest.mark.parametrize("best", [0, 120])
def test_of_a_crowd_the_best_alone_stays(best):
    rng = np.random.default_rng(10)
    spots = adverts(rng, [0.005] * 250)
    contenders = [contender(key, 9.0 if n == best else 5.0) for n, key in enumerate(spots)]
    lost = dict(worse_copies(contenders, copies(spots, **LIMITS), 0.15))
    assert {*spots} - {*lost} == {f"a{best:03d}-0"} == {receipt.limit for receipt in lost.values()}


def test_a_clip_loses_to_the_nearest_of_its_better_copies():
    copied = [Copy("a", "c", 0.2, 0.0), Copy("b", "c", 0.1, 0.0)]
    contenders = [contender(key, confidence) for key, confidence in zip("abc", (9, 8, 5), strict=True)]
    (lost,) = worse_copies(contenders, copied, 0.25)
    assert (lost[0], lost[1].limit, lost[1].value, lost[1].margin) == ("c", "b", 0.1, -0.15)


def test_where_the_best_of_a_crowd_loses_to_a_clip_beside_it_that_one_is_named():
    """Copies of b are a, c and d. x is like a alone, y like d alone, which lost."""
    crowd = [Copy("a", "b", 0.1, 0.0, "b"), Copy("b", "c", 0.02, 0.0, "b"), Copy("b", "d", 0.03, 0.0, "b")]
    beside = [Copy("a", "x", 0.04, 0.0), Copy("d", "y", 0.05, 0.0)]
    contenders = [contender(key, confidence) for key, confidence in zip("abcdxy", (8, 5, 5, 5, 9, 5), strict=True)]
    lost = dict(worse_copies(contenders, crowd + beside, 0.15))
    assert {key: (receipt.limit, receipt.value) for key, receipt in lost.items()} == {
        "a": ("x", 0.04), "b": ("x", 0.1), "c": ("x", 0.02), "d": ("x", 0.03)
    }  # fmt: skip
