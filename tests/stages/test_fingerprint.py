"""Copies are close in both fingerprints, and what is no copy is far."""

import contextlib

import av
import cv2
import numpy as np
import pytest

from stages.fingerprint import picture_distance, picture_hash, sound_distance, sound_distance_at_tempos, sound_hash

PICTURE_LIMIT, SOUND_LIMIT = 0.12, 0.25


def film(seed: int, frames: int = 8) -> list[np.ndarray]:
    """A scene with something that moves."""
    rng = np.random.default_rng(seed)
    scene = cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), (256, 256), interpolation=cv2.INTER_CUBIC)
    return [cv2.circle(scene.copy(), (100 + 8 * i, 128), 20, (255, 255, 255), -1) for i in range(frames)]


def voice(seed: int, seconds: float = 12.0) -> np.ndarray:
    """Tones that come and go, as syllables do, over a little noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * 16_000)) / 16_000
    sound = rng.normal(0, 0.01, len(t))
    step = 2880
    envelope = np.exp(-((np.linspace(-1.5, 1.5, step)) ** 2))
    for start in range(0, len(t) - step, step):
        for pitch in rng.uniform(250, 3500, 3):
            sound[start : start + step] += envelope * np.sin(2 * np.pi * pitch * t[:step])
    return (sound / np.abs(sound).max() * 12_000).astype(np.int16)


def at_tempo(sound: np.ndarray, tempo: float) -> np.ndarray:
    """The same pitch, faster or slower: FFmpeg's `atempo`."""
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_abuffer(sample_rate=16_000, format="s16", layout="mono"),
        graph.add("atempo", str(tempo)),
        graph.add("abuffersink"),
    ).configure()
    frame = av.AudioFrame.from_ndarray(sound[None], "s16", "mono")
    frame.sample_rate = 16_000
    graph.push(frame)
    graph.push(None)
    pieces = []
    with contextlib.suppress(av.EOFError):
        while True:
            pieces.append(graph.pull().to_ndarray()[0])
    return np.concatenate(pieces)


def coded(pictures: list[np.ndarray], quality: int) -> list[np.ndarray]:
    options = (cv2.IMWRITE_JPEG_QUALITY, quality)
    return [cv2.imdecode(cv2.imencode(".jpg", picture, options)[1], cv2.IMREAD_COLOR) for picture in pictures]


@pytest.mark.parametrize(
    "copy",
    [
        lambda f: coded(f, 10),
        lambda f: [cv2.resize(p, (90, 90), interpolation=cv2.INTER_AREA) for p in f],
        lambda f: [p[6:-6, 6:-6] for p in f],
        lambda f: [np.ascontiguousarray(p[:, ::-1]) for p in f],
        lambda f: [(p * 0.7).astype(np.uint8) for p in f],
        lambda f: f[2:],
    ],
    ids=["jpeg", "small", "cropped", "mirrored", "darker", "trimmed"],
)
@pytest.mark.parametrize("seed", range(5))
def test_a_copied_picture_is_close(copy, seed: int):
    pictures = film(seed)
    assert picture_distance(picture_hash(pictures), picture_hash(copy(pictures))) < PICTURE_LIMIT


