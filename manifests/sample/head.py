"""The skin of a head: a grid of rings around a skull, with lids and lips cut open, and the shapes that move it.

Lengths are decimetres, x to the viewer's right, y up, z to the viewer; the eyes lie near y = 0 and the chin near
y = -1.15, so a head is 23 cm high and 15 cm wide, as the anthropometric tables have it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from manifests.sample.person import Shape

Floats = NDArray[Any]
"""float32 unless said otherwise."""
Ints = NDArray[np.int32]

MOUTH_Y = -0.70
EYE_HALF_WIDTH = 0.152

SHAPES = (
    "jaw",  # 0: teeth together .. 1: as wide as "ah" gets
    "upper",  # upper lip raised
    "lower",  # lower lip lowered, teeth seen
    "wide",  # corners apart: i, e
    "round",  # corners together and lips forward: u, o, w
    "press",  # lips rolled in on each other: m, b, p
    "tuck",  # lower lip under the upper teeth: f, v
    "smile",
    "brow_up",
    "brow_down",
    "lid_upper",  # opening of the upper lids; 0 is shut
    "lid_lower",
    "cheek",
)
"""Names of the shapes that add up to an expression, in the order of `Head.shapes`."""

# Rings from the crown to under the chin: y in front, y behind, half width, z in front, z behind.
_RINGS = np.array(
    [
        [1.17, 1.17, 0.01, -0.06, -0.10],
        [1.13, 1.13, 0.30, 0.24, -0.42],
        [1.02, 1.02, 0.52, 0.50, -0.72],
        [0.75, 0.78, 0.69, 0.74, -0.94],
        [0.45, 0.48, 0.745, 0.845, -1.03],
        [0.22, 0.24, 0.75, 0.875, -1.04],
        [0.00, 0.00, 0.735, 0.85, -1.00],
        [-0.22, -0.20, 0.715, 0.85, -0.93],
        [-0.46, -0.40, 0.665, 0.84, -0.80],
        [-0.70, -0.58, 0.62, 0.83, -0.66],
        [-0.88, -0.70, 0.565, 0.795, -0.56],
        [-1.05, -0.82, 0.465, 0.75, -0.50],
        [-1.15, -0.90, 0.37, 0.62, -0.48],
        [-1.165, -0.95, 0.30, 0.40, -0.46],
        [-1.12, -0.98, 0.28, 0.16, -0.44],
    ]
)
_ROWS = (  # front heights of the rows and how many rows lead there; the rows at 0 and MOUTH_Y come twice (the slits)
    (1.17, 1.02, 5),
    (1.02, 0.42, 10),
    (0.42, 0.16, 9),
    (0.16, 0.0, 9),
    (-0.0001, -0.12, 7),
    (-0.12, -0.30, 6),
    (-0.30, -0.54, 14),
    (-0.54, MOUTH_Y, 10),
    (MOUTH_Y - 0.0001, -0.86, 10),
    (-0.86, -1.05, 7),
    (-1.05, -1.15, 4),
)


@dataclass(frozen=True)
class Head:
    """The skin grid at rest (lids and lips shut) and what moves it."""

    rest: Floats  # (rows, cols, 3)
    shapes: Floats  # (len(SHAPES), rows * cols * 3)
    eye_slit: tuple[int, int]  # the two coincident rows that part
    mouth_slit: tuple[int, int]
    hole: NDArray[np.bool_]  # (rows - 1, cols - 1): quads that are not there
    eyes: Floats  # (2, 3): centres of the eyeballs, the viewer's left first
    lids: Ints  # indices of the vertices that lie on the eyeballs
    cavity: Floats  # (rows, cols): 1 in the open .. 0 in a fold (ambient occlusion)
    nose_tip: int
    mouth_corners: tuple[int, int]


def step(x: Floats, low: Floats | float, high: Floats | float) -> Floats:
    """Smooth step from 0 at `low` to 1 at `high` (either order)."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    smooth: Floats = t * t * (3.0 - 2.0 * t)
    return smooth


def bump(x: Floats, y: Floats, cx: float, cy: float, sx: float, sy: float) -> Floats:
    """A Gaussian hill of height 1."""
    hill: Floats = np.exp(-(((x - cx) / sx) ** 2) - ((y - cy) / sy) ** 2)
    return hill


def columns() -> Floats:
    """Azimuths of the grid's columns in radians, dense in front; the first and the last meet behind."""
    half = np.concatenate([np.linspace(0, 55, 35), np.linspace(55, 110, 11)[1:], np.linspace(110, 180, 7)[1:]])
    return np.asarray(np.radians(np.concatenate([-half[:0:-1], half])), np.float32)


