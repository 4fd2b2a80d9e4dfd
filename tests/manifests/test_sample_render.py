"""Rendered people: the same for the same seeds, with truth that fits the pixels, and faces to a real detector."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from manifests.sample.head import SHAPES
from manifests.sample.motion import Motion, pick, still, talk
from manifests.sample.person import CORPUS_PEOPLE, person
from manifests.sample.render import Face, render, render_empty, seat
from manifests.sample.scene import scene
from manifests.sample.visemes import mouth_curves, visemes

MODELS = Path(__file__).parents[3] / "shared" / "models"
WORDS = (("h", 0.0, 0.1), ("a", 0.1, 0.4), ("m", 0.4, 0.5), ("i", 0.5, 0.8), ("f", 0.8, 0.9), ("u", 0.9, 1.2))


def shown(seed: int, motion: Motion, **changed: object) -> tuple[np.ndarray, Face]:
    where = replace(scene(seed), **changed)
    ((frame, faces),) = render([seat(person(seed), motion, where)], where)
    return frame, faces[0]


def test_equal_seeds_give_equal_frames():
    motion = pick(talk(WORDS, 25, 3), np.array([5]))
    first, second = shown(3, motion)[0], shown(3, motion)[0]
    assert first.shape == (360, 640, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, second)
    assert not np.array_equal(first, shown(4, motion)[0])


def test_people_differ_and_both_sexes_occur():
    people = [person(seed) for seed in CORPUS_PEOPLE[:60]]
    assert len({who.skin for who in people}) == 60
    assert len({who.hair for who in people}) >= 8
    assert 15 < sum(who.woman for who in people) < 45


@pytest.mark.parametrize("head_px", [120.0, 320.0])
def test_the_true_box_holds_the_face_and_the_landmarks_lie_in_order(head_px):
    motion = pick(talk((), 10, 1), np.array([3]))
    _, face = shown(5, motion, head_px=head_px)
    left, top, right, bottom = face.box
    assert 0.6 * head_px < bottom - top < 1.0 * head_px
    assert 0.4 * head_px < right - left < 0.8 * head_px
    eyes, nose, mouth = face.landmarks[:2], face.landmarks[2], face.landmarks[3:]
    assert eyes[0][0] < nose[0] < eyes[1][0]
    assert mouth[0][0] < nose[0] < mouth[1][0]
    assert top < eyes[0][1] < nose[1] < mouth[0][1] < bottom
    assert face.shown_share == pytest.approx(1.0)


def test_turning_right_moves_the_nose_right_and_chin_down_moves_it_down():
    straight = pick(talk((), 10, 1), np.array([3]))
    straight = replace(straight, yaw=straight.yaw * 0, pitch=straight.pitch * 0)
    nose = shown(5, straight)[1].landmarks[2]
    turned = shown(5, replace(straight, yaw=straight.yaw + 25))[1].landmarks[2]
    nodded = shown(5, replace(straight, pitch=straight.pitch + 15))[1].landmarks[2]
    assert turned[0] > nose[0] + 10
    assert nodded[1] > nose[1] + 5


def test_lips_meet_for_m_and_part_for_a():
    motion = talk((("a", 0.0, 0.4), ("m", 0.4, 0.6), ("a", 0.6, 1.0)), 25, 2)
    where = scene(1, 96, 96, head_px=80)
    gap = np.array([faces[0].mouth_open for _, faces in render([seat(person(2), motion, where)], where)])
    assert gap[12] < 0.02  # 0.5 s: m
    assert gap[4:8].mean() > 0.15
    assert gap[17:21].mean() > 0.15


def test_the_mouth_moves_when_the_sound_is_made():
    rng = np.random.default_rng(0)
    edges = np.cumsum(rng.uniform(0.12, 0.3, 40))
    said = tuple((("a", "m")[k % 2], float(a), float(b)) for k, (a, b) in enumerate(pairwise(edges)))
    n = int(edges[-1] * 25)
    jaw = mouth_curves(said, n, 25.0)["jaw"]
    time = (np.arange(n) + 0.5) / 25
    open_ = np.array([any(name == "a" and a <= t < b for name, a, b in said) for t in time], float)
    shifts = range(-4, 5)
    agreement = [np.corrcoef(np.roll(jaw, k), open_)[0, 1] for k in shifts]
    assert abs(shifts[int(np.argmax(agreement))]) <= 1
    assert max(agreement) > 0.65


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m", "closed"),
        ("f", "teeth_on_lip"),
        ("iː", "i"),
        ("tʃ", "sh"),
        ("ts.", "s"),
        ("ɲ", "tip"),
        ("ʁ", "r"),
        ("", "rest"),
    ],
)
def test_phonemes_find_their_shape(name, expected):
    assert visemes(name) == (expected,)


def test_diphthongs_are_two_shapes():
    assert visemes("aʊ") == ("a", "u")
    assert visemes("ɔɪ") == ("open_o", "i")


def test_a_listener_keeps_the_mouth_shut_but_blinks_and_moves():
    motion = talk((), 250, 6)
    assert motion.shapes[:, SHAPES.index("jaw")].max() < 0.02
    assert motion.shapes[:, SHAPES.index("lid_upper")].min() < 0.1
    assert np.ptp(motion.yaw) > 2


def test_a_still_picture_stays_still_but_for_grain():
    motion = still(talk(WORDS, 3, 1))
    where = replace(scene(3), shake=0.0, zoom=0.0, grain=0.0)
    frames = [frame for frame, _ in render([seat(person(3), motion, where)], where)]
    assert np.array_equal(frames[0], frames[2])


def test_an_empty_scene_moves_with_the_camera_and_holds_no_face():
    frames = list(render_empty(replace(scene(8), shake=2.0), 3))
    assert len(frames) == 3
    assert frames[0].shape == (360, 640, 3)


@pytest.mark.real
@pytest.mark.skipif(not MODELS.is_dir(), reason="needs the detector weights in ../shared/models")
def test_a_real_detector_finds_the_faces_where_the_truth_says():
    import onnxruntime
    from insightface.model_zoo.scrfd import SCRFD

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = str(MODELS / "insightface_root" / "models" / "mini_pack" / "det_500m.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    detector = SCRFD(path, session=session)
    detector.prepare(-1, input_size=(640, 640), det_thresh=0.5)
    found, overlaps = 0, []
    seeds = range(200, 212)
    for seed in seeds:
        frame, face = shown(seed, pick(talk(WORDS, 25, seed), np.array([seed % 25])))
        boxes = detector.detect(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[0]
        if not len(boxes):
            continue
        best = boxes[np.argmax(boxes[:, 4])]
        found += best[4] >= 0.5
        overlaps.append(overlap(best[:4], face.box))
    assert found >= 0.95 * len(seeds)
    assert np.mean(overlaps) > 0.75


def overlap(a, b) -> float:
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)
