"""Clips of long tracks and of streams that change on their way."""

import threading
import weakref
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from stages import clip as clip_stage
from stages.crop import windows
from stages.encode import ClipWriter
from stages.picture import Picture, Shape
from tests import media
from tests.benchmarks.counts import counted
from tests.stages.scenes import HEIGHT, WIDTH, Scene, still_box


def test_an_encoder_goes_when_its_clip_is_finished(tmp_path, monkeypatch):
    alive: weakref.WeakSet[ClipWriter] = weakref.WeakSet()
    most = []

    class Watched(ClipWriter):
        def __init__(self, *given) -> None:
            super().__init__(*given)
            alive.add(self)
            most.append(len(alive))

    monkeypatch.setattr(clip_stage, "ClipWriter", Watched)
    times, sound = media.times_at(Fraction(25), 12), media.Sound(samples=media.hum(12))
    source = media.numbered_video(tmp_path / "s.mp4", times, width_px=WIDTH, height_px=HEIGHT, sound=sound)
    clips = Scene(tmp_path, source).add(still_box(320, 180, 100, 300), 0).cut(max_s=2.0)
    assert len(clips.items) == len(most) == 6 and max(most) == 1


def test_a_stream_that_changes_its_size_is_cropped_where_the_face_is(tmp_path):
    """Two pieces of transport stream on end, as a call's recording has them: the second has twice the pixels."""
    parts = []
    for n, (zoom, start_s) in enumerate(((1, 0), (2, 3))):
        image = np.zeros((HEIGHT * zoom, WIDTH * zoom, 3), np.uint8)
        image[100 * zoom : 200 * zoom, 400 * zoom : 500 * zoom] = 255
        times = [time + start_s for time in media.times_at(Fraction(25), 3)]
        path = media.write_video(tmp_path / f"{n}.ts", ((time, image) for time in times), look=media.Look(b_frames=0))
        parts.append(path.read_bytes())
    (tmp_path / "both.ts").write_bytes(b"".join(parts))
    scene = Scene(tmp_path, tmp_path / "both.ts").add(still_box(450, 150, 100, 140), 0)
    (clip,) = scene.cut(margin=1.0).items
    shown = scene.pictures(clip).mean((1, 2, 3))
    assert clip.n_frames == 140 and shown.min() > 230, "the white square fills the crop on both sides of the change"


