"""Shards to batches. Sample number g of a stage is a function of (seed, stage, g), batch number s holds samples s B to
(s + 1) B, and rank r of w takes its part of them: no shuffle buffer, no reader state, exact resume at any world size.

A sample is one window of a clip: a archived frames, f present frames right after them (as many times f as present clips
in a row are asked for, so that memory can be carried), one reference frame from outside the present window. Members,
those that are asked for (f present, a archived, w = a + f):

present (f, ...), archived (a, ...), reference (1, ...): latents (c, h, w), or pictures (h, w, 3) uint8 where
nothing is cached; face (w, s, s) in [-1, 1], points (w, 5, 2), head (w, 13);
reference_head (13,); audio (w, k, c); image (e,); seed ().
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from manifests.store import mendable
from mcdm.config import Recipe
from mcdm.encode import REFERENCE_STRIDE, Encoded, face_parts, head_state, resize
from mcdm.encoders import heard, make_audio, make_image
from mcdm.faces import align, view_of
from mcdm.shards import Clip, SampleError, Shards, decode

MAX_BAD_IN_A_ROW = 16

DRAWS = 2
"""How training samples are drawn, kept in checkpoints: 1, by seed and number; 2, by the stage as well."""


@dataclass(frozen=True)
class Window:
    """Which frames a sample holds: the present clip starts at `start`; `cold`: the archive is the reference."""

    clip: Clip
    start: int
    reference: int
    cold: bool


@dataclass
class Drawn:
    """A batch: tensors, the rows' keys, and the clips that were skipped on the way, with the reason."""

    tensors: dict[str, Tensor]
    keys: list[str]
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def to(self, device: torch.device) -> "Drawn":
        """The same, on another device, where halves are widened; seeds stay on the CPU, where noise is drawn."""
        moved = {
            name: tensor if name == "seed" else _widened(tensor.to(device, non_blocking=True))
            for name, tensor in self.tensors.items()
        }
        return Drawn(moved, self.keys, self.skipped)

    def pin_memory(self) -> "Drawn":
        """The same in pinned memory, from where `to` copies beside the GPU's work; called by torch's loader."""
        return Drawn({name: tensor.pin_memory() for name, tensor in self.tensors.items()}, self.keys, self.skipped)


