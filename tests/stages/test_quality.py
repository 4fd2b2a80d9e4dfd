"""Measures of one face, on pictures that were spoilt by a known amount."""

import cv2
import numpy as np
import pytest

from stages.quality import TEMPLATE, Quality, align, motion


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
    matrix = align(turned, 96)
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
