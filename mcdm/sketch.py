"""What motion tokens say, drawn where they put the face: maps beside the noise that small models learn from quickly.

The paper hands motion to the denoiser through cross-attention alone. A network of a few million weights learns in
minutes neither where a token's mouth lies nor how to move a face; with the decoded motion drawn in its place, and the
reference's face laid where the head tokens want it, it has the details left. As the landmark guider of
Moore-AnimateAnyone, the drawing is added behind the first convolution.
"""

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from mcdm.config import CodecConfig, MotionConfig
from mcdm.encoders import Codec
from mcdm.faces import CANON, MOUTH, UPPER
from mcdm.motion import Motion, edges
from mcdm.precision import full_precision

N_POINTS = 5
_RADII = (1.6, 2.1)
"""Of the ellipse that is taken for the head, in distances between the eyes: half of the move is left at its rim."""

_STIFF = 2.0
"""How much less than the landmarks say a head is turned and scaled: they jitter, and turn with a head that looks aside.
With their own turn and scale the moved reference was like the true frames by SSIM 0.695, with this 0.720, with a shift
alone 0.720; with the pictures blended over the ellipse in place of the ways 0.675, and without any move 0.568."""


def sketch_channels(codec: CodecConfig) -> int:
    """Channels of a sketch: one per picture pixel of a latent pixel, and one per landmark."""
    return codec.factor**2 + N_POINTS


@torch.no_grad()
def sketch(motion: Motion, config: CodecConfig, tokens: Tensor) -> Tensor:
    """Normalised motion tokens (b, f, n, d) to drawings (b, f, k, h, w) at the latents' size, k `sketch_channels`.

    The motion decoder's mouth and upper face, as differences from the clip's mean, laid over the picture by the
    landmarks of the head tokens, pixels of a latent pixel as channels; then a bell of one latent pixel per landmark.
    """
    tokens, shape, side = tokens.float(), tokens.shape[:2], config.latent_px
    with full_precision(tokens.device):
        return torch.unflatten(_drawn(motion, config, tokens, side), 0, shape)


def _drawn(motion: Motion, config: CodecConfig, tokens: Tensor, side: int) -> Tensor:
    points = landmarks_of(motion, tokens).flatten(0, 1)
    canvas = _canvas(motion.decoded(tokens), motion.config)
    canon = _canon(points.device).expand_as(points)
    laid = F.grid_sample(canvas, _places(points, canon, config.size_px), align_corners=False)
    at = _middles(side, points)
    across = torch.exp(-((at - points[..., :1]) * side).square() / 2)
    down = torch.exp(-((at - points[..., 1:]) * side).square() / 2)
    bells = down[..., :, None] * across[..., None, :]
    return torch.cat([F.pixel_unshuffle(laid, config.factor), bells], 1)


@cache
def _canon(device: torch.device) -> Tensor:
    """`CANON` on a device, (5, 2) float32, copied there once: each copy waits for all that the GPU has still to do."""
    return torch.as_tensor(CANON, device=device, dtype=torch.float32)


@torch.no_grad()
def landmarks_of(motion: Motion, tokens: Tensor) -> Tensor:
    """Where normalised motion tokens (b, f, n, d) put the landmarks: (b, f, 5, 2), shares of the picture."""
    with full_precision(tokens.device):
        return torch.unflatten(motion.head_of(tokens.float())[..., : 2 * N_POINTS], 2, (N_POINTS, 2)) + 0.5


@torch.no_grad()
def placed(codec: Codec, reference: Tensor, own: Tensor, points: Tensor) -> Tensor:
    """The reference (b, 1, c, h, w), with landmarks (b, 5, 2), its head moved to landmarks (b, f, 5, 2), shares of the
    picture: latents (b, f, c, h, w). Moved by a similarity near the head, less and less away from it.

    What fades is the way that pixels go, not the picture: so nothing is seen twice.
    """
    with full_precision(points.device):
        return torch.unflatten(_moved(codec, reference.float(), own.float(), points.float()), 0, points.shape[:2])


def _moved(codec: Codec, reference: Tensor, own: Tensor, points: Tensor) -> Tensor:
    f, goal = points.shape[1], points.flatten(0, 1)
    picture = codec.decode(reference[:, 0]).repeat_interleave(f, 0)
    at = _middles(picture.shape[-1], goal)
    there = _places(goal, own.repeat_interleave(f, 0), picture.shape[-1], _STIFF)
    here = 2 * torch.stack(torch.meshgrid(at, at, indexing="xy"), -1) - 1
    centre, eyes = goal.mean(1), (goal[:, 1] - goal[:, 0]).norm(dim=-1).clamp(min=0.1)
    across = ((at - centre[:, :1]) / (_RADII[0] * eyes[:, None])).square()
    down = ((at - centre[:, 1:]) / (_RADII[1] * eyes[:, None])).square()
    head = torch.sigmoid(2.5 * (1 - down[:, :, None] - across[:, None, :]))[..., None] * (1 + math.exp(-2.5))
    moved = F.grid_sample(
        picture, here + head * (there - here), mode="bicubic", padding_mode="border", align_corners=False
    )
    return codec.encode(moved.clamp(-1, 1))