def rings(heights: Floats, theta: Floats, shape: Shape) -> Floats:
    """Points of the skull without features: (rows, cols, 3)."""
    table = _RINGS.copy()
    at = -table[:, 0]
    at[-2:] = at[-3] + np.array([0.02, 0.04])  # under the chin the front rises again: keep the parameter rising
    jaw = step(table[:, 0], -0.1, -0.7) * step(table[:, 0], -1.3, -0.9)
    table[:, 2] *= shape.width * (1 + (shape.jaw_width - 1) * jaw + 0.05 * shape.cheek * bump(at, at, 0.3, 0.3, 0.3, 9))
    table[:, 3] *= 1 + (shape.chin - 1) * step(table[:, 0], -0.85, -1.05)
    rows = np.stack([PchipInterpolator(at, table[:, k])(heights) for k in range(5)], -1).astype(np.float32)
    sin, cos = np.sin(theta)[None], np.cos(theta)[None]
    squareness = 1 - 0.12 * step(rows[:, :1], 0.9, 0.3)  # faces are flatter in front than ellipses
    sin = np.sign(sin) * np.abs(sin) ** squareness
    z_front, z_back = rows[:, 3:4], rows[:, 4:5]
    z = np.where(cos > 0, np.abs(cos) ** squareness * z_front, cos * -z_back)
    z = np.where(cos > 0, z, -np.abs(cos) * -z_back)
    front = 0.5 + 0.5 * cos
    y = rows[:, 1:2] + (rows[:, :1] - rows[:, 1:2]) * front
    return np.stack(np.broadcast_arrays(rows[:, 2:3] * sin, y, z), -1).astype(np.float32)


def build(shape: Shape) -> Head:
    """Make the head of one person."""
    heights, eye_slit, mouth_slit = _heights()
    theta = columns()
    at = rings(heights, theta, shape)
    front = step(np.cos(theta)[None], 0.0, 0.45)
    at[..., 2] += _relief(at[..., 0], at[..., 1], shape) * front
    nose = _nose(at[..., 0], at[..., 1], shape) * front
    at[..., 2] += nose
    at[..., 1] -= 0.12 * nose * step(at[..., 1], -0.1, -0.4) * shape.nose_tip
    upper_eye = np.arange(len(heights)) <= eye_slit[0]
    upper_mouth = np.arange(len(heights)) <= mouth_slit[0]
    eyes = np.stack([_eyeball(at, theta, eye_slit[0], side * shape.eye_spacing) for side in (-1, 1)])
    shapes = _shapes(at, upper_eye[:, None], upper_mouth[:, None], shape)
    near = np.min([np.hypot(at[..., 0] - e[0], 1.25 * at[..., 1]) for e in eyes], axis=0)
    lids = np.flatnonzero((near < 0.235).ravel() & (np.abs(np.broadcast_to(theta, near.shape)).ravel() < 1.2))
    hole = np.zeros((len(heights) - 1, len(theta) - 1), bool)
    middle = 0.5 * (at[..., 0][:, 1:] + at[..., 0][:, :-1])
    facing = np.abs(theta[1:] + theta[:-1]) < 2.2
    for side in (-1, 1):
        hole[eye_slit[0]] |= (np.abs(middle[eye_slit[0]] - side * shape.eye_spacing) < EYE_HALF_WIDTH * 1.02) & facing
    hole[mouth_slit[0]] = (np.abs(middle[mouth_slit[0]]) < shape.mouth_width) & facing
    row = mouth_slit[0] * len(theta)
    corner_x = at[mouth_slit[0], :, 0]
    corners = [int(np.argmin(np.abs(corner_x - s * shape.mouth_width) + 9 * ~(np.abs(theta) < 1.2))) for s in (-1, 1)]
    tip = int(np.argmax(np.where(np.abs(at[..., 1] + 0.36) < 0.3, at[..., 2], -9)))
    return Head(
        rest=at,
        shapes=shapes,
        eye_slit=eye_slit,
        mouth_slit=mouth_slit,
        hole=hole,
        eyes=eyes.astype(np.float32),
        lids=lids.astype(np.int32),
        cavity=_cavity(at),
        nose_tip=tip,
        mouth_corners=(row + corners[0], row + corners[1]),
    )


def _heights() -> tuple[Floats, tuple[int, int], tuple[int, int]]:
    rows: list[float] = []
    for top, bottom, count in _ROWS:
        steps = np.linspace(top, bottom, count + 1)
        rows += list(steps if not rows or top in (-0.0001, MOUTH_Y - 0.0001) else steps[1:])
    eye = int(np.argmin(np.abs(np.array(rows))))
    mouth = int(np.argmin(np.abs(np.array(rows) - MOUTH_Y)))
    at = -np.array([*rows, *(-1.1525, -1.17, -1.19)])  # the three rows under the chin, in the rising parameter
    return at.astype(np.float32), (eye, eye + 1), (mouth, mouth + 1)


