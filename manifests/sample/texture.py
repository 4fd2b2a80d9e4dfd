"""Pictures stretched over the grids: skin, eyes, teeth, hair and cloth. Computed once per person, in NumPy."""

import cv2
import numpy as np
from numpy.typing import NDArray

from manifests.sample.head import EYE_HALF_WIDTH, MOUTH_Y, Floats, Head, bump, step
from manifests.sample.person import Colour, Person

Picture = NDArray[np.uint8]

TEXELS = 8
"""Texels per grid cell of the facial skin."""

EYE_SPAN = 0.30
"""Half the width in decimetres that an eye's picture covers."""

EYE_CELLS = 25


def noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[float, float]) -> Floats:
    """Smooth noise of about unit variance; `cells` are the sizes of its grains in texels, down and across."""
    small = rng.normal(size=(max(2, round(shape[0] / cells[0])), max(2, round(shape[1] / cells[1])))).astype(np.float32)
    grown: Floats = cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return grown


def fill(colour: Colour) -> Picture:
    """A plain picture."""
    return to_bytes(np.broadcast_to(np.array(colour, np.float32), (8, 8, 3)))


def to_bytes(picture: Floats) -> Picture:
    """0..1 to bytes."""
    return np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)


def skin(head: Head, who: Person, line: Floats) -> Picture:
    """The face: tone, blotches, pores, lips, brows, lashes, beard, folds, and the scalp above the hairline `line`."""
    rows, cols = head.rest.shape[:2]
    size = (rows * TEXELS, cols * TEXELS)
    x, y, z = cv2.split(cv2.resize(head.rest, size[::-1], interpolation=cv2.INTER_LINEAR))
    row = np.broadcast_to(((np.arange(size[0]) + 0.5) / TEXELS - 0.5)[:, None], size)
    rng = np.random.default_rng([who.seed, 3])
    out = np.broadcast_to(np.array(who.skin, np.float32), (*size, 3)).copy()
    front = step(z, 0.0, 0.3)
    out *= 1 + 0.018 * noise(rng, size, (70, 70))[..., None] + 0.010 * noise(rng, size, (16, 16))[..., None]
    out *= 1 + 0.020 * noise(rng, size, (2.5, 2.5))[..., None]
    _blood(out, x, y, front, who, rng)
    _folds(out, x, y, front, who)
    if who.freckles > 0:
        spots = np.clip(noise(rng, size, (4, 4)) - 1.6, 0, 1) * bump(x, y, 0, -0.2, 0.5, 0.25) * front
        _paint(out, spots * 0.9 * who.freckles, np.array(who.skin) * (0.72, 0.55, 0.45))
    _beard(out, x, y, z, who, rng)
    _lips(out, x, y, front, who, rng)
    _eyes(out, x, y, row < head.eye_slit[0] + 0.5, front, who)
    _brows(out, x, y, front, who, rng)
    _scalp(out, y, line, who)
    return to_bytes(out)


def body_skin(who: Person) -> Picture:
    """Neck and ears."""
    rng = np.random.default_rng([who.seed, 4])
    out = np.broadcast_to(np.array(who.skin, np.float32), (256, 256, 3)) * (
        1 + 0.03 * noise(rng, (256, 256), (40, 40))[..., None]
    )
    return to_bytes(out * (1, 0.965, 0.955) * (1 + 0.015 * noise(rng, (256, 256), (3, 3))[..., None]))


def _paint(out: Floats, share: Floats, colour: NDArray[np.float64] | Colour) -> None:
    out += share[..., None] * (np.asarray(colour, np.float32) - out)


