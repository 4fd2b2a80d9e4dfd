"""Present-clip motion-prior diffusion model (section 3.3 of MCDM): sound and one picture to motion tokens."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mcdm.config import Recipe
from mcdm.memory import join_heads, sinusoids, split_heads
from mcdm.unet import FeedForward, timestep_embedding


class SelfAttention(nn.Module):
    """Pre-norm multi-head self-attention of (n, l, c), causal along l or not, with its residual."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * width)
        self.to_out = nn.Linear(width, width)

    def forward(self, x: Tensor, position: Tensor | None = None) -> Tensor:
        h = self.norm(x) if position is None else self.norm(x) + position
        q, k, v = (split_heads(part, self.heads) for part in self.to_qkv(h).chunk(3, -1))
        y: Tensor = self.to_out(join_heads(F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)))
        return x + y


class CausalBlock(nn.Module):
    """Multimodal causal transformer block: tokens of one frame, each seeing those before it. x (b f, n, d)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attend = SelfAttention(width, heads, causal=True)
        self.norm = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attend(x)
        y: Tensor = x + self.ff(self.norm(x))
        return y


class TemporalBlock(nn.Module):
    """Temporal interaction transformer block: the same token over frames, two self-attentions. x (b n, f, d).

    The shape of AnimateDiff's motion module; the way out starts at zero.
    """

    positions: Tensor

    def __init__(self, width: int, heads: int, frames: int) -> None:
        super().__init__()
        self.norm_in, self.way_in = nn.LayerNorm(width), nn.Linear(width, width)
        self.attend = nn.ModuleList([SelfAttention(width, heads, causal=False) for _ in range(2)])
        self.norm, self.ff = nn.LayerNorm(width), FeedForward(width)
        self.way_out = nn.Linear(width, width)
        nn.init.zeros_(self.way_out.weight)
        nn.init.zeros_(self.way_out.bias)
        self.register_buffer("positions", sinusoids(frames, width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.way_in(self.norm_in(x))
        for attend in self.attend:
            h = attend(h, self.positions[: x.shape[1]].to(h.dtype))
        y: Tensor = x + self.way_out(h + self.ff(self.norm(h)))
        return y


class FiLM(nn.Module):
    """Audio tokens (b, f, k, c) scaled and shifted by the picture (b, e): the correlation tokens F_p (b, f, k, d)."""

    def __init__(self, audio: int, image: int, width: int) -> None:
        super().__init__()
        self.norm, self.lift = nn.LayerNorm(audio), nn.Linear(audio, width)
        self.modulate = nn.Sequential(nn.LayerNorm(image), nn.Linear(image, 2 * width))

    def forward(self, audio: Tensor, image: Tensor) -> Tensor:
        scale, shift = self.modulate(image)[:, None, None].chunk(2, -1)
        tokens: Tensor = self.lift(self.norm(audio)) * (1 + scale) + shift
        return tokens


class MotionPrior(nn.Module):
    """eps_theta(z_t, t, F_p) of equation 3: L pairs of a causal and a temporal block.

    Tokens of a frame, in causal order: F_p | t | head or landmarks | lip | expression. Landmark tokens are clean head
    tokens; with them the noised head tokens are absent, and the place is the same, so one batch holds clips of both
    kinds. `known` marks frames whose motion tokens are given clean (the clip before); they are not answered for.

    noised (b, w, n, d), t (b,), audio (b, w, k, c), image (b, e), landmarks (b, w, n_head, d), has_landmarks (b,) bool,
    known (b, w) bool, w frames; answers (b, w, n, d), to be read at the noised tokens.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        config, motion = recipe.prior, recipe.motion
        self.head_tokens, self.width = motion.head_tokens, config.width
        self.window = recipe.frames + (recipe.archive.frames if config.history else 0)
        self.film = FiLM(recipe.audio.width, recipe.image.width, config.width)
        self.place_audio = nn.Parameter(torch.randn(recipe.audio.tokens, config.width) * 0.02)
        self.place_motion = nn.Parameter(torch.randn(motion.tokens, config.width) * 0.02)
        self.kind = nn.Parameter(torch.randn(2, config.width) * 0.02)  # landmarks, known
        self.time = nn.Sequential(
            nn.Linear(config.width, config.width), nn.SiLU(), nn.Linear(config.width, config.width)
        )
        self.lift = nn.Linear(motion.token_width, config.width)
        pairs = [
            nn.ModuleList(
                [CausalBlock(config.width, config.heads), TemporalBlock(config.width, config.heads, self.window)]
            )
            for _ in range(config.layers)
        ]
        self.pairs = nn.ModuleList(pairs)
        self.norm_out = nn.LayerNorm(config.width)
        self.answer = nn.Linear(config.width, motion.token_width)

    def forward(
        self,
        noised: Tensor,
        t: Tensor,
        audio: Tensor,
        image: Tensor,
        *,
        landmarks: Tensor | None = None,
        has_landmarks: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        b, w, n, _ = noised.shape
        moving = self.lift(noised)
        if landmarks is not None and has_landmarks is not None:
            given = self.lift(landmarks) + self.kind[0]
            head = torch.where(has_landmarks[:, None, None, None], given, moving[:, :, : self.head_tokens])
            moving = torch.cat([head, moving[:, :, self.head_tokens :]], 2)
        if known is not None:
            moving = moving + known[:, :, None, None].to(moving.dtype) * self.kind[1]
        sound = self.film(audio, image) + self.place_audio
        embedded = timestep_embedding(t, self.width).to(noised.dtype)
        time = self.time(embedded)[:, None, None].expand(b, w, 1, -1)
        x = torch.cat([sound, time, moving + self.place_motion], 2)
        for pair in self.pairs:
            assert isinstance(pair, nn.ModuleList)
            x = pair[0](x.flatten(0, 1)).unflatten(0, (b, w))
            x = pair[1](x.transpose(1, 2).flatten(0, 1)).unflatten(0, (b, -1)).transpose(1, 2)
        y: Tensor = self.answer(self.norm_out(x[:, :, -n:]))
        return y
