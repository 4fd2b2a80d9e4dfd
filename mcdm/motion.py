"""Stage 0 (supplement B.2 of MCDM): lip and expression encoders, the landmark guider, and the decoder that tests them.

The paper gives: two 4-layer transformers, pairs that share expression or lip motion, a decoder of facial motion, and
self-reconstruction, cross-reconstruction and consistency. What the motion targets are is this project's choice, see
`mcdm.faces`. The paper's head encoder is a ready-made landmark guider; here it is a small one of the same kind
(stride-2 convolutions over drawn landmarks), which learns beside the others by giving the landmarks and pose back.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mcdm.config import MotionConfig
from mcdm.faces import MOUTH, UPPER
from mcdm.precision import full_precision

MAP_PX = 32
"""Side of the drawn landmark maps."""

N_HEAD = 13
"""Five landmarks (x, y), as shares of the crop minus one half, and yaw, pitch, roll over 90 degrees."""


class FaceEncoder(nn.Module):
    """Aligned grey faces (n, side, side) in [-1, 1] to k tokens (n, k, d): a transformer over patches.

    Every face is brought to mean 0 and spread 1: light and skin are not motion. The tokens are a linear map of all
    patches; tokens that had to learn what to attend to first stayed constant for the whole of `tiny`'s stage 0.
    """

    def __init__(self, config: MotionConfig, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        count, narrow = (config.face_px // config.patch_px) ** 2, config.width // 4
        self.patchify = nn.Conv2d(1, config.width, config.patch_px, config.patch_px)
        self.place = nn.Parameter(torch.randn(count, config.width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            config.width,
            config.heads,
            2 * config.width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.narrow = nn.Linear(config.width, narrow)
        self.answer = nn.Linear(count * narrow, tokens * config.token_width)
        self.level = nn.LayerNorm(config.token_width, elementwise_affine=False)

    def forward(self, faces: Tensor) -> Tensor:
        spread, mean = torch.std_mean(faces, (1, 2), keepdim=True)
        even = (faces - mean) / spread.clamp(min=0.05)
        patches = self.layers(self.patchify(even[:, None]).flatten(2).transpose(1, 2) + self.place)
        flat: Tensor = self.answer(self.narrow(patches).flatten(1))
        tokens: Tensor = self.level(torch.unflatten(flat, 1, (self.tokens, -1)))
        return tokens


class LandmarkGuider(nn.Module):
    """Head state (n, 13), see `N_HEAD`, to head tokens (n, k, d): drawn landmarks through stride-2 convolutions."""

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        width = config.width
        self.tokens = config.head_tokens
        self.draw = nn.Sequential(
            nn.Conv2d(5, width // 4, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(width // 4, width // 2, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.answer = nn.Linear(4 * width + N_HEAD, self.tokens * config.token_width)
        self.level = nn.LayerNorm(config.token_width, elementwise_affine=False)

    def forward(self, head: Tensor) -> Tensor:
        at = (torch.arange(MAP_PX, device=head.device, dtype=head.dtype) + 0.5) / MAP_PX - 0.5
        points = head[:, :10].view(-1, 5, 2)
        x = torch.exp(-((at - points[..., :1]) ** 2) * 400)
        y = torch.exp(-((at - points[..., 1:]) ** 2) * 400)
        features = torch.cat([self.draw(y[..., :, None] * x[..., None, :]), head], 1)
        tokens: Tensor = self.level(torch.unflatten(self.answer(features), 1, (self.tokens, -1)))
        return tokens


class MotionDecoder(nn.Module):
    """Lip and expression tokens to facial motion: mouth patch and corners, upper face, eyes and nose, flat (n, m)."""

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        lip, rest = motion_sizes(config.face_px)
        width = config.token_width * (config.lip_tokens + config.expression_tokens)
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(width, 4 * config.width), nn.GELU(), nn.Linear(4 * config.width, lip + rest)
        )

    def forward(self, lip: Tensor, expression: Tensor) -> Tensor:
        motion: Tensor = self.body(torch.cat([lip, expression], 1))
        return motion


class Motion(nn.Module):
    """The three encoders and their decoders; after stage 0, motion tokens of video, normalised for diffusion."""

    mean: Tensor
    spread: Tensor

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.config = config
        self.lip = FaceEncoder(config, config.lip_tokens)
        self.expression = FaceEncoder(config, config.expression_tokens)
        self.decoder = MotionDecoder(config)
        self.head = LandmarkGuider(config)
        self.head_decoder = nn.Sequential(
            nn.Flatten(),
            nn.Linear(config.head_tokens * config.token_width, 2 * config.width),
            nn.GELU(),
            nn.Linear(2 * config.width, N_HEAD),
        )
        self.register_buffer("mean", torch.zeros(config.tokens, config.token_width))
        self.register_buffer("spread", torch.ones(config.tokens, config.token_width))

    def raw(self, faces: Tensor, head: Tensor) -> Tensor:
        """Aligned faces (b, f, side, side) and head states (b, f, 13) to tokens (b, f, n, d): head, lip, expression."""
        shape, flat = faces.shape[:2], faces.flatten(0, 1)
        tokens = torch.cat([self.head(head.flatten(0, 1)), self.lip(flat), self.expression(flat)], 1)
        return torch.unflatten(tokens, 0, shape)

    def tokens(self, faces: Tensor, head: Tensor) -> Tensor:
        """`raw`, with the mean and spread of the training set taken out. Stages 2 and 3 learn from these, whatever
        precision they compute in."""
        with torch.no_grad(), full_precision(faces.device):
            level: Tensor = (self.raw(faces, head) - self.mean) / self.spread
        return level

    def of_head(self, head: Tensor) -> Tensor:
        """Head states (b, f, 13) to normalised head tokens (b, f, k, d), the first of `tokens`."""
        k = self.config.head_tokens
        with full_precision(head.device):
            raw = torch.unflatten(self.head(head.flatten(0, 1)), 0, head.shape[:2])
            level: Tensor = (raw - self.mean[:k]) / self.spread[:k]
        return level

    def head_of(self, tokens: Tensor) -> Tensor:
        """Head states (b, f, 13) of normalised motion tokens (b, f, n, d)."""
        k = self.config.head_tokens
        raw = tokens[..., :k, :] * self.spread[:k] + self.mean[:k]
        state: Tensor = torch.unflatten(self.head_decoder(raw.flatten(0, 1)), 0, tokens.shape[:2])
        return state

    def decoded(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Lip motion (b f, p) and the rest (b f, q), see `motion_target`, of normalised motion tokens (b, f, n, d)."""
        config, raw = self.config, (tokens * self.spread + self.mean).flatten(0, 1)
        lip_end = config.head_tokens + config.lip_tokens
        flat = self.decoder(raw[:, config.head_tokens : lip_end], raw[:, lip_end:])
        return flat.split(motion_sizes(config.face_px), 1)  # type: ignore[no-any-return]

    def observe(self, seen: Tensor, count: int, rate: float) -> None:
        """Move the running mean and spread towards those of raw tokens, of which `seen` (s, 2, n, d) holds `moments`
        of s parts of `count` each."""
        mean, spread = seen[0]
        if len(seen) > 1:
            means, spreads = seen.unbind(1)
            mean = means.mean(0)
            squares = (count - 1) * spreads.square().sum(0) + count * (means - mean).square().sum(0)
            spread = (squares / (count * len(seen) - 1)).sqrt()
        self.mean.lerp_(mean, rate)
        self.spread.lerp_(spread.clamp(min=0.05), rate)