def _blood(out: Floats, x: Floats, y: Floats, front: Floats, who: Person, rng: np.random.Generator) -> None:
    ax = np.abs(x)
    red = 0.9 * bump(ax, y, 0.40, -0.32, 0.20, 0.16) + 0.8 * bump(x, y, 0, -0.37, 0.13, 0.10)
    red += 0.35 * bump(x, y, 0, -1.02, 0.2, 0.12) + 0.25 * bump(x, y, 0, 0.4, 0.5, 0.2)
    red *= front * who.redness * (1 + 0.25 * noise(rng, x.shape, (25, 25))) * (1 + 0.5 * who.makeup)
    out *= 1 + red[..., None] * np.array((0.035, -0.085, -0.075), np.float32)
    dark = 0.12 * bump(ax, y, who.shape.eye_spacing - 0.03, -0.10, 0.14, 0.06) * (0.35 + who.age) * front
    out *= 1 - dark[..., None] * np.array((0.8, 1.0, 0.8), np.float32)
    lid = bump(ax, y, who.shape.eye_spacing, 0.075, 0.15, 0.05) * front
    out *= 1 - lid[..., None] * (np.array((0.05, 0.09, 0.08)) + who.makeup * np.array((0.18, 0.24, 0.16))).astype(
        np.float32
    )


def _line(x: Floats, y: Floats, points: list[tuple[float, float]], width: float) -> Floats:
    """A soft line along a polyline in the right half of the face (and mirrored)."""
    at = np.array(points)
    dense = np.stack([np.interp(np.linspace(0, 1, 25), np.linspace(0, 1, len(at)), at[:, k]) for k in (0, 1)], -1)
    near = np.full(x.shape, 9.0, np.float32)
    for px, py in dense:
        near = np.minimum(near, (np.abs(x) - px) ** 2 + (y - py) ** 2)
    line: Floats = np.exp(-near / width**2)
    return line


def _folds(out: Floats, x: Floats, y: Floats, front: Floats, who: Person) -> None:
    m = who.shape.mouth_width
    smile = _line(x, y, [(0.15, -0.42), (0.24, -0.50), (m + 0.06, -0.64), (m + 0.07, -0.76)], 0.022)
    dark = smile * (0.06 + 0.20 * who.age)
    dark += _line(x, y, [(m + 0.03, -0.76), (m + 0.02, -0.86)], 0.02) * 0.22 * max(0.0, who.age - 0.3)
    for k in range(3):
        dark += bump(x, y, 0, 0.38 + 0.10 * k, 0.4, 0.012) * 0.20 * max(0.0, who.age - 0.25)
    dark += _line(x, y, [(0.49, 0.02), (0.56, 0.05)], 0.012) * 0.25 * max(0.0, who.age - 0.3)
    dark += _line(x, y, [(0.48, -0.03), (0.55, -0.07)], 0.012) * 0.25 * max(0.0, who.age - 0.3)
    nostril = bump(np.abs(x), y, 0.062 * who.shape.nose_width, -0.42 * who.shape.nose_length - 0.060, 0.036, 0.020)
    dark += 0.80 * np.clip(1.25 * nostril, 0, 1)
    wing = _line(
        x, y, [(0.13 * who.shape.nose_width, -0.36), (0.165 * who.shape.nose_width, -0.42), (0.14, -0.47)], 0.018
    )
    dark += 0.16 * wing
    out *= 1 - (dark * front)[..., None] * np.array((0.80, 0.95, 0.95), np.float32)


def _lips(out: Floats, x: Floats, y: Floats, front: Floats, who: Person, rng: np.random.Generator) -> None:
    m, d = who.shape.mouth_width, y - MOUTH_Y
    t = x / (m * 1.02)
    taper = np.clip(1 - t**2, 0, 1)
    bow = 1 - 0.26 * np.exp(-((x / 0.035) ** 2)) + 0.10 * np.exp(-(((np.abs(x) - 0.07) / 0.05) ** 2))
    upper, lower = 0.072 * who.shape.lips * taper**0.85 * bow, 0.100 * who.shape.lips * taper**0.7
    inside = np.where(d >= 0, upper - d, lower + d)
    share = step(inside, -0.004, 0.014) * front * (np.abs(t) < 1)
    tone = np.array(who.lips, np.float32) * (1 + 0.05 * noise(rng, x.shape, (30, 3))[..., None])
    tone = tone * np.where(d >= 0, 0.90, 1.03)[..., None] * (1 - 0.35 * np.exp(-((d / 0.012) ** 2)))[..., None]
    strength = 0.80 + 0.15 * who.makeup
    out += (share * strength)[..., None] * (tone - out)
    rim = np.exp(-(((inside + 0.012) / 0.012) ** 2)) * taper * front
    out *= 1 + 0.045 * rim[..., None]


