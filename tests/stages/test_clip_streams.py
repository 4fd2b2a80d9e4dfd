"""Clips of long tracks and of streams that change on their way."""

import weakref
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
import pytest

from stages import clip as clip_stage
from stages.encode import ClipWriter
from stages.picture import Picture, Shape
from tests import media
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
