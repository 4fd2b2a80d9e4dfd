"""The maker of sample corpora, and the corpus that comes with the project."""

import ctypes.util
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from manifests.sample.serve import CORPUS
from manifests.sample.truth import FLAWS, read_truth
from manifests.table import read
from stages.sample.film import encode, film
from stages.sample.make_corpus import main
from stages.sample.script import HARD, Hardness, Script, Take, scripts, speaker_of
from stages.sample.sentences import LANGUAGES

needs_espeak = pytest.mark.skipif(ctypes.util.find_library("espeak-ng") is None, reason="needs libespeak-ng")

TAKE = Take(seed=3, person=4, language="de", length_s=2.5)
SCRIPT = Script(seed=5, name="x", language="de", width=160, height=90, rate_hz=Fraction(25), takes=(TAKE,))


def test_every_language_has_three_videos_and_every_flaw_is_planted():
    wanted = scripts(1)
    assert {language: sum(s.language == language for s in wanted) for language in LANGUAGES} == dict.fromkeys(
        LANGUAGES, 3
    )
    assert {s.flaw for s in wanted} | {t.flaw for s in wanted for t in s.takes} - {""} >= FLAWS.keys()
    assert len({s.name for s in wanted}) == len(wanted)
    assert {s.rate_hz for s in wanted} >= {Fraction(25), Fraction(50), Fraction(30000, 1001), Fraction(24000, 1001)}


def test_scripts_follow_from_the_seed_and_grow_with_the_minutes():
    assert scripts(1) == scripts(1)
    assert scripts(1) != scripts(2)
    longer = scripts(1, minutes=30)
    assert sum(t.length_s for s in longer for t in s.takes) >= 30 * 60
    assert len({s.name for s in longer}) == len(longer)
    assert max(abs(t.yaw_deg) for s in scripts(1, hardness=HARD) for t in s.takes) > 24


def test_voices_fit_the_people():
    from manifests.sample.person import person

    assert all((speaker_of(who) % 5 in (1, 3)) == person(who).woman for who in range(50))


def sound(path) -> np.ndarray:
    with av.open(str(path)) as f:
        return np.concatenate([frame.to_ndarray()[0] for frame in f.decode(audio=0)])


def loud_s(path) -> tuple[float, float]:
    """When the voice begins and ends."""
    power = np.abs(sound(path)) > 0.05
    return float(np.argmax(power) / 48_000), float((len(power) - np.argmax(power[::-1])) / 48_000)


@needs_espeak
def test_a_film_is_what_its_truth_says(tmp_path):
    two = replace(SCRIPT, takes=(TAKE, replace(TAKE, seed=9, person=6)))
    truth = film(two, tmp_path, Hardness())
    first, second = truth.segments
    with av.open(str(tmp_path / "x.mp4")) as f:
        stream = f.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (160, 90, 25)
        n = sum(1 for _ in f.decode(video=0))
    assert n == round(truth.duration_s * 25)
    assert truth.cuts_s == (second.start_s,) == (first.end_s,)
    assert (first.person, second.person) == (4, 6)
    assert " ".join(w.text for w in first.words) == first.text
    assert all(a.end_s <= b.start_s + 0.05 for a, b in zip(first.words, first.words[1:], strict=False))
    begins, ends = loud_s(tmp_path / "x.mp4")
    assert begins == pytest.approx(first.words[0].start_s, abs=0.12)
    assert ends == pytest.approx(second.words[-1].end_s, abs=0.25)


@needs_espeak
def test_a_shifted_sound_is_late_by_what_the_truth_says(tmp_path):
    film(SCRIPT, tmp_path, Hardness())
    straight = loud_s(tmp_path / "x.mp4")[0]
    late = replace(TAKE, flaw="shifted_audio", offset_frames=6)
    truth = film(replace(SCRIPT, name="y", takes=(late,)), tmp_path, Hardness())
    begins = loud_s(tmp_path / "y.mp4")[0]
    assert begins - straight == pytest.approx(6 / 25, abs=0.005)
    assert begins == pytest.approx(truth.segments[0].words[0].start_s, abs=0.12)
    assert truth.segments[0].audio_offset_frames == 6
    assert truth.segments[0].should_keep is False


