"""Who is seen in each clip, fingerprints that find copies of it, and how much of it is text.

An ArcFace-type embedding, hashes of picture and sound, and the share within boxes of a text detector.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from manifests.records import Clip, Clips, Identities, Identity
from pipeline.bench import Bench
from pipeline.stage import Facts, Stage, Work
from stages import weights
from stages.cuda import ON_PROCESSOR, hold, onnx_errors, onnx_providers
from stages.fingerprint import picture_hash, sound_hash
from stages.scene_text import ShareOf, open_detector
from stages.sync import read_wav

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]

_CANDIDATES = 4  # most frontal frames per span, of which the sharpest is embedded
_ALIGNED_PX = 112  # side of an aligned face (ArcFace template)


class Recogniser(Protocol):
    """What is used of insightface's recognition model."""

    input_size: tuple[int, int]

    def get_feat(self, imgs: list[Image]) -> Floats: ...


@dataclass(frozen=True, kw_only=True)
class Recognise(Stage[Identities]):
    """One `Identity` per clip."""

    name: ClassVar[str] = "identity"
    version: ClassVar[int] = 3  # 2: a spread is of faces to the most typical one, not to their mean; 3: text_share
    needs: ClassVar[tuple[type, ...]] = (Clips,)
    gives: ClassVar[type] = Identities

    pack: str = "buffalo_l"  # an insightface pack: a name of `stages.weights`, or the path of a folder
    faces: int = 8  # frames embedded per clip, one per equal span of it
    pictures: int = 8  # frames hashed per clip, in the middle of equal spans
    text_model: str = "ppocr_v6_det"  # a text detector: a name of `stages.weights`, or the path of an ONNX file
    text_pictures: int = 4  # of the frames hashed, so many are searched for text, if there are; 0: none

    def __post_init__(self) -> None:
        if self.faces < 1 or self.pictures < 1:
            raise ValueError("identity: faces and pictures must be at least 1")
        if self.text_pictures < 0:
            raise ValueError(f"identity: text_pictures must not be negative, not {self.text_pictures}")

    def models(self) -> tuple[str, ...]:
        return (self.pack, self.text_model) if self.text_pictures else (self.pack,)

    def weights(self) -> dict[str, str]:
        reader = {"text_model": weights.digest(self.text_model)} if self.text_pictures else {}
        return {"pack": weights.digest(self.pack)} | reader

    def open(self) -> Work[Identities]:
        import cv2

        from stages.media import frames_at

        cv2.setNumThreads(1)  # OpenCV's default takes every core of the machine, for each worker
        recogniser = open_recogniser(weights.path(self.pack), self.resources.gpus)
        model = f"{Path(self.pack).name} {weights.digest(self.pack)}"
        text_share: ShareOf = open_detector(weights.path(self.text_model)) if self.text_pictures else lambda _: None

        def work(facts: Facts, bench: Bench) -> Identities:
            clips = facts[Clips].items
            with onnx_errors():
                files = bench.ahead((clip.arrays, clip.video, clip.audio) for clip in clips)
                found = tuple(identify(clip, *paths) for clip, paths in zip(clips, files, strict=True))
            return Identities(items=found, model=model)

        def identify(clip: Clip, measures: Path, video: Path, sound: Path) -> Identity:
            with np.load(measures) as arrays:
                landmarks, pose = arrays["lmk"].astype(np.float32), arrays["pose"].astype(np.float32)
            shown = partial(frames_at, video)
            aligned, pictures = look(shown, landmarks, pose, faces=self.faces, pictures=self.pictures)
            embedding, spread = embed(recogniser, aligned)
            return Identity(
                key=clip.key,
                face=tuple(embedding.tolist()),
                spread=spread,
                picture_hash=picture_hash(pictures),
                sound_hash=sound_hash(read_wav(sound)),
                text_share=text_share([pictures[n] for n in _middles(len(pictures), self.text_pictures)]),
            )

        return work


