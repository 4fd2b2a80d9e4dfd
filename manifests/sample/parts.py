"""Everything of a person that is not facial skin: eyes, teeth, tongue, ears, glasses, neck and shoulders, as grids."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from manifests.sample.head import MOUTH_Y, Floats, Head, columns, step
from manifests.sample.person import Person
from manifests.sample.texture import EYE_CELLS, EYE_SPAN, Picture, cloth, eyeball, fill, teeth

SKIN, WET, TEETH, EYE, CLOTH, HAIR, FRAME = range(7)
"""Materials; `light` shades each in its way."""


@dataclass(frozen=True)
class Part:
    """One grid of points with a picture stretched over it."""

    name: str
    points: Floats  # (rows, cols, 3) at rest, in head coordinates
    picture: Picture  # (h, w, 3) or, in the soft layer, (h, w, 4) uint8
    material: int
    follows: Floats | float = 1.0  # 1 turns with the head, 0 stays with the shoulders; (rows, cols) or one for all
    jaw: float = 0.0  # how far it sinks with the jaw
    open_: Floats | float = 1.0  # ambient occlusion
    hole: NDArray[np.bool_] | None = field(default=None)
    hollow: bool = False  # seen from within
    soft: bool = False  # drawn after everything else with its picture's alpha


def inside_mouth(head: Head) -> list[Part]:
    """Teeth, tongue and the dark behind them."""
    lip_z = float(head.rest[head.mouth_slit[0], head.rest.shape[1] // 2, 2])
    phi = np.linspace(-1.35, 1.35, 33)[None]

    def arch(radius: float, back: float, heights: tuple[float, ...]) -> Floats:
        y = MOUTH_Y + np.array(heights)[:, None] + 0.012 * (1 - np.cos(phi))
        x, z = radius * np.sin(phi), lip_z - back - 0.23 * (1 - np.cos(phi))
        return np.stack(np.broadcast_arrays(x, y, z), -1).astype(np.float32)

    deep, around = np.meshgrid(np.linspace(0.02, 0.5, 8) * np.pi, np.linspace(-np.pi, np.pi, 25), indexing="ij")
    bowl = np.stack(
        [0.29 * np.sin(deep) * np.sin(around), 0.21 * np.sin(deep) * np.cos(around), -0.34 * np.cos(deep)], -1
    )
    bowl += (0, MOUTH_Y - 0.06, lip_z - 0.16 - 0.9 * 0.29**2)
    edge = (0.85 - 0.5 * (phi / 1.35) ** 2 * np.ones((3, 1))).astype(np.float32)
    v, u = np.meshgrid(np.linspace(0.02, 0.98, 9) * np.pi, np.linspace(0, np.pi, 15), indexing="ij")
    tongue = np.stack([0.165 * np.sin(v) * np.cos(u), 0.075 * np.sin(v) * np.sin(u), 0.19 * np.cos(v)], -1)
    tongue += (0, MOUTH_Y - 0.115, lip_z - 0.25)
    return [
        Part("bowl", bowl.astype(np.float32), fill((0.30, 0.10, 0.10)), WET, jaw=0.4, open_=0.5, hollow=True),
        Part("teeth_up", arch(0.185, 0.090, (0.10, 0.03, -0.045)), teeth(), TEETH, open_=edge),
        Part(
            "teeth_low",
            arch(0.170, 0.110, (-0.055, -0.09, -0.15)),
            teeth()[::-1],
            TEETH,
            jaw=1.0,
            open_=0.62,
        ),
        Part("tongue", tongue.astype(np.float32), fill((0.74, 0.36, 0.36)), WET, jaw=0.8, open_=0.70),
    ]


def eyes(head: Head, who: Person) -> list[Part]:
    """Two eyeballs, as caps; `rig` slides their pictures to look about."""
    dy, dx = np.meshgrid(
        np.linspace(EYE_SPAN, -EYE_SPAN, EYE_CELLS), np.linspace(-EYE_SPAN, EYE_SPAN, EYE_CELLS), indexing="ij"
    )
    dz = np.sqrt(np.clip(0.128**2 - (dx / 1.5) ** 2 - dy**2, 0, None))
    shade = step(dy.astype(np.float32), 0.075, -0.015) * 0.45 + 0.57 - 0.25 * (np.abs(dx) / 0.17) ** 3
    cap = np.stack([dx, dy, dz], -1)
    beyond = (np.abs(dx) > 0.21) | (np.abs(dy) > 0.13)
    hole = beyond[:-1, :-1] | beyond[1:, 1:]
    open_ = np.clip(shade, 0.2, 1).astype(np.float32)
    return [
        Part(f"eye{i}", (cap + centre).astype(np.float32), eyeball(who), EYE, open_=open_, hole=hole)
        for i, centre in enumerate(head.eyes)
    ]


def ears(who: Person, skin: Picture) -> list[Part]:
    """Two shells at the sides of the head, where no hair hides them."""
    if who.hair in ("bob", "long", "wavy", "scarf"):
        return []
    around = np.linspace(-np.pi, np.pi, 25)[None]
    r = np.array([0.0, 0.25, 0.5, 0.7, 0.84, 0.94, 1.0, 0.98, 0.9])[:, None]
    rise = np.array([0.02, 0.02, 0.035, 0.045, 0.085, 0.10, 0.08, 0.04, -0.02])[:, None]
    lobe = 1 - 0.28 * np.clip(-np.sin(around), 0, 1) ** 2
    back, up = 0.155 * r * np.cos(around) * lobe + 0.06 * np.sin(around), 0.285 * r * np.sin(around)
    inner = np.broadcast_to(np.array([0.45, 0.55, 0.7, 0.75, 0.95, 1.0, 1.0, 0.9, 0.6])[:, None], back.shape)
    found = []
    for s in (-1.0, 1.0):
        x = s * (0.715 * who.shape.width + 0.42 * back + 0.85 * rise)
        y, z = -0.10 + up - 0.08 * back, -0.13 - 0.9 * back + 0.35 * rise - 0.10 * up
        points = np.stack(np.broadcast_arrays(x, y, z), -1).astype(np.float32)
        found.append(Part(f"ear{int(s)}", points, skin, SKIN, open_=inner.astype(np.float32)))
    return found


def frames(head: Head, who: Person) -> list[Part]:
    """Spectacles: two rims, a bridge and two arms, as thin tubes."""
    if not who.glasses:
        return []
    power = 2.0 if who.glasses == "round" else 4.0
    angle = np.linspace(0, 2 * np.pi, 41)
    cos, sin = np.cos(angle), np.sin(angle)
    radius = (np.abs(cos) ** power + np.abs(sin) ** power) ** (-1 / power)
    wide, high = (0.215, 0.20) if who.glasses == "round" else (0.235, 0.165)
    front = float(head.rest[head.eye_slit[0], head.rest.shape[1] // 2, 2]) + 0.115
    lines = []
    for s in (-1, 1):
        x = s * 0.325 + wide * radius * cos
        lines.append(np.stack([x, -0.02 + high * radius * sin, front - 0.35 * x**2], -1))
        lines.append(
            np.array(
                [
                    [s * 0.535, 0.05, front - 0.10],
                    [s * 0.70, 0.06, front - 0.25],
                    [s * 0.775, 0.05, 0.05],
                    [s * 0.76, 0.0, -0.2],
                ]
            )
        )
    t = np.linspace(-1, 1, 9)
    lines.append(np.stack([0.115 * t, 0.05 + 0.03 * (1 - t**2), front + 0.02 - 0.02 * t**2], -1))
    colour = ((0.05, 0.05, 0.06), (0.25, 0.15, 0.08), (0.55, 0.50, 0.42))[who.seed % 3]
    return [Part(f"frame{i}", _tube(line, 0.014), fill(colour), FRAME) for i, line in enumerate(lines)]


_BODY = np.array(  # y, half width, z in front, z behind, share of the head's turning
    [
        [-0.55, 0.40, 0.16, -0.55, 1.0],
        [-1.00, 0.42, 0.17, -0.56, 0.7],
        [-1.30, 0.46, 0.19, -0.60, 0.25],
        [-1.48, 0.60, 0.22, -0.64, 0.05],
        [-1.62, 0.95, 0.30, -0.68, 0],
        [-1.75, 1.38, 0.38, -0.70, 0],
        [-1.92, 1.70, 0.46, -0.68, 0],
        [-2.20, 1.86, 0.56, -0.65, 0],
        [-2.70, 1.92, 0.66, -0.62, 0],
        [-3.80, 1.85, 0.70, -0.60, 0],
    ]
)


def _trunk(t: Floats, theta: Floats, neck: float) -> tuple[Floats, Floats]:
    """Neck and shoulders at parameters `t` (0 under the jaw .. 9 at the waist): points, and the head's share."""
    table = _BODY.copy()
    table[:3, 1] *= neck
    y, a, zf, zb, follow = (np.interp(t, np.arange(10), table[:, k]) for k in range(5))
    cos, sin = np.cos(theta), np.sin(theta)
    round_ = np.abs(cos) ** 0.7
    z = -0.15 + np.where(cos > 0, (zf + 0.15) * round_, (0.15 + zb) * round_)
    drop = 0.16 * np.clip(cos, 0, 1) * step(y, -1.30, -1.65) + 0.10 * np.clip(-cos, -1, 1) * step(y, -0.9, -1.4)
    x, y = a * sin, y - drop
    lean = 0.30 - 0.20 * step(y, -0.8, -1.55)  # the two muscles from the ears to the breastbone
    z = z + 0.030 * np.exp(-(((np.abs(x) - lean) / 0.06) ** 2)) * step(z, 0, 0.1) * step(y, -1.7, -1.5)
    return np.stack([x, y, z], -1).astype(np.float32), follow.astype(np.float32)


