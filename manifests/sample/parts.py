"""Everything of a person that is not facial skin: eyes, teeth, tongue, ears, glasses, neck and shoulders, as grids."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from manifests.sample.head import MOUTH_Y, Floats, Head, columns, rings, step
from manifests.sample.person import Person
from manifests.sample.texture import Picture, cloth, eyeball, fill, hair_alpha, strands, teeth

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
    soft: bool = False  # drawn after everything else with its picture's alpha


def inside_mouth(head: Head) -> list[Part]:
    """Teeth, tongue and the dark behind them."""
    lip_z = float(head.rest[head.mouth_slit[0], head.rest.shape[1] // 2, 2])
    phi = np.linspace(-1.35, 1.35, 33)[None]

    def arch(radius: float, back: float, heights: tuple[float, ...]) -> Floats:
        y = np.array(heights)[:, None] + 0.012 * (1 - np.cos(phi))
        x, z = radius * np.sin(phi), lip_z - back - 0.23 * (1 - np.cos(phi))
        return np.stack(np.broadcast_arrays(x, y, z), -1).astype(np.float32)

    side = np.linspace(-1, 1, 13)[None]
    down = np.linspace(0, 1, 9)[:, None]
    bowl = np.stack(
        np.broadcast_arrays(
            0.25 * side, MOUTH_Y + 0.14 - 0.36 * down, lip_z - 0.42 + 0.12 * side**2 + 0.10 * (2 * down - 1) ** 2
        ),
        -1,
    )
    v, u = np.meshgrid(np.linspace(0.02, 0.98, 9) * np.pi, np.linspace(0, np.pi, 15), indexing="ij")
    tongue = np.stack([0.165 * np.sin(v) * np.cos(u), 0.075 * np.sin(v) * np.sin(u), 0.19 * np.cos(v)], -1)
    tongue += (0, MOUTH_Y - 0.125, lip_z - 0.27)
    return [
        Part("bowl", bowl.astype(np.float32), fill((0.20, 0.06, 0.06)), WET, jaw=0.4, open_=0.5),
        Part("teeth_up", arch(0.215, 0.085, (0.11, 0.05, -0.012) + np.array(MOUTH_Y)), teeth(), TEETH, open_=0.8),
        Part(
            "teeth_low",
            arch(0.195, 0.105, (-0.025, -0.07, -0.12) + np.array(MOUTH_Y)),
            teeth()[::-1],
            TEETH,
            jaw=1.0,
            open_=0.62,
        ),
        Part("tongue", tongue.astype(np.float32), fill((0.66, 0.30, 0.30)), WET, jaw=0.8, open_=0.62),
    ]


def eyes(head: Head, who: Person) -> list[Part]:
    """Two eyeballs, as caps; `rig` slides their pictures to look about."""
    dy, dx = np.meshgrid(np.linspace(0.125, -0.125, 13), np.linspace(-0.19, 0.19, 19), indexing="ij")
    dz = np.sqrt(np.clip(0.128**2 - (dx / 1.5) ** 2 - dy**2, 0, None))
    shade = step(dy.astype(np.float32), 0.10, -0.01) * 0.40 + 0.62 - 0.25 * (np.abs(dx) / 0.17) ** 3
    cap = np.stack([dx, dy, dz], -1)
    picture = eyeball(who)
    return [
        Part(
            f"eye{i}", (cap + centre).astype(np.float32), picture, EYE, open_=np.clip(shade, 0.2, 1).astype(np.float32)
        )
        for i, centre in enumerate(head.eyes)
    ]


def ears(head: Head, who: Person, skin: Picture) -> list[Part]:
    """Two shells at the sides of the head."""
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


def torso(who: Person, skin: Picture) -> list[Part]:
    """Neck and shoulders in one grid for the skin and one for the clothes over it."""
    table = np.array(  # y, half width, z in front, z behind, share of the head's turning
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
    table[:3, 1] *= who.shape.neck
    t = np.linspace(0, 9, 46)
    y, a, zf, zb, follow = (np.interp(t, np.arange(10), table[:, k])[:, None] for k in range(5))
    theta = columns()[None, ::2]
    cos, sin = np.cos(theta), np.sin(theta)
    z = -0.15 + np.where(cos > 0, (zf + 0.15) * np.abs(cos) ** 0.7, -(-0.15 - zb) * np.abs(cos) ** 0.7)
    drop = 0.16 * np.clip(cos, 0, 1) * step(y, -1.30, -1.65) + 0.10 * np.clip(-cos, -1, 1) * step(y, -0.9, -1.4)
    body = np.stack(np.broadcast_arrays(a * sin, y - drop, z), -1).astype(np.float32)
    x, y_at = body[..., 0], body[..., 1]
    lean = 0.30 - 0.20 * step(y_at, -0.8, -1.55)  # the two muscles from the ears to the breastbone
    body[..., 2] += 0.030 * np.exp(-(((np.abs(x) - lean) / 0.06) ** 2)) * step(z, 0, 0.1) * step(y_at, -1.7, -1.5)
    follow_all = np.broadcast_to(follow, x.shape).astype(np.float32)
    shade = np.clip(0.55 + 0.45 * step(y_at, -0.95, -1.45), 0, 1)
    cut = _neckline(who, x, z)
    out = body.copy()
    thick = 0.03 + 0.035 * np.exp(-(((y_at - cut) / 0.06) ** 2)) + (0.05 if who.collar == "high" else 0.0)
    radial = np.stack(np.broadcast_arrays(sin, 0 * sin, cos), -1)
    out += thick[..., None] * radial
    rng = np.random.default_rng([who.seed, 5])
    folds = sum(
        rng.uniform(0.004, 0.016) * np.sin(rng.uniform(2, 7) * x + rng.uniform(2, 6) * y_at + rng.uniform(0, 6))
        for _ in range(6)
    )
    out[..., 2] += np.abs(folds) * step(y_at, -1.5, -1.9)
    out[..., 1] += 0.05 * np.exp(-(((y_at - cut) / 0.07) ** 2))
    above = (y_at - cut)[:-1, :-1]
    return [
        Part("neck", body, skin, SKIN, follows=follow_all, open_=shade.astype(np.float32), hole=above < -0.3),
        Part("clothes", out.astype(np.float32), cloth(who), CLOTH, follows=follow_all * 0.6, hole=above > 0.06),
    ]


def _neckline(who: Person, x: Floats, z: Floats) -> Floats:
    front = step(z, -0.1, 0.2)
    if who.collar == "v":
        return np.where(front > 0, -1.42 - front * (0.50 * np.clip(1 - np.abs(x) / 0.42, 0, 1)), -1.36).astype(
            np.float32
        )
    if who.collar == "high":
        return np.full_like(x, -1.12)
    if who.collar == "shirt":
        return np.where(front > 0, -1.24 - 0.55 * front * np.clip(1 - np.abs(x) / 0.26, 0, 1), -1.16).astype(np.float32)
    return (-1.38 - 0.12 * front * np.clip(1 - np.abs(x) / 0.6, 0, 1)).astype(np.float32)


def hair(head: Head, who: Person) -> list[Part]:
    """A shell over the skull whose picture's alpha makes the hairline; long styles hang on below it."""
    style = who.hair
    if style == "bald":
        return []
    rng = np.random.default_rng([who.seed, 11])
    volume = {
        "buzz": 0.025,
        "short": 0.10,
        "side": 0.13,
        "curly": 0.24,
        "bob": 0.14,
        "long": 0.12,
        "wavy": 0.17,
        "bun": 0.06,
        "scarf": 0.10,
    }[style]
    end = {"bob": -0.85, "long": -1.9, "wavy": -1.75, "scarf": -1.75}.get(style, -0.85)
    y = np.concatenate(
        [np.linspace(1.17, 0.9, 8), np.linspace(0.9, 0.0, 18)[1:], np.linspace(0.0, end, 16)[1:]]
    ).astype(np.float32)
    theta = columns()[::2]
    upper = rings(-np.maximum(y, -0.02), theta, who.shape)
    skull = rings(-np.maximum(y, -0.75), theta, who.shape)
    hang = {"bob": 1.0, "long": 1.0, "wavy": 1.0, "scarf": 0.75}.get(style, 0.0)
    points = skull + hang * (upper - skull)
    points[..., 1] = np.where(y[:, None] > -0.75, points[..., 1], y[:, None])
    if hang:
        points[..., 1] = y[:, None]
        below = step(y, 0.0, end)[:, None]
        points[..., 2] *= 1 - 0.25 * below
        points[..., 0] *= 1 + (0.10 if style in ("long", "wavy") else -0.05 if style == "bob" else 0.0) * below
        if style == "scarf":
            points[..., 0] *= 1 - 0.28 * below + 0.55 * step(y, -1.15, -1.7)[:, None]
            points[..., 2] += 0.1 * below
    alpha, rise = hair_alpha(who, theta, y, rng)
    centre = np.array([0, 0.15, -0.1], np.float32)
    out = points - centre
    out[..., 1] = np.maximum(out[..., 1], 0)
    out /= np.linalg.norm(out, axis=-1, keepdims=True) + 1e-6
    wave = rng.normal(0, 0.010 if style not in ("buzz", "scarf") else 0.001, len(theta))[None, :] * np.ones((len(y), 1))
    if style in ("curly", "wavy"):
        wave = wave + 0.035 * np.sin(9 * y[:, None] + 5 * theta[None] + rng.uniform(0, 6)) * np.cos(
            7 * theta[None] - 6 * y[:, None]
        )
    points = points + out * (volume * rise + wave * rise + 0.012)[..., None]
    colour = who.clothes[::-1] if style == "scarf" else who.hair_colour
    picture = strands(colour, alpha, rng, curl=style in ("curly",), woven=style == "scarf")
    follows_of = np.broadcast_to(step(y, -1.6, -0.5)[:, None], rise.shape).astype(np.float32) if hang else 1.0
    shell = Part(
        "hair", points.astype(np.float32), picture, CLOTH if style == "scarf" else HAIR, follows=follows_of, soft=True
    )
    return [shell, *_bun(who)] if style == "bun" else [shell]