def mouth_map(head: Tensor, side: int) -> Tensor:
    """Where the mouth is, for head states (b, f, 13): (b, f, 1, side, side), a bell from 1 at its middle, as wide as
    the mouth at half height."""
    corners = torch.unflatten(head[..., 6:10], -1, (2, 2))
    middle, width = corners.mean(2), (corners[:, :, 1] - corners[:, :, 0]).norm(dim=-1).clamp(min=0.03)
    at = (torch.arange(side, device=head.device, dtype=head.dtype) + 0.5) / side - 0.5
    across = ((at - middle[..., :1]) / width[..., None]).square()
    down = ((at - middle[..., 1:]) / width[..., None]).square()
    return torch.exp(-2.77 * (down[..., :, None] + across[..., None, :]))[:, :, None]


def counted(head: Tensor, side: int, mouth_weight: float, gate: Tensor | None) -> Tensor:
    """How much an error counts, (b, f, 1, side, side), 1 on average over a clip: `mouth_weight` more at the mouth of
    head states (b, f, 13), and as far as the gate (b, f, 1, h, w) lets an answer count."""
    places = 1 + mouth_weight * mouth_map(head, side)
    if gate is not None:
        size = F.interpolate(gate.flatten(0, 1), (side, side), mode="bilinear", align_corners=False)
        places = places * torch.unflatten(size, 0, gate.shape[:2])
    return places / places.mean((1, 2, 3, 4), keepdim=True)


def repainted(points: Tensor, side: int) -> Tensor:
    """Where a face changes by itself, for landmarks (b, f, 5, 2), shares of the picture: (b, f, 1, side, side), near 1
    over both eyes with their brows and over mouth and chin, 0 elsewhere."""
    eyes = (points[..., 1, :] - points[..., 0, :]).norm(dim=-1).clamp(min=0.1)[..., None]
    mouth, at = points[..., 3:, :].mean(-2), _middles(side, points)
    down = (mouth - points[..., :2, :].mean(-2)) / 2
    kept: Tensor = torch.ones(*points.shape[:2], side, side, device=points.device, dtype=points.dtype)
    for middle, radius in ((points[..., 0, :], 0.45), (points[..., 1, :], 0.45), (mouth + 0.2 * down, 0.75)):
        across = ((at - middle[..., :1]) / (radius * eyes)).square()
        along = ((at - middle[..., 1:]) / (radius * eyes)).square()
        kept = kept * torch.sigmoid(-5 * (1 - along[..., :, None] - across[..., None, :]))
    places: Tensor = (1 - kept)[:, :, None]
    return places


def picture_error(codec: Codec, made: Tensor, true: Tensor) -> Tensor:
    """Absolute error of latents (n, c, h, w) as pictures, of the pictures' slopes, and of how steep they are around a
    pixel, wherever: (n, 3, size, size).

    The squared error of an edge that may lie here or there is least for a blurred one; the absolute error for an edge
    in the middle, and the last term wants an edge whether its place is known or not.
    """
    pictures, wanted = codec.decode(made), codec.decode(true)
    (across, down), (across_true, down_true) = _slopes(pictures), _slopes(wanted)
    steep = _steepness(across, down) - _steepness(across_true, down_true)
    return (pictures - wanted).abs() + (across - across_true).abs() + (down - down_true).abs() + steep.abs()


def _slopes(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of pictures (n, c, h, w) to the next column and row, of their size."""
    return F.pad(pictures.diff(dim=-1), (0, 1)), F.pad(pictures.diff(dim=-2), (0, 0, 0, 1))


def _steepness(across: Tensor, down: Tensor) -> Tensor:
    """Root mean square of slopes over 5 x 5 pixels."""
    return (F.avg_pool2d(across.square() + down.square(), 5, stride=1, padding=2) + 1e-4).sqrt()


def _canvas(flat: tuple[Tensor, Tensor], config: MotionConfig) -> Tensor:
    """Decoded lip motion (n, p) and the rest (n, q) as aligned pictures (n, 1, side, side), zero elsewhere."""
    canvas = flat[0].new_zeros(len(flat[0]), 1, config.face_px, config.face_px)
    for part, box, shrink in zip(flat, (MOUTH, UPPER), (2, 4), strict=True):
        top, bottom, left, right = edges(config.face_px, box)
        rows, columns = (bottom - top) // shrink, (right - left) // shrink
        patch = torch.unflatten(part[:, : rows * columns], 1, (1, rows, columns))
        large = F.interpolate(patch, scale_factor=float(shrink), mode="bilinear", align_corners=False)
        canvas[..., top : top + shrink * rows, left : left + shrink * columns] = large
    return canvas


def _places(points: Tensor, goal: Tensor, side: int, stiff: float = 0.0) -> Tensor:
    """Where the pixels of a picture with landmarks `points` lie in one with landmarks `goal`, (n, 5, 2) each, shares
    of the picture, by the least-squares similarity (Umeyama 1991): (n, side, side, 2) in [-1, 1].

    `stiff` draws its turn and scale towards none."""
    middle, there = points.mean(1, keepdim=True), goal.mean(1, keepdim=True)
    s, t = points - middle, goal - there
    norm = s.square().sum((1, 2)).clamp(min=1e-6)
    a = ((s * t).sum((1, 2)) / norm + stiff) / (1 + stiff)
    b = (s[..., 0] * t[..., 1] - s[..., 1] * t[..., 0]).sum(1) / norm / (1 + stiff)
    a, b = a[:, None], b[:, None]
    at = _middles(side, points)
    x, y = (torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).view(1, -1, 2) - middle).unbind(-1)
    # Written out: a matrix product may keep 11 bits on a GPU.
    found = torch.stack([a * x - b * y, b * x + a * y], -1) + there
    return (2 * found - 1).view(len(points), side, side, 2)


def _middles(side: int, like: Tensor) -> Tensor:
    """The middles of `side` pixels in a row, as shares."""
    return (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) / side
