"""What each training stage learns, and its loss. The loop knows nothing but `Objective.loss`.

A batch is a dictionary of tensors with one row per clip, see `mcdm.data`. All randomness is drawn from the rows'
`seed`, so that a loss is a function of weights and batch: the same in one process or many, now or after a resume.
"""

from functools import cached_property
from typing import ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from mcdm import diffusion
from mcdm.checkpoint import load_weights
from mcdm.config import Recipe
from mcdm.denoiser import Denoiser, Part
from mcdm.diffusion import draw_normal, draw_uniform
from mcdm.encoders import Codec, encode_pictures, freeze, make_codec
from mcdm.motion import Motion, moments, motion_target, swap_mouths
from mcdm.prior import MotionPrior
from mcdm.sketch import counted, landmarks_of, picture_error, placed, sketch

Batch: TypeAlias = dict[str, Tensor]

_SALTS = 6
_NOISE, _TIME, _DROP, _OFFSET, _ARCHIVE, _TOKEN = range(_SALTS)
"""Salts: which use of a row's seed."""


class Loss(NamedTuple):
    """A mean over the batch to descend on, parts of it by name, and each row's loss at its timestep.

    A tuple, for FSDP hooks only the tensors that it finds: behind a dataclass it misses the start of `backward`.
    """

    total: Tensor
    parts: dict[str, Tensor]
    rows: Tensor | None = None  # (b,)
    t: Tensor | None = None  # (b,)
    seen: Tensor | None = None  # for `Objective.observe`


