"""From a posed body to pixels: vertices lit, OpenCV's z-buffer filled, pictures looked up, layers blended."""

from dataclasses import dataclass

import cv2
import numpy as np

from manifests.sample.head import Floats, Ints
from manifests.sample.rig import Body, Layer
from manifests.sample.scene import Light
from manifests.sample.texture import TEXELS

_FOV = 0.5
_FAR = 100.0
_UPRIGHT = np.eye(4, dtype=np.float32)


@dataclass(frozen=True)
class View:
    """A window on the scene: what part of the frame is drawn, at what scale."""

    px_per_dm: float  # at the head's distance
    origin: tuple[float, float]  # pixel of the window where head coordinates (0, 0) fall
    size: tuple[int, int]  # of the window: width, height
    distance: float  # camera to head, decimetres

    def project(self, points: Floats) -> Floats:
        """Window pixels and depth: (N, 3)."""
        depth = np.float32(self.distance) - points[:, 2]
        scale = np.float32(self.px_per_dm * self.distance) / depth
        x, y = np.float32(self.origin[0]), np.float32(self.origin[1])
        return np.stack([x + scale * points[:, 0], y - scale * points[:, 1], depth], -1)


def normals(body: Body, at: Floats) -> Floats:
    """Unit normals of the vertices, outwards."""
    flat = []
    for layer in body.layers:
        a, b, c = (at[layer.triangles[:, k]] for k in range(3))
        e, f = b - a, c - a
        flat.append(
            np.stack(
                [
                    e[:, 1] * f[:, 2] - e[:, 2] * f[:, 1],
                    e[:, 2] * f[:, 0] - e[:, 0] * f[:, 2],
                    e[:, 0] * f[:, 1] - e[:, 1] * f[:, 0],
                ],
                -1,
            )
        )
    summed = body.normal_sum @ np.concatenate(flat)
    unit: Floats = summed / (np.sqrt(np.einsum("ij,ij->i", summed, summed))[:, None] + 1e-9)
    return unit


def shadow(body: Body, at: Floats, light: Light) -> Floats:
    """Share of the key light that reaches each vertex: a variance shadow map (Donnelly and Lauritzen, 2006)."""
    key = np.array(light.key, np.float32)
    right = np.cross((0, 1, 0), key)
    right /= np.linalg.norm(right)
    frame = np.stack([right, np.cross(key, right), key]).astype(np.float32)
    seen = (at - np.array((0, -0.4, 0), np.float32)) @ frame.T
    size, reach = 160, 1.75
    half = np.float32(np.tan(_FOV / 2))
    depth = np.float32(6.0) - seen[:, 2]
    flat = np.stack([seen[:, 0] / reach * half * depth, seen[:, 1] / reach * half * depth, -depth], -1).astype(
        np.float32
    )
    buffer = np.full((size, size), 9.0, np.float32)
    cv2.triangleRasterizeDepth(flat, body.casters, buffer, _UPRIGHT, _FOV, 1.0, _FAR, _settings())
    soft = 1.2 + 3.5 * (1 - light.hardness)
    mean = cv2.GaussianBlur(buffer, (0, 0), soft)
    square = cv2.GaussianBlur(buffer * buffer, (0, 0), soft)
    u = ((seen[:, 0] / reach + 1) * size / 2 - 0.5).astype(np.float32)[None]
    v = ((1 - seen[:, 1] / reach) * size / 2 - 0.5).astype(np.float32)[None]
    m = cv2.remap(mean, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=9.0)[0]
    s = cv2.remap(square, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=81.0)[0]
    beyond = depth - 0.055 - m
    variance = np.maximum(s - m * m, 4e-4)
    lit = np.where(beyond <= 0, 1.0, variance / (variance + beyond * beyond))
    return np.clip((lit - 0.15) / 0.85, 0, 1).astype(np.float32)


