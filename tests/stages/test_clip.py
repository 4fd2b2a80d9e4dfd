"""Clips: cut where the track is, cropped steadily, with the sound of the same instants, in equal bytes every time."""

import hashlib
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from manifests.records import Clips
from pipeline.stage import Rejection
from stages.clip import CutClips, _in_view
from stages.crop import pieces, smooth, windows
from stages.encode import GOP_FRAMES, ClipWriter
from stages.media import audio_array, frames, probe
from tests import media
from tests.benchmarks.counts import counted
from tests.stages.scenes import HEIGHT, WIDTH, Scene, still_box
from tests.stages.test_quality import enlarged, natural


@pytest.fixture(scope="module")
def twelve_seconds(tmp_path_factory) -> Path:
    """Every frame shows its number, in the left and in the right half."""
    path = tmp_path_factory.mktemp("source") / "twice.mp4"
    frames_ = (
        (time, np.hstack([media.numbered(i, WIDTH // 2, HEIGHT), media.numbered(i, WIDTH // 2, HEIGHT)]))
        for i, time in enumerate(media.times_at(Fraction(25), 12))
    )
    return media.write_video(path, frames_, sound=media.Sound(samples=media.hum(12)))


def numbers(scene: Scene, clip) -> list[int]:
    """What is read in a window of 320 px over one half: it is stretched to the 360 px over which numbers are drawn."""
    images = [cv2.copyMakeBorder(i, 8, 8, 0, 0, cv2.BORDER_REPLICATE) for i in scene.pictures(clip)]
    return [media.read_number(image) for image in images]


def test_clips_hold_exactly_the_frames_of_their_track(tmp_path, twelve_seconds):
    side = 320 / 1.6
    scene = Scene(tmp_path, twelve_seconds)
    scene.add(still_box(160, 180, side, 80), 37).add(still_box(480, 180, side, 120), 90)
    clips = scene.cut()
    assert isinstance(clips, Clips)
    for clip, first, n in zip(clips.items, (37, 90), (80, 120), strict=True):
        assert (clip.n_frames, clip.start_s, clip.end_s) == (n, first / 25, (first + n) / 25)
        assert numbers(scene, clip) == list(range(first, first + n))
        assert len(scene.sound(clip)) == n * 640


def test_keys_are_numbered_in_time_order_and_carry_no_dots(tmp_path, twelve_seconds):
    scene = Scene(tmp_path, twelve_seconds)
    scene.add(still_box(480, 180, 100, 60), 100).add(still_box(160, 180, 100, 60), 20)
    clips = scene.cut().items
    assert [(c.key, c.track, c.number) for c in clips] == [
        ("0123456789abcdef-0000", 1, 0),
        ("0123456789abcdef-0001", 0, 1),
    ]


def test_a_long_track_is_cut_into_equal_pieces_that_follow_each_other(tmp_path, twelve_seconds):
    scene = Scene(tmp_path, twelve_seconds).add(still_box(160, 180, 320 / 1.6, 290), 5)
    clips = scene.cut(max_s=4.0).items
    assert [c.n_frames for c in clips] == [96, 97, 97]
    assert [c.contiguous_with_prev for c in clips] == [False, True, True]
    assert clips[0].end_s == clips[1].start_s and clips[1].end_s == clips[2].start_s
    assert [number for clip in clips for number in numbers(scene, clip)] == list(range(5, 295))


def test_too_short_and_too_small_tracks_give_no_clip_and_a_reason(tmp_path, twelve_seconds):
    scene = Scene(tmp_path, twelve_seconds).add(still_box(160, 180, 100, 49), 0).add(still_box(160, 180, 20, 200), 0)
    answer = scene.cut()
    assert answer == Rejection("no_candidate_clip", {"tracks": 2.0, "longest_s": 8.0, "largest_face_px": 100.0})


def test_arrays_place_the_face_inside_the_crop(tmp_path, twelve_seconds):
    scene = Scene(tmp_path, twelve_seconds).add(still_box(300, 180, 100, 60), 10)
    clip = scene.cut().items[0]
    with np.load(scene.path(clip.arrays)) as arrays:
        assert {k: v.shape for k, v in arrays.items()} == {
            "box": (60, 5),
            "lmk": (60, 5, 2),
            "pose": (60, 3),
            "crop": (60, 4),
        }
        assert all(v.dtype == np.float32 for v in arrays.values())
        assert np.allclose(arrays["lmk"], 64, atol=1)
        assert np.allclose(arrays["box"][:, :4], [24, 24, 104, 104], atol=1.5)
        crop = arrays["crop"][0]
        assert np.allclose(crop, [220, 100, 380, 260])


def test_other_faces_in_the_window_are_named(tmp_path, twelve_seconds):
    scene = Scene(tmp_path, twelve_seconds)
    scene.add(still_box(300, 180, 150, 60), 10).add(still_box(400, 180, 40, 20), 30).add(still_box(40, 40, 60, 60), 10)
    clips = {c.track: c for c in scene.cut().items}
    assert [clips[0].others_in_view, clips[2].others_in_view] == [(1,), ()]


def test_a_face_is_in_view_from_the_first_to_the_last_frame_it_shares_and_no_other_is_looked_at():
    window = np.tile([100.0, 100.0, 300.0, 300.0], (60, 1))  # of frames 50 to 109
    others = {
        n: (np.arange(start, end), still_box(200, 200, 50, end - start))
        for n, (start, end) in enumerate([(40, 51), (109, 130), (60, 70), (0, 200)])
    }
    elsewhere = {4: (np.arange(60, 70), still_box(301, 200, 50, 10))}
    not_then = {5: (np.arange(0, 50), None), 6: (np.arange(110, 130), None)}
    assert _in_view(window, 50, others | elsewhere | not_then) == (0, 1, 2, 3)


def test_the_arrays_of_a_track_are_inflated_once_however_many_pieces_it_has(tmp_path, twelve_seconds, monkeypatch):
    """They were for each piece, which then held the whole: 240 times 10 MB of a talk of two hours."""
    scene = Scene(tmp_path, twelve_seconds).add(still_box(160, 180, 100, 290), 5).add(still_box(480, 180, 100, 40), 5)
    read: list[str] = []
    get = np.lib.npyio.NpzFile.__getitem__
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda file, name: read.append(name) or get(file, name))
    assert len(scene.cut(max_s=4.0).items) == 3
    assert sorted(read) == [
        "0/box", "0/exposure", "0/frame", "0/lmk", "0/motion", "0/pose", "0/sharpness", "1/box", "1/frame"
    ]  # fmt: skip


@pytest.mark.parametrize("rate", ["23.976", "25", "29.97", "30", "50", "59.94", "variable"])
def test_picture_and_sound_of_a_clip_stay_together(tmp_path, rate):
    events = np.arange(18) * 0.3077 + 1.21  # at all phases of the 40 ms grid
    times = media.times_variable(8) if rate == "variable" else media.times_at(media.RATES[rate], 8)
    events = np.array([e for e in events if any(e <= t < e + 0.1 for t in times)])  # not those in the hole
    source = media.click_flash(tmp_path / "s.mp4", times, list(events), width_px=320, height_px=180, audio_start_s=0.25)
    scene = Scene(tmp_path, source).add(still_box(160, 90, 60, 165), 21)
    clip = scene.cut(320, 180).items[0]
    flashes = np.array(media.flash_frames(scene.pictures(clip).mean(axis=(1, 2, 3)))) / 25
    heard = np.array(media.click_times(scene.sound(clip)))
    true = events - clip.start_s
    assert len(flashes) == len(heard) == len(events)
    assert np.abs(heard - true).max() < 0.002

    filmed = np.array([min(float(t) for t in times if t >= e - 1e-6) for e in events]) - clip.start_s
    assert np.abs(flashes - filmed).max() <= 0.04
    # A 25 fps camera shows an event at the end of the 40 ms in which it falls, 20 ms late in the middle; so do we.
    if rate != "variable":
        assert abs(np.mean(flashes - true) - 0.02) <= 0.01 and abs(np.median(flashes - true) - 0.02) <= 0.01

    with_aac = np.array(media.click_times(audio_array(scene.path(clip.video), start_s=0, end_s=clip.n_frames / 25)))
    assert np.abs(with_aac - heard).max() < 0.002


def test_a_clip_leaves_the_scratch_before_the_next_one_is_complete(tmp_path, twelve_seconds):
    scene = Scene(tmp_path, twelve_seconds).add(still_box(320, 180, 100, 300), 0)
    with counted() as counts:
        clips = scene.cut(max_s=3.0)
    made = [clip.video.size_bytes + clip.audio.size_bytes + clip.arrays.size_bytes for clip in clips.items]
    assert len(made) == 4 and 0 < max(counts.scratch.values()) <= max(made)


def test_of_a_crowd_few_clips_are_written_side_by_side_and_all_are_the_same(tmp_path, twelve_seconds, monkeypatch):
    writing: set[Path] = set()
    most = []

    class Counted(ClipWriter):
        def __init__(self, path: Path, size_px: int) -> None:
            super().__init__(path, size_px)
            self.path = path
            writing.add(path)
            most.append(len(writing))

        def finish(self, sound: np.ndarray) -> None:
            super().finish(sound)
            writing.remove(self.path)

    monkeypatch.setattr("stages.clip.ClipWriter", Counted)
    digests = []
    for at_once, widest in ((16, 5), (2, 2)):
        monkeypatch.setattr("stages.clip._AT_ONCE", at_once)
        (tmp_path / str(at_once)).mkdir()
        scene = Scene(tmp_path / str(at_once), twelve_seconds)
        for k in range(5):
            scene.add(still_box(80 + 100 * k, 180, 60, 100), 10 * k)
        scene.add(still_box(320, 180, 60, 60), 115)
        with counted() as counts:
            clips = scene.cut().items
        assert max(most) == widest and not writing
        most.clear()
        digests.append([(clip.number, clip.video.sha256, clip.arrays.sha256) for clip in clips])
        assert counts.decoded.total() < (200 if at_once == 16 else 450)  # one pass, or three
    assert digests[0] == digests[1] and len(digests[0]) == 6


def test_a_video_that_breaks_off_between_two_clips_leaves_nothing_of_the_first(tmp_path):
    times = [*media.times_at(Fraction(25), 6.0), Fraction(900)]  # a clock that jumps by a quarter of an hour
    sound = media.Sound(samples=media.hum(6.0))
    source = media.numbered_video(tmp_path / "s.mp4", times, width_px=WIDTH, height_px=HEIGHT, sound=sound)
    scene = Scene(tmp_path, source).add(still_box(320, 180, 100, 75), 0).add(still_box(320, 180, 100, 75), 250)
    rejected = scene.cut()
    assert isinstance(rejected, Rejection) and rejected.reason == "timestamps"
    assert scene.store.list("blobs") == []


def test_equal_inputs_give_equal_bytes(tmp_path, twelve_seconds):
    digests = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        clip = Scene(tmp_path / name, twelve_seconds).add(still_box(300, 180, 100, 60), 10).cut().items[0]
        digests.append((clip.video.sha256, clip.audio.sha256, clip.arrays.sha256))
    assert digests[0] == digests[1]


def test_clips_have_a_key_frame_every_second_and_their_index_in_front(tmp_path, twelve_seconds):
    scene = Scene(tmp_path, twelve_seconds).add(still_box(300, 180, 100, 110), 10)
    path = scene.path(scene.cut().items[0].video)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        keys = [round(float(p.pts * p.time_base) * 25) for p in container.demux(stream) if p.is_keyframe]
        assert keys == [0, 25, 50, 75, 100] and GOP_FRAMES == 25
        assert (stream.codec_context.pix_fmt, stream.average_rate) == ("yuv420p", 25)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_a_face_at_the_edge_is_padded_with_the_border_and_stays_in_the_middle(tmp_path):
    picture = np.full((HEIGHT, WIDTH, 3), (40, 160, 90), np.uint8)
    source = media.painted_video(tmp_path / "s.mp4", lambda _: picture, 3, sound=media.Sound(samples=media.hum(3)))
    scene = Scene(tmp_path, source).add(still_box(20, 350, 200, 70), 0)
    clip = scene.cut().items[0]
    with np.load(scene.path(clip.arrays)) as arrays:
        crop = arrays["crop"][0]
        assert crop[0] < 0 and crop[3] > HEIGHT
        assert np.abs(arrays["lmk"][:, 0] - 64).max() <= 0.1 * 128 + 1
    assert np.abs(scene.pictures(clip).astype(int) - picture[0, 0]).max() <= 4


def test_a_face_larger_than_the_picture_still_makes_a_clip(tmp_path, twelve_seconds):
    scene = Scene(tmp_path, twelve_seconds).add(still_box(320, 180, 500, 60), 0)
    assert scene.cut().items[0].n_frames == 60


def test_colours_survive_for_readers_that_know_the_tags_and_for_those_that_do_not(tmp_path):
    patches = [(40, 40, 200), (40, 180, 40), (200, 60, 40), (128, 128, 128), (235, 235, 235), (16, 16, 16)]
    picture = np.hstack([np.full((HEIGHT, 60, 3), p, np.uint8) for p in patches])
    for colorspace, full in ((1, False), (6, False), (1, True), (6, True)):
        look = media.Look(colorspace=colorspace, full_range=full, crf=4)
        folder = tmp_path / f"{colorspace}{full}"
        folder.mkdir()
        source = media.painted_video(
            folder / "s.mp4", lambda _: picture, 3, look=look, sound=media.Sound(samples=media.hum(3))
        )
        scene = Scene(folder, source).add(still_box(180, 180, 225, 60), 0)
        clip = scene.cut(width=360, size_px=360).items[0]
        tagged = scene.pictures(clip)[10]
        _, untagged = cv2.VideoCapture(str(scene.path(clip.video))).read()
        for image in (tagged, untagged):
            seen = np.array([image[180, 30 + 60 * i] for i in range(6)], int)
            assert np.abs(seen - patches).max() <= 5, (colorspace, full, seen.tolist())


def test_a_still_face_gets_a_window_that_does_not_move_at_all():
    rng = np.random.default_rng(0)
    boxes = still_box(300, 180, 100, 500)[:, :4] + rng.normal(0, 3, (500, 4))
    path = windows(boxes, margin=1.6, width_px=WIDTH, height_px=HEIGHT)
    assert (path == path[0]).all() and (path == np.round(path)).all()


def test_a_wandering_face_is_followed_smoothly_and_never_lost():
    rng = np.random.default_rng(0)
    t = np.arange(500) / 25
    x = 300 + 180 * np.sin(2 * np.pi * t / 15) + rng.normal(0, 2, 500)
    boxes = np.stack([x - 50, np.full(500, 130.0), x + 50, np.full(500, 230.0)], axis=1)
    path = windows(boxes, margin=1.6, width_px=WIDTH, height_px=HEIGHT)
    side = path[0, 2] - path[0, 0]
    assert np.allclose(path[:, 2] - path[:, 0], side) and np.allclose(path[:, 3] - path[:, 1], side)
    centre = (path[:, 0] + path[:, 2]) / 2
    # 0.1 % of the side per frame and frame: half a pixel at 512 px. The raw boxes shake ten times as much.
    assert np.abs(np.diff(centre, 2)).max() < 0.001 * side < np.abs(np.diff(x, 2)).max() / 10
    assert (boxes[:, :2] >= path[:, :2]).all() and (boxes[:, 2:] <= path[:, 2:]).all()


def test_smoothing_halves_the_given_period_and_leaves_lines_alone():
    t = np.arange(400)[:, None]
    assert np.allclose(smooth(3.0 + 0.5 * t, 50), 3.0 + 0.5 * t, atol=1e-6)
    wave_ = np.sin(2 * np.pi * t / 50)
    assert np.abs(smooth(wave_, 50)[100:300]).max() == pytest.approx(0.5, abs=0.01)


def test_pieces_cover_a_span_without_gap_or_overlap():
    for n in (50, 749, 750, 751, 1501, 4000):
        spans = pieces(7, 7 + n, max_frames=750, min_frames=50)
        lengths = [b - a for a, b in spans]
        assert spans[0][0] == 7 and spans[-1][1] == 7 + n and sum(lengths) == n
        assert max(lengths) <= 750 and max(lengths) - min(lengths) <= 1
    assert pieces(0, 49, max_frames=750, min_frames=50) == []


@pytest.mark.parametrize("wrong", [{"size_px": 511}, {"size_px": 0}, {"min_s": 0.0}, {"min_s": 40.0}, {"margin": 0.5}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=r"must be|need"):
        CutClips(**wrong)


@pytest.mark.real
@pytest.mark.parametrize(
    "name", ["talk/en_talkvid_en.mp4", "multi/goldeneye_vfr_drop3.mp4", "talk/en_syncnet_example.avi"]
)
def test_real_footage_is_cut_with_its_sound(tmp_path, name):
    path = Path(__file__).parents[3] / "shared" / "clips" / name
    if not path.exists():
        pytest.skip(f"no real footage at ../shared/clips/{name}")
    scene, size = Scene(tmp_path, path).add(still_box(300, 120, 90, 60), 12), probe(path).video
    clip = scene.cut(size.width_px, size.height_px).items[0]
    whole = audio_array(path, start_s=0, end_s=3)
    assert np.abs(scene.sound(clip).astype(int) - whole[12 * 640 : 72 * 640]).max() <= 400
    source = np.concatenate([f.images for f in frames(path, start_s=0.48, end_s=0.64)])
    with np.load(scene.path(clip.arrays)) as arrays:
        x0, y0, x1, y1 = arrays["crop"][0].astype(int)
    if x0 >= 0 and y0 >= 0 and x1 <= source.shape[2] and y1 <= source.shape[1]:
        expected = np.stack([cv2.resize(i[y0:y1, x0:x1], (128, 128), interpolation=cv2.INTER_AREA) for i in source])
        assert np.abs(scene.pictures(clip)[:4].astype(int) - expected).mean() < 4
    assert hashlib.sha256(scene.path(clip.video).read_bytes()).hexdigest() == clip.video.sha256


def test_a_piece_that_breaks_a_limit_is_named_and_not_cut(tmp_path, twelve_seconds):
    scene = Scene(tmp_path, twelve_seconds).add(still_box(100, 100, 40, 100), 0).add(still_box(300, 180, 90, 100), 150)
    with counted() as counts:
        clips = scene.cut(spare=(("min_face_px", 60.0), ("min_duration_s", 3.0)))
    (piece,), (clip,) = clips.spared, clips.items
    assert (piece.key, piece.number, piece.track) == ("0123456789abcdef-0000", 0, 0)
    assert (piece.start_s, piece.end_s, piece.n_frames) == (0.0, 4.0, 100)
    assert (clip.key, clip.number, clip.track, clip.n_frames) == ("0123456789abcdef-0001", 1, 1, 100)
    assert counts.encoded.total() == 100 and counts.decoded.total() < 130  # not the six seconds before


def test_a_piece_beside_a_useful_one_is_cut_since_it_may_show_who_speaks(tmp_path, twelve_seconds):
    scene = Scene(tmp_path, twelve_seconds).add(still_box(100, 100, 40, 100), 0).add(still_box(300, 180, 90, 100), 50)
    clips = scene.add(still_box(500, 100, 40, 60), 190).cut(spare=(("min_face_px", 60.0),))
    assert [clip.number for clip in clips.items] == [0, 1] and [piece.number for piece in clips.spared] == [2]


def test_where_every_piece_is_spared_the_source_is_not_opened(tmp_path, twelve_seconds):
    scene = Scene(tmp_path, twelve_seconds).add(still_box(100, 100, 40, 100), 0)
    scene.store.delete(scene.file.path)
    clips = scene.cut(spare=(("min_face_px", 60.0),))
    assert clips.items == () and len(clips.spared) == 1


def test_nothing_is_spared_unless_it_is_asked_for(tmp_path, twelve_seconds):
    clips = Scene(tmp_path, twelve_seconds).add(still_box(100, 100, 40, 100), 0).cut()
    assert len(clips.items) == 1 and clips.spared == ()
    with pytest.raises(ValueError, match="spare: no limit 'face_px'"):
        CutClips(spare=(("face_px", 1.0),))


def test_a_worker_that_cuts_has_opencv_take_one_core():
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        CutClips().open()
        assert cv2.getNumThreads() == 1
    finally:
        cv2.setNumThreads(before)


def test_a_freeze_counts_against_the_piece_that_it_lies_in_and_no_other(tmp_path, twelve_seconds):
    motion = np.full(200, np.nan, np.float32)
    motion[::8] = 2.0
    motion[120:184:8] = 0.0
    sharpness = np.where(np.isnan(motion), motion, 90.0)
    scene = Scene(tmp_path, twelve_seconds).add(still_box(300, 180, 90, 200), 0, motion, sharpness)
    assert [clip.still_s for clip in scene.cut(max_s=4.0).items] == pytest.approx([0.0, 56 / 25])
    clips = scene.cut(max_s=4.0, spare=(("max_still_s", 0.8),))
    assert ([one.number for one in clips.items], [one.number for one in clips.spared]) == ([0], [1])


def test_a_face_of_a_crowd_is_not_still_between_looks_that_did_not_measure_its_motion(tmp_path, twelve_seconds):
    motion, sharpness = np.full((2, 100), np.nan, np.float32)
    motion[::24], sharpness[::8] = 0.0, 90.0
    scene = Scene(tmp_path, twelve_seconds).add(still_box(300, 180, 90, 100), 0, motion, sharpness)
    assert scene.cut().items[0].still_s == 0.0


@pytest.mark.parametrize(("times", "effective_px"), [(1, 120), (3, 40)])
def test_a_clip_knows_how_much_detail_its_face_has(tmp_path, times, effective_px):
    picture = cv2.resize(enlarged(natural(180), times), (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
    picture[:180, :180] = enlarged(natural(180), times)
    source = media.painted_video(tmp_path / "s.mp4", lambda _: picture, 3, sound=media.Sound(samples=media.hum(3)))
    (clip,) = Scene(tmp_path, source).add(still_box(90, 90, 120, 60), 0).cut().items
    assert clip.effective_face_px == pytest.approx(effective_px, rel=0.25)
