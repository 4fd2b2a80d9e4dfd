"""Where a person is seen: backgrounds like photographs out of focus, light, and the camera."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]


@dataclass(frozen=True)
class Light:
    """One key light, a fill from the other side, a rim from behind, and light from all around."""

    key: tuple[float, float, float]  # direction towards the light
    key_colour: tuple[float, float, float]
    fill_colour: tuple[float, float, float]
    rim_colour: tuple[float, float, float]
    sky: tuple[float, float, float]
    ground: tuple[float, float, float]
    hardness: float  # of the cast shadows, 0..1


@dataclass(frozen=True)
class Scene:
    """Everything but the person. Sizes in pixels of the frame."""

    seed: int
    width: int
    height: int
    head_px: float  # crown to chin
    centre: tuple[float, float]  # of the head, as shares of width and height
    light: Light
    distance: float = 9.0  # from the camera, decimetres: near cameras see noses larger
    grain: float = 2.0  # standard deviation of the noise, 0..255
    blur: float = 0.0  # sigma of a lens out of focus, pixels
    shake: float = 0.6  # of a hand-held camera, pixels
    zoom: float = 0.0  # growth of the picture over the scene, e.g. 0.08
    contrast: float = 1.0
    warmth: float = 0.0


def scene(seed: int, width: int = 640, height: int = 360, *, head_px: float | None = None) -> Scene:
    """Draw a scene: framing from half figure to close-up, any light."""
    rng = np.random.default_rng([seed, 0x5CE])
    size = float(height * rng.uniform(0.40, 0.68)) if head_px is None else head_px
    size = min(size, 0.62 * width)
    spread = 0.5 * max(0.0, 1 - 1.5 * size / width)
    return Scene(
        seed=seed,
        width=width,
        height=height,
        head_px=size,
        centre=(
            0.5 + spread * float(rng.uniform(-0.6, 0.6)),
            float(np.clip(0.40 + rng.uniform(-0.03, 0.04), 0.60 * size / height, 0.6)),
        ),
        light=light(rng),
        distance=float(rng.uniform(7.0, 14.0)),
        grain=float(rng.uniform(0.6, 2.2)),
        blur=float(max(0.0, rng.normal(0.25, 0.25))) * height / 360,
        shake=float(rng.choice((0.0, 0.5, 1.2), p=(0.4, 0.35, 0.25))) * height / 360,
        zoom=float(rng.choice((0.0, 0.05, -0.05), p=(0.6, 0.2, 0.2))),
        contrast=float(rng.uniform(0.9, 1.12)),
        warmth=float(rng.normal(0, 0.03)),
    )


def light(rng: np.random.Generator) -> Light:
    """Draw the light: a window, a lamp, an overcast sky or a studio."""
    side = float(rng.choice((-1, 1)))
    around, up = np.radians(side * rng.uniform(5, 65)), np.radians(rng.uniform(8, 55))
    key = np.array([np.sin(around) * np.cos(up), np.sin(up), np.cos(around) * np.cos(up)])
    warm = rng.uniform(-0.12, 0.16)
    strength, fill = rng.uniform(0.55, 1.05), rng.uniform(0.05, 0.35)
    ambient = rng.uniform(0.28, 0.55)
    sky = np.array([1 - warm * 0.5, 1.0, 1 + warm * 0.8]) * ambient
    return Light(
        key=_three(key),
        key_colour=_three(np.array([1 + warm, 1.0, 1 - 1.2 * warm]) * strength),
        fill_colour=_three(np.array([1 - warm * 0.5, 1.0, 1 + warm]) * fill),
        rim_colour=_three(np.array([1.0, 1.0, 1.0]) * float(rng.choice((0.0, 0.25, 0.5)))),
        sky=_three(sky),
        ground=_three(sky * (0.62, 0.55, 0.48)),
        hardness=float(rng.uniform(0.35, 0.95)),
    )


def background(where: Scene, *, margin: float = 1.15) -> NDArray[np.uint8]:
    """The picture behind the person, out of focus, RGB; `margin` times the frame for the camera to move in."""
    rng = np.random.default_rng([where.seed, 0xBAC])
    width, height = round(where.width * margin), round(where.height * margin)
    w, h = max(160, width // 2), max(90, height // 2)
    tone = _wall(rng)
    y, x = np.mgrid[:h, :w].astype(np.float32) / h
    out = tone * (1 - 0.25 * rng.uniform(0, 1) * (y[..., None] - 0.4)) + 0.12 * (
        x[..., None] - 0.5 * w / h
    ) * rng.normal(0, 0.6)
    kind = rng.choice(("shelf", "window", "studio", "office", "garden", "bokeh", "plain"))
    if kind == "shelf":
        _shelf(out, rng)
    elif kind == "window":
        _window(out, rng)
    elif kind == "office":
        _office(out, rng)
    elif kind == "garden":
        out = _garden(out, rng)
    elif kind == "bokeh":
        out = _bokeh(out * 0.4, rng)
    elif kind == "studio":
        glow = np.exp(-(((x - 0.5 * w / h) / 0.7) ** 2) - ((y - 0.45) / 0.6) ** 2)
        out = out * (0.45 + 0.75 * glow[..., None])
    soft = h * rng.uniform(0.008, 0.028) if kind != "plain" else h * 0.004
    out = cv2.GaussianBlur(out.astype(np.float32), (0, 0), max(0.8, soft))
    out = cv2.resize(out, (width, height), interpolation=cv2.INTER_CUBIC)
    level = 0.55 + 0.5 * float(np.mean(where.light.sky)) + 0.1 * float(np.mean(where.light.key_colour))
    return np.asarray(np.clip(out * level * 255, 0, 255), np.uint8)


def _three(v: Floats | NDArray[np.float64]) -> tuple[float, float, float]:
    return float(v[0]), float(v[1]), float(v[2])


def _wall(rng: np.random.Generator) -> Floats:
    hue = rng.uniform(0, 180)
    hsv = np.array([[[hue, rng.uniform(10, 90), rng.uniform(90, 225)]]], np.uint8)
    tone: Floats = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32) / 255
    return tone


def _box(out: Floats, x0: float, y0: float, x1: float, y1: float, colour: Floats | tuple[float, ...]) -> None:
    h = out.shape[0]
    cv2.rectangle(
        out, (round(x0 * h), round(y0 * h)), (round(x1 * h), round(y1 * h)), tuple(float(c) for c in colour), -1
    )


def _shelf(out: Floats, rng: np.random.Generator) -> None:
    wide = out.shape[1] / out.shape[0]
    wood = np.array((0.42, 0.28, 0.17)) * rng.uniform(0.5, 1.4)
    step = rng.uniform(0.24, 0.36)
    for shelf in np.arange(rng.uniform(-0.1, 0.1), 1.1, step):
        at = rng.uniform(-0.05, 0.05)
        while at < wide:
            thick, tall = rng.uniform(0.02, 0.07), step * rng.uniform(0.55, 0.9)
            if rng.random() < 0.85:
                _box(out, at, shelf + step - tall, at + thick, shelf + step, _wall(rng) * rng.uniform(0.4, 0.95))
            at += thick + (rng.uniform(0.05, 0.2) if rng.random() < 0.12 else 0.004)
        _box(out, 0, shelf + step, wide, shelf + step + 0.025, wood)


def _window(out: Floats, rng: np.random.Generator) -> None:
    wide = out.shape[1] / out.shape[0]
    x0 = rng.uniform(-0.1, 0.6) * wide
    x1, y1 = x0 + rng.uniform(0.45, 0.8), rng.uniform(0.6, 0.95)
    _box(out, x0, -0.1, x1, y1, np.array((0.90, 0.95, 1.0)) * rng.uniform(0.8, 1.1))
    for _ in range(14):
        cx, cy = rng.uniform(x0, x1), rng.uniform(0.4, 1.0) * y1
        _box(
            out,
            max(x0, cx - 0.08),
            cy - 0.03,
            min(x1, cx + 0.08),
            cy + 0.05,
            np.array((0.35, 0.5, 0.28)) * rng.uniform(0.5, 1.4),
        )
    for at in np.linspace(x0, x1, 3):
        _box(out, at - 0.015, -0.1, at + 0.015, y1, (0.85, 0.83, 0.80))
    curtain = _wall(rng)
    for side in (x0 - 0.12, x1 - 0.02):
        for k in range(7):
            _box(out, side + 0.02 * k, -0.1, side + 0.02 * k + 0.02, 1.1, curtain * (0.75 + 0.12 * (k % 3)))


def _office(out: Floats, rng: np.random.Generator) -> None:
    wide = out.shape[1] / out.shape[0]
    for _ in range(int(rng.integers(2, 5))):
        x, y = rng.uniform(0, wide), rng.uniform(0.05, 0.5)
        w, h = rng.uniform(0.15, 0.4), rng.uniform(0.12, 0.35)
        _box(out, x - 0.012, y - 0.012, x + w + 0.012, y + h + 0.012, _wall(rng) * 0.4)
        _box(out, x, y, x + w, y + h, _wall(rng))
        _box(out, x + 0.2 * w, y + 0.3 * h, x + 0.7 * w, y + 0.9 * h, _wall(rng))
    desk = rng.uniform(0.75, 0.92)
    _box(out, 0, desk, wide, 1.2, np.array((0.45, 0.32, 0.22)) * rng.uniform(0.5, 1.5))
    for _ in range(5):
        x = rng.uniform(0, wide)
        _box(out, x, desk - rng.uniform(0.05, 0.25), x + rng.uniform(0.03, 0.15), desk + 0.02, _wall(rng) * 0.7)


def _garden(out: Floats, rng: np.random.Generator) -> Floats:
    h, w = out.shape[:2]
    small = rng.normal(size=(h // 6, w // 6)).astype(np.float32)
    leaf = cv2.resize(small, (w, h), interpolation=cv2.INTER_CUBIC) + cv2.resize(
        small[::3, ::3], (w, h), interpolation=cv2.INTER_CUBIC
    )
    green = np.array((0.30, 0.46, 0.20), np.float32) * (0.8 + 0.30 * leaf[..., None])
    sky = np.array((0.80, 0.88, 0.98), np.float32)
    y = np.linspace(0, 1, h, dtype=np.float32)[:, None, None]
    share = np.clip((rng.uniform(0.1, 0.5) - y) * 6 + leaf[..., None], 0, 1)
    mixed: Floats = green * (1 - share) + sky * share
    return np.clip(mixed, 0.02, 1.2)


def _bokeh(out: Floats, rng: np.random.Generator) -> Floats:
    h, w = out.shape[:2]
    layer = np.zeros_like(out)
    for _ in range(int(rng.integers(18, 45))):
        colour = np.array((1.0, rng.uniform(0.5, 0.95), rng.uniform(0.2, 0.9))) * rng.uniform(0.15, 0.6)
        disc = np.zeros_like(out)
        cv2.circle(
            disc,
            (int(rng.integers(w)), int(rng.integers(h))),
            int(h * rng.uniform(0.015, 0.06)),
            tuple(float(c) for c in colour),
            -1,
            cv2.LINE_AA,
        )
        layer += disc
    mixed: Floats = out + layer
    return mixed
