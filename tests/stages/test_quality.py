"""Measures of one face, on pictures that were spoilt by a known amount."""

import cv2
import numpy as np
import pytest

from stages.policies import PAPER
from stages.quality import TEMPLATE, Quality, effective_px, face_power, longest_still_s, motion, onto


def face(mouth: float = 0.3, size: int = 200) -> np.ndarray:
    """A textured grey-brown face (size, size, 3) whose mouth opens."""
    rng = np.random.default_rng(7)
    skin = cv2.resize(rng.integers(110, 200, (25, 25), dtype=np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)
    image = cv2.merge([skin, skin, skin])
    centre = (TEMPLATE * size).astype(int)
    for x, y in centre[:2]:
        cv2.circle(image, (int(x), int(y)), size // 16, (40, 40, 40), -1, cv2.LINE_AA)
    x, y = ((centre[3] + centre[4]) / 2).astype(int)
    cv2.ellipse(image, (int(x), int(y)), (size // 6, int(size * (0.02 + 0.12 * mouth))), 0, 0, 360, (30,) * 3, -1)
    return image


def landmarks(size: int = 200) -> np.ndarray:
    return TEMPLATE * size


def moved(image: np.ndarray, *, zoom: float = 1.0, turn_deg: float = 0.0, shift_px: float = 0.0) -> np.ndarray:
    matrix = cv2.getRotationMatrix2D((100, 100), turn_deg, zoom)
    matrix[:, 2] += shift_px
    return cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


@pytest.mark.parametrize(("turn_deg", "scale", "shift"), [(0, 1, 0), (30, 0.4, 55), (-75, 3, -10)])
def test_aligning_puts_landmarks_on_the_template(turn_deg, scale, shift):
    a = np.radians(turn_deg)
    turned = landmarks() @ (scale * np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])) + shift
    matrix = onto(turned, TEMPLATE * 96)
    assert np.allclose(turned @ matrix[:, :2].T + matrix[:, 2], TEMPLATE * 96, atol=1e-6)


def test_blur_lowers_sharpness_and_size_does_not_matter():
    sharp = [Quality().measure(face(size=s), None, landmarks(s))[0] for s in (200, 400)]
    blurred = Quality().measure(cv2.GaussianBlur(face(), (0, 0), 6), None, landmarks())[0]
    assert blurred < 0.3 * sharp[0]
    assert sharp[1] == pytest.approx(sharp[0], rel=0.5)


def test_exposure_is_the_median_luma():
    bright, dark = (Quality().measure(np.uint8(face() * f), None, landmarks())[1] for f in (1.0, 0.4))
    assert 110 < bright < 200
    assert dark == pytest.approx(0.4 * bright, rel=0.05)


def test_without_an_earlier_frame_there_is_no_motion():
    assert np.isnan(Quality().measure(face(), None, landmarks())[2])


@pytest.mark.parametrize(
    "change", [{}, {"zoom": 1.02}, {"shift_px": 2.5}, {"turn_deg": 2}, {"zoom": 1.01, "shift_px": 1}]
)
def test_a_photo_that_is_panned_turned_or_zoomed_moves_far_less_than_a_mouth(change):
    photo = Quality().measure(moved(face(), **change), face(), landmarks())[2]
    talking = Quality().measure(face(mouth=0.8), face(mouth=0.3), landmarks())[2]
    assert photo < 0.25 * talking


def test_a_talking_mouth_shows_through_the_moves_of_its_head():
    still = Quality().measure(moved(face(mouth=0.3), shift_px=2, turn_deg=1), face(mouth=0.3), landmarks())[2]
    talking = Quality().measure(moved(face(mouth=0.8), shift_px=2, turn_deg=1), face(mouth=0.3), landmarks())[2]
    assert talking > 4 * still


def test_dim_light_does_not_hide_motion():
    bright = Quality().measure(face(mouth=0.8), face(mouth=0.3), landmarks())[2]
    dim = Quality().measure(np.uint8(face(mouth=0.8) * 0.5), np.uint8(face(mouth=0.3) * 0.5), landmarks())[2]
    assert dim == pytest.approx(bright, rel=0.2)


def test_a_face_without_texture_does_not_move():
    flat = np.full((96, 96), 120, np.uint8)
    assert motion(flat, flat) == 0.0


def looked(values: list[float], every: int = 8) -> np.ndarray:
    """Motion by frame, looked at every few frames as `watch` does."""
    found = np.full(every * len(values), np.nan, np.float32)
    found[::every] = values
    return found


@pytest.mark.parametrize(
    ("values", "spell_s"),
    [
        ([2.1, 1.8, 0.9, 0.1, 2.0, 0.2, 1.9], 0.0),  # low looks now and then are pauses
        ([2.1, 0.1, 0.0, 0.0, 0.0, 1.8, 0.1, 0.1], 0.96),
        ([np.nan, 0.0, 0.0, 0.0], 0.64),  # nothing was before the first
        ([2.0, 0.1, np.nan, 0.1, 2.0], 0.64),  # not found in the middle
        ([], 0.0),
    ],
)
def test_the_longest_spell_without_motion_is_told_in_seconds(values, spell_s):
    moved_ = looked(values)
    assert longest_still_s(moved_, ~np.isnan(moved_)) == pytest.approx(spell_s)


def test_what_was_not_measured_in_a_crowd_is_never_part_of_a_still_spell():
    every_third = looked([0.1, np.nan, np.nan] * 6)
    found = ~np.isnan(looked([0.0] * 18))
    assert longest_still_s(every_third, found) == 0.0
    twice = looked([np.nan, 0.1, 0.1, np.nan, 0.1])  # measured in looks that follow each other
    assert longest_still_s(twice, found[: len(twice)]) == pytest.approx(0.32)


def test_a_freeze_of_1_44_s_is_dropped_wherever_it_begins_and_none_of_a_second():
    def read_s(start: int, n: int) -> float:
        """Of a freeze of n frames, looked at every 8 frames against the one 4 before, and at its last."""
        moved_ = np.full(100, np.nan)
        looks = np.array([*range(0, 100, 8), start + n - 1])
        moved_[looks] = np.where((looks - 4 >= start) & (looks < start + n), 0.0, 2.0)
        return longest_still_s(moved_, ~np.isnan(moved_))

    limit_s = PAPER.max_still_s or 0.0
    assert all(read_s(start, 36) > limit_s for start in range(24, 32))
    assert [start % 8 for start in range(24, 32) if read_s(start, 26) > limit_s] == [4]
    assert not any(read_s(start, 25) > limit_s for start in range(24, 32))


def natural(size: int, seed: int = 3) -> np.ndarray:
    """A texture with the spectrum that real faces have, (size, size, 3): power falls by 10 dB an octave."""
    cycles = np.hypot(np.fft.fftfreq(size, 1 / size)[:, None], np.fft.rfftfreq(size, 1 / size))
    phase = np.exp(2j * np.pi * np.random.default_rng(seed).random(cycles.shape))
    waves = np.fft.irfft2(phase * np.maximum(cycles, 2) ** -1.66, (size, size))
    return cv2.merge([np.uint8(np.clip(128 + 40 * waves / waves.std(), 0, 255))] * 3)


def enlarged(image: np.ndarray, times: float, filter_: int = cv2.INTER_CUBIC) -> np.ndarray:
    small = cv2.resize(image, None, fx=1 / times, fy=1 / times, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, image.shape[1::-1], interpolation=filter_)


@pytest.mark.parametrize("filter_", [cv2.INTER_CUBIC, cv2.INTER_LANCZOS4])
@pytest.mark.parametrize("times", [2.0, 3.0, 4.0, 6.0])
def test_an_enlarged_face_has_the_effective_size_of_the_small_one(times, filter_):
    power = face_power(enlarged(natural(120), times, filter_))
    assert effective_px(power, 120.0) == pytest.approx(120 / times, rel=0.25)


@pytest.mark.parametrize("size", [32, 60, 128])
def test_a_face_that_was_not_enlarged_has_its_own_size_also_under_noise(size):
    image = natural(size)
    noise = np.random.default_rng(0).normal(0, 4, image.shape)
    for face_ in (image, np.uint8(np.clip(image + noise, 0, 255)), np.full_like(image, 90)):
        assert effective_px(face_power(face_), float(size)) == size