class Source:
    """Windows of clips as tensors, from cached rows where `encoded` is given, else from the clip's own bytes.

    A window's present frames are those of `in_a_row` present clips.
    """

    def __init__(
        self, shards: Shards, recipe: Recipe, encoded: Encoded | None, needs: Sequence[str], in_a_row: int = 1
    ) -> None:
        features = {"audio", "image"} & set(needs)
        if encoded is None and features and not made_in_training(recipe):
            raise ValueError("wav2vec 2.0 and CLIP features are read, not made, in training: run `encode` first")
        self.shards, self.recipe, self.encoded, self.needs = shards, recipe, encoded, tuple(needs)
        self.present = in_a_row * recipe.frames
        made = features if encoded is None else set()
        self._audio = make_audio(recipe.audio) if "audio" in made else None
        self._image = make_image(recipe.image) if "image" in made else None

    def load(self, window: Window) -> dict[str, Tensor]:
        """The members that are asked for; raises `SampleError`."""
        if self.encoded is None:
            return self._from_clip(window)
        return self._from_cache(window, self.encoded)

    def _from_cache(self, window: Window, encoded: Encoded) -> dict[str, Tensor]:
        clip, start, needs = window.clip, window.start, self.needs
        a, f, reach = self.recipe.archive.frames, self.present, self.recipe.audio.reach
        low, high = start - a, start + f
        out: dict[str, Tensor] = {}
        if "present" in needs:
            rows = _tensor(encoded.rows(clip, "latent", low, high))
            reference = _tensor(encoded.rows(clip, "latent", window.reference, window.reference + 1))
            out |= self._pictures(rows, reference, cold=window.cold)
        if "face" in needs:
            out["face"] = _tensor(encoded.rows(clip, "face", low, high)).float() / 127.5 - 1
        for name in ("points", "head"):
            if name in needs:
                out[name] = _tensor(encoded.rows(clip, name, low, high))
        if "reference_head" in needs:
            out["reference_head"] = _tensor(encoded.rows(clip, "head", window.reference, window.reference + 1))[0]
        if "audio" in needs:
            left, right = max(low - reach, 0), min(high + reach, clip.n_frames)
            features = _tensor(encoded.rows(clip, "audio", left, right))
            out["audio"] = heard(_pad(features, left - low + reach, high + reach - right), reach)
        if "image" in needs:
            at = window.reference // REFERENCE_STRIDE
            out["image"] = _tensor(encoded.rows(clip, "image", at, at + 1))[0]
        return out

    def _from_clip(self, window: Window) -> dict[str, Tensor]:
        clip, start, needs = window.clip, window.start, self.needs
        a, f, reach = self.recipe.archive.frames, self.present, self.recipe.audio.reach
        low, high, side = start - a, start + f, self.recipe.codec.size_px
        out: dict[str, Tensor] = {}
        data = self.shards.read(clip, "mp4")
        landmarks, pose = face_parts(clip, self.shards)
        whole = decode(clip.key, data, window.reference, window.reference + 1)
        view = view_of(landmarks, whole.shape[1], self.recipe.codec.view)
        reference, landmarks = view.cut(whole), view.move(landmarks)
        drawn = {"present", "face", "points"} & set(needs)
        frames = view.cut(decode(clip.key, data, low, high)) if drawn else None
        if "present" in needs and frames is not None:
            shown = torch.from_numpy(resize(reference, side))
            out |= self._pictures(torch.from_numpy(resize(frames, side)), shown, cold=window.cold)
        if {"face", "points", "head", "reference_head"} & set(needs):
            heads = torch.from_numpy(head_state(landmarks, pose, view.side))
            out["head"], out["reference_head"] = heads[low:high], heads[window.reference]
            if frames is not None:
                faces, points = align(frames, landmarks[low:high], self.recipe.motion.face_px)
                out["face"], out["points"] = torch.from_numpy(faces).float() / 127.5 - 1, torch.from_numpy(points)
        if "audio" in needs and self._audio is not None:
            features = self._audio(torch.from_numpy(self.shards.sound(clip)))
            padded = _pad(features, max(reach - low, 0), max(high + reach - clip.n_frames, 0))
            at = max(low - reach, 0)
            out["audio"] = heard(padded[at : at + a + f + 2 * reach], reach)
        if "image" in needs and self._image is not None:
            picture = torch.from_numpy(resize(reference, side)).permute(0, 3, 1, 2).float() / 127.5 - 1
            out["image"] = self._image(picture)[0]
        return {name: tensor for name, tensor in out.items() if name in needs}

    def _pictures(self, rows: Tensor, reference: Tensor, *, cold: bool) -> dict[str, Tensor]:
        a = self.recipe.archive.frames
        archived = reference.expand(a, *reference.shape[1:]).clone() if cold else rows[:a]
        return {"present": rows[a:], "archived": archived, "reference": reference}


def made_in_training(recipe: Recipe) -> bool:
    """Whether the recipe's features of sound and reference cost so little that nothing has to be cached."""
    return (recipe.audio.kind, recipe.image.kind) == ("mel", "thumbnail")


