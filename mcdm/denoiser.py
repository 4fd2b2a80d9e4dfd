"""The archived-clip prior, the way in for motion tokens and the UNet, as one model: what stages 1 and 3 train."""

from typing import TypeAlias

import torch
from torch import Tensor, nn

from mcdm import diffusion
from mcdm.archive import ArchivedClip
from mcdm.config import Recipe
from mcdm.sketch import repainted, sketch_channels
from mcdm.unet import Block, UNet

Part: TypeAlias = nn.Module | nn.Parameter


class Denoiser(nn.Module):
    """Stages 1 and 3: the archived-clip prior, the way in for motion tokens, and the UNet."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        codec, motion, width = recipe.codec, recipe.motion, recipe.archive.width
        self.recipe = recipe
        self.schedule = diffusion.make_schedule(recipe.unet.schedule, zero_snr=recipe.unet.zero_snr)
        self.archive = ArchivedClip(recipe.archive, codec.channels, codec.latent_px)
        self.present = nn.Linear(motion.token_width, width)
        self.place_present = nn.Parameter(torch.randn(motion.tokens, width) * 0.5)
        drawn = sketch_channels(codec)
        frames = recipe.frames
        self.unet = UNet(recipe.unet, latent=codec.channels, frames=frames, archived=width, present=width, drawn=drawn)

    def context(self, tokens: Tensor) -> Tensor:
        """Motion tokens (b, f, n, d) as F_pc, the present cross-attention's context (b, f, n, width)."""
        lifted: Tensor = self.present(tokens)
        return lifted + self.place_present

    def beside(self, reference: Tensor, archived: Tensor, base: Tensor, frames: int) -> Tensor | None:
        """What lies beside the noise, (b, f, k, h, w), of reference, archived and base latents; None for nothing."""
        config = self.recipe.unet
        scale = config.residual or 1.0
        seen = [reference / scale] * config.see_reference
        seen += [self.wrap(archived[:, -1:], base)] * config.see_last
        seen += [base / scale] * config.see_motion
        return torch.cat([one.expand(-1, frames, -1, -1, -1) for one in seen], 2) if seen else None

    def wrap(self, x: Tensor, base: Tensor) -> Tensor:
        """Latents (b, f, c, h, w) as they are noised: with `residual`, what differs from the base: the reference, or
        with `see_motion` the reference with its head in place."""
        scale = self.recipe.unet.residual
        return (x - base) / scale if scale else x

    def unwrap(self, x: Tensor, base: Tensor) -> Tensor:
        """The way back."""
        scale = self.recipe.unet.residual
        return x * scale + base if scale else x

    def forward(
        self,
        z: Tensor,
        t: Tensor,
        archived: Tensor,
        tokens: Tensor | None,
        carry: list[Tensor] | None = None,
        beside: Tensor | None = None,
        drawn: Tensor | None = None,
        gate: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """z (b, f, c, h, w), t (b,), F_ac (b, a, n, width), F_pc (b, f, n, width) or None; see `UNet`. The answer
        counts as far as `gate` (b, f, 1, h, w) lets it."""
        if self.recipe.unet.residual:  # unit spread: alpha z is what z tells of x, no noise at the start
            z = self.schedule.at(t, z)[0] * z
        answer, kept = self.unet(z, t, archived, tokens, carry, beside, drawn)
        return answer if gate is None else answer * gate, kept

    def gate(self, points: Tensor) -> Tensor | None:
        """Where the answer counts, (b, f, 1, h, w), for landmarks (b, f, 5, 2), shares of the picture; None:
        everywhere."""
        least = self.recipe.unet.repaint
        return least + (1 - least) * repainted(points, self.recipe.codec.latent_px) if least < 1 else None

    def present_modules(self) -> list[Part]:
        """What stage 3 trains: present cross-attention with its way in, and the memory attention."""
        blocks = [m for m in self.unet.modules() if isinstance(m, Block)]
        mine: list[Part] = [p for block in blocks for p in (block.norm_present, block.attend_present, block.memory)]
        if self.recipe.unet.see_motion:
            mine += [self.unet.draw_in, self.unet.draw_out]
        return [self.present, self.place_present, *mine]

    def archived_modules(self) -> list[Part]:
        """The archived-clip prior and its cross-attentions."""
        blocks = [m for m in self.unet.modules() if isinstance(m, Block)]
        mine: list[Part] = [p for block in blocks for p in (block.norm_archived, block.attend_archived)]
        return [self.archive, *mine]
