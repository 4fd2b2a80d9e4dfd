"""Hair and scarves: a shell over the skull whose picture's alpha makes the hairline; long styles hang on below it."""

import cv2
import numpy as np
from numpy.typing import NDArray

from manifests.sample.head import Floats, bump, columns, rings, step
from manifests.sample.parts import CLOTH, HAIR, Part
from manifests.sample.person import Person
from manifests.sample.texture import TEXELS, noise, strands

_VOLUME = {
    "buzz": 0.03,
    "short": 0.11,
    "side": 0.15,
    "curly": 0.26,
    "bob": 0.15,
    "long": 0.14,
    "wavy": 0.18,
    "bun": 0.07,
    "scarf": 0.09,
}
_END = {"bob": -0.95, "long": -1.95, "wavy": -1.80, "scarf": -1.80}
_SCARF = np.array(  # y, half width, z in front, z behind
    [
        [0.0, 0.76, 0.90, -1.02],
        [-0.5, 0.72, 0.88, -0.95],
        [-0.9, 0.64, 0.78, -0.80],
        [-1.16, 0.58, 0.54, -0.70],
        [-1.4, 0.62, 0.50, -0.72],
        [-1.6, 0.92, 0.52, -0.78],
        [-1.8, 1.30, 0.60, -0.82],
    ]
)


def hairline(theta: Floats, who: Person) -> Floats:
    """Height of the hairline at an azimuth, decimetres; hair grows above it."""
    at = np.abs(theta)
    high = 0.71 + 0.12 * who.age * (who.beard > 0)
    if who.hair in ("bob", "wavy", "long") and who.seed % 3 == 0:
        high = 0.27  # a fringe
    temple = high - 0.02 + 0.06 * (who.beard > 0)
    points = [0.0, 0.35, 0.60, 0.85, 1.08, 1.28, 1.42, 1.72, 2.0, 2.5, np.pi]
    heights = [high, high + 0.01, temple, 0.46, 0.14, -0.14, 0.04, 0.02, -0.42, -0.70, -0.74]
    if who.hair in _END:
        heights[3:] = [0.46, 0.02, -9, -9, -9, -9, -9, -9]
    return np.interp(at, points, heights).astype(np.float32)


def hair(who: Person) -> list[Part]:
    """The parts of a person's hair: none for a bald head."""
    style = who.hair
    if style == "bald":
        return []
    rng = np.random.default_rng([who.seed, 11])
    end = _END.get(style, -0.85)
    y = np.concatenate([np.linspace(1.17, 0.9, 8), np.linspace(0.9, 0.0, 18)[1:], np.linspace(0.0, end, 16)[1:]])
    y = y.astype(np.float32)
    theta = columns()
    points = _surface(who, y, theta)
    inside = _inside(who, points, y, theta)
    woven = style == "scarf"
    rise = step(inside, -0.05, 0.06) if woven else step(inside, -0.02, 0.20)
    out = points - np.array([0, 0.15, -0.1], np.float32)
    out[..., 1] = np.maximum(out[..., 1], 0)
    out /= np.linalg.norm(out, axis=-1, keepdims=True) + 1e-6
    points = points + out * (_VOLUME[style] * rise * _fullness(who, points, rng) + 0.012)[..., None]
    points = points + out * (_relief(who, y, theta, rng) * rise)[..., None]
    follows = step(y, -1.6, -0.6)[:, None] if style in _END else np.ones_like(y)[:, None]
    alpha = _alpha(who, inside, y, rng)
    colour = who.clothes[::-1] if woven else who.hair_colour
    picture = strands(colour, alpha, rng, curl=style == "curly", woven=woven)
    shell = Part(
        "hair",
        points.astype(np.float32),
        picture,
        CLOTH if woven else HAIR,
        follows=np.broadcast_to(follows, inside.shape).astype(np.float32),
        open_=(0.72 + 0.28 * step(y, -0.9, 0.3))[:, None] * np.ones_like(inside),
        hole=_bare(inside),
        soft=True,
    )
    return [shell, *_bun(who)] if style == "bun" else [shell]


def _surface(who: Person, y: Floats, theta: Floats) -> Floats:
    skull = rings(-np.maximum(y, -0.75), theta, who.shape)
    if who.hair not in _END:
        return skull
    below = y < 0
    if who.hair == "scarf":
        a, zf, zb = (np.interp(-y, -_SCARF[:, 0], _SCARF[:, k])[:, None] for k in (1, 2, 3))
        cos = np.cos(theta)[None]
        hung = np.stack(
            np.broadcast_arrays(
                a * np.sin(theta)[None], y[:, None], np.where(cos > 0, zf, -zb) * np.sign(cos) * np.abs(cos) ** 0.9
            ),
            -1,
        )
    else:
        hung = rings(np.zeros_like(y), theta, who.shape)
        hung[..., 1] = y[:, None]
        down = step(y, 0.0, -1.9)[:, None]
        hung[..., 2] *= 1 - 0.22 * down
        hung[..., 0] *= 1 + (0.12 if who.hair in ("long", "wavy") else -0.04) * down
    return np.where(below[:, None, None], hung, skull).astype(np.float32)