@needs_espeak
def test_films_without_sound_without_faces_and_without_an_end(tmp_path):
    whole = film(SCRIPT, tmp_path, Hardness())
    film(replace(SCRIPT, name="mute", flaw="no_audio"), tmp_path, Hardness())
    empty = film(replace(SCRIPT, name="empty", flaw="no_face"), tmp_path, Hardness())
    film(replace(SCRIPT, name="short", flaw="truncated"), tmp_path, Hardness())
    with av.open(str(tmp_path / "mute.mp4")) as f:
        assert not f.streams.audio
    assert [s.person for s in empty.segments] == [-1]
    assert empty.segments[0].text == whole.segments[0].text
    assert (tmp_path / "short.mp4").stat().st_size < 0.7 * (tmp_path / "x.mp4").stat().st_size


@needs_espeak
def test_a_harder_film_keeps_its_times_leaves_frames_out_and_can_be_cut_short(tmp_path):
    """Its second generation once gave every frame the same length, and a file without an end has none."""
    truth = film(SCRIPT, tmp_path, HARD)
    with av.open(str(tmp_path / "x.mp4")) as f:
        at = [round(frame.time * 25) for frame in f.decode(video=0)]
    steps = np.diff(at)
    assert at[0] == 0 and steps.min() == 1 and 0.05 < (steps > 1).mean() < 0.3
    assert at[-1] == pytest.approx(truth.duration_s * 25 - 1, abs=3)
    (tmp_path / "easy").mkdir()
    film(SCRIPT, tmp_path / "easy", Hardness())
    level = [np.abs(sound(tmp_path / place / "x.mp4")) for place in (".", "easy")]
    moved = np.correlate(level[0][:48_000:8], level[1][4800:43_200:8]).argmax() * 8 - 4800
    assert abs(moved) <= 16, "sound keeps its place through two generations"
    film(replace(SCRIPT, name="short", flaw="truncated"), tmp_path, HARD)
    assert (tmp_path / "short.mp4").stat().st_size < 0.7 * (tmp_path / "x.mp4").stat().st_size


@needs_espeak
@pytest.mark.slow
def test_the_same_film_twice_has_the_same_bytes(tmp_path):
    (tmp_path / "again").mkdir()
    assert film(SCRIPT, tmp_path, HARD) == film(SCRIPT, tmp_path / "again", HARD)
    assert (tmp_path / "x.mp4").read_bytes() == (tmp_path / "again" / "x.mp4").read_bytes()


@pytest.mark.parametrize("size", [(640, 360), (854, 480), (360, 640)])
def test_equal_pictures_encode_to_equal_bytes_at_every_size(tmp_path, size):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (6, size[1] // 8 + 1, size[0] // 8 + 1, 3)).astype(np.uint8)
    pictures = coarse.repeat(8, 1).repeat(8, 2)[:, : size[1], : size[0]]
    seen, junk = set(), []
    for number in range(5):
        junk.append(np.full(3_000_000 + number * 100_000, 40 * number, np.uint8))  # new buffers start out different
        encode(tmp_path / "x.mp4", iter(enumerate(pictures)), size, Fraction(25), None, Hardness())
        seen.add((tmp_path / "x.mp4").read_bytes())
    assert len(seen) == 1


def test_the_command_line_refuses_a_place_it_cannot_write(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["--seed", "1", "--out", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.startswith("make_corpus: ")


def test_the_corpus_that_comes_along_is_small_and_complete():
    truth = read_truth(CORPUS / "truth.json")
    listed = read(str(CORPUS / "videos.csv"))
    assert [one.url.rsplit("/", 1)[-1] for one in listed] == [video.path for video in truth.videos]
    assert [one.language for one in listed] == [video.tagged_language for video in truth.videos]
    assert sum(f.stat().st_size for f in CORPUS.iterdir()) < 12_000_000
    for video in truth.videos:
        with av.open(str(CORPUS / video.path)) as f:
            assert f.duration / 1e6 == pytest.approx(video.duration_s, abs=0.1), video.path
            assert bool(f.streams.audio) == (video.flaw != "no_audio"), video.path
            assert (f.streams.video[0].width, f.streams.video[0].height) == (video.width_px, video.height_px)
