"""When to look: the cadence, against a detector that answers from a script instead of a network."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pytest

from stages.faces import Detector, Faces, FaceWatcher, Found, Seeing, iou
from stages.media import Frames
from stages.quality import TEMPLATE, Quality

Script = Callable[[int], list[tuple[float, float, float, float]]]
"""Frame number to faces: centre x, centre y, size, score."""


class Scripted(Detector):
    """Reads the frame's number from the picture and gives that frame's faces."""

    def __init__(self, script: Script, config: Faces | None = None) -> None:
        self.config = config or Faces()
        self.script = script
        self.calls: list[int] = []

    def detect(self, images: Sequence[np.ndarray]) -> list[Found]:
        numbers = [int(image[0, 0, 0]) + 256 * int(image[0, 0, 1]) for image in images]
        self.calls += numbers
        return [_found(self.script(number)) for number in numbers]


def _found(faces: list[tuple[float, float, float, float]]) -> Found:
    box = [(x - s / 2, y - s / 2, x + s / 2, y + s / 2, score) for x, y, s, score in faces]
    lmk = [TEMPLATE * s + (x - s / 2, y - s / 2) for x, y, s, _ in faces]
    return Found(np.array(box, np.float32).reshape(-1, 5), np.array(lmk, np.float32).reshape(-1, 5, 2))


def watched(script: Script, n: int, *, batch: int = 64, config: Faces | None = None, scale: float = 1.0) -> Seeing:
    watcher = FaceWatcher(Scripted(script, config), Quality())
    for first in range(0, n, batch):
        numbers = np.arange(first, min(first + batch, n))
        images = np.zeros((len(numbers), 90, 160, 3), np.uint8)
        images[:, 0, 0, 0], images[:, 0, 0, 1] = numbers % 256, numbers // 256
        watcher.see(Frames(first, images, scale))
    return watcher.done()


def test_a_steady_face_is_looked_at_at_the_cadence_and_at_the_end():
    seeing = watched(lambda k: [(80, 45, 40, 0.8)], 200)
    assert seeing.found.looked.tolist() == [*range(0, 200, 8), 199]
    assert seeing.found.frame.tolist() == seeing.found.looked.tolist()


def test_an_empty_picture_is_looked_at_at_the_cadence():
    seeing = watched(lambda k: [], 200)
    assert seeing.found.looked.tolist() == [*range(0, 200, 8), 199]
    assert len(seeing.found.frame) == 0 and seeing.best_score == 0


@pytest.mark.parametrize("batch", [7, 64, 65])
def test_the_frame_in_which_a_face_appears_is_found_exactly(batch):
    seeing = watched(lambda k: [(80, 45, 40, 0.8)] if k >= 93 else [], 200, batch=batch)
    assert seeing.found.frame[0] == 93
    assert len(seeing.found.looked) < 60


def test_fast_motion_is_looked_at_at_full_rate_and_slow_motion_is_not():
    fast = watched(lambda k: [(10 + 12 * (k % 12), 45, 40, 0.8)], 60)
    slow = watched(lambda k: [(40 + 0.2 * k, 45, 40, 0.8)], 60)
    assert len(fast.found.looked) == 60
    assert len(slow.found.looked) == 9


def test_the_size_of_batches_does_not_change_what_is_looked_at():
    script: Script = lambda k: [(40 + (3 * k) % 80, 45, 40, 0.8)]  # noqa: E731
    looks = [watched(script, 150, batch=batch).found.looked.tolist() for batch in (6, 64, 150)]
    assert looks[0] == looks[1] == looks[2]


def test_weak_finds_are_kept_but_do_not_raise_the_rate():
    seeing = watched(lambda k: [(80, 45, 40, 0.35)] if k % 2 else [], 100)
    assert len(seeing.found.looked) == 14
    assert seeing.best_score == pytest.approx(0.35)


def test_detections_are_in_source_pixels_and_measured_where_the_past_is_known():
    seeing = watched(lambda k: [(80, 45, 40, 0.8)], 40, scale=0.25)
    assert seeing.found.box[0, :4].tolist() == [240, 100, 400, 260]
    assert np.allclose(seeing.found.lmk[0], (TEMPLATE * 40 + (60, 25)) * 4)
    assert np.isnan(seeing.measures[0, 2]) and not np.isnan(seeing.measures[1:]).any()


def crowd(n: int, restless: int = 0) -> Script:
    """A row of so many faces, the larger ones first, of which the smallest are somewhere else in every frame."""

    def script(k: int) -> list[tuple[float, float, float, float]]:
        shifts = [20.0 * (k % 3) if i >= n - restless else 0.0 for i in range(n)]
        return [(40.0 * i, 45 + shifts[i], 30 - 0.1 * i, 0.8) for i in range(n)]

    return script


def test_of_a_crowd_the_motion_of_the_largest_faces_is_measured_in_every_look_and_of_the_others_in_turns():
    seeing = watched(crowd(40), 200)
    assert len(seeing.found.frame) == 40 * 26  # all of them are known: who is in view counts
    assert not np.isnan(seeing.measures[:, :2]).any()  # sharpness and exposure of each
    moving = ~np.isnan(seeing.measures[:, 2]).reshape(26, 40)[1:]
    assert (moving.sum(axis=1) == 16).all()
    assert moving[:, :8].all() and (moving[:, 8:].sum(axis=0) >= 6).all()


def test_tiles_of_one_size_take_their_turns_though_their_ranks_by_size_swap():
    def script(k: int) -> list[tuple[float, float, float, float]]:
        sizes = 30 + np.random.default_rng(k).normal(0, 0.3, 25)
        order = np.random.default_rng(k + 1000).permutation(25)  # nor are they found in one order
        return [(40.0 * i, 45, float(sizes[i]), 0.8) for i in order]

    seeing = watched(script, 400)
    tile = (seeing.found.box[:, [0, 2]].mean(axis=1) / 40).round().astype(int)
    look = np.searchsorted(seeing.found.looked, seeing.found.frame)
    moving = ~np.isnan(seeing.measures[:, 2])
    for i in range(25):
        turns = look[moving & (tile == i)]
        assert turns[0] <= 3 and np.diff(turns).max() <= 3


def test_small_faces_in_a_crowd_do_not_make_for_closer_looks():
    assert len(watched(crowd(16, restless=1), 24).found.looked) > 12
    assert watched(crowd(17, restless=1), 24).found.looked.tolist() == [0, 8, 16, 23]


def test_no_more_than_64_finds_of_a_look_are_kept():
    seeing = watched(crowd(90), 16, scale=0.5)
    assert np.bincount(seeing.found.frame).max() == 64
    assert seeing.found.box[:64, 0].max() == pytest.approx(2 * (40 * 63 - (30 - 6.3) / 2))


def test_intersection_over_union_of_known_boxes():
    a = np.array([(0, 0, 10, 10), (20, 20, 30, 30)], np.float32)
    b = np.array([(0, 0, 10, 10), (5, 0, 15, 10), (100, 0, 110, 10)], np.float32)
    assert np.allclose(iou(a, b), [(1, 1 / 3, 0), (0, 0, 0)])


@pytest.mark.parametrize("size", [(544, 306), (560, 315), (640, 360), (480, 270), (320, 568), (300, 300)])
def test_what_is_found_on_a_sheet_is_told_in_the_frames_own_pixels(size):
    """A net that finds the white square of each cell: exactly where it was painted, whatever the sheet did to it."""
    width, height = size
    truth = np.array([0.6 * width, 0.3 * height, 0.6 * width + 60, 0.3 * height + 60])
    image = np.zeros((height, width, 3), np.uint8)
    x0, y0, x1, y1 = truth.round().astype(int)
    image[y0:y1, x0:x1] = 255

    def detect(sheet, input_size):
        found = []
        count, labels = cv2.connectedComponents((sheet[..., 0] > 127).astype(np.uint8))
        for label in range(1, count):
            rows, columns = np.nonzero(labels == label)
            found.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1, 0.9])
        box = np.array(found, np.float32)
        return box, np.repeat(box[:, None, :2], 5, 1)

    detector = Detector.__new__(Detector)
    detector.config, detector._size = Faces(per_sheet=2), (640, 640)
    detector._net = type("Net", (), {"detect": staticmethod(detect)})()
    for found in detector.detect([image, image]):
        assert found.box.shape == (1, 5)
        assert np.abs(found.box[0, :4] - truth.round()).max() < 1.6
