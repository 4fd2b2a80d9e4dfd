"""Frames of people in a scene, each with the exact truth about every face in it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from manifests.sample.coarse import coarse_body
from manifests.sample.draw import View, paint
from manifests.sample.head import Floats
from manifests.sample.motion import Motion
from manifests.sample.person import Person
from manifests.sample.rig import Body, body
from manifests.sample.scene import Light, Scene, background
from manifests.sample.texture import EYE_CELLS

Image = NDArray[np.uint8]

HEAD_DM = 2.3
"""Crown to chin."""


@dataclass(frozen=True)
class Seat:
    """One person in a scene: who, doing what, where."""

    person: Person
    motion: Motion
    centre: tuple[float, float]  # of the head, as shares of the frame
    head_px: float  # crown to chin


@dataclass(frozen=True)
class Face:
    """The truth about one face in one frame. Pixels of the frame; x right, y down."""

    box: tuple[float, float, float, float]  # left, top, right, bottom: brow of the forehead to chin, cheek to cheek
    landmarks: tuple[tuple[float, float], ...]  # eyes, nose tip, mouth corners; the viewer's left first (as SCRFD's)
    mouth_open: float  # gap between the lips / width of the mouth at rest
    yaw_deg: float
    pitch_deg: float
    roll_deg: float
    shown_share: float  # of the box inside the frame


def seat(person: Person, motion: Motion, where: Scene) -> Seat:
    """Put one person where the scene wants one."""
    return Seat(person, motion, where.centre, where.head_px)


def render(
    seats: Sequence[Seat], where: Scene, *, supersample: float = 1.25
) -> Iterator[tuple[Image, tuple[Face, ...]]]:
    """Yield an RGB frame (height, width, 3) and its faces, in the order of `seats`, for every frame of the motion.

    About 37 ms of CPU a frame and person at 640 x 360. Deterministic given the arguments.
    """
    n = len(seats[0].motion) if seats else 0
    yield from _frames(seats, where, n, supersample)


def render_empty(where: Scene, n_frames: int) -> Iterator[Image]:
    """The scene with nobody in it, the camera still moving."""
    for frame, _ in _frames((), where, n_frames, 1.0):
        yield frame


def _frames(
    seats: Sequence[Seat], where: Scene, n: int, supersample: float
) -> Iterator[tuple[Image, tuple[Face, ...]]]:
    rng = np.random.default_rng([where.seed, 0xF7])
    back = background(where)
    dx, dy, zoom = _camera(where, n, rng)
    bodies = [_body(s.person, s.head_px) for s in seats]
    tint = np.array((1 + where.warmth, 1.0, 1 - where.warmth), np.float32) * where.contrast
    grain = rng.normal(0, where.grain, (where.height + 64, where.width + 64, 1)).astype(np.float32) + (1 - tint) * 128
    for i in range(n):
        picture = _behind(back, where, float(dx[i]), float(dy[i]), float(zoom[i]))
        faces = []
        for who, s in zip(bodies, seats, strict=True):
            scale = s.head_px / HEAD_DM * float(zoom[i])
            cx = (s.centre[0] * where.width - where.width / 2) * float(zoom[i]) + where.width / 2 + float(dx[i])
            cy = (s.centre[1] * where.height - where.height / 2) * float(zoom[i]) + where.height / 2 + float(dy[i])
            at = who.placed(who.shapes_at(s.motion, i), s.motion, i)
            view = View(scale, (cx, cy), (where.width, where.height), where.distance)
            _compose(picture, who, at, s.motion, i, view, where.light, supersample)
            faces.append(_truth(who, at, s.motion, i, view))
        if where.blur > 0.2:
            picture = cv2.GaussianBlur(picture, (0, 0), where.blur)
        oy, ox = rng.integers(0, 64, 2)
        picture *= tint
        picture += grain[oy : oy + where.height, ox : ox + where.width]
        yield cv2.convertScaleAbs(np.maximum(picture, 0)), tuple(faces)


def _body(who: Person, head_px: float) -> Body:
    return coarse_body(who) if head_px < 300 else body(who)


def _camera(where: Scene, n: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    t = np.arange(n) / max(1, n - 1)
    zoom = 1.0 + abs(where.zoom) * (t if where.zoom > 0 else 1 - t)
    shaken = [gaussian_filter1d(rng.normal(size=n + 40), 9.0)[20 : 20 + n] * 6 * where.shake for _ in range(2)]
    return shaken[0].astype(np.float32), shaken[1].astype(np.float32), np.maximum(zoom, 1.0).astype(np.float32)


def _behind(back: Image, where: Scene, dx: float, dy: float, zoom: float) -> Floats:
    h, w = back.shape[:2]
    warp = np.array(
        [[zoom, 0, where.width / 2 - zoom * w / 2 + 0.5 * dx], [0, zoom, where.height / 2 - zoom * h / 2 + 0.5 * dy]]
    )
    moved = cv2.warpAffine(
        back, warp, (where.width, where.height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(moved, np.float32)


def _compose(
    picture: Floats,
    who: Body,
    at: Floats,
    motion: Motion,
    i: int,
    view: View,
    lit_by: Light,
    supersample: float,
) -> None:
    """Draw a person over `picture` in place, only in the part of the window that they cover."""
    seen = view.project(at)
    width, height = view.size
    x0, y0 = (max(0, int(v) - 2) for v in seen[:, :2].min(0))
    x1, y1 = (min(limit, int(v) + 3) for v, limit in zip(seen[:, :2].max(0), (width, height), strict=True))
    if x1 - x0 < 2 or y1 - y0 < 2:
        return
    size = (round((x1 - x0) * supersample), round((y1 - y0) * supersample))
    sx, sy = size[0] / (x1 - x0), size[1] / (y1 - y0)
    finer = View(view.px_per_dm * sx, ((view.origin[0] - x0) * sx, (view.origin[1] - y0) * sy), size, view.distance)
    uvs = (who.uv(who.layers[0], motion, i), who.layers[1].uv)
    colour, alpha = paint(who, at, uvs, lit_by, finer)
    _glints(colour, who, at, finer, lit_by)
    small = cv2.resize(colour, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    cover = cv2.resize(alpha, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    part = picture[y0:y1, x0:x1]
    part *= 1 - cover[..., None]
    part += small


def _glints(colour: Floats, who: Body, at: Floats, view: View, lit_by: Light) -> None:
    """The key light mirrored in each eye, where the lids leave it visible."""
    cols = who.head.rest.shape[1]
    up, low = (at[row * cols : (row + 1) * cols] for row in who.head.eye_slit)
    for eye in who.eyes:
        centre = at[eye].reshape(EYE_CELLS, EYE_CELLS, 3)[EYE_CELLS // 2, EYE_CELLS // 2]
        spot = centre + np.array([0.028 * lit_by.key[0], 0.020 + 0.02 * lit_by.key[1], 0.01], np.float32)
        middle = int(np.argmin(np.abs(up[:, 0] - spot[0]) + 9 * (up[:, 2] < centre[2] - 0.3)))
        if not low[middle, 1] < spot[1] < up[middle, 1]:
            continue
        u, v, _ = view.project(spot[None])[0]
        r = 0.012 * view.px_per_dm
        x0, y0, n = int(u - 3 * r - 1), int(v - 3 * r - 1), int(6 * r + 3)
        if x0 < 0 or y0 < 0 or x0 + n > view.size[0] or y0 + n > view.size[1]:
            continue
        gx, gy = np.arange(n) + x0 + 0.5 - u, np.arange(n) + y0 + 0.5 - v
        glow = np.exp(-(((gx[None] ** 2 + gy[:, None] ** 2) / r**2) ** 2)).astype(np.float32)
        patch = colour[y0 : y0 + n, x0 : x0 + n]
        patch += (0.85 * glow[..., None]) * (250 - patch)


def _truth(who: Body, at: Floats, motion: Motion, i: int, view: View) -> Face:
    rows, cols = who.head.rest.shape[:2]
    rest = who.head.rest.reshape(-1, 3)
    mask = (rest[:, 1] < 0.74) & (rest[:, 1] > -1.2) & (rest[:, 2] > 0.30)
    points = view.project(at[: rows * cols][mask])
    (x0, y0), (x1, y1) = points[:, :2].min(0), points[:, :2].max(0)
    marks = np.concatenate(
        [
            [at[eye].reshape(EYE_CELLS, EYE_CELLS, 3)[EYE_CELLS // 2, EYE_CELLS // 2] for eye in who.eyes],
            at[[who.head.nose_tip, *who.head.mouth_corners]],
        ]
    )
    marks = view.project(marks)[:, :2]
    up, low = (at[row * cols + cols // 2] for row in who.head.mouth_slit)
    w, h = view.size
    inside = max(0.0, min(x1, w) - max(x0, 0)) * max(0.0, min(y1, h) - max(y0, 0))
    return Face(
        box=(float(x0), float(y0), float(x1), float(y1)),
        landmarks=tuple((float(a), float(b)) for a, b in marks),
        mouth_open=float(np.linalg.norm(up - low) / (2 * who.who.shape.mouth_width)),
        yaw_deg=float(motion.yaw[i]),
        pitch_deg=float(motion.pitch[i]),
        roll_deg=float(motion.roll[i]),
        shown_share=float(inside / max(1e-6, (x1 - x0) * (y1 - y0))),
    )
