"""A person put together: one list of vertices and triangles per layer, one atlas of pictures, and how they move."""

import functools
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.sparse import csr_matrix

from manifests.sample import parts as p
from manifests.sample.hair import hair, hairline
from manifests.sample.head import SHAPES, Floats, Head, Ints, build, columns
from manifests.sample.motion import Motion
from manifests.sample.person import Person
from manifests.sample.texture import EYE_CELLS, EYE_SPAN, TEXELS, Picture, body_skin, skin

PIVOT = np.array([0.0, -0.75, -0.30], np.float32)
"""Where the head turns on the neck."""

_CASTERS = ("face", "neck", "clothes", "hair")
_JAW = SHAPES.index("jaw")


@dataclass(frozen=True)
class Layer:
    """Grids drawn together: vertices `first:last` of the body."""

    first: int
    last: int
    triangles: Ints  # (T, 3), into the body's vertices
    atlas: tuple[Picture, ...]  # full size, half, quarter
    uv: Floats  # (last - first, 2): where the vertices sit in the atlas, in cells of TEXELS texels
    cells: tuple[int, int]  # of the atlas: across, down; every vertex sits in the middle of one
    slots: Ints  # (last - first,): the vertices' cells, row by row


@dataclass(frozen=True)
class Body:
    """All vertices of a person at rest, and the constants of their movement."""

    who: Person
    head: Head
    rest: Floats  # (N, 3)
    follows: Floats  # (N, 1)
    material: Ints  # (N,)
    open_: Floats  # (N,)
    jaw: Floats  # (N,) for the vertices beyond the facial skin
    layers: tuple[Layer, Layer]
    eyes: tuple[slice, slice]
    tongue: slice
    casters: Ints  # (C, 3): a coarser mesh that throws the shadows
    parts: tuple[p.Part, ...]  # in the order of their vertices
    normal_sum: csr_matrix  # (N, 3T) -> normals of vertices from those of triangles
    strands: Ints  # (S,): vertices of hair
    tangents: Floats  # (S, 3): the direction of the strands there, at rest
    brightness: Floats  # (N,): of the pictures, 0..1, smoothed; sheen does not depend on it

    def shapes_at(self, motion: Motion, i: int) -> Floats:
        """Vertices in head coordinates, with the expression of frame `i` but before the head turns: (N, 3)."""
        weights = motion.shapes[i]
        at = self.rest.copy()
        count = self.head.rest.shape[0] * self.head.rest.shape[1]
        face = at[:count]
        face += (weights @ self.head.shapes).reshape(-1, 3)
        self._close_lips(face)
        self._lids_on_eyes(face)
        jaw = weights[_JAW]
        at[count:, 1] -= 0.205 * jaw * self.jaw[count:]
        at[count:, 2] -= 0.070 * jaw * self.jaw[count:]
        at[self.tongue] += motion.tongue[i] * np.array([0, 0.085, 0.060], np.float32)
        return at

    def placed(self, at: Floats, motion: Motion, i: int) -> Floats:
        """Turn the head on the neck; what follows by part turns by part."""
        turn = rotation(motion.yaw[i], motion.pitch[i], motion.roll[i])
        turned = (at - PIVOT) @ turn.T + PIVOT
        moved: Floats = at + self.follows * (turned - at) + motion.shift[i]
        return moved

    def _close_lips(self, face: Floats) -> None:
        cols = self.head.rest.shape[1]
        for above, below in (self.head.mouth_slit, self.head.eye_slit):
            up, low = face[above * cols : (above + 1) * cols], face[below * cols : (below + 1) * cols]
            crossed = up[:, 1] < low[:, 1]
            middle = 0.5 * (up[crossed] + low[crossed])
            up[crossed] = middle
            low[crossed] = middle

    def _lids_on_eyes(self, face: Floats) -> None:
        lids = face[self.head.lids]
        for centre in self.head.eyes:
            dx, dy = (lids[:, 0] - centre[0]) / 1.5, lids[:, 1] - centre[1]
            inside = 0.139**2 - dx**2 - dy**2
            z = centre[2] + np.sqrt(np.maximum(inside, 0))
            lids[:, 2] = np.where(inside > 0, np.maximum(lids[:, 2], z), lids[:, 2])
        face[self.head.lids] = lids

    def uv(self, layer: Layer, motion: Motion, i: int) -> Floats:
        """Atlas coordinates, the eyes' slid by the gaze."""
        if layer.first:
            return layer.uv
        uv = layer.uv.copy()
        slide = motion.gaze[i] * np.array((0.105, -0.105), np.float32) * (EYE_CELLS / (2 * EYE_SPAN))
        for eye in self.eyes:
            uv[eye] -= slide
        return uv


def rotation(yaw_deg: float, pitch_deg: float, roll_deg: float) -> Floats:
    """Turn to the viewer's right (yaw), chin down (pitch), clockwise as seen (roll)."""
    y, x, z = np.radians([yaw_deg, pitch_deg, -roll_deg])
    ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rx = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    rz = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return np.asarray(rz @ ry @ rx, np.float32)


