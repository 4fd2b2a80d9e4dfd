"""Make the sample SyncNet from nothing: render mouths that speak, learn which voice goes with them, keep the network.

    python -m stages.sample.train_sync                      # about half an hour on two cores; needs libespeak-ng
    python -m stages.sample.train_sync --score              # what the packaged weights do on people and voices unseen

The network is `stages.nets.syncnet.SyncNet` in its small variant. It learns by InfoNCE: of all voices of a batch (other
people's, and the same person's at other times) the one that belongs to the lips must be the nearest. The logit of a
pair is minus its distance, so that distances, and with them SyncNet's confidence, are in natural units (nats). What it
has in no data set of real people helps it on: both halves also learn to tell the shapes of the mouth. Deterministic for
one seed, one thread count and one build of torch on one kind of processor.
"""

import argparse
import json
import logging
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from manifests.records import RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from stages.nets.syncnet import WINDOW_FRAMES, Sizes, SyncNet, distances, load, voice_windows
from stages.sample.mouths import MOUTH_SHAPES, SEEN_PX, STORED_PX, Floats, Take, take
from stages.sample.voice import CHECK_SPEAKERS, TRAINING_SPEAKERS

LOG = logging.getLogger(__name__)

SIZES = Sizes(audio=(16, 32, 48, 48, 48, 96), lip=(16, 32, 48, 48, 48, 96), hidden=128, embedding=128, colours=1)
FILE = Path(__file__).parent / "sync" / "sample.model"
TAKE_FRAMES = 150
_TRAINING_SEED, _CHECK_SEED = 1_000_000, 2_000_000
_PER_PERSON = 4  # takes that show one person: see `mouths.take`
_BATCH_TAKES, _BATCH_WINDOWS = 8, 8
_SOUNDS = 3  # ways in which each take is heard
_REACH = 15
_RATE = 2e-3


@dataclass(frozen=True, kw_only=True)
class Course:
    """How much is made and learnt."""

    seed: int = 0
    takes: int = 320
    checks: int = 32
    steps: int = 3600
    threads: int = 2