def torso(who: Person, skin: Picture) -> list[Part]:
    """Neck and shoulders: one grid for the skin, and one for the clothes over it that starts at the neckline."""
    theta = columns()[None, ::2]
    fine = np.linspace(0, 6, 61)[:, None]
    t, around = np.broadcast_arrays(fine, theta)
    dense, _ = _trunk(t, around, who.shape.neck)
    cut = _neckline(who, dense[..., 0], dense[..., 2])
    start = fine[np.argmax(dense[..., 1] < cut, axis=0), 0][None]
    t, around = np.broadcast_arrays(np.linspace(0, 5.2, 27)[:, None], theta)
    body, follow = _trunk(t, around, who.shape.neck)
    shade = 0.50 + 0.50 * step(body[..., 1], -0.95, -1.50)
    under = (t > start + 0.4)[:-1, :-1]
    down = (np.linspace(0, 1, 30) ** 1.3)[:, None]
    t, around = np.broadcast_arrays(start + (9 - start) * down, theta)
    out, share = _trunk(t, around, who.shape.neck)
    rng = np.random.default_rng([who.seed, 5])
    x, y = out[..., 0], out[..., 1]
    waves = [
        rng.uniform(0.004, 0.016) * np.sin(rng.uniform(2, 7) * x + rng.uniform(2, 6) * y + rng.uniform(0, 6))
        for _ in range(6)
    ]
    hem = np.interp(down, [0, 0.004, 0.02, 0.05, 0.09], [0.012, 0.05, 0.062, 0.045, 0.035])
    radial = np.stack(np.broadcast_arrays(np.sin(around), 0.25, np.cos(around)), -1)
    out = out + (hem + (0.05 if who.collar == "high" else 0.0))[..., None] * radial
    out[..., 2] += np.abs(sum(waves)) * step(y, -1.5, -1.9)
    return [
        Part("neck", body, skin, SKIN, follows=follow, open_=shade.astype(np.float32), hole=under),
        Part("clothes", out.astype(np.float32), cloth(who), CLOTH, follows=share * 0.6),
    ]