def shade(body: Body, normal: Floats, light: Light, lit: Floats | float) -> Floats:
    """What each vertex multiplies its picture by, (N, 3): light and sheen, as displayed (gamma 2)."""
    key = np.array(light.key, np.float32)
    fill = np.array((-0.8 * np.sign(key[0]), 0.15, 0.55), np.float32)
    rim = np.array((-0.7 * np.sign(key[0]), 0.35, -0.65), np.float32)
    half = key + np.array((0, 0, 1), np.float32)
    half /= np.linalg.norm(half)
    facing = normal @ np.stack([key, fill, rim, half]).T
    wrap = _WRAP[body.material]
    direct = np.clip((facing[:, 0] + wrap) / (1 + wrap), 0, 1) * lit
    side = np.clip((facing[:, 1] + 0.3) / 1.3, 0, 1) * body.open_
    behind = np.clip(facing[:, 2], 0, 1) ** 2
    above = (0.5 + 0.5 * normal[:, 1]) * body.open_
    bleed = _BLEED[body.material] * np.exp(-(((direct - 0.25) / 0.22) ** 2))
    direct *= 0.35 + 0.65 * body.open_
    sky, ground = np.array(light.sky, np.float32), np.array(light.ground, np.float32)
    terms = np.stack([direct, side, behind, body.open_, above, bleed], -1)
    colours = np.stack([light.key_colour, light.fill_colour, light.rim_colour, ground, sky - ground, (1.0, 0.18, 0.08)])
    total = np.sqrt(np.clip(terms @ colours.astype(np.float32), 0, 2.2))
    ndh = np.clip(facing[:, 3], 0, 1)
    sheen = _SHEEN[body.material] * ndh ** _GLOSS[body.material] * np.minimum(lit, body.open_ * body.open_)
    strand = body.strands
    along = body.tangents @ half
    sheen[strand] += 0.16 * (1 - along * along) ** 14 * np.clip(facing[strand, 0] + 0.3, 0, 1) * body.open_[strand]
    sheen *= float(np.mean(light.key_colour)) / body.brightness
    lights: Floats = total + sheen[:, None]
    return lights


# By material: SKIN, WET, TEETH, EYE, CLOTH, HAIR, FRAME.
_WRAP = np.array([0.30, 0.2, 0.2, 0.12, 0.12, 0.45, 0.12], np.float32)
_BLEED = np.array([0.10, 0, 0, 0, 0, 0, 0], np.float32)
_SHEEN = np.array([0.13, 0.25, 0.22, 0.10, 0.0, 0.02, 0.5], np.float32)
_GLOSS = np.array([14.0, 30.0, 24.0, 40.0, 1.0, 6.0, 20.0], np.float32)


def paint(
    body: Body, at: Floats, uvs: tuple[Floats, Floats], light: Light, view: View, *, shadows: bool = True
) -> tuple[Floats, Floats]:
    """Draw all layers in a window: colour premultiplied by coverage (h, w, 3) 0..255, and coverage (h, w)."""
    normal = normals(body, at)
    lights = shade(body, normal, light, shadow(body, at, light) if shadows else 1.0)
    seen = view.project(at)
    depth = np.full(view.size[::-1], _FAR, np.float32)
    flat = _unproject(seen, view)
    firm, soft = body.layers
    colour = _fill(firm, flat, _facing(firm.triangles, seen, view), lights, uvs[0], view, depth)
    alpha = (depth < _FAR).astype(np.float32)
    if soft.first >= 0:
        _lay_over(colour, alpha, soft, seen, lights, uvs[1], view, depth)
    return colour, alpha


def _lay_over(
    colour: Floats,
    alpha: Floats,
    layer: Layer,
    seen: Floats,
    lights: Floats,
    uv: Floats,
    view: View,
    depth: Floats,
) -> None:
    """Blend a layer with an alpha of its own over what is drawn, in the rectangle that it covers."""
    mine = seen[layer.first : layer.last, :2]
    w, h = view.size
    x0, y0 = (int(np.clip(v - 1, 0, limit)) for v, limit in zip(mine.min(0), (w, h), strict=True))
    x1, y1 = (int(np.clip(v + 2, 0, limit)) for v, limit in zip(mine.max(0), (w, h), strict=True))
    if x1 - x0 < 2 or y1 - y0 < 2:
        return
    part = View(view.px_per_dm, (view.origin[0] - x0, view.origin[1] - y0), (x1 - x0, y1 - y0), view.distance)
    moved = _unproject(seen - np.array((x0, y0, 0), np.float32), part)
    before = np.ascontiguousarray(depth[y0:y1, x0:x1])
    after = before.copy()
    over = _fill(layer, moved, layer.triangles, lights, uv, part, after)
    share = over[..., 3] * (after < before) * np.float32(1 / 255)
    under, cover = colour[y0:y1, x0:x1], alpha[y0:y1, x0:x1]
    under += share[..., None] * (over[..., :3] - under)
    cover += share * (1 - cover)


