"""Pose from five landmarks, against heads that were turned by known angles."""

import cv2
import numpy as np
import pytest

from stages.pose import MODEL_MM, angles


def turned(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """The model's points turned so that the nose goes right, up, and the head tilts clockwise, degrees."""
    y, p, r = np.radians([-yaw, -pitch, roll])
    about_x = cv2.Rodrigues(np.array([p, 0, 0]))[0]
    about_y = cv2.Rodrigues(np.array([0, y, 0]))[0]
    about_z = cv2.Rodrigues(np.array([0, 0, r]))[0]
    return MODEL_MM @ (about_z @ about_y @ about_x).T


def photographed(points: np.ndarray, *, distance_mm: float, focal_px: float) -> np.ndarray:
    return points[:, :2] * focal_px / (points[:, 2:] + distance_mm) + (320, 180)


@pytest.mark.parametrize("yaw", [-60, -25, 0, 10, 45])
@pytest.mark.parametrize("pitch", [-30, 0, 20])
@pytest.mark.parametrize("roll", [-40, 0, 15])
def test_angles_of_a_turned_head_are_found_from_afar(yaw, pitch, roll):
    seen = photographed(turned(yaw, pitch, roll), distance_mm=5000, focal_px=4000)
    assert angles(seen)[0] == pytest.approx([yaw, pitch, roll], abs=1.5)


@pytest.mark.parametrize("yaw", [-40, 0, 30])
@pytest.mark.parametrize("pitch", [-15, 0, 15])
def test_a_webcam_at_arms_length_costs_a_few_degrees(yaw, pitch):
    seen = photographed(turned(yaw, pitch, 0), distance_mm=600, focal_px=600)
    assert angles(seen)[0] == pytest.approx([yaw, pitch, 0], abs=6)


def test_a_head_that_looks_right_shows_its_nose_nearer_to_the_right_eye():
    left_eye, right_eye, nose, *_ = photographed(turned(30, 0, 0), distance_mm=5000, focal_px=4000)
    assert right_eye[0] - nose[0] < nose[0] - left_eye[0]


def test_a_head_that_looks_up_shows_its_nose_nearer_to_the_eyes():
    up = photographed(turned(0, 25, 0), distance_mm=5000, focal_px=4000)
    down = photographed(turned(0, -25, 0), distance_mm=5000, focal_px=4000)
    assert up[2, 1] - up[0, 1] < down[2, 1] - down[0, 1]


def test_many_faces_are_solved_as_each_alone_and_size_and_place_do_not_matter():
    faces = np.stack([photographed(turned(a, b, a), distance_mm=5000, focal_px=4000) for a, b in ((10, 5), (-30, -10))])
    together = angles(faces)
    assert together.shape == (2, 3)
    assert np.allclose(together[0], angles(faces[0])[0])
    assert np.allclose(together, angles(faces * 3.7 + 1000), atol=1e-3)


def test_no_faces_give_no_angles():
    assert angles(np.zeros((0, 5, 2))).shape == (0, 3)
