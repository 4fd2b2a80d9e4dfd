"""The maker of the sample face pack, and what the packaged pack does on rendered people that it never met."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from manifests.sample.render import render_empty
from manifests.sample.scene import scene
from stages import weights
from stages.faces import Detector as FaceDetector
from stages.faces import Faces, Found, iou
from stages.policies import SAMPLE
from stages.sample.face_canvas import CANVAS_PX, aligned, canvas
from stages.sample.face_nets import Detector, Embedder, export_detector, export_embedder
from stages.sample.face_pictures import SIZE, Pictures, clutter, pictures
from stages.sample.train_faces import _assigned, _detection_loss, _iou, _tensor

_UNSEEN_SEED = 77
_FIRST_UNSEEN = 900_000  # beyond every person and scene of the lessons


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Pictures:
    return pictures(tmp_path_factory.mktemp("pictures"), people=4, seed=3)


def test_pictures_are_rendered_once_and_hold_their_truth(few, tmp_path):
    assert few.image.shape == (24, SIZE[1], SIZE[0], 3) and (few.person[:, 0] >= 0).all()
    there = few.person >= 0
    box, lmk = few.box[there], few.lmk[there]
    inside = (lmk >= box[:, None, :2] - 2) & (lmk <= box[:, None, 2:] + 2)
    assert inside.all(axis=(1, 2)).mean() > 0.9  # a nose may stand out of a turned face
    again = pictures(tmp_path, people=4, seed=3)
    assert np.array_equal(again.image, few.image)
    (kept,) = tmp_path.glob("*/image.npy")
    stamp = kept.stat().st_mtime_ns
    pictures(tmp_path, people=4, seed=3)
    assert kept.stat().st_mtime_ns == stamp
    assert not np.array_equal(pictures(tmp_path, people=4, seed=4).image, few.image), "another seed, the same folder"


def test_canvases_carry_faces_where_they_say(few):
    rng = np.random.default_rng(0)
    made = [canvas(rng, few, len(few.image)) for _ in range(40)]
    assert all(one.image.shape == (CANVAS_PX, CANVAS_PX, 3) for one in made)
    boxes = np.concatenate([one.box for one in made])
    assert len(boxes) > 30 and (boxes[:, 2:] > boxes[:, :2]).all()
    again = canvas(np.random.default_rng(0), few, len(few.image))
    assert np.array_equal(again.image, made[0].image)


def test_every_face_that_can_be_found_has_a_place_that_must_find_it(few):
    rng = np.random.default_rng(1)
    for _ in range(30):
        one = canvas(rng, few, len(few.image))
        owners = {int(face) for level in range(3) for face in _assigned(one, level)[1]}
        for number, box in enumerate(one.box):
            middle = (box[:2] + box[2:]) / 2
            crowded = any(np.abs((b[:2] + b[2:]) / 2 - middle).max() < 16 for i, b in enumerate(one.box) if i != number)
            if (middle > 4).all() and (middle < CANVAS_PX - 4).all() and np.ptp(box[1::2]) > 14 and not crowded:
                assert number in owners


def test_overlap_of_boxes_is_what_geometry_says():
    a = torch.tensor([[0.0, 0.0, 2.0, 2.0]] * 3)
    b = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0], [4.0, 0.0, 6.0, 2.0]])
    iou, giou = _iou(a, b)
    assert torch.allclose(iou, torch.tensor([1.0, 1 / 3, 0.0]))
    assert torch.allclose(giou, torch.tensor([1.0, 1 / 3, -1 / 3]))


def test_a_detector_learns_one_batch_by_heart(few):
    torch.manual_seed(0)
    net, rng = Detector(), np.random.default_rng(2)
    batch = [canvas(rng, few, len(few.image)) for _ in range(4)]
    images = _tensor([one.image for one in batch], 128.0)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = sum(_detection_loss(net(images), batch))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_what_is_exported_is_read_by_insightface(tmp_path, few):
    from insightface.model_zoo import get_model

    torch.manual_seed(0)
    export_detector(Detector(), tmp_path / "det.onnx")
    export_embedder(Embedder(), tmp_path / "rec.onnx")
    detector = get_model(str(tmp_path / "det.onnx"), providers=["CPUExecutionProvider"])
    detector.prepare(-1, input_size=(480, 288), det_thresh=0.0)
    assert type(detector).__name__ == "SCRFD" and detector.use_kps and detector.fmc == 3
    face = aligned(np.random.default_rng(0), few, 0, 0)
    assert get_model(str(tmp_path / "rec.onnx"), providers=["CPUExecutionProvider"]).get_feat(face).shape == (1, 128)


# The packaged pack, on people and scenes far from its lessons.


@pytest.fixture(scope="module")
def strangers(tmp_path_factory) -> Iterator[Pictures]:
    from stages.sample import face_pictures

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(face_pictures, "FIRST_PERSON", _FIRST_UNSEEN)
        patch.setattr(face_pictures, "FIRST_SCENE", _FIRST_UNSEEN)
        yield pictures(tmp_path_factory.mktemp("strangers"), people=24, seed=_UNSEEN_SEED)


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return Faces(pack="sample/faces").open()


def sure(detector: FaceDetector, image: np.ndarray) -> Found:
    """What the pipeline would take for faces."""
    (found,) = detector.detect([np.ascontiguousarray(image)])
    known = found.box[:, 4] >= detector.config.min_score
    return Found(found.box[known], found.lmk[known])


@pytest.mark.slow
def test_faces_of_strangers_are_found_with_their_landmarks(strangers, detector):
    found, off, n = 0, [], 0
    for image, boxes, marks, person in zip(
        strangers.image, strangers.box, strangers.lmk, strangers.person, strict=True
    ):
        seen = sure(detector, image)
        overlaps = iou(boxes[person >= 0], seen.box)
        for overlap, box, lmk in zip(overlaps, boxes[person >= 0], marks[person >= 0], strict=True):
            n += 1
            if overlap.max(initial=0) > 0.5:
                found += 1
                off.append(float(np.abs(seen.lmk[overlap.argmax()] - lmk).mean() / (box[3] - box[1])))
    assert found / n > 0.95
    assert np.median(off) < 0.03


@pytest.mark.slow
def test_empty_rooms_and_clutter_show_a_face_in_one_of_twenty_at_most(detector):
    """4 of 120 show something, 1 of them above the policy's limit: the others make doubtful tracks, which count for
    nothing."""
    rng = np.random.default_rng(5)
    rooms = [next(iter(render_empty(scene(_FIRST_UNSEEN + k, *SIZE), 1)))[..., ::-1] for k in range(60)]
    rooms += [clutter(rng, 256) for _ in range(60)]
    best = np.array([sure(detector, image).box[:, 4].max(initial=0) for image in rooms])
    assert (best >= SAMPLE.min_detector_score).sum() <= 1
    assert (best > 0).mean() <= 0.05


@pytest.mark.slow
def test_the_same_person_is_nearer_than_another(strangers):
    from insightface.model_zoo import get_model

    (path,) = weights.path("sample/faces").glob("rec_*.onnx")
    net = get_model(str(path), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(6)
    faces = [aligned(rng, strangers, i, 0) for i in range(len(strangers.image))]
    who = strangers.person[:, 0]
    features = np.concatenate([net.get_feat(face) for face in faces])
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    cosine = features @ features.T
    upper = np.triu_indices(len(who), 1)
    same, score = (who[:, None] == who)[upper], cosine[upper]
    limits = np.unique(score)
    wrong = min(
        max((score[~same] >= t).mean(), (score[same] < t).mean()) for t in limits[:: max(1, len(limits) // 500)]
    )
    assert wrong < 0.12