def _eyes(out: Floats, x: Floats, y: Floats, upper: NDArray[np.bool_], front: Floats, who: Person) -> None:
    across = (np.abs(x) - who.shape.eye_spacing) / EYE_HALF_WIDTH
    inside = np.clip(1 - np.abs(across) ** 3, 0, 1) ** 0.5
    lash = np.where(upper, np.exp(-((y / 0.017) ** 2)) * (0.72 + 0.28 * who.makeup), np.exp(-((y / 0.010) ** 2)) * 0.30)
    wing = step(across, -1.0, 0.9) * 0.25 + 0.75
    share = np.clip(lash * inside * wing * front, 0, 1)
    _paint(out, share, np.array(who.hair_colour) * 0.35 + 0.01)
    crease = np.where(upper, np.exp(-(((y - 0.062 - 0.02 * inside) / 0.011) ** 2)), 0) * inside * front
    out *= 1 - 0.26 * crease[..., None]
    caruncle = bump(across, y, -1.0, 0.0, 0.10, 0.016) * front
    _paint(out, 0.7 * caruncle, (0.80, 0.45, 0.42))


def _brows(out: Floats, x: Floats, y: Floats, front: Floats, who: Person, rng: np.random.Generator) -> None:
    along = (np.abs(x) - 0.13) / 0.36
    mid = 0.185 + 0.055 * np.sin(np.clip(along, 0, 1) * 2.4) - 0.07 * np.clip(along - 0.6, 0, 1) ** 1.3
    half = 0.037 * who.brows * np.clip(1.1 - along, 0, 1) ** 0.55 * step(along, -0.10, 0.10)
    hairs = 0.5 * noise(rng, x.shape, (3, 5)) + 0.35 * noise(rng, x.shape, (2, 2))
    share = step((half - np.abs(y - mid)) / 0.03 + 0.35 * hairs, -0.5, 0.7) * (half > 0.004) * front
    _paint(out, np.clip(0.82 * share, 0, 1), np.array(who.hair_colour) * 0.62)


def beard_share(x: Floats, y: Floats, z: Floats, mouth_width: float) -> Floats:
    """Where a beard grows, 0..1."""
    ax = np.abs(x)
    cheek = -0.60 + 0.55 * step(ax, 0.30, 0.66)
    region = step(y, cheek + 0.05, cheek - 0.10)
    lip = bump(ax, y, 0, MOUTH_Y, mouth_width * 0.92, 0.105) ** 0.5
    moustache = bump(ax, y, 0.10, -0.59, 0.17, 0.05)
    share = np.maximum(region * (1 - step(lip, 0.35, 0.75)), np.clip(1.4 * moustache, 0, 1) * (y > -0.66))
    share *= 1 - 0.7 * bump(ax, y, 0.0, -0.86, 0.06, 0.03)
    grown: Floats = share * step(z, -0.35, -0.15)
    return grown


def _beard(out: Floats, x: Floats, y: Floats, z: Floats, who: Person, rng: np.random.Generator) -> None:
    if who.beard == 0:
        return
    share = beard_share(x, y, z, who.shape.mouth_width)
    grain = 0.75 + 0.18 * noise(rng, x.shape, (4, 2)) + 0.14 * noise(rng, x.shape, (2, 2))
    full = np.clip(share * (0.15 + 0.80 * who.beard) * grain, 0, 0.95)
    _paint(out, full, np.array(who.hair_colour) * 0.75 + 0.12 * (1 - who.beard) * np.array(who.skin))


def _scalp(out: Floats, y: Floats, line: Floats, who: Person) -> None:
    if who.hair in ("bald", "scarf"):
        return
    edge = cv2.resize(line[None], (out.shape[1], 1), interpolation=cv2.INTER_LINEAR)
    share = step(y - edge, -0.03, 0.08) * (0.85 if who.hair == "buzz" else 0.95) * step(y, -0.9, -0.7)
    _paint(out, share, np.array(who.hair_colour) * 0.8)