def _bun(who: Person) -> list[Part]:
    v, u = np.meshgrid(np.linspace(0.01, np.pi - 0.01, 15), np.linspace(-np.pi, np.pi, 25), indexing="ij")
    ball = np.stack([0.34 * np.sin(v) * np.cos(u), 0.27 * np.cos(v), 0.30 * np.sin(v) * np.sin(u)], -1) + (
        0,
        1.12,
        -0.62,
    )
    picture = strands(who.hair_colour, np.ones((64, 128), np.float32), np.random.default_rng(who.seed), curl=False)
    return [Part("bun", ball.astype(np.float32), picture[..., :3], HAIR)]


def _tube(line: Floats, radius: float) -> Floats:
    along = np.gradient(line, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    side = np.cross(along, (0.0, 0.0, 1.0) + 0 * along)
    weak = np.linalg.norm(side, axis=1) < 0.2
    side[weak] = np.cross(along[weak], (0.0, 1.0, 0.0))
    side /= np.linalg.norm(side, axis=1, keepdims=True) + 1e-9
    other = np.cross(along, side)
    turn = np.linspace(0, 2 * np.pi, 7)[None, :, None]
    return (line[:, None] + radius * (np.cos(turn) * side[:, None] + np.sin(turn) * other[:, None])).astype(np.float32)