def _inside(who: Person, points: Floats, y: Floats, theta: Floats) -> Floats:
    """How far inside the hair each point lies, about in decimetres; negative: skin shows."""
    if who.hair == "scarf":
        oval = np.hypot(points[..., 0] / 0.575, (points[..., 1] + 0.22) / 0.95) - 1
        return np.where(points[..., 2] > 0.1, 0.6 * oval, 0.5).astype(np.float32)
    inside = y[:, None] - hairline(theta, who)[None]
    if who.hair in _END:
        curtain = (np.abs(theta)[None] - 1.06 - 0.10 * step(y, -0.2, -1.2)[:, None]) * 0.75
        inside = np.where(y[:, None] > 0.08, inside, curtain)
    if who.hair == "side":
        inside = inside + 0.05 * np.sin(theta)[None] * (1 if who.seed % 2 else -1)
    return inside.astype(np.float32)


def _fullness(who: Person, points: Floats, rng: np.random.Generator) -> Floats:
    """Where the hair stands up: a quiff, a parting, flat sides."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    full = 0.55 + 0.45 * step(y, 0.0, 0.8)
    if who.hair in ("short", "side"):
        full = (
            0.35 + 0.85 * step(y, 0.2, 0.9) + 0.5 * rng.uniform(0, 1) * bump(x, z, 0, 0.5, 0.5, 0.4) * step(y, 0.5, 0.8)
        )
    if who.hair in ("side", "bob", "long", "wavy"):
        part = (0.30 if who.seed % 2 else -0.30) if who.hair == "side" or who.seed % 5 < 2 else 0.0
        full = full - 0.75 * np.exp(-(((x - part) / 0.05) ** 2)) * step(z, -0.4, 0.1) * step(y, 0.5, 0.8)
        full = full + 0.22 * np.exp(-(((np.abs(x - part) - 0.24) / 0.16) ** 2)) * step(y, 0.4, 0.8)
    return full.astype(np.float32)


def _relief(who: Person, y: Floats, theta: Floats, rng: np.random.Generator) -> Floats:
    """Locks: the shell's outline is never smooth."""
    size = (len(y), len(theta))
    if who.hair == "scarf":
        return np.asarray(0.02 * np.sin(3 * theta[None] + 6 * y[:, None] + rng.uniform(0, 6)), np.float32)
    if who.hair == "buzz":
        return np.zeros(size, np.float32)
    if who.hair == "curly":
        return (0.05 * noise(rng, size, (1.6, 1.6)) + 0.03 * noise(rng, size, (4, 4))).astype(np.float32)
    locks = 0.011 * noise(rng, size, (40, 1.2)) + 0.012 * noise(rng, size, (12, 3))
    if who.hair == "wavy":
        locks = locks + 0.035 * np.sin(8 * y[:, None] + 2.5 * noise(rng, size, (30, 8))) * step(y, 0.6, -0.2)[:, None]
    return locks.astype(np.float32)


def _alpha(who: Person, inside: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    tall, across = inside.shape[0] * TEXELS, inside.shape[1] * TEXELS
    fine = cv2.resize(inside, (across, tall), interpolation=cv2.INTER_LINEAR)
    if who.hair == "scarf":
        return step(fine, -0.004, 0.004)
    jag = 0.022 * noise(rng, (tall, across), (50, 2.4)) + 0.020 * noise(rng, (tall, across), (80, 11))
    alpha = step(fine + jag, -0.03, 0.05)
    if who.hair in _END:
        heights = cv2.resize(y[:, None], (1, tall), interpolation=cv2.INTER_LINEAR)
        # A see-through curtain edge would hide the hair behind the neck: the mesh ends there instead.
        alpha = np.maximum(alpha, step(heights, 0.12, 0.02) * (fine > -0.2))
        alpha = alpha * step(heights - y[-1] + 2.0 * jag, 0.0, 0.10)
    return alpha.astype(np.float32)


def _bare(inside: Floats) -> NDArray[np.bool_]:
    """Quads with no hair at all: left out, or their depth would hide the hair behind."""
    bare = inside < -0.06
    corners: NDArray[np.bool_] = bare[:-1, :-1] & bare[1:, :-1] & bare[:-1, 1:] & bare[1:, 1:]
    return corners


def _bun(who: Person) -> list[Part]:
    v, u = np.meshgrid(np.linspace(0.01, np.pi - 0.01, 15), np.linspace(-np.pi, np.pi, 25), indexing="ij")
    ball = np.stack([0.34 * np.sin(v) * np.sin(u), 0.27 * np.cos(v), 0.30 * np.sin(v) * np.cos(u)], -1)
    ball += (0, 1.12, -0.55)
    size = (15 * TEXELS, 25 * TEXELS)
    picture = strands(who.hair_colour, np.ones(size, np.float32), np.random.default_rng(who.seed), curl=False)
    return [Part("bun", ball.astype(np.float32), picture[..., :3], HAIR)]