def strands(colour: Colour, alpha: Floats, rng: np.random.Generator, *, curl: bool, woven: bool = False) -> Picture:
    """Hair (or a scarf's cloth) with the given alpha: RGBA."""
    size = alpha.shape[:2]
    if woven:
        grain = 0.03 * noise(rng, size, (2, 2)) + 0.05 * noise(rng, size, (90, 40))
    elif curl:
        grain = 0.22 * noise(rng, size, (9, 9)) + 0.14 * noise(rng, size, (4, 4)) + 0.1 * noise(rng, size, (25, 25))
    else:
        grain = (
            0.13 * noise(rng, size, (120, 2)) + 0.11 * noise(rng, size, (90, 5)) + 0.12 * noise(rng, size, (150, 16))
        )
    tone = np.array(colour, np.float32) * np.clip(1 + grain, 0.35, 1.9)[..., None]
    return np.dstack([to_bytes(tone), to_bytes(alpha[..., None])])


def eyeball(who: Person, size: int = EYE_CELLS * TEXELS) -> Picture:
    """Sclera, iris and pupil, looking straight on; covers +-EYE_SPAN."""
    rng = np.random.default_rng([who.seed, 8])
    at = (np.arange(size) + 0.5) / size * 2 * EYE_SPAN - EYE_SPAN
    x, y = np.meshgrid(at, -at)
    r, phi = np.hypot(x, y), np.arctan2(y, x)
    out = np.broadcast_to(np.array((0.93, 0.90, 0.88), np.float32), (size, size, 3)).copy()
    out *= 1 - 0.10 * step(np.abs(x).astype(np.float32), 0.07, 0.16)[..., None] * np.array((0.3, 1, 1), np.float32)
    rays = 1 + 0.22 * np.interp(phi, np.linspace(-np.pi, np.pi, 61), rng.normal(size=61)) + 0.0 * r
    iris = np.array(who.iris, np.float32) * (rays * (0.75 + 0.45 * step(r.astype(np.float32), 0.030, 0.048)))[..., None]
    limbus = step(r.astype(np.float32), 0.064, 0.056)
    iris = iris * (1 - 0.6 * step(r.astype(np.float32), 0.047, 0.058))[..., None]
    out += limbus[..., None] * (iris - out)
    out *= 1 - 0.97 * step(r.astype(np.float32), 0.027, 0.021)[..., None]
    return to_bytes(out)


def teeth() -> Picture:
    """A row of upper teeth with its gum above: 14 teeth across."""
    tall, across = 48, 448
    v = (np.arange(tall) + 0.5)[:, None] / tall
    u = (np.arange(across) + 0.5)[None] / across * 14
    within = np.abs(u - np.floor(u) - 0.5) * 2
    out = np.broadcast_to(np.array((0.90, 0.86, 0.78), np.float32), (tall, across, 3)).copy()
    out *= (1 - 0.35 * np.clip(within - 0.80, 0, 1) / 0.2 - 0.10 * (1 - v))[..., None]
    gum = step((v - 0.36 - 0.12 * within**2).astype(np.float32), 0.03, -0.03)
    _paint(out, gum, (0.70, 0.36, 0.36))
    below = step((v - 0.97 + 0.08 * within**4).astype(np.float32), 0.0, 0.04)
    _paint(out, below, (0.16, 0.05, 0.05))
    return to_bytes(out)


def cloth(who: Person) -> Picture:
    """The clothes: colour, weave and pattern."""
    rng = np.random.default_rng([who.seed, 6])
    size = (384, 512)
    out = np.broadcast_to(np.array(who.clothes, np.float32), (*size, 3)).copy()
    v, u = np.mgrid[: size[0], : size[1]].astype(np.float32)
    other = np.array(who.clothes[::-1], np.float32) * 0.6 + 0.25
    if who.pattern == "stripes":
        _paint(out, step(np.sin(v / 5.0), 0.2, 0.5) * 0.7, other.astype(np.float64))
    if who.pattern == "checks":
        _paint(
            out, 0.35 * (step(np.sin(v / 4.0), 0.0, 0.4) + step(np.sin(u / 5.0), 0.0, 0.4)), other.astype(np.float64)
        )
    out *= 1 + 0.035 * noise(rng, size, (1.5, 1.5))[..., None] + 0.05 * noise(rng, size, (40, 60))[..., None]
    return to_bytes(out)