def test_other_pictures_are_far():
    hashes = [picture_hash(film(seed)) for seed in range(12)]
    apart = [picture_distance(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(apart) > PICTURE_LIMIT + 0.05


@pytest.mark.parametrize(
    "copy",
    [
        lambda s: (s * 0.2).astype(np.int16),
        lambda s: s[512:],
        lambda s: s[30_000:-20_500],
        lambda s: (s + np.random.default_rng(9).normal(0, 300, len(s))).clip(-32768, 32767).astype(np.int16),
        lambda s: np.convolve(s, np.ones(4) / 4, "same").astype(np.int16),
        lambda s: np.concatenate([np.zeros(11_111, np.int16), s]),
    ],
    ids=["quieter", "32 ms off", "trimmed", "noisy", "muffled", "later"],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_copied_sound_is_close(copy, seed: int):
    sound = voice(seed)
    assert sound_distance(sound_hash(sound), sound_hash(copy(sound))) < SOUND_LIMIT


@pytest.mark.parametrize("pause_s", [3.5, 5.0])
def test_silence_at_opposite_ends_makes_no_copies(pause_s: float):
    ends, begins = voice(0), voice(1)
    ends[-int(pause_s * 16_000) :] = 0
    begins[: int(pause_s * 16_000)] = 0
    assert sound_distance(sound_hash(ends), sound_hash(begins)) > SOUND_LIMIT + 0.1


def test_a_silence_that_two_sounds_share_says_nothing_of_the_rest():
    gated = [voice(seed, 20.0) for seed in range(2)]
    for sound in gated:
        sound[64_000:-64_000] = 0
    first, second = map(sound_hash, gated)
    assert sound_distance(first, second) > SOUND_LIMIT + 0.1
    assert sound_distance(first, sound_hash(gated[0][4000:])) < 0.2 * SOUND_LIMIT
    assert sound_distance("0000" * 300, "0000" * 300) == 1.0


def slid(first: list[int], second: list[int]) -> float:
    """Word against word at every shift, as the distance is defined."""
    least = min(47, (min(len(first), len(second)) + 1) // 2)
    found = [1.0]
    for shift in range(least - len(first), len(second) - least + 1):
        met = [(a, second[i + shift]) for i, a in enumerate(first) if 0 <= i + shift < len(second)]
        if (loud := sum((a | b) > 0 for a, b in met)) >= least:
            found.append(sum((a ^ b).bit_count() for a, b in met) / loud / 16)
    return min(found)


@pytest.mark.parametrize("seed", range(20))
def test_all_shifts_at_once_give_what_each_gives_by_itself(seed: int):
    rng = np.random.default_rng(seed)
    first, second = (rng.integers(0, 65536, rng.integers(1, 150)) for _ in range(2))
    second = second if seed % 2 else np.concatenate([first[seed:], second])
    for words in (first, second) if seed % 3 else ():
        words[rng.integers(len(words)) :][:40] = 0
    texts = (words.astype(">u2").tobytes().hex() for words in (first, second))
    assert sound_distance(*texts) == pytest.approx(slid(first.tolist(), second.tolist()), abs=1e-12)


def test_other_sounds_are_far():
    hashes = [sound_hash(voice(seed)) for seed in range(8)]
    apart = [sound_distance(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(apart) > SOUND_LIMIT + 0.05


@pytest.mark.parametrize("tempo", [0.95, 1.05])
@pytest.mark.parametrize("seed", range(3))
def test_a_copy_at_another_tempo_is_close_at_it(tempo: float, seed: int):
    sound = voice(seed)
    played = sound_hash(at_tempo(sound, tempo))
    assert sound_distance(sound_hash(sound), played) > SOUND_LIMIT
    assert sound_distance_at_tempos(sound_hash(sound), played) < 0.6 * SOUND_LIMIT
    assert sound_distance_at_tempos(played, sound_hash(voice(seed + 3))) > SOUND_LIMIT + 0.05


def test_silence_and_what_is_short_are_like_nothing_at_any_tempo():
    gated = [voice(seed) for seed in range(2)]
    for sound in gated:
        sound[50_000:-50_000] = 0  # a recording with its pauses cut to zeros
    assert sound_distance_at_tempos(*map(sound_hash, gated)) > SOUND_LIMIT
    assert sound_distance_at_tempos(sound_hash(voice(0, 2.0)), sound_hash(voice(0))) == 1.0
    assert sound_distance_at_tempos("", sound_hash(voice(0))) == 1.0


def test_distances_are_symmetric_and_zero_to_oneself():
    for fingerprint, distance in (
        ([picture_hash(film(i)) for i in range(3)], picture_distance),
        ([sound_hash(voice(i)) for i in range(3)], sound_distance),
        ([sound_hash(voice(i)) for i in range(3)], sound_distance_at_tempos),
    ):
        a, b, _ = fingerprint
        assert distance(a, a) == 0 and distance(a, b) == distance(b, a) > 0


def test_nothing_is_far_from_everything_and_short_sounds_have_no_fingerprint():
    assert picture_hash([]) == sound_hash(np.zeros(4000, np.int16)) == ""
    assert picture_distance("", picture_hash(film(0))) == sound_distance("", sound_hash(voice(0))) == 1.0


def test_half_a_minute_takes_two_kilobytes():
    assert len(sound_hash(voice(0, 30))) < 2000 and len(picture_hash(film(0))) == 8 * 16