def _neckline(who: Person, x: Floats, z: Floats) -> Floats:
    """Height at which the clothes begin."""
    front = step(z, -0.1, 0.2)
    if who.collar == "v":
        return (-1.36 - front * (0.06 + 0.46 * np.clip(1 - np.abs(x) / 0.42, 0, 1))).astype(np.float32)
    if who.collar == "high":
        return np.full_like(x, -1.14)
    if who.collar == "shirt":
        return (-1.20 - front * (0.05 + 0.52 * np.clip(1 - np.abs(x) / 0.26, 0, 1))).astype(np.float32)
    return (-1.38 - 0.12 * front * np.clip(1 - np.abs(x) / 0.6, 0, 1)).astype(np.float32)


def _tube(line: Floats, radius: float) -> Floats:
    along = np.gradient(line, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    side = np.cross(along, (0.0, 0.0, 1.0) + 0 * along)
    weak = np.linalg.norm(side, axis=1) < 0.2
    side[weak] = np.cross(along[weak], (0.0, 1.0, 0.0))
    side /= np.linalg.norm(side, axis=1, keepdims=True) + 1e-9
    other = np.cross(along, side)
    turn = np.linspace(0, 2 * np.pi, 7)[None, :, None]
    ring = np.cos(turn) * side[:, None] + np.sin(turn) * other[:, None]
    return np.asarray(line[:, None] + radius * ring, np.float32)
