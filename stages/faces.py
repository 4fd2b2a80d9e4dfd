"""Observer: faces and their landmarks, by insightface's SCRFD, at a cadence that tightens where faces move."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.stage import RUNTIME
from stages.cuda import ON_PROCESSOR, hold, onnx_providers
from stages.quality import Quality
from stages.tracks import Detections

if TYPE_CHECKING:
    from stages.media import Frames

Image = NDArray[np.uint8]

_ENLARGED = 1.05
"""Frames are decoded at about the size they are looked at: to enlarge them by less is not worth an interpolation."""


_KEPT, _LARGEST = 64, 8
"""Of a look the 64 largest finds are kept: of two hours of a restless crowd 0.9 GB. Sharpness and exposure are measured
of all (0.16 ms each), motion (0.9 ms) of the 8 largest in every look and of as many others, in turns; the 16 largest
that are sure say whether two looks agree. Where there are no more than 16, nothing is left out; calls show up to 49
tiles, crowds any number."""


@dataclass(frozen=True)
class Found:
    """Faces of one frame, in its own pixels: box (n, 5) x0, y0, x1, y1, score and landmarks (n, 5, 2)."""

    box: NDArray[np.float32]
    lmk: NDArray[np.float32]

    def by_size(self) -> NDArray[np.intp]:
        """Their numbers, the largest first."""
        return np.asarray(np.argsort(-np.prod(self.box[:, 2:4] - self.box[:, :2], axis=1), kind="stable"))


@dataclass(frozen=True, kw_only=True)
class Faces:
    """Which detector, how often, how sure.

    Two frames lie side by side on one sheet of the detector's input. That halves the cost, and it cures SCRFD's
    blindness to faces that fill the picture: over 89 clips of real faces 1 frame a sheet finds a face in 613 of 702
    frames, 2 in 701, 4 in 683 (loses tiny faces), 1 with a margin of a quarter in 692.

    Over 18 clips of talking people the boxes between looks agree with those of a look at every frame (IoU of 0.9 and
    more) on 100, 98.7 and 97.4 % of frames at a cadence of 5, 8 and 10, with 25, 18 and 17 % of the frames looked at.
    """

    pack: str = "buffalo_l"  # weights by name, or the path of a folder
    det_size_px: int = 640  # side of the detector's input; a pack of fixed size keeps its own
    per_sheet: int = 2  # frames looked at in one pass
    every: int = 8  # frames between looks
    steady_iou: float = 0.7  # faces that agree less between two looks get a look in between, and so on
    min_score: float = 0.5  # this sure it is a face
    keep_score: float = 0.3  # weaker finds are kept for the linking, which may continue a track with them
    threads: int = field(default=1, metadata=RUNTIME)

    def open(self, gpus: float = 0.0) -> "Detector":
        """Load the network, for a stage that asks for `gpus`.

        Raises `WeightsMissingError`, `ValueError` for a GPU that cannot be used, `MemoryFullError` for a full one.
        """
        return Detector(self, gpus)


class Detector:
    """SCRFD of an insightface pack, on a GPU if it may and one is there; looks at several frames in one pass."""

    def __init__(self, config: Faces, gpus: float) -> None:
        import onnxruntime
        from insightface.app import FaceAnalysis

        from stages import weights

        self.config = config
        options = onnxruntime.SessionOptions()
        # One pool of threads per worker process, of the size it was given: the default takes every core of the machine.
        options.intra_op_num_threads = config.threads
        options.inter_op_num_threads = 1
        providers = onnx_providers(gpus)
        folder = weights.path(config.pack)
        try:
            pack = FaceAnalysis(
                name=str(folder),
                allowed_modules=["detection"],
                providers=ON_PROCESSOR,  # it opens every network of the pack and keeps one
                sess_options=options,
                # insightface has a session of its own for each size of input, made at the first look: on a GPU that
                # would be one which nobody holds there, and the weights twice.
                static_shape_sessions=providers == ON_PROCESSOR,
            )
        except AssertionError:
            raise weights.WeightsMissingError(f"{folder} holds no detection model: *.onnx that finds faces") from None
        size = (config.det_size_px, config.det_size_px)
        pack.prepare(det_thresh=config.keep_score, det_size=size)
        self._net = pack.det_model
        self._size: tuple[int, int] = self._net.static_input_size or size
        blank = np.zeros((*self._size[::-1], 3), np.uint8)
        hold(self._net.session, providers, lambda: self._net.detect(blank, input_size=self._size))

    def detect(self, images: Sequence[Image]) -> list[Found]:
        """Faces of frames (h, w, 3) BGR that are all of one size."""
        found: list[Found] = []
        for k in range(0, len(images), self.config.per_sheet):
            found += self._sheet(images[k : k + self.config.per_sheet])
        return found

    def _sheet(self, images: Sequence[Image]) -> list[Found]:
        width, height = self._size
        scale, columns, rows = _grid(images[0].shape[:2], self.config.per_sheet, self._size)
        if 1.0 <= scale < _ENLARGED:
            scale = 1.0
        cell_w, cell_h = width // columns, height // rows
        sheet = np.zeros((height, width, 3), np.uint8)
        corners = []
        for i, image in enumerate(images):
            tile = _resized(image, scale)
            x = i % columns * cell_w + (cell_w - tile.shape[1]) // 2
            y = i // columns * cell_h + (cell_h - tile.shape[0]) // 2
            sheet[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
            corners.append((x, y))
        box, lmk = self._net.detect(sheet, input_size=self._size)
        centre = (box[:, :2] + box[:, 2:4]) / 2
        cell = (centre[:, 1] // cell_h * columns + centre[:, 0] // cell_w).astype(int)
        return [_back(box[cell == i], lmk[cell == i], corner, scale) for i, corner in enumerate(corners)]


def _grid(shape: tuple[int, ...], n: int, size: tuple[int, int]) -> tuple[float, int, int]:
    """Scale, columns and rows that show n frames of a shape largest on a sheet."""
    layouts = []
    for columns in range(1, n + 1):
        rows = -(-n // columns)
        layouts.append((min(size[0] // columns / shape[1], size[1] // rows / shape[0]), columns, rows))
    return max(layouts)


def _resized(image: Image, scale: float) -> Image:
    if scale == 1.0:
        return image
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    h, w = (max(1, int(side * scale)) for side in image.shape[:2])
    return np.asarray(cv2.resize(image, (w, h), interpolation=smooth), np.uint8)


def _back(box: NDArray[np.float32], lmk: NDArray[np.float32], corner: tuple[int, int], scale: float) -> Found:
    x, y = corner
    box, lmk = box.copy(), lmk.copy()
    box[:, :4] = (box[:, :4] - (x, y, x, y)) / scale
    return Found(box.astype(np.float32), ((lmk - (x, y)) / scale).astype(np.float32))


@dataclass(frozen=True)
class Seeing:
    """What `FaceWatcher` learned: detections in source pixels, and sharpness, exposure, motion (n, 3) of each; motion
    is NaN of those in a crowd whose turn it was not."""

    found: Detections
    measures: NDArray[np.float32]
    best_score: float  # of any find, however weak


class FaceWatcher:
    """Give it every frame of one video in order; `done` gives the detections.

    Looks at every n-th frame, and between two looks that do not agree on the faces at the middle one, and so on down
    to every frame: where heads move fast, come, go, or change at a cut.
    """

    def __init__(self, detector: Detector, quality: Quality) -> None:
        self._detector = detector
        self._config = detector.config
        self._quality = quality
        self._images: dict[int, Image] = {}
        self._looks: dict[int, Found] = {}
        self._settled = -1  # the last look that was noted
        self._scale = 1.0
        self._kept: list[tuple[Found, NDArray[np.float32]]] = []  # in source pixels, and measured, one for each look
        self._looked: list[int] = []
        self._best = 0.0
        self._crowd = np.zeros((1, 5), np.float32)  # boxes of the last look that had more faces than are measured,
        self._waited = np.zeros(1, np.intp)  # and for how many looks the motion of each was not

    def see(self, frames: "Frames") -> None:
        """The next frames of the video."""
        first, n = frames.first_frame, len(frames.images)
        self._scale = frames.scale
        self._images |= {first + i: image for i, image in enumerate(frames.images)}
        self._look([k for k in range(first, first + n) if k % self._config.every == 0])
        last = max(self._looks, default=first)
        self._looks = {k: found for k, found in self._looks.items() if k == last}
        oldest = min(last, first + n) - self._quality.motion_gap_frames
        self._images = {k: image for k, image in self._images.items() if k >= oldest}

    def done(self) -> Seeing:
        """Everything that was found. The last frame is looked at in any case."""
        if (end := max(self._images, default=-1)) > self._settled:
            self._look([end])
        looked = np.array(self._looked, np.int32)
        found = Detections(
            looked=looked,
            frame=np.repeat(looked, np.array([len(found.box) for found, _ in self._kept], np.intp)),
            box=np.concatenate([np.empty((0, 5), np.float32), *(found.box for found, _ in self._kept)]),
            lmk=np.concatenate([np.empty((0, 5, 2), np.float32), *(found.lmk for found, _ in self._kept)]),
        )
        measures = np.concatenate([np.empty((0, 3), np.float32), *(measures for _, measures in self._kept)])
        return Seeing(found, measures, self._best)

    def _look(self, numbers: Sequence[int]) -> None:
        """Look at these frames, and at those between looks that do not agree."""
        while numbers:
            self._looks |= dict(zip(numbers, self._detector.detect([self._images[k] for k in numbers]), strict=True))
            numbers = self._unsettled()
        self._keep()

    def _unsettled(self) -> list[int]:
        """The frames midway between neighbouring looks that do not agree."""
        looks = sorted(self._looks)
        apart = [(a, b) for a, b in itertools.pairwise(looks) if b - a > 1]
        return [(a + b) // 2 for a, b in apart if not self._agree(self._looks[a], self._looks[b])]

    def _agree(self, a: Found, b: Found) -> bool:
        """Whether every sure face of either look is where a find of the other is; of a crowd the largest faces."""
        if not len(a.box) or not len(b.box):
            return not bool((np.concatenate([a.box, b.box])[:, 4] >= self._config.min_score).any())
        steady = iou(a.box, b.box) >= self._config.steady_iou
        sure_a, sure_b = self._sure(a), self._sure(b)
        return bool(steady[sure_a].any(axis=1).all() and steady[:, sure_b].any(axis=0).all())

    def _sure(self, found: Found) -> NDArray[np.intp]:
        by_size = found.by_size()
        return np.asarray(by_size[found.box[by_size, 4] >= self._config.min_score][: 2 * _LARGEST])

    def _keep(self) -> None:
        """Measure the new looks' faces and note them in source pixels."""
        for number in sorted(k for k in self._looks if k > self._settled):
            before = self._images.get(number - self._quality.motion_gap_frames)
            found = self._looks[number]
            self._best = max(self._best, float(found.box[:, 4].max(initial=0.0)))
            by_size = found.by_size()[:_KEPT]
            measures = np.full((len(found.box), 3), np.nan, np.float32)
            moving = set() if before is None else self._in_turn(found.box, by_size)
            for row in by_size.tolist():
                past = before if row in moving else None
                measures[row] = self._quality.measure(self._images[number], past, found.lmk[row])
            kept = np.sort(by_size)
            box = np.concatenate([found.box[kept, :4] / self._scale, found.box[kept, 4:]], axis=1, dtype=np.float32)
            lmk = (found.lmk[kept] / self._scale).astype(np.float32)
            self._kept.append((Found(box, lmk), measures[kept]))
            self._looked.append(number)
        self._settled = max(self._looks, default=self._settled)

    def _in_turn(self, box: NDArray[np.float32], by_size: NDArray[np.intp]) -> set[int]:
        """The finds of this look whose motion is measured: the largest, and of the others those that waited longest.

        Turns go by place: tiles of a call are of one size, and their order by size is another in every look. Where no
        face was at the last look, one counts as if it had waited a round: it has no lead over those who waited longer.
        """
        others = by_size[_LARGEST:]
        if len(others) <= _LARGEST:
            return set(by_size.tolist())
        shared = iou(box, self._crowd)
        waited = np.where(shared.max(axis=1) > 0, self._waited[shared.argmax(axis=1)] + 1, -(-len(others) // _LARGEST))
        longest = others[np.argsort(-waited[others], kind="stable")[:_LARGEST]]
        turn = np.concatenate([by_size[:_LARGEST], longest])
        waited[turn] = 0
        self._crowd, self._waited = box, waited
        return set(turn.tolist())


def iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union (n, m) of boxes (n, 4+) and (m, 4+), corners."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:4], b[None, :, 2:4])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    area_a, area_b = (np.prod(boxes[:, 2:4] - boxes[:, :2], axis=1) for boxes in (a, b))
    total = area_a[:, None] + area_b[None, :] - shared
    return np.asarray(shared / np.maximum(total, 1e-9), np.float32)