def _relief(x: Floats, y: Floats, s: Shape) -> Floats:
    """Everything but the nose, as depth added towards the viewer."""
    ax = np.abs(x)
    d = y - MOUTH_Y
    taper = np.clip(1 - (x / (s.mouth_width * 1.05)) ** 2, 0, 1) ** 0.6
    upper_lip = bump(d, d, 0.032, 0.032, 0.036 * s.lips, 9) * (1 - 0.25 * bump(x, d, 0, 0.05, 0.035, 9))
    lower_lip = bump(d, d, -0.050, -0.050, 0.045 * s.lips, 9)
    relief = 0.042 * s.lips * upper_lip * taper + 0.050 * s.lips * lower_lip * taper
    relief -= 0.028 * bump(d, d, 0, 0, 0.012, 9) * taper  # the line between the lips
    relief += 0.055 * bump(x, y, 0, MOUTH_Y + 0.02, 0.30, 0.20)  # the teeth behind the lips
    relief -= 0.045 * bump(x, y, 0, -0.875, 0.20, 0.05)
    relief += 0.085 * s.chin * bump(x, y, 0, -1.03, 0.19, 0.10)
    relief -= 0.012 * bump(x, y, 0, -0.57, 0.030, 0.06)
    relief -= 0.015 * bump(ax, y, s.mouth_width + 0.03, MOUTH_Y, 0.05, 0.06)
    relief -= 0.115 * s.socket * bump(ax, y, s.eye_spacing - 0.02, 0.03, 0.19, 0.125)
    relief -= 0.06 * s.socket * bump(ax, y, s.eye_spacing - 0.15, 0.0, 0.09, 0.10)
    relief += 0.050 * s.brow * bump(ax, y, s.eye_spacing, 0.195, 0.20, 0.065)
    relief += 0.020 * s.brow * bump(x, y, 0, 0.17, 0.13, 0.07)
    relief += 0.070 * s.cheekbone * bump(ax, y, 0.44, -0.23, 0.17, 0.13)
    relief += 0.055 * s.cheek * bump(ax, y, 0.36, -0.52, 0.20, 0.22)
    relief -= 0.022 * (2 - s.cheek) * bump(ax, y, 0.47, -0.52, 0.13, 0.16)
    relief += 0.022 * bump(ax, y, s.eye_spacing - 0.01, -0.105, 0.14, 0.035)  # bags
    relief -= 0.020 * bump(ax, y, 0.60, 0.25, 0.14, 0.20)
    return relief.astype(np.float32)


def _nose(x: Floats, y: Floats, s: Shape) -> Floats:
    length = 0.42 * s.nose_length
    down = np.clip((0.06 - y) / (0.06 + length), 0, 1.6)
    profile = np.interp(
        down, [0, 0.12, 0.35, 0.7, 0.9, 1.0, 1.10, 1.22, 1.4], [0, 0.03, 0.08, 0.165, 0.235, 0.25, 0.2, 0.06, 0]
    )
    profile = profile * s.nose_depth + 0.04 * (s.nose_bridge - 1) * bump(down, down, 0.45, 0.45, 0.2, 9)
    width = np.interp(down, [0, 0.3, 0.6, 0.85, 1.0, 1.3], [0.07, 0.062, 0.075, 0.095, 0.098, 0.085]) * s.nose_width
    ridge = profile * np.exp(-(np.abs(x / width) ** 2.2))
    wings = 0.085 * s.nose_depth * bump(np.abs(x), y, 0.118 * s.nose_width, -length - 0.005, 0.055, 0.055)
    nostril = 0.05 * bump(np.abs(x), y, 0.062 * s.nose_width, -length - 0.062, 0.035, 0.022)
    return (np.maximum(ridge, wings) + 0.35 * np.minimum(ridge, wings) - nostril).astype(np.float32)


def _eyeball(at: Floats, theta: Floats, row: int, x: float) -> Floats:
    front = np.abs(theta) < 1.2
    z = np.interp(x, at[row, front, 0], at[row, front, 2])
    return np.array([x, -0.005, z - 0.118], np.float32)


