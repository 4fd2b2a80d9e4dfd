"""Training examples for the sample face networks, cut from rendered pictures: canvases to search, and aligned faces."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from stages.sample.face_pictures import Floats, Image, Pictures, clutter, spoilt

CANVAS_PX = 256
_MIRRORED = [1, 0, 2, 4, 3]
_FACE_PX = (12.0, 240.0)
_LEAST_SHOWN = 0.4  # of a face's box; less is neither a face nor background


@dataclass(frozen=True)
class Canvas:
    """One example: `image` (256, 256, 3) BGR, faces `box` (k, 4) and `lmk` (k, 5, 2), `unsure` (j, 4) to be ignored."""

    image: Image
    box: Floats
    lmk: Floats
    unsure: Floats


def canvas(rng: np.random.Generator, source: Pictures, known: int) -> Canvas:
    """A picture, or several side by side with black between as on the sheets of `stages.faces`, spoilt.

    Only the first `known` pictures are used.
    """
    image = np.zeros((CANVAS_PX, CANVAS_PX, 3), np.uint8)
    boxes, marks, unsure = [], [], []
    for x0, y0, x1, y1 in _tiles(rng):
        tile, box, lmk = _tile(rng, source, known, (x1 - x0, y1 - y0))
        image[y0:y1, x0:x1] = tile
        corner = np.array((x0, y0, x0, y0))
        for b, m in zip(box, lmk, strict=True):
            shown = np.clip(b, 0, (x1 - x0, y1 - y0) * 2)
            share = np.prod(np.maximum(shown[2:] - shown[:2], 0)) / np.prod(b[2:] - b[:2])
            if share >= _LEAST_SHOWN:
                boxes.append(b + corner)
                marks.append(m + corner[:2])
            elif share > 0.05:
                unsure.append(shown + corner)
    return Canvas(
        image=spoilt(rng, image),
        box=np.array(boxes, np.float32).reshape(-1, 4),
        lmk=np.array(marks, np.float32).reshape(-1, 5, 2),
        unsure=np.array(unsure, np.float32).reshape(-1, 4),
    )


def _tiles(rng: np.random.Generator) -> list[tuple[int, int, int, int]]:
    kind, n, h = rng.random(), CANVAS_PX, CANVAS_PX // 2
    if kind < 0.45:
        return [(0, 0, n, n)]
    gap = int(rng.integers(0, 30)) if rng.random() < 0.5 else 0
    if kind < 0.75:
        return [(gap, 0, n - gap, h), (gap, h, n - gap, n)]
    if kind < 0.88:
        return [(0, gap, h, n - gap), (h, gap, n, n - gap)]
    return [(0, 0, h, h), (h, 0, n, h), (0, h, h, n), (h, h, n, n)]


def _tile(
    rng: np.random.Generator, source: Pictures, known: int, size: tuple[int, int]
) -> tuple[Image, list[Floats], list[Floats]]:
    kind = rng.random()
    if kind < 0.12:
        return clutter(rng, CANVAS_PX)[: size[1], : size[0]], [], []
    if kind < 0.20:
        empty = source.empty[int(rng.integers(len(source.empty)))]
        x, y = int(rng.integers(0, 160)), int(rng.integers(0, 90))
        return cv2.resize(empty[y : y + 180, x : x + 320], size, interpolation=cv2.INTER_AREA), [], []
    i = int(rng.integers(known))
    picture, there = source.image[i], source.person[i] >= 0
    main = source.box[i, int(rng.integers(there.sum()))]
    matrix, mirrored = _placed(rng, main, size)
    border = cv2.BORDER_REPLICATE if rng.random() < 0.6 else cv2.BORDER_CONSTANT
    tile = _warped(picture, matrix, size, border)
    boxes, marks = [], []
    for box, lmk in zip(source.box[i][there], source.lmk[i][there], strict=True):
        corners = box[[0, 1, 2, 1, 2, 3, 0, 3]].reshape(4, 2) @ matrix[:, :2].T + matrix[:, 2]
        moved = lmk @ matrix[:, :2].T + matrix[:, 2]
        boxes.append(np.concatenate([corners.min(0), corners.max(0)]))
        marks.append(moved[_MIRRORED] if mirrored else moved)
        if rng.random() < 0.15:
            _cover(rng, tile, boxes[-1])
    return np.asarray(tile, np.uint8), boxes, marks


def _placed(rng: np.random.Generator, face: Floats, size: tuple[int, int]) -> tuple[NDArray[np.float64], bool]:
    """The similarity that brings a face to a random size at a random place of the tile, perhaps mirrored."""
    largest = min(_FACE_PX[1], 1.1 * min(size))
    wanted = float(np.exp(rng.uniform(np.log(_FACE_PX[0]), np.log(largest))))
    if rng.random() < 0.5:  # half of all faces are of the size that talking heads have
        wanted = float(rng.uniform(0.25, 0.75)) * min(size)
    scale = wanted / float(face[3] - face[1])
    turn = np.radians(rng.normal(0, 7))
    a, b = scale * np.cos(turn), scale * np.sin(turn)
    matrix = np.array([[a, -b, 0.0], [b, a, 0.0]])
    mirrored = bool(rng.random() < 0.5)
    if mirrored:
        matrix[:, 0] *= -1
    centre = matrix[:, :2] @ ((face[:2] + face[2:]) / 2)
    reach = (0.1, 0.9) if rng.random() < 0.85 else (-0.8, 1.8)  # now and then only hair, neck or clothes are in view
    matrix[:, 2] = rng.uniform(*reach, 2) * size - centre
    return matrix, mirrored


def _warped(picture: Image, matrix: NDArray[np.float64], size: tuple[int, int], border: int) -> Image:
    """The picture moved by `matrix`, halved first as often as it is to shrink, which warping alone would alias."""
    matrix = matrix.copy()
    while np.hypot(*matrix[0, :2]) < 0.6:
        picture = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        matrix[:, :2] *= 2
    return np.asarray(cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=border), np.uint8)


def _cover(rng: np.random.Generator, tile: Image, box: Floats) -> None:
    """Something held before a part of the face."""
    w, h = box[2:] - box[:2]
    x, y = box[:2] + rng.uniform(0, 1, 2) * (w, h)
    colour = tuple(int(c) for c in rng.integers(0, 256, 3))
    axes = (max(1, int(w * rng.uniform(0.1, 0.3))), max(1, int(h * rng.uniform(0.08, 0.25))))
    cv2.ellipse(tile, (int(x), int(y)), axes, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)


def aligned(rng: np.random.Generator, source: Pictures, picture: int, place: int) -> Image:
    """One face (112, 112, 3) BGR as ArcFace wants it, by landmarks as inexact as a detector's; spoilt."""
    from insightface.utils.face_align import norm_crop

    lmk = source.lmk[picture, place]
    size = float(np.ptp(source.box[picture, place][1::2]))
    face = norm_crop(source.image[picture], lmk + rng.normal(0, 0.015 * size, lmk.shape).astype(np.float32), 112)
    if rng.random() < 0.3:
        small = int(rng.integers(28, 100))
        face = cv2.resize(cv2.resize(face, (small, small), interpolation=cv2.INTER_AREA), (112, 112))
    if rng.random() < 0.15:
        x, y, w, h = (int(v) for v in (*rng.integers(0, 90, 2), *rng.integers(10, 45, 2)))
        face[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return spoilt(rng, face[:, ::-1] if rng.random() < 0.5 else face)
