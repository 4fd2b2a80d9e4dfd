"""Embeddings tell people apart; the frames looked at are the frontal and the sharp ones."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from stages.fingerprint import picture_distance, picture_hash, sound_distance, sound_hash
from stages.identity import Recognise, embed, look, open_recogniser
from stages.policies import PAPER, STRICT
from stages.weights import WeightsMissingError

SHARED = Path(__file__).parents[3] / "shared"
PACK = SHARED / "models/insightface_root/models/mini_pack"
CLIPS = SHARED / "clips"
real = [
    pytest.mark.real,
    pytest.mark.skipif(not (PACK.is_dir() and CLIPS.is_dir()), reason="no real weights and footage in ../shared"),
]


def shown(pictures: np.ndarray) -> Callable[[Collection[int]], Iterator[tuple[int, np.ndarray]]]:
    return lambda numbers: ((number, pictures[number]) for number in sorted(numbers))


def template(frames: int) -> np.ndarray:
    """ArcFace's five landmarks, for 112 px, in the middle of 224."""
    points = [(38.3, 51.7), (73.5, 51.5), (56.0, 71.7), (41.5, 92.4), (70.7, 92.2)]
    return (np.array(points, np.float32) + 56)[None].repeat(frames, 0)


def test_the_sharpest_of_the_most_frontal_is_taken_from_each_span():
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 256, (224, 224, 3), np.uint8)
    pictures = np.stack([cv2.GaussianBlur(sharp, (0, 0), 3)] * 40)
    pose = np.full((40, 3), 30, np.float32)
    pose[[2, 5, 12, 21, 25, 33]] = 0
    pictures[[5, 12, 21, 33]] = sharp
    pictures[30] = sharp  # sharp, but turned away
    aligned, whole = look(shown(pictures), template(40), pose, faces=4, pictures=8)
    assert len(aligned) == 4 and len(whole) == 8
    crop = cv2.cvtColor(aligned[0], cv2.COLOR_BGR2GRAY)
    assert aligned[0].shape == (112, 112, 3)
    assert all(cv2.Laplacian(cv2.cvtColor(a, cv2.COLOR_BGR2GRAY), cv2.CV_32F).var() > 1000 for a in aligned), crop.std()


def test_frames_without_landmarks_are_not_embedded():
    landmarks = template(10)
    landmarks[:5] = np.nan
    pictures = np.zeros((10, 224, 224, 3), np.uint8)
    aligned, whole = look(shown(pictures), landmarks, np.zeros((10, 3), np.float32), faces=2, pictures=2)
    assert len(aligned) == 1 and len(whole) == 2


def test_faces_come_in_order_of_time():
    rng = np.random.default_rng(0)
    grain, strength = rng.choice([-1, 1], (224, 224, 3)), rng.integers(0, 20, 40)  # not in order of sharpness
    pictures = np.stack([(20 + 5 * i + strength[i] * grain).astype(np.uint8) for i in range(40)])
    pose = np.abs(rng.normal(0, 20, (40, 3))).astype(np.float32)
    aligned, _ = look(shown(pictures), template(40), pose, faces=8, pictures=1)
    assert len(aligned) == 8 and np.all(np.diff([face.mean() for face in aligned]) > 0)


class Answers:
    """A recogniser that gives one embedding after the other."""

    input_size = (112, 112)

    def __init__(self, embeddings: np.ndarray) -> None:
        self.left = iter(embeddings.astype(np.float32))

    def get_feat(self, imgs: list[np.ndarray]) -> np.ndarray:
        return next(self.left)[None]


def embedded(embeddings: np.ndarray) -> tuple[np.ndarray, float]:
    return embed(Answers(embeddings), [np.zeros((112, 112, 3), np.uint8)] * len(embeddings))


def people(who: str, noise: float) -> np.ndarray:
    """Embeddings of faces, one for each letter of `who`; two faces of one letter have a cosine of 1 / (1 + noise²)."""
    rng = np.random.default_rng(0)
    return np.eye(512)[[ord(one) - ord("a") for one in who]] + rng.normal(0, noise / 512**0.5, (len(who), 512))


def test_the_face_of_a_clip_is_the_unit_mean_of_unit_embeddings():
    mean, spread = embedded(np.array([[3.0, 0.0], [0.0, 2.0]]))
    assert np.allclose(mean, [0.5**0.5, 0.5**0.5]) and spread == 0
    empty, none = embedded(np.empty((0, 2)))
    assert empty.shape == (0,) and none == 0.0


@pytest.mark.parametrize("who", ["aaaabbbb", "aaaaabbb", "aaaaaabb", "aaaaaaab", "abaaaaaa", "aabbbbaa", "abababab"])
def test_two_people_in_one_clip_read_as_two_however_they_share_it(who):
    assert embedded(people(who, noise=0.6))[1] < 0.1 < (PAPER.min_identity_cosine or 0)