class RandomWindows(Dataset[tuple[dict[str, Tensor], str, list[tuple[str, str]]]]):
    """Windows anywhere in the clips; longer clips come oftener. Bad samples give way to the next draw, by name.

    With a `stage` they, and their noise, are others than in all other stages; without, they are of none.
    """

    def __init__(self, source: Source, clips: Sequence[Clip], seed: int, stage: int | None = None) -> None:
        recipe = source.recipe
        self.least = recipe.archive.frames + source.present + REFERENCE_STRIDE
        self.clips = [clip for clip in clips if clip.n_frames >= self.least]
        if not self.clips:
            raise ValueError(f"none of {len(clips)} clips has the {self.least} frames that recipe {recipe.name} needs")
        self.source, self.seed = source, seed
        self._stage = [] if stage is None else [stage + 1]  # not 0: numpy takes [1, 2] and [1, 2, 0] for the same
        self._ends = np.cumsum([clip.n_frames - self.least + 1 for clip in self.clips])

    def window(self, number: int, attempt: int = 0) -> Window:
        """The window of sample `number`, a function of (seed, stage, number, attempt)."""
        rng = np.random.default_rng([self.seed, number, attempt, *self._stage])
        recipe, present = self.source.recipe, self.source.present
        clip = self.clips[int(np.searchsorted(self._ends, rng.integers(self._ends[-1]), side="right"))]
        start = int(rng.integers(recipe.archive.frames, clip.n_frames - present + 1))
        candidates = np.arange(0, clip.n_frames, REFERENCE_STRIDE)
        outside = candidates[(candidates < start) | (candidates >= start + present)]
        cold = bool(rng.random() < recipe.archive.start_share)
        return Window(clip, start, int(rng.choice(outside)), cold)

    def __getitem__(self, number: int) -> tuple[dict[str, Tensor], str, list[tuple[str, str]]]:
        skipped: list[tuple[str, str]] = []
        for attempt in range(MAX_BAD_IN_A_ROW):
            window = self.window(number, attempt)
            try:
                tensors = self.source.load(window)
            except SampleError as error:
                skipped.append((error.key, error.reason))
                continue
            seed = np.random.default_rng([self.seed, number, *self._stage]).integers(1 << 62)
            return {**tensors, "seed": torch.tensor(int(seed))}, window.clip.key, skipped
        key, reason = skipped[-1]
        raise ValueError(f"{MAX_BAD_IN_A_ROW} samples in a row cannot be used; the last: {key}: {reason}")

    def __getitems__(self, numbers: list[int]) -> Drawn | str:
        """A batch for the loader, or in one line why there is none: raised, it would cross processes as a traceback."""
        try:
            return collate([self[number] for number in numbers])
        except mendable() as error:
            return str(error)

    def __len__(self) -> int:
        return int(self._ends[-1])


def collate(samples: list[tuple[dict[str, Tensor], str, list[tuple[str, str]]]]) -> Drawn:
    """Stack samples into a batch."""
    tensors = {name: torch.stack([sample[0][name] for sample in samples]) for name in samples[0][0]}
    return Drawn(tensors, [sample[1] for sample in samples], [bad for sample in samples for bad in sample[2]])


def batches(
    windows: RandomWindows,
    *,
    batch: int,
    micro: int,
    first_step: int,
    steps: int,
    rank: int,
    world: int,
    workers: int,
    pin: bool = False,
) -> Iterator[Drawn]:
    """This rank's micro-batches for steps first_step to steps, in order; several per step where it accumulates.

    `batch` is global, `micro` what goes through the model at once on one rank; `pin` is for a GPU. Raises `ValueError`
    here, and on the way where no sample can be read, in whichever process that was.
    """
    share, rest = divmod(batch, world)
    if rest or share % micro:
        raise ValueError(f"a global batch of {batch} does not divide into {world} ranks of micro-batches of {micro}")
    numbers = [
        list(range(step * batch + rank * share + part, step * batch + rank * share + part + micro))
        for step in range(first_step, steps)
        for part in range(0, share, micro)
    ]
    loader = DataLoader(
        windows,
        batch_sampler=numbers,
        num_workers=workers,
        collate_fn=_whole,
        persistent_workers=False,
        prefetch_factor=4 if workers else None,
        pin_memory=pin,
    )
    return _told(iter(loader))


def _whole(drawn: Any) -> Any:
    return drawn


def _told(stream: Iterator[Drawn | str]) -> Iterator[Drawn]:
    for drawn in stream:
        if isinstance(drawn, str):
            raise ValueError(drawn)
        yield drawn


def _tensor(array: np.ndarray) -> Tensor:  # type: ignore[type-arg]
    """As it is stored: half as much to collate, pin and move where that is float16, see `Drawn.to`."""
    return torch.from_numpy(array.copy())


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def _pad(features: Tensor, before: int, after: int) -> Tensor:
    """The clip's first and last features, repeated where a window reaches over its ends."""
    shape = features.shape[1:]
    return torch.cat([features[:1].expand(before, *shape), features, features[-1:].expand(after, *shape)])