def moments(tokens: Tensor) -> Tensor:
    """Mean and spread (2, n, d) of raw tokens (m, n, d), in float32."""
    flat = tokens.detach().float()
    return torch.stack([flat.mean(0), flat.std(0)])


def motion_sizes(side_px: int) -> tuple[int, int]:
    """Lengths of the lip part and of the rest of a flat motion target."""
    face, points = torch.zeros(1, 1, side_px, side_px), torch.zeros(1, 1, 5, 2)
    lip, rest = motion_parts(face, points)
    return lip.shape[-1], rest.shape[-1]


def motion_parts(faces: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Lip motion and the rest, of aligned faces (b, f, side, side) and aligned landmarks (b, f, 5, 2), mean included.

    Half resolution for the mouth patch, a quarter for the upper face. All count tenfold: so they spread by about 1.
    """
    mouth = F.avg_pool2d(cut(faces, MOUTH), 2).flatten(2)
    upper = F.avg_pool2d(cut(faces, UPPER), 4).flatten(2)
    lip = 10 * torch.cat([mouth, points[:, :, 3:].flatten(2)], 2)
    rest = 10 * torch.cat([upper, points[:, :, :3].flatten(2)], 2)
    return lip, rest


def motion_target(faces: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Lip motion (b, f, p) and the rest (b, f, q), as differences from the mean over the f frames."""
    lip, rest = motion_parts(faces, points)
    return lip - lip.mean(1, keepdim=True), rest - rest.mean(1, keepdim=True)


def cut(faces: Tensor, box: tuple[float, float, float, float]) -> Tensor:
    """`MOUTH` or `UPPER` of aligned faces (..., side, side)."""
    top, bottom, left, right = edges(faces.shape[-1], box)
    return faces[..., top:bottom, left:right]


def swap_mouths(faces: Tensor, donors: Tensor) -> Tensor:
    """Faces with the donors' mouths, blended at the patch's edge: pairs of equal lip motion and other expression."""
    side = faces.shape[-1]
    top, bottom, left, right = edges(side, MOUTH)
    mask = torch.zeros(1, 1, side, side, device=faces.device)
    mask[..., top:bottom, left:right] = 1.0
    mask = F.avg_pool2d(mask, 5, stride=1, padding=2)[0].to(faces.dtype)
    blended: Tensor = faces * (1 - mask) + donors * mask
    return blended


def edges(side: int, box: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
    """Top, bottom, left and right pixel of a box that is given in shares of the side."""
    top, bottom, left, right = (round(share * side) for share in box)
    return top, bottom, left, right