def open_recogniser(pack: Path, gpus: float = 0.0) -> Recogniser:
    """The recognition model of a pack folder, for a stage that asks for `gpus`.

    Raises `WeightsMissingError` if the pack has none, `ValueError` for a GPU that cannot be used, `MemoryFullError` for
    a full one.
    """
    import onnxruntime
    from insightface.model_zoo import get_model

    providers = onnx_providers(gpus)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the default takes every core of the machine, for each worker
    for file in sorted(pack.glob("*.onnx")):
        model: Any = get_model(str(file), providers=ON_PROCESSOR, sess_options=options)
        if model is not None and model.taskname == "recognition":
            blank = np.zeros((*model.input_size[::-1], 3), np.uint8)
            hold(model.session, providers, partial(model.get_feat, [blank]))
            recogniser: Recogniser = model
            return recogniser
    raise weights.WeightsMissingError(f"{pack} holds no recognition model: *.onnx with aligned faces as its input")


def look(
    shown: Callable[[Collection[int]], Iterable[tuple[int, Image]]],
    landmarks: Floats,
    pose: Floats,
    *,
    faces: int,
    pictures: int,
) -> tuple[list[Image], list[Image]]:
    """One pass over a clip: aligned faces (112, 112, 3), the best of each span, and whole frames for hashing.

    Both in order of time. Best is the sharpest of the few most frontal. `landmarks` (F, 5, 2) are pixels of the frames,
    `pose` (F, 3) degrees; `shown` gives the frames of the numbers it is asked for, in their order.
    """
    import cv2
    from insightface.utils.face_align import norm_crop

    wanted = {frame: span for span, found in enumerate(_frontal(landmarks, pose, faces)) for frame in found}
    hashed = set(_middles(len(landmarks), pictures))
    best: dict[int, tuple[float, Image]] = {}
    whole: list[Image] = []
    for at, image in shown(wanted.keys() | hashed):
        if at in hashed:
            whole.append(image)
        if (span := wanted.get(at)) is not None:
            face: Image = norm_crop(image, landmark=landmarks[at], image_size=_ALIGNED_PX)
            sharpness = float(cv2.Laplacian(cv2.cvtColor(face, cv2.COLOR_BGR2GRAY), cv2.CV_32F).var())
            if span not in best or sharpness > best[span][0]:
                best[span] = sharpness, face
    return [face for _, (_, face) in sorted(best.items())], whole


def embed(recogniser: Recogniser, aligned: list[Image]) -> tuple[Floats, float]:
    """Mean unit embedding of aligned faces (n, 112, 112, 3), and their spread; nothing and 0 of none.

    The spread is the lowest cosine of a face to the medoid, the face most like all others, in whatever order they come.
    The mean would not do: of two people it holds both, and four faces of each, at right angles, have 0.71 to it.
    """
    if not aligned:
        return np.empty(0, np.float32), 0.0
    # one by one: packs with a fixed batch of one exist
    each = np.stack([recogniser.get_feat([face]).ravel() for face in aligned])
    each /= np.linalg.norm(each, axis=1, keepdims=True)
    mean: Floats = each.mean(0)
    mean /= np.linalg.norm(mean)
    alike = each @ each.T
    return mean, float(alike[alike.sum(0).argmax()].min())


def _frontal(landmarks: Floats, pose: Floats, spans: int) -> list[NDArray[np.intp]]:
    """The most frontal frames of each of so many equal spans."""
    turned = np.abs(pose[:, :2]).sum(1)
    turned[~np.isfinite(landmarks).all((1, 2))] = np.inf
    found = []
    for span in np.array_split(np.arange(len(pose)), spans):
        order = span[np.argsort(turned[span], kind="stable")][:_CANDIDATES]
        found.append(order[np.isfinite(turned[order])])
    return found


def _middles(frames: int, count: int) -> list[int]:
    return sorted({int((i + 0.5) * frames / count) for i in range(count)}) if frames else []
