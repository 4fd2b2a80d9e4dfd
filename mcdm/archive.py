"""Archived-clip motion-prior (section 3.2 of MCDM): what the past frames hold, seen through the reference."""

import torch
from torch import Tensor, nn

from mcdm.config import ArchiveConfig


class Patchify(nn.Module):
    """Latents (b, t, c, h, w) to tokens (b, t, m, d), m = h w / patch^2: a strided convolution, flattened."""

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, patch, patch)

    def forward(self, latents: Tensor) -> Tensor:
        b, t = latents.shape[:2]
        tokens: Tensor = self.conv(latents.flatten(0, 1))
        return torch.unflatten(tokens.flatten(2).transpose(1, 2), 0, (b, t))


class FrameAlignedAttention(nn.Module):
    """K_i = F_x W_K, V_i = F_a^i W_V, O_i = softmax(Q K_i^T / sqrt(d)) V_i; F_ac = stack of O_i.

    F_x (b, 1, m, d) and F_a (b, a, m, d) to F_ac (b, a, n, d). K_i is the same for every i, so there is one softmax map
    (b, n, m) per sample; W_V is applied after pooling, to n tokens instead of m, which is the same by associativity.
    """

    def __init__(self, queries: int, width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width))
        self.to_k = nn.Linear(width, width, bias=False)
        self.to_v = nn.Linear(width, width, bias=False)

    def forward(self, reference: Tensor, archived: Tensor) -> Tensor:
        k: Tensor = self.to_k(reference[:, 0])
        weights = (self.queries @ k.transpose(1, 2) / k.shape[-1] ** 0.5).softmax(-1)
        pooled: Tensor = self.to_v(torch.einsum("bnm,bamd->band", weights, archived))
        return pooled


class ArchivedClip(nn.Module):
    """Reference latent (b, 1, c, h, w) and archived latents (b, a, c, h, w) to F_ac (b, a, n, d).

    Two separate patchify layers, then frame-aligned attention. With `positions`, learned places are added to patches
    and to the tokens of F_ac, so that a query can ask for a place and the denoiser can tell old from new.
    """

    def __init__(self, config: ArchiveConfig, channels: int, latent_px: int) -> None:
        super().__init__()
        patches = (latent_px // config.patch) ** 2
        self.config = config
        self.patch_reference = Patchify(channels, config.patch, config.width)
        self.patch_archived = Patchify(channels, config.patch, config.width)
        self.attention = FrameAlignedAttention(config.queries, config.width)
        if config.positions:
            self.place = nn.Parameter(torch.randn(patches, config.width))
            self.slot = nn.Parameter(torch.randn(config.frames, config.queries, config.width) * 0.5)

    def forward(self, reference: Tensor, archived: Tensor) -> Tensor:
        if self.config.anchor:
            archived = torch.cat([reference, archived[:, 1:]], 1)
        seen, past = self.patch_reference(reference), self.patch_archived(archived)
        if self.config.positions:
            seen, past = seen + self.place, past + self.place
        tokens: Tensor = self.attention(seen, past)
        return tokens + self.slot if self.config.positions else tokens
