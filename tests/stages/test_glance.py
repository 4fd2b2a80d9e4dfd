"""A look at key frames: when it is enough, when it is not, and what it decodes."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from manifests.records import Seen, Source
from manifests.sample.render import render_empty
from manifests.sample.scene import scene
from manifests.store import Store
from pipeline.bench import Bench
from pipeline.stage import Facts, Rejection
from stages.faces import Faces, Found
from stages.glance import Glance
from stages.media import MediaError, key_frames, probe
from stages.voice import Voice
from stages.watch import Watch
from tests.benchmarks.counts import counted
from tests.media import Look, numbered, numbered_video, read_number, scarred, times_at, write_video
from tests.stages.test_watch import shot

HZ = 5


class Reader:
    """In the place of the detector: reads the number in a picture and finds a face of the score that is set for it."""

    config = Faces()

    def __init__(self, scores: dict[int, float] | None = None) -> None:
        self._scores = scores or {}
        self.seen: list[int] = []

    def detect(self, images: list[np.ndarray]) -> list[Found]:
        numbers = [read_number(image) for image in images]
        self.seen += numbers
        return [_found(self._scores.get(number)) for number in numbers]


def _found(score: float | None) -> Found:
    boxes = [] if score is None else [(0, 0, 10, 10, score)]
    return Found(np.array(boxes, np.float32).reshape(-1, 5), np.zeros((len(boxes), 5, 2), np.float32))


def film(path: Path, duration_s: float = 40.0, *, gop: int = 2 * HZ, **look) -> Path:
    """Picture number n is shown at n / 5 s; every `gop`-th is a key frame."""
    tick = {"tick_s": Fraction(1, HZ)} if look.get("codec") == "mpeg4" else {}  # it knows no finer ones
    return numbered_video(path, times_at(Fraction(HZ), duration_s), look=Look(gop=gop, **tick, **look))


def glanced(path: Path, detector: Reader, glance: Glance | None = None) -> tuple[Rejection | None, int]:
    """What is said of a film, and the number of pictures that were decoded for it."""
    duration_s = probe(path).duration_s
    with counted() as counts:
        said = (glance or Glance()).faceless(path, duration_s, detector, short_side_px=320, sure=0.5)
    return said, sum(counts.decoded.values())


def test_a_faceless_film_is_rejected_by_its_key_frames_alone(tmp_path):
    detector = Reader()
    said, n_decoded = glanced(film(tmp_path / "empty.mp4"), detector)
    assert said == Rejection("no_face", {"n_frames": 20, "best_score": 0.0, "largest_gap_s": 2.0})
    assert detector.seen == list(range(0, 200, 10))
    assert n_decoded == 20


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mp4", "libx264"), (".mkv", "libx264"), (".webm", "libvpx-vp9"), (".ts", "libx264")]
)
def test_key_frames_of_any_container_come_with_their_times(tmp_path, suffix, codec):
    path = film(tmp_path / f"film{suffix}", 12.0, codec=codec)
    with counted() as counts:
        found = list(key_frames(path, short_side_px=320))
    times, numbers = [time for time, _ in found], [read_number(image) for _, image in found]
    assert {0, 10, 20, 30, 40, 50} <= set(numbers) and len(numbers) < 15
    assert times == pytest.approx([n / HZ for n in numbers], abs=0.002)
    assert sum(counts.decoded.values()) == len(numbers)


def test_the_first_sure_face_ends_the_glance(tmp_path):
    said, n_decoded = glanced(film(tmp_path / "face.mp4"), Reader({10: 0.6}))
    assert said is None
    assert n_decoded <= 6  # a decoder may hold some back


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_key_frames_too_far_apart_or_without_times_say_nothing(tmp_path, suffix):
    gop = 2 * HZ if suffix == ".avi" else 7 * HZ
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    said, n_decoded = glanced(film(tmp_path / f"film{suffix}", gop=gop, codec=codec, b_frames=0), Reader())
    assert said is None
    assert n_decoded < 8


def test_the_end_may_not_lie_far_from_the_last_key_frame(tmp_path):
    path = film(tmp_path / "film.mp4")
    glance = Glance().faceless(path, probe(path).duration_s + 5.0, Reader(), short_side_px=320, sure=0.5)
    assert glance is None


def test_a_face_after_the_end_of_a_part_is_none(tmp_path):
    path, detector = film(tmp_path / "late.mp4"), Reader(dict.fromkeys(range(100, 200), 0.9))
    said = Glance().faceless(path, 20.0, detector, short_side_px=320, sure=0.5, end_s=20.0)
    assert said is not None and said.reason == "no_face"
    assert max(detector.seen) < 100


def test_a_short_film_is_watched_in_full(tmp_path):
    said, n_decoded = glanced(film(tmp_path / "short.mp4", 14.0), Reader())
    assert (said, n_decoded) == (None, 0)
    assert glanced(film(tmp_path / "longer.mp4", 16.0), Reader())[0].reason == "no_face"


def test_weak_finds_are_looked_into_from_key_frame_to_key_frame(tmp_path):
    path, detector = film(tmp_path / "weak.mp4"), Reader({100: 0.4, 0: 0.3, 190: 0.45})
    said, n_decoded = glanced(path, detector)
    assert said.reason == "no_face"
    assert said.measured["best_score"] == 0.45
    later = set(detector.seen[20:])
    assert {n for n in later if 90 < n < 110} and {n for n in later if n < 10} and {n for n in later if n > 190}
    assert not {n for n in later if 11 < n < 90 or 111 < n < 180}
    assert n_decoded < 20 + 60


def test_a_face_that_is_sure_near_a_weak_one_is_none_to_reject(tmp_path):
    sure = dict.fromkeys(range(103, 108), 0.9)
    path = film(tmp_path / "weak.mp4")
    assert glanced(path, Reader(sure))[0].reason == "no_face"  # shorter than what lies between two key frames
    assert glanced(path, Reader({100: 0.4} | sure))[0] is None
    assert glanced(path, Reader({110: 0.4} | sure))[0] is None


def test_many_weak_finds_are_a_reason_to_watch_in_full(tmp_path):
    said, n_decoded = glanced(film(tmp_path / "weak.mp4"), Reader(dict.fromkeys(range(0, 200, 30), 0.4)))
    assert said is None
    assert n_decoded == 20


def test_times_that_do_not_grow_are_a_doubt(tmp_path, monkeypatch):
    images = [(0.0, numbered(0)), (4.0, numbered(1)), (4.0, numbered(2)), (8.0, numbered(3)), (12.0, numbered(4))]
    monkeypatch.setattr("stages.glance.key_frames", lambda *_, **__: iter(images))
    assert Glance().faceless(tmp_path, 16.0, Reader(), short_side_px=320, sure=0.5) is None
    del images[2]
    assert Glance().faceless(tmp_path, 16.0, Reader(), short_side_px=320, sure=0.5) is not None
    assert Glance(max_gap_s=0.0).faceless(tmp_path, 16.0, Reader(), short_side_px=320, sure=0.5) is None


def test_damage_leaves_a_gap_and_nothing_worse(tmp_path):
    path = scarred(film(tmp_path / "whole.mp4"), tmp_path / "scarred.mp4", 0.3, 0.6)
    try:
        said, _ = glanced(path, Reader())
    except MediaError:
        return
    assert said is None or said.measured["largest_gap_s"] <= 6.0


def watched(folder: Path, path: Path, glance: Glance) -> tuple[Seen | Rejection, int]:
    store, about = Store(str(folder / "store")), probe(path)
    source = Source(file=store.put_file(path, "in/aa"), duration_s=about.duration_s, video=about.video, audio=None)
    work = Watch(faces=Faces(pack="sample/faces"), voice=Voice(min_s=0.0), glance=glance).open()
    with counted() as counts, Bench(store, "watch", "aa") as bench:
        outcome = work(Facts([source]), bench)
    return outcome, sum(counts.decoded.values())


@pytest.fixture(scope="module")
def scenery() -> list[np.ndarray]:
    return [frame[..., ::-1] for frame in render_empty(scene(20, 480, 270), 20)]


def footage(path: Path, images: list[np.ndarray], gop: int) -> Path:
    return write_video(path, ((Fraction(k, 25), image) for k, image in enumerate(images)), look=Look(gop=gop, crf=24))


def test_scenery_costs_its_key_frames_and_the_rest_of_the_stage_is_spared(tmp_path, scenery):
    path = footage(tmp_path / "scenery.mp4", scenery * 20, 50)
    outcome, n_decoded = watched(tmp_path, path, Glance())
    assert outcome.reason == "no_face"
    assert "largest_gap_s" in outcome.measured
    assert n_decoded == 8


def test_a_face_between_key_frames_that_are_too_far_apart_is_tracked(tmp_path, scenery):
    images = scenery * 3 + shot(3, 60) + scenery * 14
    outcome, _ = watched(tmp_path, footage(tmp_path / "rare.mp4", images, 250), Glance())
    assert isinstance(outcome, Seen)
    assert [(t.start_frame, t.end_frame) for t in outcome.tracks if t.score > 0.7] == [(60, 120)]


def test_a_film_with_a_face_is_seen_as_without_the_glance(tmp_path, scenery):
    path = footage(tmp_path / "face.mp4", scenery * 3 + shot(3, 60) + scenery * 14, 25)
    with_it, n_with = watched(tmp_path / "a", path, Glance())
    without, n_without = watched(tmp_path / "b", path, Glance(max_gap_s=0.0))
    assert (with_it.arrays.sha256, with_it.tracks, with_it.cuts) == (
        without.arrays.sha256,
        without.tracks,
        without.cuts,
    )
    assert n_without < n_with <= n_without + 8
