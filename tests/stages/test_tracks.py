"""Linking, on faces that are moved by formulas instead of found in pictures."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from stages.tracks import Detections, Linked, Linking, link

Path = Callable[[int], tuple[float, float, float] | None]
"""Frame to centre x, centre y and size of a face, or None where it is not found."""


def seen(paths: Sequence[Path], looked: Sequence[int], *, jitter_px: float = 0.0, score: float = 0.8) -> Detections:
    rng = np.random.default_rng(0)
    frames, boxes, landmarks = [], [], []
    for frame in looked:
        for path in paths:
            if (at := path(frame)) is None:
                continue
            x, y, size = at[0] + rng.normal(0, jitter_px), at[1] + rng.normal(0, jitter_px), at[2]
            frames.append(frame)
            boxes.append((x - size / 2, y - size / 2, x + size / 2, y + size / 2, score))
            landmarks.append(np.array([(-0.2, -0.2), (0.2, -0.2), (0, 0), (-0.15, 0.2), (0.15, 0.2)]) * size + (x, y))
    return Detections(
        looked=np.array(looked, np.int32),
        frame=np.array(frames, np.int32),
        box=np.array(boxes, np.float32).reshape(-1, 5),
        lmk=np.array(landmarks, np.float32).reshape(-1, 5, 2),
    )


def centre_x(track: Linked) -> np.ndarray:
    return (track.box[:, 0] + track.box[:, 2]) / 2


def still(x: float, y: float = 100.0, size: float = 80.0) -> Path:
    return lambda _: (x, y, size)


def test_one_still_face_is_one_track_over_every_frame():
    (track,) = link(seen([still(200)], range(0, 100, 5)), (), 100)
    assert (track.start, track.end, track.scene) == (0, 100, 0)
    assert np.allclose(centre_x(track), 200, atol=1e-3)
    assert np.allclose(track.box[:, 4], 0.8)


def test_nothing_found_gives_no_track():
    assert link(seen([], range(0, 100, 5)), (), 100) == []


def test_no_track_crosses_a_cut_though_the_face_stays_in_place():
    found = seen([still(200)], range(0, 100, 5))
    assert [(t.start, t.end, t.scene) for t in link(found, (43,), 100)] == [(0, 43, 0), (43, 100, 1)]


def test_a_face_that_moves_is_followed_to_a_cut_and_to_the_end_though_nobody_looked_there():
    path: Path = lambda k: (100 + 4.0 * k, 100, 80)  # noqa: E731
    tracks = link(seen([path], range(0, 100, 8)), (43,), 101)
    assert [(t.start, t.end) for t in tracks] == [(0, 43), (43, 101)]
    for track in tracks:
        truth = 100 + 4.0 * np.arange(track.start, track.end)
        assert np.abs(centre_x(track) - truth).max() < 0.1
        assert np.abs(track.lmk[:, 0, 0] - (truth - 16)).max() < 0.1  # the left eye


def test_several_faces_give_several_tracks_in_order_of_place():
    tracks = link(seen([still(400), still(100), still(250)], range(0, 50, 5)), (), 50)
    assert [round(float(centre_x(t).mean())) for t in tracks] == [100, 250, 400]


@pytest.mark.parametrize("every", [1, 2, 5])
@pytest.mark.parametrize("jitter_px", [0.0, 2.0])
def test_two_people_who_cross_keep_their_tracks(every, jitter_px):
    right: Path = lambda k: (100 + 4.0 * k, 100, 80)  # noqa: E731
    left: Path = lambda k: (500 - 4.0 * k, 100, 80)  # noqa: E731

    def hidden(k: int) -> tuple[float, float, float] | None:
        return None if abs(right(k)[0] - left(k)[0]) < 50 else left(k)  # the one behind is not found meanwhile

    tracks = link(seen([right, hidden], range(0, 101, every), jitter_px=jitter_px), (), 101)
    assert len(tracks) == 2
    ends = sorted((round(float(centre_x(t)[0]) / 100), round(float(centre_x(t)[-1]) / 100)) for t in tracks)
    assert ends == [(1, 5), (5, 1)]


def test_a_short_occlusion_is_bridged_and_its_frames_score_zero():
    path: Path = lambda k: None if 40 <= k < 60 else (200 + 0.5 * k, 100, 80)  # noqa: E731
    (track,) = link(seen([path], range(0, 100, 5)), (), 100)
    assert (track.start, track.end) == (0, 100)
    assert np.allclose(centre_x(track), 200 + 0.5 * np.arange(100), atol=2)
    assert not track.box[36:60, 4].any()
    assert (track.box[:36, 4] > 0).all() and (track.box[60:, 4] > 0).all()


def test_a_long_absence_ends_the_track():
    path: Path = lambda k: None if 40 <= k < 65 else (200, 100, 80)  # noqa: E731
    tracks = link(seen([path], range(0, 150, 5)), (), 150)
    assert [(t.start, t.end) for t in tracks] == [(0, 36), (65, 150)]


def test_a_head_that_stops_while_it_is_not_seen_keeps_its_track():
    path: Path = lambda k: None if 50 <= k < 70 else (100 + 4.0 * min(k, 50), 100, 80)  # noqa: E731
    assert [(t.start, t.end) for t in link(seen([path], range(0, 100, 5)), (), 100)] == [(0, 100)]


def test_a_face_that_jumps_across_the_picture_is_another_face():
    path: Path = lambda k: (100 if k < 50 else 400, 100, 80)  # noqa: E731
    assert len(link(seen([path], range(0, 100, 5)), (), 100)) == 2


def test_a_face_that_comes_out_of_reach_moves_nobody_s_track_to_another_face():
    goes: Path = lambda k: (100, 100, 80) if k < 50 else None  # noqa: E731
    stays: Path = lambda k: (140 if k < 50 else 130, 100, 80)  # noqa: E731
    comes: Path = lambda k: None if k < 50 else (500, 100, 80)  # noqa: E731
    tracks = link(seen([goes, stays, comes], range(0, 100, 5)), (), 100)
    assert [(t.start, t.end) for t in tracks] == [(0, 46), (0, 100), (50, 100)]


def test_a_face_of_another_size_at_the_same_place_is_another_face():
    path: Path = lambda k: (200, 100, 40 if k < 50 else 160)  # noqa: E731
    assert len(link(seen([path], range(0, 100, 5)), (), 100)) == 2


def test_weak_finds_continue_a_track_but_do_not_begin_one():
    strong, weak = seen([still(200)], range(0, 50, 5)), seen([still(200)], range(50, 100, 5), score=0.35)
    both = Detections(
        looked=np.concatenate([strong.looked, weak.looked]),
        frame=np.concatenate([strong.frame, weak.frame]),
        box=np.concatenate([strong.box, weak.box]),
        lmk=np.concatenate([strong.lmk, weak.lmk]),
    )
    assert [(t.start, t.end) for t in link(both, (), 100)] == [(0, 100)]
    assert link(weak, (), 100) == []


def test_a_weak_find_beside_a_sure_one_of_the_same_face_is_left_out():
    strong, weak = seen([still(200)], range(0, 50, 5)), seen([still(205)], range(0, 50, 5), score=0.35)
    order = np.argsort(np.concatenate([strong.frame, weak.frame]), kind="stable")
    rows = [np.concatenate([getattr(strong, name), getattr(weak, name)])[order] for name in ("frame", "box", "lmk")]
    (track,) = link(Detections(strong.looked, *rows), (), 50)
    assert np.allclose(centre_x(track), 200, atol=1e-3) and np.allclose(track.box[:, 4], 0.8)


def test_a_flicker_shorter_than_asked_is_no_track():
    path: Path = lambda k: (200, 100, 80) if 50 <= k < 58 else None  # noqa: E731
    assert link(seen([path], range(100)), (), 100) == []
    assert len(link(seen([path], range(100)), (), 100, Linking(min_length_s=0.2))) == 1


def test_smoothing_halves_jitter_and_keeps_the_path():
    swaying: Path = lambda k: (300 + 40 * np.sin(k / 12), 100, 80)  # noqa: E731
    found = seen([swaying], range(200), jitter_px=1.5)
    truth = 300 + 40 * np.sin(np.arange(200) / 12)
    (smooth,) = link(found, (), 200)
    raw = (found.box[:, 0] + found.box[:, 2]) / 2
    assert np.abs(centre_x(smooth) - truth).mean() < 0.6 * np.abs(raw - truth).mean()
    assert np.abs(np.diff(centre_x(smooth), 2)).mean() < 0.3 * np.abs(np.diff(raw, 2)).mean()


@pytest.mark.parametrize("seed", range(5))
def test_tracks_lie_inside_their_scene_and_use_no_detection_twice(seed):
    rng = np.random.default_rng(seed)
    paths: list[Path] = []
    for _ in range(4):
        x, y, vx, gone = rng.uniform(50, 550), rng.uniform(50, 300), rng.uniform(-3, 3), rng.integers(0, 200, 2)
        paths.append(lambda k, x=x, y=y, vx=vx, gone=gone: None if gone[0] <= k < gone[1] else (x + vx * k, y, 70))
    cuts = tuple(sorted({int(c) for c in rng.integers(10, 190, 3)}))
    bounds = [0, *cuts, 200]
    tracks = link(seen(paths, range(0, 200, int(rng.integers(1, 6))), jitter_px=2), cuts, 200)
    rows = [row for t in tracks for row in t.rows]
    assert len(rows) == len(set(rows))
    for t in tracks:
        assert bounds[t.scene] <= t.start < t.end <= bounds[t.scene + 1]
        assert len(t.box) == len(t.lmk) == t.end - t.start
        assert np.isfinite(t.box).all() and np.isfinite(t.lmk).all()