class Objective(nn.Module):
    """A stage of training. Its modules with gradients are what learns; `forward` is the loss, so that DDP can wrap it.

    `given` holds finished models of earlier stages by name; `saved` names the model that a checkpoint keeps.
    """

    stage: ClassVar[int]
    needs: tuple[str, ...] = ()  # batch members, besides `seed`
    clips: int = 1  # present clips in a row that a row of a batch holds
    saved: ClassVar[str]
    idle: bool = False  # memory attention answers zero, and is left out

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe

    @property
    def model(self) -> nn.Module:
        """The model that this stage trains."""
        return getattr(self, self.saved)  # type: ignore[no-any-return]

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by module group, for the log."""
        found: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                found.setdefault(_group(name), []).append(parameter)
        return found

    def loss(self, batch: Batch) -> Loss:
        """The loss of one batch."""
        raise NotImplementedError

    def observe(self, seen: Tensor, rows: int) -> None:
        """Once a step: take in `Loss.seen` of all its micro-batches on all processes, stacked; each of so many rows."""

    def forward(self, batch: Batch, seeds: tuple[int, ...]) -> Loss:
        # noise is drawn on the CPU; DDP and FSDP move all tensors to the GPU, from where these would be waited for
        return self.loss({**batch, "seed": torch.tensor(seeds)})


class LearnMotion(Objective):
    """Stage 0: self-reconstruction + cross-reconstruction + consistency (supplement B.2), and the guider's own.

    Pairs are made: the mouth of frame i over frame j of the same clip has the lip motion of i and the expression of j.
    """

    stage, saved = 0, "motion"
    needs = ("face", "points", "head")

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.motion = Motion(recipe.motion)

    def loss(self, batch: Batch) -> Loss:
        faces, points, head = batch["face"], batch["points"], batch["head"]
        motion, config, f = self.motion, self.recipe.motion, faces.shape[1]
        lip_target, rest_target = motion_target(faces, points)
        donors = faces.roll(f // 2, 1)  # i of the pair (i, j) is half a window away from j
        swapped = swap_mouths(faces, donors).flatten(0, 1)
        flat = faces.flatten(0, 1)
        lip, expression = motion.lip(flat), motion.expression(flat)
        noise = config.token_noise * draw_normal(
            batch["seed"], _TOKEN, (f, config.tokens, config.token_width), faces.device
        ).flatten(0, 1)
        k = config.head_tokens
        noisy_lip = lip + noise[:, k : k + config.lip_tokens]
        noisy_expression = expression + noise[:, k + config.lip_tokens :]
        lip_i = torch.unflatten(noisy_lip, 0, (-1, f)).roll(f // 2, 1).flatten(0, 1)
        own = torch.cat([lip_target, rest_target], 2).flatten(0, 1)
        crossed = torch.cat([lip_target.roll(f // 2, 1), rest_target], 2).flatten(0, 1)
        said, said_crossed = motion.decoder(noisy_lip, noisy_expression), motion.decoder(lip_i, noisy_expression)
        rows = (_centred(said, f) - own).abs().mean(1).view(-1, f).mean(1)
        self_part = rows.mean()
        cross_part = (_centred(said_crossed, f) - crossed).abs().mean()
        level = (said - own).abs().mean()
        consistency = (
            (motion.lip(swapped) - torch.unflatten(lip, 0, (-1, f)).roll(f // 2, 1).flatten(0, 1)).square().mean()
        )
        consistency = consistency + (motion.expression(swapped) - expression).square().mean()
        tokens = motion.head(head.flatten(0, 1))
        state = motion.head_decoder(tokens + noise[:, :k])
        head_part = (state - head.flatten(0, 1)).abs().mean()
        seen = moments(torch.cat([tokens, lip, expression], 1)) if self.training else None
        total = self_part + config.cross_weight * cross_part + config.consistency_weight * consistency + head_part
        total = total + config.level_weight * level
        parts = {"self": self_part, "cross": cross_part, "consistency": consistency, "head": head_part, "level": level}
        return Loss(total, {name: part.detach() for name, part in parts.items()}, rows.detach(), seen=seen)

    def observe(self, seen: Tensor, rows: int) -> None:
        self.motion.observe(seen, rows * (self.recipe.archive.frames + self.recipe.frames), 0.05)


class _LearnLatents(Objective):
    """The squared error of the denoiser, shared by stages 1 and 3."""

    saved = "denoiser"
    needs: tuple[str, ...] = ("present", "archived", "reference")

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.denoiser = Denoiser(recipe)
        config = recipe.unet
        more = ["head"] * bool(config.mouth_weight or config.see_motion) + ["reference_head"] * config.see_motion
        self.needs = tuple(dict.fromkeys([*self.needs, *more]))

    @cached_property
    def codec(self) -> Codec:
        """The recipe's codec, made when it is first needed, and no part of the model."""
        codec: Codec = make_codec(self.recipe.codec).to(next(self.parameters()).device)
        return codec

    def encoded(self, batch: Batch) -> Batch:
        """The batch, pictures (b, t, h, w, 3) uint8 of it, which are not cached, as latents (b, t, c, h, w)."""
        pictures = [name for name in _LearnLatents.needs if batch[name].dtype == torch.uint8]
        return {**batch, **{name: encode_pictures(self.codec, batch[name]) for name in pictures}}

    def masks(self, seeds: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Which rows keep F_ac and F_pc, (b,) each of 0 or 1: condition dropout for classifier-free guidance."""
        config = self.recipe.unet
        at = draw_uniform(seeds, _DROP, 1, device)[:, 0]
        both, archived = config.drop_both, config.drop_both + config.drop_archived
        keep_archived = (at >= archived).float()
        keep_present = ((at >= both) & ((at < archived) | (at >= archived + config.drop_present))).float()
        return keep_archived, keep_present

    def base(self, batch: Batch, points: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """What the noised latents differ from: the reference, its head moved to landmarks (b, f, 5, 2) where the recipe
        sees motion. None: to where it was last seen, as far as the archived clip goes. And `Denoiser.gate` there."""
        reference = batch["reference"]
        if not self.recipe.unet.see_motion:
            return reference, None
        if points is None:
            last = batch["head"][:, -self.recipe.frames - 1, None, :10]
            points = torch.unflatten(last, 2, (5, 2)).expand(-1, self.recipe.frames, -1, -1) + 0.5
        own = torch.unflatten(batch["reference_head"][:, :10], 1, (5, 2)) + 0.5
        return placed(self.codec, reference, own, points), self.denoiser.gate(points)

    def denoising(
        self,
        batch: Batch,
        on: tuple[Tensor, Tensor | None],
        tokens: Tensor | None,
        drawn: Tensor | None = None,
        after: tuple[int, list[Tensor] | None] = (0, None),
    ) -> tuple[Loss, list[Tensor]]:
        """The loss on a present clip, and the memories to carry on. `after`: how many clips of the row went before,
        with noise of their own and the same timestep and dropout, and the memories that they left."""
        config, seeds, (base, gate) = self.recipe.unet, batch["seed"], on
        salt, carry = _SALTS * after[0], after[1]
        x, archived, reference = (batch[name] for name in _LearnLatents.needs)
        device, b = x.device, len(x)
        if self.recipe.archive.noise:
            amount = self.recipe.archive.noise * draw_uniform(seeds, _ARCHIVE, 1, device)[:, :, None, None, None]
            archived = archived + amount * draw_normal(seeds, salt + _ARCHIVE, tuple(archived.shape[1:]), device)
        x = self.denoiser.wrap(x, base)
        t = _timesteps(seeds, config.late, device)
        eps = draw_normal(seeds, salt + _NOISE, tuple(x.shape[1:]), device)
        if config.noise_offset:
            eps = eps + config.noise_offset * draw_normal(seeds, salt + _OFFSET, (1, x.shape[2], 1, 1), device)
        z = diffusion.add_noise(self.denoiser.schedule, x, eps, t)
        keep_archived, keep_present = self.masks(seeds, device)
        past = self.denoiser.archive(reference, archived) * keep_archived[:, None, None, None]
        beside = self.denoiser.beside(reference, archived, base, x.shape[1])
        if beside is not None:
            beside = beside * keep_archived[:, None, None, None, None]
        now = self.denoiser.context(tokens) * keep_present[:, None, None, None] if tokens is not None else None
        if drawn is not None:
            drawn = drawn * keep_present[:, None, None, None, None]
        answer, kept = self.denoiser(z, t, past, now, carry, beside, drawn, gate)
        wanted = diffusion.target(self.denoiser.schedule, config.prediction, x, eps, t)
        weight = diffusion.loss_weight(self.denoiser.schedule, config.prediction, t, config.min_snr)
        if config.pixel_error:
            made, true = (self.denoiser.unwrap(one, base).flatten(0, 1) for one in (answer.float(), x))
            error = torch.unflatten(picture_error(self.codec, made, true), 0, x.shape[:2])
        else:
            error = (answer.float() - wanted).square()
        if config.mouth_weight or gate is not None:
            error = error * counted(batch["head"][:, -x.shape[1] :], error.shape[-1], config.mouth_weight, gate)
        rows = error.flatten(1).mean(1)
        return Loss((rows * weight).sum() / b, {}, rows.detach(), t), kept


class LearnArchive(_LearnLatents):
    """Stage 1: present clips from noise, seen with their archived clip; present and memory attention frozen."""

    stage = 1

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        train_only(self.denoiser, self.denoiser.archived_modules())
        if recipe.unet.train_spatial:
            self.denoiser.requires_grad_(requires_grad=True)
            for part in self.denoiser.present_modules():
                _learn(part, on=False)
        self.idle = recipe.unet.memory_zero_init

    def loss(self, batch: Batch) -> Loss:
        batch = self.encoded(batch)
        if self.idle:
            return self.denoising(batch, self.base(batch), None)[0]
        motion = self.recipe.motion
        empty = torch.zeros(
            *batch["present"].shape[:2], motion.tokens, motion.token_width, device=batch["present"].device
        )
        return self.denoising(batch, self.base(batch), empty)[0]


class LearnPresent(_LearnLatents):
    """Stage 3: present cross-attention and memory attention, fed with the encoders' own tokens; the rest stays as it is
    but for `tune_spatial`. With `unroll`, over clips in a row: the memories that one leaves are those of the next, and
    gradients go back through them."""

    stage = 3
    needs = (*_LearnLatents.needs, "face", "head")

    def __init__(self, recipe: Recipe, motion: Motion, denoiser: dict[str, Tensor], source: str = "stage 1") -> None:
        super().__init__(recipe)
        self.motion, self.clips = freeze(motion), recipe.unet.unroll
        load_weights(self.denoiser, denoiser, source)
        train_only(self.denoiser, self.denoiser.present_modules())
        if recipe.unet.tune_spatial:
            self.denoiser.requires_grad_(requires_grad=True)

    def loss(self, batch: Batch) -> Loss:
        batch = self.encoded(batch)
        losses: list[Loss] = []
        carry: list[Tensor] | None = None
        for number in range(self.clips):
            loss, carry = self._clip(_of_row(batch, number, self.recipe), (number, carry))
            losses.append(loss)
        rows = torch.stack([loss.rows for loss in losses if loss.rows is not None]).mean(0)
        return Loss(torch.stack([loss.total for loss in losses]).mean(), {}, rows, losses[0].t)

    def _clip(self, batch: Batch, after: tuple[int, list[Tensor] | None]) -> tuple[Loss, list[Tensor]]:
        f = self.recipe.frames
        tokens = self.motion.tokens(batch["face"][:, -f:], batch["head"][:, -f:])
        if not self.recipe.unet.see_motion:
            return self.denoising(batch, self.base(batch), tokens, None, after)
        base = self.base(batch, landmarks_of(self.motion, tokens))
        return self.denoising(batch, base, tokens, sketch(self.motion, self.recipe.codec, tokens), after)


class LearnPrior(Objective):
    """Stage 2: equation 3, the squared error of the motion prior, landmarks dropped by whole clips."""

    stage, saved = 2, "prior"
    needs = ("face", "head", "audio", "image")

    def __init__(self, recipe: Recipe, motion: Motion) -> None:
        super().__init__(recipe)
        self.motion = freeze(motion)
        self.prior = MotionPrior(recipe)
        self.schedule = diffusion.make_schedule("cosine")

    def loss(self, batch: Batch) -> Loss:
        config, seeds, heads = self.recipe.prior, batch["seed"], self.recipe.motion.head_tokens
        x = self.motion.tokens(batch["face"], batch["head"])[:, -self.prior.window :]
        audio, device, w = batch["audio"][:, -self.prior.window :], x.device, self.prior.window
        chance = draw_uniform(seeds, _DROP, 2, device)
        has_landmarks = chance[:, 0] >= config.landmark_drop
        past = torch.arange(w, device=device) < w - self.recipe.frames
        known = past[None] & (chance[:, 1] >= config.history_drop)[:, None]
        t = _timesteps(seeds, config.late, device)
        eps = draw_normal(seeds, _NOISE, tuple(x.shape[1:]), device)
        z = torch.where(known[:, :, None, None], x, diffusion.add_noise(self.schedule, x, eps, t))
        answer = self.prior(
            z, t, audio, batch["image"], landmarks=x[:, :, :heads], has_landmarks=has_landmarks, known=known
        )
        wanted = diffusion.target(self.schedule, config.prediction, x, eps, t)
        counts = (~known)[:, :, None] & torch.ones(x.shape[2], dtype=torch.bool, device=device)
        counts = counts & ~(has_landmarks[:, None, None] & (torch.arange(x.shape[2], device=device) < heads))
        error = (answer.float() - wanted).square().mean(-1) * counts
        rows = error.sum((1, 2)) / counts.sum((1, 2)).clamp(min=1)
        return Loss(rows.mean(), {}, rows.detach(), t)


_OF_FRAMES = ("face", "points", "head", "audio")
"""Members with a row per frame of the window."""


def _timesteps(seeds: Tensor, late: float, device: torch.device) -> Tensor:
    """Timesteps (b,), drawn as u^(1 / late). In float32 a root may be 1, which is one past the last."""
    drawn = draw_uniform(seeds, _TIME, 1, device)[:, 0] ** (1 / late) * diffusion.N_TIMESTEPS
    return drawn.long().clamp(max=diffusion.N_TIMESTEPS - 1)


def _of_row(batch: Batch, number: int, recipe: Recipe) -> Batch:
    """A batch whose rows hold clips in a row, as one of their clips `number` alone, with the frames right before it."""
    a, f = recipe.archive.frames, recipe.frames
    window = slice(number * f, number * f + a + f)
    pictures = torch.cat([batch["archived"], batch["present"]], 1)[:, window]
    row: Batch = {name: member[:, window] if name in _OF_FRAMES else member for name, member in batch.items()}
    return {**row, "archived": pictures[:, :a], "present": pictures[:, a:]}


def _centred(motion: Tensor, frames: int) -> Tensor:
    """Decoded motion (b f, n) as the targets are: as differences from the mean over a clip's frames."""
    clips = torch.unflatten(motion, 0, (-1, frames))
    return (clips - clips.mean(1, keepdim=True)).flatten(0, 1)


def train_only(model: nn.Module, parts: list[Part]) -> None:
    """Freeze the model but for these parts."""
    model.requires_grad_(requires_grad=False)
    for part in parts:
        _learn(part, on=True)


def _learn(part: Part, *, on: bool) -> None:
    for parameter in [part] if isinstance(part, nn.Parameter) else part.parameters():
        parameter.requires_grad = on


def _group(name: str) -> str:
    """The part of the model that a parameter belongs to."""
    for mark in ("attend_self", "attend_archived", "attend_present", "memory", "ff", "archive", "film", "decoder"):
        if f".{mark}." in f".{name}":
            return mark
    return name.split(".")[0]