def test_one_person_with_noise_reads_as_one():
    spread = embedded(people("aaaaaaaa", noise=0.6))[1]
    assert (STRICT.min_identity_cosine or 1) < spread < 0.8
    assert embedded(people("a", noise=0.6))[1] == pytest.approx(1)


def test_a_pack_without_recognition_is_refused(tmp_path: Path):
    with pytest.raises(WeightsMissingError, match="no recognition model"):
        open_recogniser(tmp_path)


def test_counts_below_one_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Recognise(faces=0)


def decoded(path: Path, every: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Every so many frames of a clip, and its sound."""
    with av.open(str(path)) as container:
        pictures = [
            frame.to_ndarray(format="bgr24")
            for i, frame in enumerate(container.decode(container.streams.video[0]))
            if i % every == 0
        ]
    resampler = av.AudioResampler("s16", "mono", 16_000)
    with av.open(str(path)) as container:
        sound = [part.to_ndarray().ravel() for f in container.decode(audio=0) for part in resampler.resample(f)]
    return pictures, np.concatenate(sound)


class TestReal:
    pytestmark = real

    def test_people_are_told_apart(self):
        from insightface.app import FaceAnalysis

        finder = FaceAnalysis(name=str(PACK), allowed_modules=["detection"], providers=["CPUExecutionProvider"])
        finder.prepare(-1, det_thresh=0.4, det_size=(320, 320))
        recogniser = open_recogniser(PACK)
        people = []
        for path in sorted((CLIPS / "talk").glob("*_talkvid_*")):
            pictures, _ = decoded(path, 12)
            for half in (pictures[: len(pictures) // 2], pictures[len(pictures) // 2 :]):
                found = [(picture, finder.get(picture)) for picture in half]
                seen = [(picture, faces[0].kps) for picture, faces in found if faces]
                aligned: list[np.ndarray] = []
                for picture, points in seen:
                    (face,), _ = look(
                        shown(picture[None]), points[None], np.zeros((1, 3), np.float32), faces=1, pictures=1
                    )
                    aligned.append(face)
                people.append(embed(recogniser, aligned)[0])
        cosine = np.stack(people) @ np.stack(people).T
        same = np.array([cosine[i, i + 1] for i in range(0, len(people), 2)])
        other = np.array([cosine[i, j] for i in range(len(people)) for j in range(i) if i // 2 != j // 2])
        assert len(same) >= 4
        assert same.min() > 0.6 > 0.45 > other.max()

    def test_a_dissolve_from_one_person_to_another_reads_as_two(self):
        from insightface.app import FaceAnalysis

        finder = FaceAnalysis(name=str(PACK), allowed_modules=["detection"], providers=["CPUExecutionProvider"])
        finder.prepare(-1, det_thresh=0.4, det_size=(320, 320))
        recogniser = open_recogniser(PACK)

        def spread(pictures: list[np.ndarray]) -> float:
            points = np.full((len(pictures), 5, 2), np.nan, np.float32)
            for number, picture in enumerate(pictures):
                if found := finder.get(picture):
                    points[number] = found[0].kps
            level = np.zeros((len(points), 3), np.float32)
            return embed(recogniser, look(shown(np.stack(pictures)), points, level, faces=8, pictures=1)[0])[1]

        names = ("de_mimictalk_german20s", "en_hdtf_rd_radio2_000")
        one, other = (decoded(CLIPS / f"talk/{name}.mp4", 5)[0][:30] for name in names)
        mixed = [
            cv2.addWeighted(a, 1 - k / 5, b, k / 5, 0) for k, a, b in zip(range(1, 5), one[-4:], other, strict=False)
        ]
        assert spread(one) > 0.6 and spread(other) > 0.6
        assert spread([*one[:-4], *mixed, *other[4:]]) < 0.2 < (PAPER.min_identity_cosine or 0)
        assert spread([*one[:-4], *mixed, *other[4:10]]) < 0.2

    def test_near_duplicates_are_found_and_others_are_not(self):
        origin = "talk/de_mimictalk_german20s.mp4"
        copies = ["derived/dup_hflip_de.mp4", "derived/dup_crop_de.mp4", "derived/dup_crf35_360p_de.mp4"]
        others = [f"talk/{name}_talkvid_{name}.mp4" for name in ("ar", "en", "pl")]
        prints = {}
        for name in [origin, *copies, *others]:
            pictures, sound = decoded(CLIPS / name, 25)
            prints[name] = picture_hash(pictures[:20]), sound_hash(sound)
        for name in copies:
            assert picture_distance(prints[name][0], prints[origin][0]) < 0.12
            assert sound_distance(prints[name][1], prints[origin][1]) < 0.25
        for name in others:
            assert picture_distance(prints[name][0], prints[origin][0]) > 0.2
            assert sound_distance(prints[name][1], prints[origin][1]) > 0.35
