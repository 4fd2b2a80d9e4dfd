"""The same person with a third of the vertices: enough for heads below 300 px, and about twice as fast to draw."""

import functools
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from manifests.sample import parts as p
from manifests.sample.head import SHAPES, Floats, Head, Ints
from manifests.sample.person import Person
from manifests.sample.rig import Body, Layer, body, incidence, triangles_of

_WHOLE = ("frame", "eye", "ear", "teeth", "tongue", "bowl")
"""Small parts: every vertex counts."""


@functools.lru_cache(maxsize=24)
def coarse_body(who: Person) -> Body:
    """Every second row and column of the large grids, but all rows around the lips and lids. Pictures stay whole."""
    fine = body(who)
    kept, thin = [], []
    first = 0
    for part in fine.parts:
        rows, cols = part.points.shape[:2]
        r, c = _lines(part.name, rows, cols, fine.head)
        kept.append((first + np.array(r)[:, None] * cols + np.array(c)[None]).ravel())
        thin.append(replace(part, points=part.points[np.ix_(r, c)], hole=_holes(part, r, c)))
        first += rows * cols
    keep = np.concatenate(kept)
    ends = np.cumsum([len(k) for k in kept])
    starts = {part.name: int(end) - len(k) for part, end, k in zip(thin, ends, kept, strict=True)}
    triangles = {part.name: triangles_of(part) + starts[part.name] for part in thin}
    layers = tuple(
        _layer(layer, keep, [triangles[q.name] for q in thin if q.soft == bool(n)])
        for n, layer in enumerate(fine.layers)
    )
    spans = {part.name: slice(starts[part.name], int(end)) for part, end in zip(thin, ends, strict=True)}
    place = np.full(len(fine.rest), -1)
    place[keep] = np.arange(len(keep))
    hair = place[fine.strands] >= 0
    rest = fine.rest[keep]
    return replace(
        fine,
        head=_head(fine.head, thin[0].points, kept[0], place),
        rest=rest,
        follows=fine.follows[keep],
        material=fine.material[keep],
        open_=fine.open_[keep],
        jaw=fine.jaw[keep],
        layers=(layers[0], layers[1]),
        eyes=(spans["eye0"], spans["eye1"]),
        tongue=spans["tongue"],
        casters=np.concatenate([triangles[q.name] for q in thin if q.name in ("face", "neck", "clothes", "hair")]),
        parts=tuple(thin),
        normal_sum=incidence(np.concatenate([layer.triangles for layer in layers]), rest),
        strands=place[fine.strands[hair]].astype(np.int32),
        tangents=fine.tangents[hair],
        brightness=fine.brightness[keep],
    )


def _lines(name: str, rows: int, cols: int, head: Head) -> tuple[list[int], list[int]]:
    if name.startswith(_WHOLE):
        return list(range(rows)), list(range(cols))
    if name == "face":
        slits = (*head.eye_slit, *head.mouth_slit)
        r = [i for i in range(rows) if min(abs(i - s) for s in slits) < 4 or i % 2 == 0 or i == rows - 1]
        return r, list(range(0, cols, 2))
    return sorted({*range(0, rows, 2), rows - 1}), sorted({*range(0, cols, 2), cols - 1})


def _holes(part: p.Part, r: list[int], c: list[int]) -> NDArray[np.bool_] | None:
    """A coarse quad is missing where all of its fine ones are."""
    if part.hole is None:
        return None
    rows = np.minimum.reduceat(part.hole, r[:-1], axis=0)
    return np.minimum.reduceat(rows, c[:-1], axis=1)


def _layer(layer: Layer, keep: NDArray[np.int64], triangles: list[Ints]) -> Layer:
    if layer.first < 0:
        return layer
    inside = np.flatnonzero((keep >= layer.first) & (keep < layer.last))
    own = keep[inside] - layer.first
    return replace(
        layer,
        first=int(inside[0]),
        last=int(inside[-1]) + 1,
        triangles=np.concatenate(triangles).astype(np.int32),
        uv=layer.uv[own],
        slots=layer.slots[own],
    )


def _head(head: Head, rest: Floats, kept: NDArray[np.int64], place: NDArray[np.int64]) -> Head:
    rows, cols = head.rest.shape[:2]
    r = sorted({int(i) // cols for i in kept})
    at = head.rest.reshape(-1, 3)

    def nearest(vertex: int) -> int:
        return int(np.argmin(np.abs(at[kept] - at[vertex]).sum(-1) + (kept // cols != vertex // cols)))

    lids = place[head.lids]
    return replace(
        head,
        rest=rest,
        shapes=np.ascontiguousarray(head.shapes.reshape(len(SHAPES), rows * cols, 3)[:, kept].reshape(len(SHAPES), -1)),
        eye_slit=(r.index(head.eye_slit[0]), r.index(head.eye_slit[1])),
        mouth_slit=(r.index(head.mouth_slit[0]), r.index(head.mouth_slit[1])),
        lids=lids[lids >= 0].astype(np.int32),
        nose_tip=nearest(head.nose_tip),
        mouth_corners=(nearest(head.mouth_corners[0]), nearest(head.mouth_corners[1])),
    )