@functools.lru_cache(maxsize=24)
def body(who: Person) -> Body:
    """Make (or recall) a person's body: about 0.5 s."""
    head = build(who.shape)
    face = p.Part(
        "face", head.rest, skin(head, who, hairline(columns(), who)), p.SKIN, open_=head.cavity, hole=head.hole
    )
    tone = body_skin(who)
    pieces = [
        face,
        *p.inside_mouth(head),
        *p.eyes(head, who),
        *p.ears(who, tone),
        *p.frames(head, who),
        *p.torso(who, tone),
    ]
    pieces += hair(who)
    firm, soft = [q for q in pieces if not q.soft], [q for q in pieces if q.soft]
    starts, at = {}, 0
    for piece in firm + soft:
        starts[piece.name] = at
        at += piece.points.shape[0] * piece.points.shape[1]
    layers = (_layer(firm, starts, 3), _layer(soft, starts, 4))
    ordered = firm + soft

    def spans(name: str) -> slice:
        piece = next(q for q in ordered if q.name == name)
        return slice(starts[name], starts[name] + piece.points.shape[0] * piece.points.shape[1])

    rest = np.concatenate([q.points.reshape(-1, 3) for q in ordered]).astype(np.float32)
    triangles = np.concatenate([layer.triangles for layer in layers])
    material = _each(ordered, "material").astype(np.int32)
    return Body(
        who=who,
        head=head,
        rest=rest,
        follows=_each(ordered, "follows")[:, None],
        material=material,
        open_=_each(ordered, "open_"),
        jaw=_each(ordered, "jaw"),
        layers=layers,
        eyes=(spans("eye0"), spans("eye1")),
        tongue=spans("tongue"),
        casters=np.concatenate([triangles_of(q, 2) + starts[q.name] for q in ordered if q.name in _CASTERS]),
        parts=tuple(ordered),
        normal_sum=incidence(triangles, rest),
        strands=np.flatnonzero(material == p.HAIR).astype(np.int32),
        tangents=_tangents(ordered)[material == p.HAIR],
        brightness=np.concatenate([_brightness(layer) for layer in layers]),
    )


def _each(pieces: list[p.Part], name: str) -> Floats:
    values = [np.broadcast_to(np.asarray(getattr(q, name), np.float32), q.points.shape[:2]).ravel() for q in pieces]
    return np.concatenate(values).astype(np.float32)


def _tangents(pieces: list[p.Part]) -> Floats:
    found = []
    for piece in pieces:
        along = np.gradient(piece.points, axis=0) * (piece.material == p.HAIR)
        found.append((along / (np.linalg.norm(along, axis=-1, keepdims=True) + 1e-9)).reshape(-1, 3))
    return np.concatenate(found).astype(np.float32)


def _layer(pieces: list[p.Part], starts: dict[str, int], channels: int) -> Layer:
    """Stack the pictures of some parts in one atlas of square cells, a vertex in the middle of each."""
    if not pieces:
        none = np.zeros(0, np.int32)
        return Layer(-1, -1, none.reshape(0, 3), (), none.reshape(0, 2).astype(np.float32), (0, 0), none)
    cols = max(q.points.shape[1] for q in pieces) + 2
    cells_high = sum(q.points.shape[0] + 2 for q in pieces)
    atlas = np.zeros((cells_high * TEXELS, cols * TEXELS, channels), np.uint8)
    triangles, uvs, top = [], [], 1
    for piece in pieces:
        rows, width = piece.points.shape[:2]
        triangles.append(triangles_of(piece) + starts[piece.name])
        v, u = np.mgrid[:rows, :width].astype(np.float32)
        uvs.append(np.stack([u + 1, v + top], -1).reshape(-1, 2))
        picture = cv2.resize(np.ascontiguousarray(piece.picture[..., :channels]), (width * TEXELS, rows * TEXELS))
        padded = cv2.copyMakeBorder(picture, TEXELS, TEXELS, TEXELS, TEXELS, cv2.BORDER_REPLICATE)
        low = (top - 1) * TEXELS
        atlas[low : low + padded.shape[0], : padded.shape[1]] = padded
        top += rows + 2
    half = cv2.resize(atlas, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    quarter = cv2.resize(half, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    cell = np.concatenate(uvs)
    first = starts[pieces[0].name]
    return Layer(
        first=first,
        last=first + len(cell),
        triangles=np.concatenate(triangles).astype(np.int32),
        atlas=(atlas, half, quarter),
        uv=cell.astype(np.float32),
        cells=(cols, cells_high),
        slots=(cell[:, 1] * cols + cell[:, 0]).astype(np.int32),
    )


def triangles_of(piece: p.Part, stride: int = 1) -> Ints:
    """Two triangles for every quad that is there, counter-clockwise from outside."""
    rows, cols = piece.points.shape[:2]
    index = np.arange(rows * cols).reshape(rows, cols)[::stride, ::stride]
    keep = np.ones((index.shape[0] - 1, index.shape[1] - 1), bool)
    if piece.hole is not None and stride == 1:
        keep = ~piece.hole
    a, b, c, d = (q[keep] for q in (index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]))
    found = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)])
    at = piece.points.reshape(-1, 3)
    p0, p1, p2 = (at[found[:, k]] for k in range(3))
    outward = np.cross(p1 - p0, p2 - p0) * ((p0 + p1 + p2) / 3 - at.mean(0))
    if (outward.sum() < 0) != piece.hollow:
        found = found[:, ::-1]
    return found.astype(np.int32)


def _brightness(layer: Layer) -> Floats:
    if not layer.atlas:
        return np.zeros(0, np.float32)
    small = cv2.resize(layer.atlas[2], layer.cells, interpolation=cv2.INTER_AREA)
    levels = small[..., :3].reshape(-1, 3).mean(-1)[layer.slots] / 255
    return np.asarray(np.maximum(levels, 0.06), np.float32)


def incidence(triangles: Ints, rest: Floats) -> csr_matrix:
    """Sum over the triangles at each vertex, coincident vertices (seams) taken together."""
    _, same = np.unique(np.round(rest, 5), axis=0, return_inverse=True)
    same = same.ravel()
    corner = same[triangles.ravel()]
    column = np.repeat(np.arange(len(triangles)), 3)
    by_point = csr_matrix(
        (np.ones(len(corner), np.float32), (corner, column)), shape=(int(same.max()) + 1, len(triangles))
    )
    return by_point[same].tocsr()
