"""Memory-efficient temporal attention (section 3.4 of MCDM): equations 4 and 5, and three ways to attend over time."""

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mcdm.precision import full_precision

Mode: TypeAlias = Literal["exact", "favor", "linear"]

_GRID_ROWS = 32_768
"""Rows of a batch at once: a fused kernel counts them in a dimension of CUDA's grid that ends at 65,535, and pixels of
clips are more."""


def ema_scan(features: Tensor, decay: float, carry: Tensor | None = None) -> Tensor:
    """Equations 4 and 5: M_1 = F_1 and M_f = decay M_{f-1} + (1 - decay) F_f, over (b, f, s, c).

    `carry` (b, s, c) is the last memory of the clip before; with it M_1 follows equation 5 too. The recursion is
    linear, so it is one lower-triangular f x f matrix along time, without a loop.
    """
    frames = features.shape[1]
    at = torch.arange(frames, device=features.device)
    lag = at[:, None] - at[None, :]
    taps = torch.where(lag >= 0, (1 - decay) * decay ** lag.clamp(min=0).float(), 0.0)
    if carry is None:
        taps[:, 0] = decay ** at.float()
    memory = torch.einsum("ji,bisc->bjsc", taps.to(features.dtype), features)
    if carry is not None:
        fade = (decay ** (at + 1).float()).to(features.dtype)
        memory = memory + fade[None, :, None, None] * carry[:, None].to(features.dtype)
    return memory


def orthogonal_features(width: int, count: int, seed: int = 0) -> Tensor:
    """Projection matrix (count, width) of FAVOR+: orthogonal blocks with the norms of normal vectors."""
    source = torch.Generator().manual_seed(seed)
    blocks = []
    for _ in range(math.ceil(count / width)):
        q, _ = torch.linalg.qr(torch.randn(width, width, generator=source))
        blocks.append(q.T)
    norms: Tensor = torch.randn(count, width, generator=source).square().sum(1, keepdim=True).sqrt()
    return torch.cat(blocks)[:count] * norms


def favor_attention(q: Tensor, k: Tensor, v: Tensor, projection: Tensor) -> Tensor:
    """FAVOR+ (Choromanski et al. 2020, positive softmax features), q, k, v (..., l, d); cost linear in l.

    In float32 whatever comes in: the features are exponentials.
    """
    kind, scale = q.dtype, q.shape[-1] ** -0.25
    with full_precision(q.device):
        mapped = _positive(q.float() * scale, projection, per_row=True)
        keys = _positive(k.float() * scale, projection, per_row=False)
        values = keys.transpose(-1, -2) @ v.float()
        norm = mapped @ keys.sum(-2).unsqueeze(-1)
        return ((mapped @ values) / norm).to(kind)


def _positive(x: Tensor, projection: Tensor, *, per_row: bool) -> Tensor:
    logits = x @ projection.T - x.square().sum(-1, keepdim=True) / 2
    # A row constant of the queries and one constant of all keys cancel in the quotient; they keep exp in range.
    top = logits.amax(-1, keepdim=True) if per_row else logits.amax((-2, -1), keepdim=True)
    positive: Tensor = (logits - top.detach()).exp() + 1e-6
    return positive


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Efficient attention (Shen et al. 2021; MEMO's): softmax of q over features and of k over time."""
    return q.softmax(-1) @ (k.softmax(-2).transpose(-1, -2) @ v)


def attend(q: Tensor, k: Tensor, v: Tensor, mode: Mode, projection: Tensor | None = None) -> Tensor:
    """Attention of q (n, h, l, d) over k, v (n, h, m, d): `exact` (softmax, fused where the machine can) or `favor`,
    which needs a `projection`, or `linear`."""
    if mode == "exact":
        if len(q) <= _GRID_ROWS:  # a concatenation of one part would still copy it, and lose its strides
            return F.scaled_dot_product_attention(q, k, v)
        parts = (torch.split(part, _GRID_ROWS) for part in (q, k, v))
        return torch.cat([F.scaled_dot_product_attention(*part) for part in zip(*parts, strict=True)])
    if mode == "linear":
        return linear_attention(q, k, v)
    if projection is None:
        raise ValueError("favor attention needs its random features")
    return favor_attention(q, k, v, projection)


def narrowed(x: Tensor) -> Tensor:
    """x as autocast would cast it, which it does for each matrix product anew, and keeps each copy for the backward
    pass; itself where autocast is off."""
    kind = x.device.type
    if x.is_meta or not torch.is_autocast_enabled(kind):  # shapes alone have none
        return x
    return x.to(torch.get_autocast_dtype(kind))


def sinusoids(length: int, width: int) -> Tensor:
    """Positions (length, width) of Vaswani et al. 2017, sine and cosine interleaved, as AnimateDiff has them."""
    at = torch.arange(length, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10_000.0) / width))
    table = torch.zeros(length, width)
    table[:, 0::2] = torch.sin(at * rate)
    table[:, 1::2] = torch.cos(at * rate)
    return table


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(n, l, c) to (n, heads, l, c / heads)."""
    return torch.unflatten(x, -1, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """(n, heads, l, d) to (n, l, heads * d)."""
    return x.transpose(1, 2).flatten(2)


class MemoryAttention(nn.Module):
    """Equations 4 and 5, concatenation along time, temporal attention, and the present half of it.

    Archived and present features (b, f, s, c), memory of the clip before (b, s, c) or None; answers the present half
    (b, f, s, c) and the memory to carry on, M_f (b, s, c). The state is passed in and out and never kept here.
    Only present queries are computed: the paper computes both halves and throws the memory's away, which is the same.
    """

    projection: Tensor
    positions: Tensor

    def __init__(
        self,
        width: int,
        heads: int,
        frames: int,
        *,
        decay: float,
        mode: Mode,
        features: int,
        zero_init: bool,
        use: bool,
    ) -> None:
        super().__init__()
        self.heads, self.decay, self.mode, self.use = heads, decay, mode, use
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(width, width, bias=False)
        self.to_v = nn.Linear(width, width, bias=False)
        self.to_out = nn.Linear(width, width)
        if zero_init:
            nn.init.zeros_(self.to_out.weight)
            nn.init.zeros_(self.to_out.bias)
        self.register_buffer("positions", sinusoids(2 * frames, width), persistent=False)
        self.register_buffer("projection", orthogonal_features(width // heads, features))

    def forward(self, archived: Tensor, present: Tensor, carry: Tensor | None) -> tuple[Tensor, Tensor]:
        b, f, s, _ = present.shape
        memory = ema_scan(archived, self.decay, carry)
        both = torch.cat([memory, present], 1) if self.use else present
        x = self.norm(both).transpose(1, 2).flatten(0, 1)  # (b s, 2f, c)
        x = narrowed(x + self.positions[: x.shape[1]].to(x.dtype))
        q = split_heads(self.to_q(x[:, -f:]), self.heads)
        k, v = split_heads(self.to_k(x), self.heads), split_heads(self.to_v(x), self.heads)
        y: Tensor = self.to_out(join_heads(attend(q, k, v, self.mode, self.projection)))
        # a copy: a view would keep all frames' memories alive from clip to clip, sixteen times as much
        return torch.unflatten(y, 0, (b, s)).transpose(1, 2), memory[:, -1].clone()