def _cavity(at: Floats) -> Floats:
    """Ambient occlusion from how far each point lies below its surroundings, at three scales."""
    import cv2

    dv, du = np.gradient(at, axis=0), np.gradient(at, axis=1)
    normal = np.cross(dv, du)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-9
    open_ = np.ones(at.shape[:2], np.float32)
    for sigma, gain in ((1.5, 9.0), (4.0, 4.5), (9.0, 1.6)):
        around = cv2.GaussianBlur(at, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        below = ((around - at) * normal).sum(-1)
        open_ *= np.exp(-gain * np.clip(below, -0.02, 0.2)).astype(np.float32)
    return np.clip(open_, 0.35, 1.08).astype(np.float32)


def _shapes(at: Floats, upper_eye: NDArray[np.bool_], upper_mouth: NDArray[np.bool_], s: Shape) -> Floats:
    x, y, z = at[..., 0], at[..., 1], at[..., 2]
    front = step(z, 0.05, 0.45)
    m = s.mouth_width
    d = y - MOUTH_Y
    slit = np.clip(1 - (x / m) ** 2, 0, 1) ** 0.62
    around = np.exp(-((x / (1.7 * m)) ** 2) - (d / 0.24) ** 2) * front
    # What sinks with the jaw: fully the chin, by part the corners and cheeks, the lower lip wholly and the upper not.
    share = step(y, -0.42, -1.0) * step(z + 0.5 * (y + 0.9), -0.15, 0.35)
    band = np.exp(-((d / 0.30) ** 2))
    jaw = np.where(upper_mouth, share * (1 - slit * band), share + (1 - share) * slit * band) * (y < 0.1)
    near = np.exp(-((d / 0.10) ** 2)) * slit * front
    corner = sum(bump(x, y, side * (m + 0.02), MOUTH_Y, 0.13, 0.14) for side in (-1, 1)) * front
    out = np.zeros((len(SHAPES), *at.shape), np.float32)
    shape = dict(zip(SHAPES, out, strict=True))
    shape["jaw"][..., 1] = -0.215 * jaw
    shape["jaw"][..., 2] = -0.075 * jaw
    shape["jaw"][..., 0] = -0.10 * x * around
    shape["upper"][..., 1] = np.where(upper_mouth, 0.060, 0) * near
    shape["upper"][..., 2] = np.where(upper_mouth, 0.010, 0) * near
    shape["lower"][..., 1] = np.where(upper_mouth, 0, -0.065) * near
    shape["lower"][..., 2] = np.where(upper_mouth, 0, 0.012) * near
    shape["wide"][..., 0] = 0.27 * x * around
    shape["wide"][..., 1] = 0.025 * corner
    shape["wide"][..., 2] = -0.035 * around * np.exp(-((np.abs(x) / m) ** 2))
    shape["round"][..., 0] = -0.46 * x * around
    shape["round"][..., 1] = np.where(upper_mouth, 0.022, -0.026) * near
    shape["round"][..., 2] = 0.105 * np.exp(-((x / (0.85 * m)) ** 2) - (d / 0.13) ** 2) * front
    shape["press"][..., 1] = -0.38 * d * np.exp(-((d / 0.10) ** 2) - (x / (1.3 * m)) ** 4) * front
    shape["press"][..., 2] = -0.040 * np.exp(-((d / 0.045) ** 2) - (x / m) ** 4) * front
    shape["tuck"][..., 1] = np.where(upper_mouth, 0.042, 0.030) * near
    shape["tuck"][..., 2] = np.where(upper_mouth, 0.006, -0.062) * near
    shape["smile"][..., 0] = 0.055 * np.sign(x) * corner
    shape["smile"][..., 1] = 0.060 * corner + 0.02 * bump(np.abs(x), y, 0.38, -0.32, 0.16, 0.14) * front
    shape["smile"][..., 2] = -0.020 * corner + 0.03 * bump(np.abs(x), y, 0.38, -0.32, 0.14, 0.10) * front
    brow = bump(np.abs(x), y, s.eye_spacing, 0.20, 0.24, 0.10) * front
    inner = bump(np.abs(x), y, 0.14, 0.18, 0.13, 0.09) * front
    shape["brow_up"][..., 1] = 0.070 * brow
    shape["brow_down"][..., 1] = -0.040 * inner - 0.02 * brow
    shape["brow_down"][..., 0] = -0.020 * np.sign(x) * inner
    _lids(shape, x, y, upper_eye, front, s)
    shape["cheek"][..., 2] = 0.05 * bump(np.abs(x), y, 0.36, -0.60, 0.16, 0.16) * front
    return out.reshape(len(SHAPES), -1)


def _lids(shape: dict[str, Floats], x: Floats, y: Floats, upper: NDArray[np.bool_], front: Floats, s: Shape) -> None:
    across = (np.abs(x) - s.eye_spacing) / EYE_HALF_WIDTH
    opening = np.clip(1 - (across + 0.10 * np.clip(1 - across**2, 0, 1)) ** 2, 0, 1) ** 0.62 * front
    tilt = s.eye_tilt * across * EYE_HALF_WIDTH * np.exp(-((y / 0.2) ** 2) - (across / 1.6) ** 2) * front
    shape["lid_upper"][..., 1] = np.where(upper, 0.055 * s.eye_open, 0) * opening * np.exp(-((y / 0.13) ** 2))
    shape["lid_lower"][..., 1] = np.where(upper, 0, -0.046 * s.eye_open) * opening * np.exp(-((y / 0.10) ** 2)) + tilt
