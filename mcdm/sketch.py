"""What motion tokens say, drawn where they put the face: a map beside the noise that small models learn from quickly.

The paper hands motion to the denoiser through cross-attention alone. A network of a few million weights does not learn
in minutes where a token's mouth lies; with the decoded motion drawn in its place it does. As the landmark guider of
Moore-AnimateAnyone, the drawing is added behind the first convolution and starts at zero.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from mcdm.config import CodecConfig, MotionConfig
from mcdm.faces import CANON, MOUTH, UPPER
from mcdm.motion import Motion, edges

N_POINTS = 5


def sketch_channels(codec: CodecConfig) -> int:
    """Channels of a sketch: one per picture pixel of a latent pixel, and one per landmark."""
    return codec.factor**2 + N_POINTS


@torch.no_grad()
def sketch(motion: Motion, tokens: Tensor, codec: CodecConfig) -> Tensor:
    """Normalised motion tokens (b, f, n, d) to drawings (b, f, k, h, w) at the latents' size, k `sketch_channels`.

    The motion decoder's mouth and upper face, as differences from the clip's mean, laid over the picture by the
    landmarks of the head tokens, pixels of a latent pixel as channels; and a bell of one latent pixel at each landmark.
    """
    shape, side = tokens.shape[:2], codec.latent_px
    points = torch.unflatten(motion.head_of(tokens)[..., : 2 * N_POINTS].flatten(0, 1), 1, (N_POINTS, 2)) + 0.5
    canvas = _canvas(motion.decoded(tokens), motion.config)
    laid = F.grid_sample(canvas, _places(points, codec.size_px), align_corners=False)
    at = (torch.arange(side, device=tokens.device, dtype=tokens.dtype) + 0.5) / side
    across = torch.exp(-((at - points[..., :1]) * side).square() / 2)
    down = torch.exp(-((at - points[..., 1:]) * side).square() / 2)
    bells = down[..., :, None] * across[..., None, :]
    drawn = torch.cat([F.pixel_unshuffle(laid, codec.factor), bells], 1)
    return torch.unflatten(drawn, 0, shape)


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


def _places(points: Tensor, side: int) -> Tensor:
    """Where in the aligned face the pixels of a picture lie, (n, side, side, 2) in [-1, 1], by the least-squares
    similarity (Umeyama 1991) from landmarks (n, 5, 2), shares of the picture, to `CANON`."""
    wanted = torch.as_tensor(CANON, device=points.device, dtype=points.dtype)
    middle, goal = points.mean(1, keepdim=True), wanted.mean(0)
    s, t = points - middle, wanted - goal
    norm = s.square().sum((1, 2)).clamp(min=1e-6)
    a = (s * t).sum((1, 2)) / norm
    b = (s[..., 0] * t[:, 1] - s[..., 1] * t[:, 0]).sum(1) / norm
    turn = torch.stack([torch.stack([a, -b], -1), torch.stack([b, a], -1)], 1)
    at = (torch.arange(side, device=points.device, dtype=points.dtype) + 0.5) / side
    pixels = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).view(1, -1, 2)
    there = (pixels - middle) @ turn.transpose(1, 2) + goal
    return (2 * there - 1).view(len(points), side, side, 2)
