"""Cuts of pictures made on the spot, each frame of which is known."""

from itertools import accumulate, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from stages.cuts import Cuts
from stages.media import Frames, frames


def room(seed: int, shape: tuple[int, int] = (180, 320)) -> np.ndarray:
    """A soft many-coloured background."""
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(30, 220, (6, 10, 3), dtype=np.uint8), shape[::-1], interpolation=cv2.INTER_CUBIC)


def head(background: np.ndarray, x: float, y: float, mouth: float) -> np.ndarray:
    """A talking head, drawn plainly, before a background."""
    image = background.copy()
    cv2.ellipse(image, (int(x), int(y)), (38, 52), 0, 0, 360, (150, 180, 225), -1, cv2.LINE_AA)
    cv2.ellipse(image, (int(x), int(y) + 25), (14, int(2 + 10 * mouth)), 0, 0, 360, (40, 30, 90), -1, cv2.LINE_AA)
    return image


def take(seed: int, n: int) -> list[np.ndarray]:
    """One shot of a head that sways widely, nods and talks, with sensor noise."""
    rng = np.random.default_rng(seed)
    background = room(seed)
    images = []
    for k in range(n):
        image = head(background, 160 + 60 * np.sin(k / 7), 90 + 12 * np.sin(k / 4), abs(np.sin(k / 1.7)))
        images.append(np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8))
    return images


def cuts_of(images: list[np.ndarray], config: Cuts | None = None, batch: int = 64) -> tuple[int, ...]:
    watcher = (config or Cuts()).watcher()
    for first in range(0, len(images), batch):
        part = np.stack(images[first : first + batch])
        watcher.see(Frames(first, part, 1.0))
    return watcher.done()


def test_a_single_take_has_no_cut():
    assert cuts_of(take(1, 250)) == ()


@pytest.mark.parametrize("width", [1, 4, 16])
def test_pictures_like_a_thread_are_seen_as_well(width):
    images = [np.full((3000, width, 3), grey, np.uint8) for grey in [40] * 20 + [200] * 20]
    assert cuts_of(images) == (20,)


@pytest.mark.parametrize("lengths", [(50, 60, 40), (5, 80, 9), (100, 12, 100)])
def test_cuts_are_exact_to_the_frame(lengths):
    images = [image for seed, n in enumerate(lengths) for image in take(seed, n)]
    assert cuts_of(images) == tuple(accumulate(lengths))[:-1]


def test_the_size_of_batches_does_not_matter():
    images = take(1, 47) + take(2, 45)
    assert cuts_of(images, batch=7) == cuts_of(images, batch=64) == (47,)


def test_a_jump_cut_of_one_speaker_in_one_room_is_a_cut():
    first, second = take(1, 40), [np.roll(image, 45, axis=1) for image in take(1, 40)]
    second = [cv2.resize(image[20:160, 30:280], (320, 180)) for image in second]
    assert cuts_of(first + second) == (40,)


def test_a_slow_pan_and_zoom_is_no_cut():
    wide = cv2.resize(room(3), (960, 540))
    images = []
    for k in range(150):
        x, y, w = 2 * k, k, 480 - k
        images.append(cv2.resize(wide[y : y + w * 9 // 16, x : x + w], (320, 180)))
    assert cuts_of(images) == ()


def test_a_fade_through_black_parts_two_scenes_in_the_dark_and_nowhere_else():
    fade = np.clip(1 - np.arange(40) / 30, 0, 1)
    out = [np.uint8(image * f) for image, f in zip(take(1, 40), fade, strict=True)]
    into = [np.uint8(image * f) for image, f in zip(take(2, 40), fade[::-1], strict=True)]
    images = take(1, 40) + out + into + take(2, 40)
    cuts = cuts_of(images)
    assert cuts
    assert all(images[cut].mean() < 12 for cut in cuts)


def test_a_dim_picture_that_stays_dim_is_no_fade():
    dim = [np.uint8(image * (0.08 + 0.02 * np.sin(k / 5))) for k, image in enumerate(take(1, 120))]
    assert cuts_of(dim) == ()


def test_nothing_seen_gives_no_cuts():
    assert Cuts().watcher().done() == ()


@pytest.mark.parametrize("seed", range(3))
def test_cuts_ascend_and_lie_inside(seed):
    rng = np.random.default_rng(seed)
    images = [image for s, n in enumerate(rng.integers(3, 40, 6)) for image in take(s, int(n))]
    cuts = cuts_of(images)
    assert all(0 < cut < len(images) for cut in cuts)
    assert all(b - a >= Cuts().min_scene_frames for a, b in pairwise(cuts))


def still_take(seed: int) -> list[np.ndarray]:
    """One take of a head before a still background, which leans slowly from side to side."""
    rng = np.random.default_rng(seed)
    background = room(seed)
    images = []
    for k in range(300):
        x, y = 160 + 24 * np.sin(k / 25), 100 + 5 * np.sin(k / 9)
        image = head(background, x, y, abs(np.sin(k / 1.7)))
        images.append(np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8))
    return images


@pytest.mark.parametrize("seed", range(4))
def test_jump_cuts_before_a_still_background_are_cuts(seed):
    take = still_take(seed)
    joined = take[:40] + take[80:130] + take[170:220]
    assert (cuts_of(take), cuts_of(joined)) == ((), (40, 90))
    assert cuts_of(joined, Cuts(jump_ratio=None)) == ()  # they change the picture by less than `min_change`


@pytest.mark.parametrize("step", [1.08, 0.9])
def test_a_step_of_exposure_is_no_cut(step):
    take = still_take(1)
    assert cuts_of([*take[:60], *(np.clip(image * step, 0, 255).astype(np.uint8) for image in take[60:120])]) == ()


def test_a_picture_shown_twice_and_the_double_step_after_it_are_no_cut():
    images = take(1, 120)
    for k in range(20, 110, 15):
        images[k] = images[k - 1]
    assert cuts_of(images) == ()


TALK = Path(__file__).parents[3] / "shared" / "clips" / "talk" / "de_mimictalk_german20s.mp4"


@pytest.mark.real
@pytest.mark.skipif(not TALK.is_file(), reason="real footage is not here")
def test_jump_cuts_of_a_real_speaker_are_found_and_none_in_the_take():
    images = [image for batch in frames(TALK, short_side_px=320) for image in batch.images]
    joined = images[20:120] + images[170:270] + images[330:430]
    assert (cuts_of(images), cuts_of(joined)) == ((), (100, 200))
