"""Make the sample SyncNet from nothing: render mouths that speak, learn which voice goes with them, keep the network.

    python -m stages.sample.train_sync                      # about an hour on two cores; needs libespeak-ng
    python -m stages.sample.train_sync --score              # what the packaged weights do on people and voices unseen

The network is `stages.nets.syncnet.SyncNet` in its small variant. It learns by InfoNCE: of all voices of a batch (other
people's, and the same person's at other times) the one that belongs to the lips must be the nearest. The logit of a
pair is minus its distance, so that distances, and with them SyncNet's confidence, are in natural units (nats).
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
from stages.sample.mouths import SEEN_PX, STORED_PX, Take, take
from stages.sample.voice import CHECK_SPEAKERS, TRAINING_SPEAKERS

LOG = logging.getLogger(__name__)

SIZES = Sizes(audio=(24, 40, 56, 56, 56, 128), lip=(24, 40, 56, 56, 56, 128), hidden=128, embedding=128, colours=1)
FILE = Path(__file__).parent / "sync" / "sample.model"
TAKE_FRAMES = 150
_TRAINING_SEED, _CHECK_SEED = 1_000_000, 2_000_000
_PER_PERSON = 4  # takes that show one person: see `mouths.take`
_BATCH_TAKES, _BATCH_WINDOWS = 12, 12
_REACH = 15


@dataclass(frozen=True, kw_only=True)
class Course:
    """How much is made and learnt."""

    seed: int = 0
    takes: int = 480
    checks: int = 32
    minutes: float = 60.0
    steps: int = 6000
    threads: int = 2


def render(course: Course, folder: Path, processes: int) -> None:
    """Make all takes that `folder` does not hold yet, several people at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    people = [("train", p) for p in range(course.takes // _PER_PERSON)]
    people += [("check", p) for p in range(course.checks // _PER_PERSON)]
    jobs = [(folder, kind, number, course.seed) for kind, number in people]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for done, _ in enumerate(pool.imap_unordered(_render_person, jobs), 1):
            LOG.info("rendered %d of %d people", done, len(jobs))


def _render_person(job: tuple[Path, str, int, int]) -> None:
    folder, kind, number, seed = job
    cv2.setNumThreads(1)
    first = _TRAINING_SEED if kind == "train" else _CHECK_SEED
    speakers = TRAINING_SPEAKERS if kind == "train" else CHECK_SPEAKERS
    for i in range(number * _PER_PERSON, (number + 1) * _PER_PERSON):
        target = folder / f"{kind}-{i:05d}.npz"
        if not target.exists():
            made = take(first * (1 + seed) + i, speakers=speakers, n_frames=TAKE_FRAMES)
            partial = target.with_suffix(".partial.npz")
            np.savez(partial, mouths=made.mouths, samples=made.samples)
            partial.rename(target)


def takes(folder: Path, kind: str) -> list[Take]:
    """All takes of a kind that are there, in order."""
    found = []
    for path in sorted(folder.glob(f"{kind}-?????.npz")):
        with np.load(path) as arrays:
            found.append(Take(arrays["mouths"], arrays["samples"]))
    return found


class Flat(nn.Module):
    """The lip half for single windows, with the five frames as channels: the same sums in 2-D, faster on a CPU."""

    def __init__(self, network: SyncNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, windows: Tensor) -> Tensor:
        """Windows (n, 5, px, px) to features (n, embedding)."""
        x = windows.contiguous(memory_format=torch.channels_last)
        for layer in self.network.netcnnlip:
            if isinstance(layer, nn.Conv3d):
                kernel = layer.weight.flatten(1, 2)  # time, or the one step of it, joins the channels
                x = F.conv2d(x, kernel, layer.bias, layer.stride[1:], layer.padding[1:])
            elif isinstance(layer, nn.BatchNorm3d):
                x = F.batch_norm(
                    x, layer.running_mean, layer.running_var, layer.weight, layer.bias, self.training, 0.1, layer.eps
                )
            elif isinstance(layer, nn.MaxPool3d):
                x = _pool(x, layer)
            else:
                x = F.relu(x)
        found: Tensor = self.network.netfclip(x.flatten(1))
        return found


def _pool(x: Tensor, layer: nn.MaxPool3d) -> Tensor:
    if layer.kernel_size == 1:
        return x
    kernel, stride, padding = (v if isinstance(v, tuple) else (v,) * 3 for v in (
        layer.kernel_size, layer.stride, layer.padding
    ))  # fmt: skip
    return F.max_pool2d(x, kernel[1:], stride[1:], padding[1:])


def batches(pool: list[Take], rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches: lips (n, 5, 56, 56) and voices (n, 13, 20), n = takes * windows, pairs in step."""
    while True:
        order = rng.permutation(len(pool))
        for start in range(0, len(order) - _BATCH_TAKES + 1, _BATCH_TAKES):
            pairs = [_pairs(pool[i], rng) for i in order[start : start + _BATCH_TAKES]]
            yield tuple(torch.from_numpy(np.concatenate(half)) for half in zip(*pairs, strict=True))  # type: ignore[misc]


def _pairs(one: Take, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    heard = voice_windows(worsened_sound(one.samples, rng))
    count = min(len(heard), len(one.mouths) - WINDOW_FRAMES + 1)
    at = np.sort(rng.choice(count, _BATCH_WINDOWS, replace=False))
    frames = one.mouths[(at[:, None] + np.arange(WINDOW_FRAMES)).ravel()]
    seen = worsened_picture(frames, rng).reshape(_BATCH_WINDOWS, WINDOW_FRAMES, SEEN_PX, SEEN_PX)
    return seen, heard[at]


def worsened_picture(frames: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
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
    return seen.clip(0, 255).astype(np.float32)


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


def _chords(length: int, rng: np.random.Generator) -> NDArray[np.float32]:
    time_s = np.arange(length, dtype=np.float32) / SAMPLE_RATE_HZ
    beat = int(rng.uniform(0.2, 0.8) * SAMPLE_RATE_HZ)
    bed = np.zeros(length, np.float32)
    for start in range(0, length, beat):
        part = slice(start, start + beat)
        for step in rng.choice((0, 3, 4, 7, 9, 12, 16), 3, replace=False):
            bed[part] += np.sin(2 * np.pi * 130.8 * 2 ** (step / 12) * time_s[part] + rng.uniform(0, 6))
    return bed / (bed.std() + 1e-6)


def loss_of(lips: Tensor, voices: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE both ways. Silence before and after a clip is a zero vector to SyncNet: a wrong answer like the others."""
    apart = torch.cdist(lips, voices) * scale
    nothing = lips.norm(dim=1, keepdim=True) * scale
    right = torch.arange(len(lips))
    seen = F.cross_entropy(-torch.cat([apart, nothing], 1), right)
    return (seen + F.cross_entropy(-apart.T, right)) / 2


def train(course: Course, folder: Path, target: Path) -> None:
    """Learn for `course.minutes` or `course.steps`, whichever ends first; write `target` every 250 steps and then."""
    torch.manual_seed(course.seed)
    torch.set_num_threads(course.threads)
    network = SyncNet(SIZES)
    flat = Flat(network)
    scale = nn.Parameter(torch.tensor(1.0))
    optimiser = torch.optim.AdamW([*network.parameters(), scale], lr=2e-3, weight_decay=1e-3)
    feed = batches(takes(folder, "train"), np.random.default_rng([course.seed, 0x7A]))
    began, running = time.monotonic(), 0.0
    for step in range(course.steps):
        spent = max((time.monotonic() - began) / 60 / course.minutes, step / course.steps)
        if spent >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * spent))
        flat.train()
        seen, heard = next(feed)
        loss = loss_of(flat(seen), network.voices(heard), scale.clamp(0.1, 20))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        running += (loss.item() - running) * max(0.02, 1 / (step + 1))
        if step % 50 == 49:
            spent_s = time.monotonic() - began
            LOG.info("step %d, loss %.3f, scale %.2f, %.0f s", step + 1, running, scale.item(), spent_s)
        if step % 250 == 249:
            keep(network, float(scale), target)
            LOG.info("%s", json.dumps(score(load(target), takes(folder, "check")[:12])))
    keep(network, float(scale), target)


def keep(network: SyncNet, scale: float, target: Path) -> None:
    """Write a plain state dict in half precision, the learnt scale multiplied into the embeddings."""
    state = {name: value.detach().clone() for name, value in network.state_dict().items()}
    for half in ("netfcaud", "netfclip"):
        for name in ("weight", "bias"):
            state[f"{half}.3.{name}"] *= scale
    state = {name: v.half() if v.is_floating_point() else v for name, v in state.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(target)


def readings(network: SyncNet, mouths: NDArray[np.uint8], samples: NDArray[np.int16]) -> tuple[int, float]:
    """Offset in frames and confidence of stored mouths against a voice."""
    rim = (STORED_PX - SEEN_PX) // 2
    frames = torch.from_numpy(mouths[:, rim : rim + SEEN_PX, rim : rim + SEEN_PX].copy()).float()
    with torch.inference_mode():
        lips, voices = network.lips(frames[None, None]), network.voices(torch.from_numpy(voice_windows(samples)))
        count = min(len(mouths), len(samples) // SAMPLES_PER_FRAME) - WINDOW_FRAMES
        mean = distances(lips[:count], voices[:count], _REACH).mean(0)
    return int(mean.argmin()) - _REACH, float(mean.median() - mean.min())


def score(network: SyncNet, pool: list[Take], *, seconds: float = 4.0) -> dict[str, float]:
    """Planted shifts found within a frame, and how well confidence tells the own voice from another's and a still."""
    rng = np.random.default_rng(0)
    frames = round(seconds * RATE_HZ)
    near, own, other, still = [], [], [], []
    for i, one in enumerate(pool):
        shift = int(rng.integers(-10, 11))
        start = 12
        mouths = one.mouths[start : start + frames]
        heard = one.samples[(start - shift) * SAMPLES_PER_FRAME :][: len(mouths) * SAMPLES_PER_FRAME]
        offset, confidence = readings(network, mouths, heard)
        near.append(abs(offset - shift) <= 1)
        own.append(confidence)
        strange = pool[(i + len(pool) // 2) % len(pool)].samples[start * SAMPLES_PER_FRAME :]
        other.append(readings(network, mouths, strange[: len(heard)])[1])
        still.append(readings(network, np.repeat(mouths[:1], len(mouths), 0), heard)[1])
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
    parser.add_argument("--folder", type=Path, default=Path("out/train_sync"), help="rendered takes are kept here")
    parser.add_argument("--to", type=Path, default=FILE, help="the state dict to write (or, with --score, to read)")
    parser.add_argument("--seed", type=int, default=Course.seed)
    parser.add_argument("--takes", type=int, default=Course.takes, help="of six seconds each")
    parser.add_argument("--minutes", type=float, default=Course.minutes, help="of training, at most")
    parser.add_argument("--steps", type=int, default=Course.steps)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--score", action="store_true", help="only measure, on people and voices never trained on")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    course = Course(
        seed=given.seed,
        takes=0 if given.score else given.takes,
        minutes=given.minutes,
        steps=given.steps,
        threads=given.processes,
    )
    render(course, given.folder, given.processes)
    if not given.score:
        train(course, given.folder, given.to)
    LOG.info("%s", json.dumps(score(load(given.to), takes(given.folder, "check"))))


if __name__ == "__main__":
    main()