def render(course: Course, folder: Path, processes: int) -> None:
    """Make all takes of this seed that `folder` does not hold yet, several people at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    people = [("train", p) for p in range(course.takes // _PER_PERSON)]
    people += [("check", p) for p in range(course.checks // _PER_PERSON)]
    there = {path.stem for path in folder.glob("*.npz")}
    jobs = [(folder, kind, p, course.seed) for kind, p in people if f"{kind}-{_last(p):05d}" not in there]
    if not jobs:
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for done, _ in enumerate(pool.imap_unordered(_render_person, jobs), 1):
            LOG.info("rendered %d of %d people", done, len(jobs))


def _last(number: int) -> int:
    return (number + 1) * _PER_PERSON - 1


def _render_person(job: tuple[Path, str, int, int]) -> None:
    folder, kind, number, seed = job
    cv2.setNumThreads(1)
    first = _TRAINING_SEED if kind == "train" else _CHECK_SEED
    speakers = TRAINING_SPEAKERS if kind == "train" else CHECK_SPEAKERS
    for i in range(number * _PER_PERSON, _last(number) + 1):
        target = folder / f"{kind}-{i:05d}.npz"
        if not target.exists():
            made = take(first * (1 + seed) + i, speakers=speakers, n_frames=TAKE_FRAMES)
            partial = target.with_suffix(".partial.npz")
            np.savez(partial, mouths=made.mouths, samples=made.samples, shapes=made.shapes)
            partial.rename(target)


def takes(folder: Path, kind: str, most: int) -> list[Take]:
    """The first `most` takes of a kind, in order."""
    found = []
    for path in sorted(folder.glob(f"{kind}-?????.npz"))[:most]:
        with np.load(path) as arrays:
            found.append(Take(arrays["mouths"], arrays["samples"], arrays["shapes"]))
    return found


class Lesson(nn.Module):
    """A network while it learns: embeddings of mean 0 and deviation 1, and guesses of the mouth's shapes.

    The lip half takes single windows with the five frames as channels: the same sums in 2-D, faster on a CPU.
    """

    def __init__(self, network: SyncNet) -> None:
        super().__init__()
        self.network = network
        width, hidden = network.sizes.embedding, network.sizes.hidden
        self.unit_lips = nn.BatchNorm1d(width, affine=False)
        self.unit_voices = nn.BatchNorm1d(width, affine=False)
        self.shapes_seen = nn.Linear(hidden, WINDOW_FRAMES * MOUTH_SHAPES)
        self.shapes_heard = nn.Linear(hidden, WINDOW_FRAMES * MOUTH_SHAPES)
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, seen: Tensor, heard: Tensor, shapes: Tensor) -> Tensor:
        """Loss of lips (n, 5, px, px), voices (n, 13, 20) and shapes (n, 35) in step."""
        lips, voices = self.lips(seen), self.network.netcnnaud(heard.unsqueeze(1)).flatten(1)
        lips, voices = self.network.netfclip[:3](lips), self.network.netfcaud[:3](voices)
        told = F.mse_loss(self.shapes_seen(lips), shapes) + F.mse_loss(self.shapes_heard(voices), shapes)
        unit_lips = self.unit_lips(self.network.netfclip[3](lips))
        unit_voices = self.unit_voices(self.network.netfcaud[3](voices))
        return loss_of(unit_lips * self.scale, unit_voices * self.scale) + told

    def lips(self, windows: Tensor) -> Tensor:
        """Windows (n, 5, px, px) through the convolutions: (n, features)."""
        x = windows.contiguous(memory_format=torch.channels_last)
        for layer in self.network.netcnnlip:
            if isinstance(layer, nn.Conv3d):
                kernel = layer.weight.flatten(1, 2)  # time, or the one step of it, joins the channels
                x = F.conv2d(x, kernel, layer.bias, layer.stride[1:], layer.padding[1:])
            elif isinstance(layer, nn.BatchNorm3d):
                mean, variance = layer.running_mean, layer.running_var
                x = F.batch_norm(x, mean, variance, layer.weight, layer.bias, self.training, 0.1, layer.eps)
            elif isinstance(layer, nn.MaxPool3d):
                x = _pool(x, layer)
            else:
                x = F.relu(x)
        return x.flatten(1)

    def state(self) -> dict[str, Tensor]:
        """The network's state dict, the embeddings' mean, deviation and scale multiplied into its last layers."""
        state = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        for half, unit in (("netfclip", self.unit_lips), ("netfcaud", self.unit_voices)):
            assert unit.running_mean is not None and unit.running_var is not None
            factor = self.scale.detach() / (unit.running_var + unit.eps).sqrt()
            state[f"{half}.3.weight"] *= factor[:, None]
            state[f"{half}.3.bias"] = (state[f"{half}.3.bias"] - unit.running_mean) * factor
        return state


def _pool(x: Tensor, layer: nn.MaxPool3d) -> Tensor:
    if layer.kernel_size == 1:
        return x
    kernel, stride, padding = (v if isinstance(v, tuple) else (v,) * 3 for v in (
        layer.kernel_size, layer.stride, layer.padding
    ))  # fmt: skip
    return F.max_pool2d(x, kernel[1:], stride[1:], padding[1:])


def batches(pool: list[Take], rng: np.random.Generator) -> Iterator[tuple[Tensor, ...]]:
    """Endless batches: lips (n, 5, 56, 56), voices (n, 13, 20), shapes (n, 35), n = takes * windows, all in step."""
    heard = [[voice_windows(worsened_sound(one.samples, rng)) for _ in range(_SOUNDS)] for one in pool]
    while True:
        order = rng.permutation(len(pool))
        for start in range(0, len(order) - _BATCH_TAKES + 1, _BATCH_TAKES):
            chosen = order[start : start + _BATCH_TAKES]
            triples = [_windows(pool[i], heard[i][rng.integers(_SOUNDS)], rng) for i in chosen]
            yield tuple(torch.from_numpy(np.concatenate(part)) for part in zip(*triples, strict=True))


def _windows(one: Take, heard: Floats, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    count = min(len(heard), len(one.mouths) - WINDOW_FRAMES + 1)
    at = np.sort(rng.choice(count, _BATCH_WINDOWS, replace=False))
    frames = (at[:, None] + np.arange(WINDOW_FRAMES)).ravel()
    seen = worsened_picture(one.mouths[frames], rng).reshape(_BATCH_WINDOWS, WINDOW_FRAMES, SEEN_PX, SEEN_PX)
    return seen, heard[at], one.shapes[frames].reshape(_BATCH_WINDOWS, -1)


def worsened_picture(frames: NDArray[np.uint8], rng: np.random.Generator) -> Floats:
    """Another framing, light and camera for all frames alike: (n, 72, 72) to (n, 56, 56), 0..255."""
    zoom, turn = rng.uniform(0.88, 1.14), np.radians(rng.normal(0, 5))
    flip = rng.choice((-1.0, 1.0))
    shift = rng.normal(0, 2.0, 2)
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) / zoom
    turned[:, 0] *= flip
    middle = (STORED_PX - 1) / 2 + shift - turned @ ((SEEN_PX - 1) / 2, (SEEN_PX - 1) / 2)
    warp = np.column_stack([turned, middle])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = np.stack([
        cv2.warpAffine(f, warp, (SEEN_PX, SEEN_PX), flags=flags, borderMode=cv2.BORDER_REPLICATE) for f in frames
    ]).astype(np.float32)  # fmt: skip
    if rng.random() < 0.3:
        sigma = rng.uniform(0.4, 1.6)
        seen = np.stack([cv2.GaussianBlur(f, (0, 0), sigma) for f in seen])
    seen = 255 * (seen / 255) ** np.exp(rng.normal(0, 0.3))
    seen = (seen - 128) * rng.uniform(0.5, 1.4) + 128 + rng.normal(0, 25)
    if rng.random() < 0.1:
        seen = 255 - seen
    if rng.random() < 0.5:
        seen += rng.normal(0, rng.uniform(1, 8), seen.shape)
    clipped: Floats = seen.clip(0, 255).astype(np.float32)
    return clipped


def worsened_sound(samples: NDArray[np.int16], rng: np.random.Generator) -> NDArray[np.int16]:
    """Another microphone: tilt of the spectrum, echo, gain, and noise or a bed of chords at some level."""
    sound = samples.astype(np.float32)
    if rng.random() < 0.5:
        tilt = rng.uniform(-0.6, 0.9)
        sound[1:] = sound[1:] - tilt * sound[:-1]
    if rng.random() < 0.3:
        delay, share = int(rng.uniform(0.004, 0.05) * SAMPLE_RATE_HZ), rng.uniform(0.1, 0.5)
        sound[delay:] += share * sound[:-delay]
    level = np.sqrt(np.mean(sound**2)) + 1
    if rng.random() < 0.6:
        noise = rng.normal(0, 1, len(sound)).astype(np.float32)
        if rng.random() < 0.6:
            noise = np.cumsum(noise).astype(np.float32)
            noise[400:] -= noise[:-400]
        sound += noise / (noise.std() + 1e-6) * level * 10 ** rng.uniform(-2.0, -0.3)
    if rng.random() < 0.3:
        sound += _chords(len(sound), rng) * level * 10 ** rng.uniform(-1.5, -0.3)
    sound *= rng.uniform(0.08, 0.9) * 20_000 / (np.abs(sound).max() + 1)
    return np.rint(sound).clip(-32768, 32767).astype(np.int16)


def _chords(length: int, rng: np.random.Generator) -> Floats:
    time_s = np.arange(length, dtype=np.float32) / SAMPLE_RATE_HZ
    beat = int(rng.uniform(0.2, 0.8) * SAMPLE_RATE_HZ)
    bed = np.zeros(length, np.float32)
    for start in range(0, length, beat):
        part = slice(start, start + beat)
        for step in rng.choice((0, 3, 4, 7, 9, 12, 16), 3, replace=False):
            bed[part] += np.sin(2 * np.pi * 130.8 * 2 ** (step / 12) * time_s[part] + rng.uniform(0, 6))
    unit: Floats = bed / (bed.std() + 1e-6)
    return unit


def loss_of(lips: Tensor, voices: Tensor) -> Tensor:
    """InfoNCE both ways. What lies before and after a clip is a zero vector to SyncNet: one more wrong answer."""
    apart = torch.cdist(lips, voices)
    nothing = lips.norm(dim=1, keepdim=True)
    right = torch.arange(len(lips))
    seen = F.cross_entropy(-torch.cat([apart, nothing], 1), right)
    return (seen + F.cross_entropy(-apart.T, right)) / 2


def train(course: Course, folder: Path, target: Path) -> None:
    """Learn for `course.steps` steps; write `target` every 300 of them and at the end."""
    torch.manual_seed(course.seed)
    torch.set_num_threads(course.threads)
    lesson = Lesson(SyncNet(SIZES))
    optimiser = torch.optim.AdamW(lesson.parameters(), lr=_RATE, weight_decay=1e-3)
    feed = batches(takes(folder, "train", course.takes), np.random.default_rng([course.seed, 0x7A]))
    began, running = time.monotonic(), 0.0
    for step in range(course.steps):
        for group in optimiser.param_groups:
            group["lr"] = _RATE * min(1, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * step / course.steps))
        loss = lesson(*next(feed))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(lesson.parameters(), 5.0)
        optimiser.step()
        running += (loss.item() - running) * max(0.02, 1 / (step + 1))
        if step % 50 == 49:
            LOG.info("step %d, loss %.3f, %.0f s", step + 1, running, time.monotonic() - began)
        if step % 300 == 299:
            keep(lesson.state(), target)
            LOG.info("%s", json.dumps(score(load(target), takes(folder, "check", 8))))
    keep(lesson.state(), target)


def keep(state: dict[str, Tensor], target: Path) -> None:
    """Write a state dict, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(target)


