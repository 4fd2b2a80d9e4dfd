"""The whole stage, on rendered people and the sample weights: real files, real detector."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from manifests.records import AudioStream, FaceMeasures, Seen, Source, Video, VideoStream
from manifests.sample.motion import still, talk
from manifests.sample.person import person
from manifests.sample.render import render, render_empty, seat
from manifests.sample.scene import scene
from manifests.store import Store
from pipeline.bench import Bench
from pipeline.override import override
from pipeline.stage import Facts, Rejection, semantic
from stages.clip import CutClips
from stages.faces import Faces
from stages.media import probe
from stages.quality import longest_still_s
from stages.tracks import Linking
from stages.watch import Watch
from stages.weights import WeightsMissingError
from tests.media import write_video
from tests.tracks import tracks_of

PACK = "sample/faces"
SAID = tuple((p, 0.12 * k, 0.12 * (k + 1)) for k, p in enumerate("maboterisafulepodamu" * 2))


def shot(who: int, n: int, *, frozen: bool = False) -> list[np.ndarray]:
    """n frames BGR of one person who talks in a room of their own."""
    where, motion = scene(who, 480, 270), talk(SAID, n, who)
    return [
        frame[..., ::-1] for frame, _ in render([seat(person(who), still(motion) if frozen else motion, where)], where)
    ]


def film(path: Path, images: list[np.ndarray]) -> Path:
    return write_video(path, ((Fraction(k, 25), image) for k, image in enumerate(images)))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(str(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def work():
    return Watch(faces=Faces(pack=PACK)).open()


def watch(work, store: Store, path: Path, video: str = "aa", stop_s: float | None = None) -> Seen | Rejection:
    seen = probe(path)
    source = Source(
        file=store.put_file(path, f"in/{video}"),
        duration_s=stop_s or seen.duration_s,
        video=seen.video,
        audio=seen.audio,
        stop_s=stop_s,
    )
    with Bench(store, "watch", video) as bench:
        return work(Facts([source]), bench)


@pytest.fixture(scope="module")
def two_shots(work, store, tmp_path_factory) -> Seen:
    path = film(tmp_path_factory.mktemp("film") / "two.mp4", shot(1, 41) + shot(2, 39))
    seen = watch(work, store, path, "two")
    assert isinstance(seen, Seen)
    return seen


def test_every_scene_has_its_face_and_the_cut_is_exact(two_shots):
    assert (two_shots.n_frames, two_shots.cuts) == (80, (41,))
    spans = [(t.scene, t.start_frame, t.end_frame) for t in two_shots.tracks if t.score > 0.7]
    assert spans == [(0, 0, 41), (1, 41, 80)]
    assert two_shots.faces_share == 1.0
    assert two_shots.decoded_s == pytest.approx(3.2)


def test_the_arrays_are_as_promised(two_shots, store):
    for track in two_shots.tracks:
        arrays = tracks_of(Path(store.at(two_shots.arrays.path)), track.number)
        n = track.end_frame - track.start_frame
        assert {k: (v.shape, str(v.dtype)) for k, v in arrays.items()} == {
            "frame": ((n,), "int32"),
            "box": ((n, 5), "float32"),
            "lmk": ((n, 5, 2), "float32"),
            "pose": ((n, 3), "float32"),
            "sharpness": ((n,), "float32"),
            "exposure": ((n,), "float32"),
            "motion": ((n,), "float32"),
        }
        assert arrays["frame"].tolist() == list(range(track.start_frame, track.end_frame))
        assert np.isfinite(arrays["box"]).all() and np.isfinite(arrays["lmk"]).all()
        assert np.isfinite(arrays["sharpness"]).any()


def test_a_track_that_is_one_piece_is_judged_by_what_it_reads_itself(two_shots, store):
    video = VideoStream(width_px=480, height_px=270, rate_hz=25.0, codec="h264")
    sound = AudioStream(rate_hz=48_000, channels=2, codec="aac")
    source = Source(file=two_shots.arrays, duration_s=3.2, video=video, audio=sound)  # which is not opened: none is cut
    cut = CutClips(min_s=0.4, min_face_px=0.0, spare=(("min_duration_s", 60.0),)).open()
    with Bench(store, "clip", "two") as bench:
        pieces = cut(Facts([Video(id="two", url="x"), source, two_shots]), bench).spared
    tracks = {track.number: track for track in two_shots.tracks}
    assert {piece.track for piece in pieces} == set(tracks)
    for piece in pieces:
        for name in FaceMeasures.__annotations__:
            assert getattr(piece, name) == getattr(tracks[piece.track], name), name


def test_boxes_lie_on_the_rendered_face_in_source_pixels(work, store, tmp_path):
    where, motion = scene(5, 960, 540), talk(SAID, 26, 5)
    rendered = list(render([seat(person(5), motion, where)], where))
    seen = watch(work, store, film(tmp_path / "big.mp4", [frame[..., ::-1] for frame, _ in rendered]), "big")
    track = max(seen.tracks, key=lambda t: t.score)
    box = tracks_of(Path(store.at(seen.arrays.path)), track.number)["box"]
    truth = np.array([faces[0].box for _, faces in rendered])
    size = (truth[:, 3] - truth[:, 1])[:, None]
    assert np.abs(box[:, :4] - truth).mean() < 0.12 * size.mean()


def test_what_is_stored_beyond_the_end_of_a_part_is_not_watched(work, store, tmp_path):
    seen = watch(work, store, film(tmp_path / "part.mp4", shot(3, 30) + shot(4, 20)), "part", stop_s=1.2)
    assert (seen.n_frames, seen.cuts) == (30, ())
    assert max(track.end_frame for track in seen.tracks) == 30


def test_watching_again_gives_the_same_bytes(work, store, tmp_path):
    path = film(tmp_path / "one.mp4", shot(3, 30))
    first, second = watch(work, store, path, "a1"), watch(work, store, path, "a2")
    assert first.arrays.sha256 == second.arrays.sha256
    assert first.tracks == second.tracks


def test_a_still_face_shows_no_motion_and_a_talking_one_does(work, store, tmp_path):
    frozen = watch(work, store, film(tmp_path / "still.mp4", shot(4, 40, frozen=True)), "still")
    live = watch(work, store, film(tmp_path / "live.mp4", shot(4, 40)), "live")
    assert max(t.motion for t in frozen.tracks) < 0.3 * max(t.motion for t in live.tracks)


def test_a_freeze_in_a_live_picture_is_a_spell_and_pictures_shown_twice_are_none(work, store, tmp_path):
    live = shot(4, 90)
    films = {"twice": [live[k // 2 * 2] for k in range(90)], "tail": live[:50] + [live[50]] * 40}
    spells = {}
    for name, images in films.items():
        seen = watch(work, store, film(tmp_path / f"{name}.mp4", images), name)
        track = max(seen.tracks, key=lambda t: t.score)
        assert track.motion > 0.4  # the median is that of a live face
        arrays = tracks_of(Path(store.at(seen.arrays.path)), track.number)
        spells[name] = longest_still_s(arrays["motion"], ~np.isnan(arrays["sharpness"]))
    assert spells["twice"] < 0.4 and spells["tail"] > 0.9


def test_scenery_is_rejected_with_what_was_looked_at(work, store, tmp_path):
    images = [np.full((270, 480, 3), 90, np.uint8) for _ in range(10)]
    images += [frame[..., ::-1] for frame in render_empty(scene(12, 480, 270), 30)]
    outcome = watch(work, store, film(tmp_path / "empty.mp4", images), "empty")
    assert isinstance(outcome, Rejection)
    assert outcome.reason == "no_face"
    assert set(outcome.measured) == {"n_frames", "best_score"}


def test_faces_that_never_stay_are_no_track(store, tmp_path):
    impatient = Watch(faces=Faces(pack=PACK), linking=Linking(min_length_s=60)).open()
    outcome = watch(impatient, store, film(tmp_path / "short.mp4", shot(3, 30)), "short")
    assert isinstance(outcome, Rejection)
    assert outcome.reason == "no_track"


def test_a_file_that_is_no_video_is_rejected_by_name(work, store, tmp_path):
    good = film(tmp_path / "good.mp4", shot(3, 12))
    described = probe(good)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(good.read_bytes()[:200])
    source = Source(
        file=store.put_file(broken, "in/broken"), duration_s=1, video=described.video, audio=described.audio
    )
    with Bench(store, "watch", "broken") as bench:
        outcome = work(Facts([source]), bench)
    assert isinstance(outcome, Rejection)
    assert outcome.reason


def test_missing_weights_are_one_line_that_says_what_is_missing():
    with pytest.raises(WeightsMissingError, match="nowhere/at/all"):
        Watch(faces=Faces(pack="nowhere/at/all")).open()


def test_a_pack_without_a_detector_is_named(tmp_path):
    with pytest.raises(WeightsMissingError, match=f"^{tmp_path} holds no detection model"):
        Watch(faces=Faces(pack=str(tmp_path))).open()


@pytest.mark.parametrize("name", ["faces.every", "faces.det_size_px", "cuts.height_px", "quality.motion_gap_frames"])
def test_counts_of_nothing_are_refused_before_any_video(name):
    with pytest.raises(ValueError, match=rf"^watch: {name} must be at least 1, not 0"):
        override(Watch(), f"{name}=0")


def test_how_it_is_run_is_no_part_of_what_it_computes():
    plain, threaded = Watch(), Watch(threads=4, faces=Faces(threads=4))
    assert semantic(plain) == semantic(threaded)
    assert semantic(plain) != semantic(Watch(faces=Faces(every=4)))
    assert json.dumps(semantic(plain))