def _fill(layer: Layer, flat: Floats, triangles: Ints, lights: Floats, uv: Floats, view: View, depth: Floats) -> Floats:
    """Draw a layer into `depth`; give its colours (h, w, 3 or 4), 0..255, black where there is nothing."""
    at = np.full((*view.size[::-1], 3), -9.0, np.float32)
    values = np.empty((len(flat), 3), np.float32)
    values[layer.first : layer.last, :2] = uv
    cv2.triangleRasterize(flat, triangles, values, at, depth, _UPRIGHT, _FOV, 0.5, _FAR, _settings())
    across, down = layer.cells
    glow = np.zeros((down * across, 4), np.float32)
    glow[layer.slots, :3] = lights[layer.first : layer.last]
    glow[layer.slots, 3] = 1
    glow = _spread(glow.reshape(down, across, 4))
    u, v, _ = cv2.split(at)
    light = cv2.remap(glow, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    level = 0 if view.px_per_dm > 110 else 1 if view.px_per_dm > 55 else 2
    scale = TEXELS >> level
    cv2.multiply(u, float(scale), dst=u)
    cv2.multiply(v, float(scale), dst=v)
    cv2.add(u, 0.5 * scale - 0.5, dst=u)
    cv2.add(v, 0.5 * scale - 0.5, dst=v)
    picture = cv2.remap(layer.atlas[level], u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    if picture.shape[2] == 3:
        drawn: Floats = cv2.multiply(picture, light, dtype=cv2.CV_32F)
        return drawn
    lit: Floats = cv2.multiply(picture[..., :3], light, dtype=cv2.CV_32F)
    return np.dstack([lit, picture[..., 3]])


def _spread(glow: Floats) -> Floats:
    """Light for the cells without a vertex of their own: the mean of those around, by normalised convolution."""
    around = cv2.blur(cv2.blur(glow, (3, 3)), (3, 3))
    filled: Floats = np.where(glow[..., 3:] > 0, glow[..., :3], around[..., :3] / np.maximum(around[..., 3:], 1e-6))
    return filled


def _facing(triangles: Ints, seen: Floats, view: View) -> Ints:
    """Triangles that face the camera and are not wholly beside the window."""
    x, y = np.ascontiguousarray(seen[:, 0]), np.ascontiguousarray(seen[:, 1])
    a, b, c = triangles.T
    xa, ya, xb, yb, xc, yc = x[a], y[a], x[b], y[b], x[c], y[c]
    towards = (xb - xa) * (yc - ya) - (yb - ya) * (xc - xa) < 0
    towards &= (np.minimum(np.minimum(xa, xb), xc) < view.size[0]) & (np.minimum(np.minimum(ya, yb), yc) < view.size[1])
    return np.asarray(triangles[towards], np.int32)


def _unproject(seen: Floats, view: View) -> Floats:
    """Camera coordinates that OpenCV's projection brings to the window pixels we want."""
    w, h = view.size
    half = np.float32(np.tan(_FOV / 2) / (h / 2)) * seen[:, 2]
    return np.stack([(seen[:, 0] - w / 2) * half, (h / 2 - seen[:, 1]) * half, -seen[:, 2]], -1)


def _settings() -> cv2.TriangleRasterizeSettings:
    settings = cv2.TriangleRasterizeSettings()
    settings.setShadingType(cv2.RASTERIZE_SHADING_SHADED)
    settings.setCullingMode(cv2.RASTERIZE_CULLING_NONE)
    return settings