def features(network: SyncNet, mouths: NDArray[np.uint8], samples: NDArray[np.int16]) -> tuple[Tensor, Tensor]:
    """Lip and voice features of stored mouths and of sound."""
    rim = (STORED_PX - SEEN_PX) // 2
    frames = torch.from_numpy(mouths[:, rim : rim + SEEN_PX, rim : rim + SEEN_PX].copy()).float()
    with torch.inference_mode():
        return network.lips(frames[None, None]), network.voices(torch.from_numpy(voice_windows(samples)))


def readings(lips: Tensor, voices: Tensor) -> tuple[int, float]:
    """Offset in frames and confidence."""
    count = min(len(lips), len(voices))
    mean = distances(lips[:count], voices[:count], _REACH).mean(0)
    return int(mean.argmin()) - _REACH, float(mean.median() - mean.min())


def score(network: SyncNet, pool: list[Take], *, seconds: float = 4.0) -> dict[str, float]:
    """Planted shifts found within a frame, and how well confidence tells the own voice from another's and a still."""
    rng = np.random.default_rng(0)
    frames, start = round(seconds * RATE_HZ), 12
    near, own, other, still = [], [], [], []
    shifts = rng.integers(-10, 11, len(pool))
    parts = []
    for one, shift in zip(pool, shifts, strict=True):
        heard = one.samples[(start - shift) * SAMPLES_PER_FRAME :][: frames * SAMPLES_PER_FRAME]
        parts.append(features(network, one.mouths[start : start + frames], heard))
    for i, (lips, voices) in enumerate(parts):
        offset, confidence = readings(lips, voices)
        near.append(abs(offset - shifts[i]) <= 1)
        own.append(confidence)
        other.append(readings(lips, parts[(i + len(pool) // 2) % len(pool)][1])[1])
        still.append(readings(lips[:1].expand(len(lips), -1), voices)[1])
    return {
        "clips": len(pool),
        "offset_within_1_frame": round(float(np.mean(near)), 4),
        "auc_own_voice_over_another": round(_auc(own, other), 4),
        "auc_talking_over_still": round(_auc(own, still), 4),
        "confidence_own": round(float(np.median(own)), 3),
        "confidence_another": round(float(np.median(other)), 3),
        "confidence_still": round(float(np.median(still)), 3),
    }


def _auc(high: list[float], low: list[float]) -> float:
    a, b = np.array(high)[:, None], np.array(low)[None]
    return float(((a > b) + 0.5 * (a == b)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.sample.train_sync", description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("out/train_sync"), help="where rendered takes are kept")
    parser.add_argument("--to", type=Path, default=FILE, help="the state dict to write (or, with --score, to read)")
    parser.add_argument("--seed", type=int, default=Course.seed)
    parser.add_argument("--takes", type=int, default=Course.takes, help="of six seconds each")
    parser.add_argument("--steps", type=int, default=Course.steps)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="that render")
    parser.add_argument("--threads", type=int, default=Course.threads, help="of torch: others, other digits")
    parser.add_argument("--score", action="store_true", help="only measure, on people and voices never trained on")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    course = Course(
        seed=given.seed,
        takes=0 if given.score else given.takes,
        steps=given.steps,
        threads=given.threads,
    )
    folder = given.folder / f"seed-{course.seed}"
    render(course, folder, given.processes)
    if not given.score:
        train(course, folder, given.to)
    LOG.info("%s", json.dumps(score(load(given.to), takes(folder, "check", course.checks))))


if __name__ == "__main__":
    main()
