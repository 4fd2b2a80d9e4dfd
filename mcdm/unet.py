"""The denoiser (section 3.1 of MCDM): SD 1.5's UNet with four attentions in every transformer block."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mcdm.config import UNetConfig
from mcdm.memory import MemoryAttention, attend, join_heads, narrowed, split_heads


def timestep_embedding(t: Tensor, width: int) -> Tensor:
    """(b,) to (b, width): cosines then sines, as SD 1.5 has them."""
    half = width // 2
    rate = torch.exp(-math.log(10_000.0) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angle = t.float()[:, None] * rate
    return torch.cat([angle.cos(), angle.sin()], -1)


class CrossAttention(nn.Module):
    """Multi-head attention of x (n, l, c) over context (n, m, k), or over itself, in SD's layout.

    A context of fewer rows is shared by as many neighbouring rows of x as it takes.
    """

    def __init__(self, width: int, context: int, heads: int, *, zero_init: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.Linear(width, width)
        if zero_init:
            nn.init.zeros_(self.to_out.weight)
            nn.init.zeros_(self.to_out.bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = narrowed(x)
        context = x if context is None else narrowed(context)
        shape = x.shape
        x = x.reshape(len(context), -1, shape[-1])
        q = split_heads(self.to_q(x), self.heads)
        k, v = split_heads(self.to_k(context), self.heads), split_heads(self.to_v(context), self.heads)
        y: Tensor = self.to_out(join_heads(attend(q, k, v, "exact")))
        return y.reshape(shape)


class FeedForward(nn.Module):
    """GEGLU, four times as wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.widen = nn.Linear(width, width * 8)
        self.narrow = nn.Linear(width * 4, width)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.widen(x).chunk(2, -1)
        y: Tensor = self.narrow(value * F.gelu(gate))
        return y


