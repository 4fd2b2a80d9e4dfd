"""From a posed body to pixels: vertices lit, triangles filled by OpenCV's z-buffer, pictures looked up, layers blended."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from manifests.sample import parts as p
from manifests.sample.head import Floats, Ints
from manifests.sample.rig import Body, Layer
from manifests.sample.scene import Light

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
        depth = self.distance - points[:, 2]
        scale = self.px_per_dm * self.distance / depth
        return np.stack([self.origin[0] + scale * points[:, 0], self.origin[1] - scale * points[:, 1], depth], -1)


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
    return summed / (np.sqrt(np.einsum("ij,ij->i", summed, summed))[:, None] + 1e-9)


def shadow(body: Body, at: Floats, light: Light) -> Floats:
    """Share of the key light that reaches each vertex: a variance shadow map (Donnelly and Lauritzen, 2006)."""
    key = np.array(light.key, np.float32)
    right = np.cross((0, 1, 0), key)
    right /= np.linalg.norm(right)
    frame = np.stack([right, np.cross(key, right), key]).astype(np.float32)
    seen = (at - (0, -0.4, 0)) @ frame.T
    size, reach = 160, 1.75
    half = np.tan(_FOV / 2)
    depth = 6.0 - seen[:, 2]
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


def shade(body: Body, at: Floats, normal: Floats, light: Light, lit: Floats | float) -> tuple[Floats, Floats]:
    """Light that leaves each vertex: a factor for its picture, (N, 3), and a sheen on top, (N,), both as displayed."""
    key = np.array(light.key, np.float32)
    fill = np.array((-0.8 * np.sign(key[0]), 0.15, 0.55), np.float32)
    rim = np.array((-0.7 * np.sign(key[0]), 0.35, -0.65), np.float32)
    is_skin, is_hair = (body.material == p.SKIN), (body.material == p.HAIR)
    wrap = np.where(is_skin, 0.30, np.where(is_hair, 0.45, 0.12)).astype(np.float32)
    ndl = normal @ key
    direct = np.clip((ndl + wrap) / (1 + wrap), 0, 1) * np.minimum(1.0, lit + 0.0)
    bleed = np.where(is_skin, 0.10, 0)[:, None] * np.exp(-(((direct - 0.25) / 0.22) ** 2))[:, None]
    side = np.clip((normal @ fill + 0.3) / 1.3, 0, 1)
    behind = np.clip(normal @ rim, 0, 1) ** 2
    above = (0.5 + 0.5 * normal[:, 1])[:, None]
    ambient = np.array(light.ground, np.float32) + above * (
        np.array(light.sky, np.float32) - np.array(light.ground, np.float32)
    )
    open_ = body.open_[:, None]
    total = direct[:, None] * np.array(light.key_colour, np.float32) * (0.35 + 0.65 * open_)
    total += bleed * np.array((1.0, 0.18, 0.08), np.float32)
    total += open_ * (ambient + side[:, None] * np.array(light.fill_colour, np.float32))
    total += behind[:, None] * np.array(light.rim_colour, np.float32)
    half = key + np.array((0, 0, 1), np.float32)
    half /= np.linalg.norm(half)
    ndh = np.clip(normal @ half, 0, 1)
    sheen = _SHEEN[body.material] * ndh ** _GLOSS[body.material] * np.minimum(lit, open_[:, 0] ** 2)
    if is_hair.any():
        along = body.tangent_rows @ half
        sheen += is_hair * 0.16 * np.clip(1 - along * along, 0, 1) ** 14 * np.clip(ndl + 0.3, 0, 1) * open_[:, 0]
    strength = float(np.mean(light.key_colour))
    return np.sqrt(np.clip(total, 0, 2.2)).astype(np.float32), (sheen * strength).astype(np.float32)


_SHEEN = np.array([0.13, 0.25, 0.22, 0.10, 0.0, 0.02, 0.5], np.float32)
_GLOSS = np.array([14.0, 30.0, 24.0, 40.0, 1.0, 6.0, 20.0], np.float32)


def paint(
    body: Body, at: Floats, uvs: tuple[Floats, Floats], light: Light, view: View, *, shadows: bool = True
) -> tuple[Floats, Floats]:
    """Draw all layers in a window: colour premultiplied by coverage (h, w, 3) 0..255, and coverage (h, w)."""
    normal = normals(body, at)
    lit = shadow(body, at, light) if shadows else 1.0
    factor, sheen = shade(body, at, normal, light, lit)
    seen = view.project(at)
    depth = np.full(view.size[::-1], _FAR, np.float32)
    flat = _unproject(seen, view)
    lights = np.concatenate([factor, sheen[:, None]], -1)
    colour, mask = _fill(body.layers[0], flat, seen, lights, uvs[0], view, depth)
    alpha = mask.astype(np.float32)
    colour *= alpha[..., None]
    if body.layers[1].first >= 0:
        over, mask = _fill(body.layers[1], flat, seen, lights, uvs[1], view, depth)
        share = over[..., 3] * mask * (1 / 255)
        colour += share[..., None] * (over[..., :3] - colour)
        alpha = alpha + share * (1 - alpha)
    return colour, alpha


def _fill(
    layer: Layer, flat: Floats, seen: Floats, lit: Floats, uv: Floats, view: View, depth: Floats
) -> tuple[Floats, NDArray[np.bool_]]:
    """Draw a layer into `depth`; give its colours (h, w, 3 or 4), 0..255, and where they are."""
    before = depth.copy() if layer.first else np.float32(_FAR)
    at = np.zeros((*view.size[::-1], 3), np.float32)
    values = np.zeros((len(flat), 3), np.float32)
    values[layer.first : layer.last, :2] = uv
    triangles = _facing(layer.triangles, seen, view) if layer.first == 0 else layer.triangles
    cv2.triangleRasterize(flat, triangles, values, at, depth, _UPRIGHT, _FOV, 0.5, _FAR, _settings())
    mask = depth < before
    across, down = layer.cells
    glow = np.zeros((down * across, 4), np.float32)
    glow[layer.slots] = lit[layer.first : layer.last]
    level = 0 if view.px_per_dm > 110 else 1 if view.px_per_dm > 55 else 2
    atlas = layer.atlas[level]
    u, v, _ = cv2.split(at)
    light = cv2.remap(glow.reshape(down, across, 4), u * across - 0.5, v * down - 0.5, cv2.INTER_LINEAR)
    h, w = atlas.shape[:2]
    picture = cv2.remap(atlas, u * w - 0.5, v * h - 0.5, cv2.INTER_LINEAR).astype(np.float32)
    picture[..., :3] *= light[..., :3]
    picture[..., :3] += 255 * light[..., 3:]
    return picture, mask


def _facing(triangles: Ints, seen: Floats, view: View) -> Ints:
    """Triangles that face the camera and are not wholly beside the window."""
    x, y = np.ascontiguousarray(seen[:, 0], np.float32), np.ascontiguousarray(seen[:, 1], np.float32)
    a, b, c = triangles.T
    xa, ya, xb, yb, xc, yc = x[a], y[a], x[b], y[b], x[c], y[c]
    towards = (xb - xa) * (yc - ya) - (yb - ya) * (xc - xa) < 0
    towards &= (np.minimum(np.minimum(xa, xb), xc) < view.size[0]) & (np.minimum(np.minimum(ya, yb), yc) < view.size[1])
    return triangles[towards]


def _unproject(seen: Floats, view: View) -> Floats:
    """Camera coordinates that OpenCV's projection brings to the window pixels we want."""
    w, h = view.size
    half = np.tan(_FOV / 2) * seen[:, 2] / (h / 2)
    return np.stack([(seen[:, 0] - w / 2) * half, (h / 2 - seen[:, 1]) * half, -seen[:, 2]], -1).astype(np.float32)


def _settings() -> object:
    settings = cv2.TriangleRasterizeSettings()
    settings.setShadingType(cv2.RASTERIZE_SHADING_SHADED)
    settings.setCullingMode(cv2.RASTERIZE_CULLING_NONE)
    return settings