def test_a_face_keeps_its_proportions_where_the_stream_changes_its_shape(tmp_path):
    """From 16:9 to 4:3: a disc in the middle of both, seen at half its pixels in the second."""
    parts = []
    for n, (width, height, radius) in enumerate(((WIDTH, HEIGHT, 60), (WIDTH, HEIGHT * 4 // 3, 80))):
        image = cv2.circle(np.zeros((height, width, 3), np.uint8), (width // 2, height // 2), radius, (255,) * 3, -1)
        times = [time + 3 * n for time in media.times_at(Fraction(25), 3)]
        path = media.write_video(tmp_path / f"{n}.ts", ((time, image) for time in times), look=media.Look(b_frames=0))
        parts.append(path.read_bytes())
    (tmp_path / "both.ts").write_bytes(b"".join(parts))
    scene = Scene(tmp_path, tmp_path / "both.ts").add(still_box(320, 180, 100, 140), 0)
    (clip,) = scene.cut(margin=2.0).items
    for picture in scene.pictures(clip)[[20, 120]]:
        rows, columns = np.nonzero(picture[..., 1] > 127)
        assert np.ptp(rows) + 1 == pytest.approx(np.ptp(columns) + 1, abs=2)
        assert np.ptp(rows) + 1 == pytest.approx(120 * 128 / 200, abs=3)


def test_a_window_larger_than_the_picture_lies_about_its_middle():
    boxes = still_box(320, 150, 300, 50)[:, :4]
    assert windows(boxes, margin=1.6, width_px=WIDTH, height_px=HEIGHT)[7].tolist() == [80, -60, 560, 420]


def test_over_wide_pixels_a_window_that_moves_keeps_its_size():
    """HDV: 1440 coded pixels shown as 1920, where a side of 268 is 201, half way between two even numbers."""
    image = np.full((1080, 1440, 3), 60, np.uint8)
    for x in (900, 1100):
        cv2.circle(image, (round(x * 0.75 * 16), 500 * 16), 10 * 16, (220,) * 3, -1, cv2.LINE_AA, 4)
    frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuv420p")
    picture = Picture(0, frame, Shape.of(frame, Fraction(4, 3)))
    apart = []
    for step in range(40):
        x, y = 1000 + step * 0.37317, 500 + step * 0.1113
        shown = picture.crop((x - 134, y - 134, x + 134, y + 134), 512)[..., 1]
        bright = np.clip(shown.astype(float) - 100, 0, None).sum(0)
        left, right = (np.average(np.arange(512)[half], weights=bright[half]) for half in (slice(256), slice(256, 512)))
        apart.append(right - left)
    assert max(apart) - min(apart) < 1


def test_a_picture_of_ten_bits_is_converted_once_for_all_faces_in_it():
    class Counted:
        def __init__(self, frame: av.VideoFrame) -> None:
            self.frame, self.n = frame, 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.frame, name)

        def reformat(self, **how: Any) -> av.VideoFrame:
            self.n += 1
            return self.frame.reformat(**how)

    frame: Any = Counted(av.VideoFrame.from_ndarray(media.numbered(77), format="bgr24").reformat(format="yuv420p10le"))
    picture = Picture(0, frame, Shape.of(frame, None))
    crops = [picture.crop((x, 0.0, x + 240.0, 240.0), 64) for x in (0.0, 40.0, 80.0)]
    assert frame.n == 1 and not np.array_equal(crops[0], crops[2])


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_a_crop_is_made_on_the_thread_that_asks_for_it(pix_fmt):
    """By itself swscale starts as many as the machine has cores, anew for every picture: twice a crop's time on two."""

    def watch() -> None:
        while not done.is_set():
            seen.update(tasks.iterdir())

    frame = av.VideoFrame.from_ndarray(media.numbered(77, 640, 480), format="bgr24").reformat(format=pix_fmt, threads=1)
    seen: set[Path] = set()
    tasks, done = Path("/proc/self/task"), threading.Event()
    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    before = {*tasks.iterdir()}
    for _ in range(50):
        Picture(0, frame, Shape.of(frame, None)).crop((9.0, 9.0, 409.0, 409.0), 256)
    done.set()
    watching.join()
    assert seen <= before


@pytest.mark.parametrize("how", [{}, {"rotation_deg": 90}, {"pixel_aspect": Fraction(4, 3)}], ids=str)
def test_the_numbers_beside_a_clip_lie_on_what_its_pictures_show(tmp_path, how):
    """A disc crosses the picture, and the window goes after it, between pixels."""
    look = media.Look(**how)
    k = np.arange(75)
    x, y = 110 + 5.5 * k + 15 * np.sin(k / 4), 180 + 20 * np.sin(k / 9)

    def picture(number: int) -> np.ndarray:
        image = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
        centre = (round((x[number] - 0.5) * 16), round((y[number] - 0.5) * 16))
        cv2.circle(image, centre, 20 * 16, (220,) * 3, -1, cv2.LINE_AA, 4)
        coded = np.rot90(image, -(look.rotation_deg // 90))
        size = round(coded.shape[1] / look.pixel_aspect), coded.shape[0]
        return cv2.resize(coded, size, interpolation=cv2.INTER_AREA)

    path = tmp_path / "s.mp4"
    media.write_video(path, ((Fraction(n, 25), picture(n)) for n in range(75)), look=look)
    box = np.column_stack([x - 50, y - 50, x + 50, y + 50, np.ones(75)])[10:70].astype(np.float32)
    scene = Scene(tmp_path, path).add(box, 10)
    (clip,) = scene.cut().items
    with np.load(scene.path(clip.arrays)) as arrays:
        boxes, landmarks, crop = arrays["box"], arrays["lmk"], arrays["crop"]
    bright = np.clip(scene.pictures(clip)[..., 1].astype(float) - 100, 0, None)
    middles = np.arange(128) + 0.5
    seen = np.stack([bright.sum(1) @ middles, bright.sum(2) @ middles], axis=1) / bright.sum((1, 2))[:, None]
    assert np.abs(seen - landmarks[:, 0]).max() < 0.5
    assert np.abs(seen - (boxes[:, :2] + boxes[:, 2:4]) / 2).max() < 0.5
    in_source = crop[:, :2] + seen * (crop[:, 2:] - crop[:, :2]) / 128
    assert np.abs(in_source - np.column_stack([x, y])[10:70]).max() < 0.6
    assert np.ptp(crop[:, 0]) > 200 and (crop[:, 0] % 1 != 0).mean() > 0.8


def test_where_no_key_frame_lies_between_cuts_they_share_a_pass(tmp_path):
    """Each had begun at the only key frame: of a file with few of them, cost grew with the square of its length."""
    times = media.times_at(Fraction(25), 10)
    decoded, sums = [], []
    for gop in (10_000, 25):
        folder = tmp_path / str(gop)
        folder.mkdir()
        path = media.numbered_video(folder / "s.mp4", times, width_px=160, height_px=90, look=media.Look(gop=gop))
        scene = Scene(folder, path)
        for start in (0, 101, 200):
            scene.add(still_box(80, 45, 40, 50), start)
        with counted() as counts:
            clips = scene.cut(160, 90, size_px=32).items
        decoded.append(counts.decoded.total())
        sums.append([(clip.n_frames, clip.arrays.sha256) for clip in clips])
    assert 250 <= decoded[0] < 270 and decoded[1] < 230
    assert sums[0] == sums[1] and len(sums[0]) == 3