class Block(nn.Module):
    """Self-attention, archived and present cross-attention in parallel, memory attention, feed-forward.

    With h = x + self(x), F_a = h + archived(h), F_p = h + present(h) and y the present half of the memory attention
    over [ema(F_a); F_p]: out = z + ff(z), where z = h + archived(h) + present(h) + y. The present and memory outputs
    start at zero, so stage 1 learns h + archived(h) and stage 3 adds the rest smoothly. `strict` reads Figure 2
    literally: z = F_p + y.

    x (b f, s, c); archived context (b f or b, m, d); present context (b f, n, d); carry (b, s, c) or None. Without a
    present context only h + archived(h) is computed: what the rest adds while its outputs are still zero.
    """

    def __init__(self, width: int, heads: int, archived: int, present: int, frames: int, config: UNetConfig) -> None:
        super().__init__()
        self.frames, self.strict = frames, config.strict
        self.norm_self = nn.LayerNorm(width)
        self.attend_self = CrossAttention(width, width, heads)
        self.norm_archived = nn.LayerNorm(width)
        self.attend_archived = CrossAttention(width, archived, heads)
        self.norm_present = nn.LayerNorm(width)
        self.attend_present = CrossAttention(width, present, heads, zero_init=True)
        self.memory = MemoryAttention(
            width,
            heads,
            frames,
            decay=config.memory_decay,
            mode=config.memory_attention,
            features=config.favor_features,
            zero_init=config.memory_zero_init,
            use=config.use_memory,
        )
        self.norm_ff = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(
        self, x: Tensor, archived: Tensor, present: Tensor | None, carry: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        h = x + self.attend_self(self.norm_self(x))
        ac = self.attend_archived(self.norm_archived(h), archived)
        if present is None:
            return h + ac + self.ff(self.norm_ff(h + ac)), None
        pc = self.attend_present(self.norm_present(h), present)
        f = self.frames
        y, kept = self.memory(torch.unflatten(h + ac, 0, (-1, f)), torch.unflatten(h + pc, 0, (-1, f)), carry)
        z = h + pc + y.flatten(0, 1)
        if not self.strict:
            z = z + ac
        return z + self.ff(self.norm_ff(z)), kept


class SpatialTransformer(nn.Module):
    """Feature map (b f, c, h, w) through one `Block` and back, with SD's norm, 1x1 projections and residual."""

    def __init__(self, width: int, archived: int, present: int, frames: int, config: UNetConfig) -> None:
        super().__init__()
        self.checkpointing = config.checkpointing
        self.norm = nn.GroupNorm(config.groups, width, eps=1e-6)
        self.proj_in = nn.Conv2d(width, width, 1)
        self.block = Block(width, config.heads, archived, present, frames, config)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(
        self, x: Tensor, archived: Tensor, present: Tensor | None, carry: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        rows = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        if self.checkpointing and torch.is_grad_enabled():
            rows, kept = checkpoint(self.block, rows, archived, present, carry, use_reentrant=False)
        else:
            rows, kept = self.block(rows, archived, present, carry)
        y: Tensor = self.proj_out(torch.unflatten(rows.transpose(1, 2), 2, x.shape[2:]))
        return x + y, kept


class ResBlock(nn.Module):
    """SD's residual block: two 3x3 convolutions, the timestep added between them."""

    def __init__(self, width_in: int, width_out: int, time: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, width_in)
        self.conv1 = nn.Conv2d(width_in, width_out, 3, padding=1)
        self.time = nn.Linear(time, width_out)
        self.norm2 = nn.GroupNorm(groups, width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1)
        self.shortcut = nn.Conv2d(width_in, width_out, 1) if width_in != width_out else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(time))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        y: Tensor = self.shortcut(x) + h
        return y


class Level(nn.Module):
    """Residual blocks of one resolution, each followed by a transformer where the level has attention."""

    def __init__(self, res: list[ResBlock], attention: list[SpatialTransformer], resample: nn.Module | None) -> None:
        super().__init__()
        self.res = nn.ModuleList(res)
        self.attn = nn.ModuleList(attention)
        self.resample = resample


class _Carries:
    """The memories of one pass: those to start from, in block order, and those to hand on."""

    def __init__(self, given: list[Tensor] | None) -> None:
        self._given: Iterator[Tensor] | None = iter(given) if given is not None else None
        self.kept: list[Tensor] = []

    def next(self) -> Tensor | None:
        return next(self._given) if self._given is not None else None


class UNet(nn.Module):
    """z_t (b, f, c, h, w), t (b,), F_ac (b, a, n, d), F_pc (b, f, k, d') to the network's answer of z_t's shape.

    Also takes and answers the memories M_f of every transformer block, (b, h w, c) each, None for a new subject.
    `present` None: the present and memory attentions, still at zero, are left out. What the configuration
    says to see, `beside` (b, f, k, h, w), lies beside the noise; `drawn` (b, f, k', h, w) is added behind the first
    convolution and to the answer, through convolutions that start at zero.
    """

    def __init__(
        self, config: UNetConfig, *, latent: int, frames: int, archived: int, present: int, drawn: int = 0
    ) -> None:
        super().__init__()
        self.config, self.frames = config, frames
        widths, groups = config.channels, config.groups
        time = 4 * widths[0]
        self.time_in, self.time_out = nn.Linear(widths[0], time), nn.Linear(time, time)
        self.conv_in = nn.Conv2d(
            latent * (1 + config.see_reference + config.see_last + config.see_motion), widths[0], 3, padding=1
        )

        def attention(width: int) -> SpatialTransformer:
            return SpatialTransformer(width, archived, present, frames, config)

        skips, width, down = [widths[0]], widths[0], []
        for i, out in enumerate(widths):
            res = [ResBlock(width if j == 0 else out, out, time, groups) for j in range(config.layers)]
            last = i == len(widths) - 1
            shrink = None if last else nn.Conv2d(out, out, 3, stride=2, padding=1)
            down.append(Level(res, [attention(out) for _ in res] if config.attention[i] else [], shrink))
            skips += [out] * (config.layers + (not last))
            width = out
        self.down = nn.ModuleList(down)
        middle = [ResBlock(width, width, time, groups) for _ in range(2)]
        self.middle = Level(middle, [attention(width)], None)
        up = []
        for i, out in reversed(list(enumerate(widths))):
            res = []
            for _ in range(config.layers + 1):
                res.append(ResBlock(width + skips.pop(), out, time, groups))
                width = out
            grow = nn.Conv2d(out, out, 3, padding=1) if i else None
            up.append(Level(res, [attention(out) for _ in res] if config.attention[i] else [], grow))
        self.up = nn.ModuleList(up)
        self.norm_out = nn.GroupNorm(groups, widths[0])
        self.conv_out = nn.Conv2d(widths[0], latent, 3, padding=1)
        if config.residual:  # the first answer is nine tenths of the way from the reference to the last frame seen
            gates = nn.Linear(time, self.conv_in.in_channels)
            for parameter in (*self.conv_out.parameters(), *gates.parameters()):
                nn.init.zeros_(parameter)
            if config.see_last:
                nn.init.constant_(gates.bias[latent * (1 + config.see_reference) :][:latent], 0.9)
            self.gates = gates
        if config.see_motion:
            self.draw_in = nn.Conv2d(drawn, widths[0], 3, padding=1)
            self.draw_out = nn.Conv2d(drawn, latent, 3, padding=1)
            for parameter in (*self.draw_in.parameters(), *self.draw_out.parameters()):
                nn.init.zeros_(parameter)

    def forward(
        self,
        z: Tensor,
        t: Tensor,
        archived: Tensor,
        present: Tensor | None,
        carry: list[Tensor] | None = None,
        beside: Tensor | None = None,
        drawn: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        b, f = z.shape[:2]
        if beside is not None:
            z = torch.cat([z, beside.to(z.dtype)], 2)
        carries = _Carries(carry)
        embedded = timestep_embedding(t, self.config.channels[0]).to(z.dtype)
        time: Tensor = self.time_out(F.silu(self.time_in(embedded))).repeat_interleave(f, 0)
        past = archived.flatten(1, 2) if self.config.archived_reads == "global" else archived.flatten(0, 1)
        now = present.flatten(0, 1) if present is not None else None

        def attend_at(level: nn.Module, j: int, x: Tensor) -> Tensor:
            assert isinstance(level, Level)
            if len(level.attn) == 0:
                return x
            x, kept = level.attn[j](x, past, now, carries.next())
            if kept is not None:
                carries.kept.append(kept)
            return x

        x: Tensor = self.conv_in(z.flatten(0, 1))
        if drawn is not None:
            x = x + self.draw_in(drawn.flatten(0, 1))
        skips = [x]
        for level in self.down:
            assert isinstance(level, Level)
            for j, res in enumerate(level.res):
                x = attend_at(level, j, res(x, time))
                skips.append(x)
            if level.resample is not None:
                x = level.resample(x)
                skips.append(x)
        x = self.middle.res[1](attend_at(self.middle, 0, self.middle.res[0](x, time)), time)
        for level in self.up:
            assert isinstance(level, Level)
            for j, res in enumerate(level.res):
                x = attend_at(level, j, res(torch.cat([x, skips.pop()], 1), time))
            if level.resample is not None:
                x = level.resample(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        answer: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        if self.config.residual:  # norms forget how loud a picture is: what is there already passes beside them
            passed = z.flatten(0, 1) * self.gates(F.silu(time))[:, :, None, None]
            answer = answer + passed.unflatten(1, (-1, answer.shape[1])).sum(1)
            if drawn is not None:
                answer = answer + self.draw_out(drawn.flatten(0, 1))
        return torch.unflatten(answer, 0, (b, f)), carries.kept
