"""What motion tokens say, drawn where they put the face: maps beside the noise that small models learn from quickly.

The paper hands motion to the denoiser through cross-attention alone. A network of a few million weights learns in
minutes neither where a token's mouth lies nor how to move a face; with the decoded motion drawn in its place, and the
reference's face laid where the head tokens want it, it has the details left. As the landmark guider of
Moore-AnimateAnyone, the drawing is added behind the first convolution.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mcdm.config import CodecConfig, MotionConfig
from mcdm.encoders import Codec
from mcdm.faces import CANON, MOUTH, UPPER
from mcdm.motion import Motion, edges

N_POINTS = 5
_RADII = (1.6, 2.1)
"""Of the ellipse that is taken for the head, in distances between the eyes. Over the reference itself the squared error
of true frames was 0.98 with (1.25, 1.7), 0.93 with these, 0.96 with (2, 2.6), 1.45 without any move."""


@dataclass(frozen=True)
class Subject:
    """Whom to draw: latents of the reference and of the frame that the face is laid over, (b, 1, c, h, w) each, and the
    reference's landmarks (b, 5, 2) as shares of the picture."""

    reference: Tensor
    ground: Tensor
    points: Tensor


def sketch_channels(codec: CodecConfig) -> int:
    """Channels of a sketch: the latents', then one per picture pixel of a latent pixel, and one per landmark."""
    return codec.channels + codec.factor**2 + N_POINTS


@torch.no_grad()
def sketch(motion: Motion, codec: Codec, config: CodecConfig, tokens: Tensor, subject: Subject) -> Tensor:
    """Normalised motion tokens (b, f, n, d) to drawings (b, f, k, h, w) at the latents' size, k `sketch_channels`.

    First the latents that must be added to the ground to put the reference's face where the head tokens want it;
    then the motion decoder's mouth and upper face, as differences from the clip's mean, laid over the picture by the
    landmarks; then a bell of one latent pixel at each landmark.
    """
    shape, side, size = tokens.shape[:2], config.latent_px, config.size_px
    points = torch.unflatten(motion.head_of(tokens)[..., : 2 * N_POINTS].flatten(0, 1), 1, (N_POINTS, 2)) + 0.5
    canvas = _canvas(motion.decoded(tokens), motion.config)
    canon = torch.as_tensor(CANON, device=points.device, dtype=points.dtype).expand_as(points)
    laid = F.grid_sample(canvas, _places(points, canon, size), align_corners=False)
    at = _middles(side, points)
    across = torch.exp(-((at - points[..., :1]) * side).square() / 2)
    down = torch.exp(-((at - points[..., 1:]) * side).square() / 2)
    bells = down[..., :, None] * across[..., None, :]
    moved = _moved_face(codec, subject, points, size)
    return torch.unflatten(torch.cat([moved, F.pixel_unshuffle(laid, config.factor), bells], 1), 0, shape)


def _moved_face(codec: Codec, subject: Subject, points: Tensor, size: int) -> Tensor:
    """Latents (n, c, h, w) of the reference's face moved to landmarks (n, 5, 2), less the ground there."""
    each = len(points) // len(subject.points)
    reference, ground = (
        codec.decode(latents[:, 0]).repeat_interleave(each, 0) for latents in (subject.reference, subject.ground)
    )
    where = _places(points, subject.points.repeat_interleave(each, 0), size)
    warped = F.grid_sample(reference, where, padding_mode="border", align_corners=False)
    at = _middles(size, points)
    centre, eyes = points.mean(1), (points[:, 1] - points[:, 0]).norm(dim=-1).clamp(min=0.1)
    across = ((at - centre[:, :1]) / (_RADII[0] * eyes[:, None])).square()
    down = ((at - centre[:, 1:]) / (_RADII[1] * eyes[:, None])).square()
    face = torch.sigmoid(6 * (1 - down[:, :, None] - across[:, None, :]))[:, None]
    return codec.encode(face * (warped - ground))


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


def _places(points: Tensor, goal: Tensor, side: int) -> Tensor:
    """Where the pixels of a picture with landmarks `points` lie in one with landmarks `goal`, (n, 5, 2) each, shares
    of the picture, by the least-squares similarity (Umeyama 1991): (n, side, side, 2) in [-1, 1]."""
    middle, there = points.mean(1, keepdim=True), goal.mean(1, keepdim=True)
    s, t = points - middle, goal - there
    norm = s.square().sum((1, 2)).clamp(min=1e-6)
    a = (s * t).sum((1, 2)) / norm
    b = (s[..., 0] * t[..., 1] - s[..., 1] * t[..., 0]).sum(1) / norm
    turn = torch.stack([torch.stack([a, -b], -1), torch.stack([b, a], -1)], 1)
    at = _middles(side, points)
    pixels = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).view(1, -1, 2)
    found = (pixels - middle) @ turn.transpose(1, 2) + there
    return (2 * found - 1).view(len(points), side, side, 2)


def _middles(side: int, like: Tensor) -> Tensor:
    """The middles of `side` pixels in a row, as shares."""
    return (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) / side
