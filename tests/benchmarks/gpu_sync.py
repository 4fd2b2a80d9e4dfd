"""SyncNet on a GPU: the network alone, with its inputs there, and the whole stage from clips' files to readings."""

import contextlib
import copy
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from manifests.records import RATE_HZ, SAMPLES_PER_FRAME, Clips, Syncs
from manifests.store import Store
from pipeline.bench import Bench
from pipeline.recipes import own
from pipeline.stage import Facts, Resources
from stages.cuda import exactly
from stages.media import frames
from stages.nets.syncnet import FACE_PX, WINDOW_FRAMES, SyncNet, distances, load, voice_windows
from stages.sync import ScoreSync, face_crops
from tests.benchmarks.clips import make_clips, speech_like
from tests.benchmarks.gpu_parts import Given, gpus
from tests.benchmarks.material import random_syncnet
from tests.benchmarks.record import Findings
from tests.benchmarks.turns import Spread, in_turns, spread

REACH = 15
FEWER = 4
"""Of the windows every so manyth, as `own` looks."""

Way = Callable[[Tensor], Tensor]
"""Inputs of lips to features."""

Arithmetic = Callable[[], AbstractContextManager[object]]


def alone(given: Given) -> Findings:
    """Times real time of lips, voices and distances, inputs on the device; and how far other arithmetic is off."""
    network = load(random_syncnet(given.folder)).to(given.device)
    numbers: dict[str, Any] = {"torch, cuDNN": f"{torch.__version__}, {torch.backends.cudnn.version()}"}  # type: ignore[no-untyped-call]
    seconds = given.size.alone_s
    n = round(seconds * RATE_HZ)
    crops = np.random.default_rng(0).integers(0, 256, (n, FACE_PX, FACE_PX, 3), np.uint8)
    pixels = network.inputs(crops, torch.device(given.device))
    heard = torch.from_numpy(voice_windows(speech_like(n * SAMPLES_PER_FRAME, 0))).to(given.device)
    heard = heard[: n - WINDOW_FRAMES]
    for every in (1, FEWER):
        exact: Tensor | None = None
        for name, (batch, way, arithmetic) in _ways(network, given.device, every).items():
            with torch.inference_mode(), arithmetic():
                score = partial(_score, network, pixels, heard, every, batch, way)
                took, found = _timed(score, given.device, given.repeats)
            label = f"every {every}, {name}"
            numbers[f"{label}: times real time"] = spread([seconds / one for one in took])
            if exact is None:
                exact = found
                with FlopCounterMode(display=False) as counter, torch.inference_mode():
                    score()
                numbers[f"every {every}: T operations per s of clip"] = counter.get_total_flops() / seconds / 1e12
            else:
                numbers[f"{label}: largest relative difference of a distance"] = _apart(exact, found)
    return Findings(numbers=numbers)


def _ways(network: SyncNet, device: str, every: int) -> dict[str, tuple[int, Way, Arithmetic]]:
    """Windows at once, how lips are read, and in which arithmetic. The first is the stage's own."""
    plain = copy.deepcopy(network)
    plain.netcnnlip.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def usual(some: Tensor) -> Tensor:
        return network.lips(some, every)

    def planes(some: Tensor) -> Tensor:
        features: Tensor = plain.netfclip(plain.netcnnlip(some.contiguous()).flatten(2).transpose(1, 2).flatten(0, 1))
        return features

    ways: dict[str, tuple[int, Way, Arithmetic]]
    ways = {"as the stage": (64, usual, exactly), "256 at once": (256, usual, exactly), "TF32": (64, usual, _tf32)}
    if every == 1:
        ways["colours as planes, not channels-last"] = (64, planes, exactly)
    if device != "cpu":  # where a processor has no such arithmetic a window takes half a minute
        ways["bfloat16"] = (64, usual, partial(_bfloat16, device))
    return ways


@contextlib.contextmanager
def _tf32() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def _bfloat16(device: str) -> Iterator[None]:
    with exactly(), torch.autocast(device, dtype=torch.bfloat16):
        yield


def _score(network: SyncNet, pixels: Tensor, heard: Tensor, every: int, batch: int, way: Way) -> Tensor:
    """What `stages.sync.offset_distances` gives, of inputs (1, 3, t, px, px) and windows of sound on the device."""
    step = batch * every
    pieces = [pixels[:, :, at : at + step + WINDOW_FRAMES - 1] for at in range(0, len(heard), step)]
    lips = torch.cat([way(piece) for piece in pieces])
    voices = torch.cat([network.voices(some) for some in torch.split(heard, 4 * batch)])
    return distances(lips[: -(-len(heard) // every)].float(), voices.float(), REACH, every)


def _timed(call: Callable[[], Tensor], device: str, repeats: int) -> tuple[list[float], Tensor]:
    """Seconds of each call on the clock, after one that is not counted; and what the last gave."""
    took, found = [], call()
    for _ in range(repeats):
        _wait(device)
        began = time.perf_counter()
        found = call()
        _wait(device)
        took.append(time.perf_counter() - began)
    return took, found


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def _apart(exact: Tensor, found: Tensor) -> float:
    return float(((found - exact).abs() / exact.abs().clamp(min=1e-6)).max())


def stage(given: Given) -> Findings:
    """The stage with one worker on the device and with one on the processor, in turns; what both read."""
    state, store = random_syncnet(given.folder), Store(str(given.folder / "store"))
    clips = make_clips(store, given.empty("made"), given.size.clips_s)
    ways = {
        f"{name}, {windows}": partial(read, state, clips, store, device, fewer=windows != "every window")
        for windows in ("every window", "windows as `own` looks")
        for name, device in (("device", given.device), ("processor", "cpu"))
    }
    opened = {name: way() for name, way in ways.items()}
    turns = in_turns({**opened, "decode and crops": partial(_decoded, store, clips)}, given.repeats, warm=True)
    seconds = sum(clip.end_s - clip.start_s for clip in clips.items)
    ratios: dict[str, Spread] = {}
    numbers: dict[str, Any] = {}
    for windows in ("every window", "windows as `own` looks"):
        names = f"device, {windows}", f"processor, {windows}"
        ratios[f"processor / device, {windows}, wall"] = turns.wall_ratio(names[1], names[0])
        numbers |= {f"{windows}: {label}": one for label, one in agreement(*(turns.made[n] for n in names)).items()}
    rates: dict[str, Spread] = {
        f"{name}: times real time": spread([seconds / one.wall_s for one in spent])
        for name, spent in turns.spent.items()
    }
    return Findings(ratios=ratios, numbers={**rates, **numbers, "footage_s": seconds})


def read(state: Path, clips: Clips, store: Store, device: str, *, fewer: bool = False) -> Callable[[], Syncs]:
    """The stage with one worker, opened: every window, or those that `own` looks at."""
    asked = Resources(gpus=gpus(device))
    scoring = replace(own().sync, resources=asked) if fewer else ScoreSync(resources=asked)
    work = replace(scoring, model=str(state), device=device).open()

    def call() -> Syncs:
        with Bench(store, "sync", "made") as bench:
            found = work(Facts([clips]), bench)
        assert isinstance(found, Syncs)
        return found

    return call


def agreement(one: Syncs, other: Syncs) -> dict[str, Any]:
    """How far the readings of the same clips are apart."""
    pairs = list(zip(one.items, other.items, strict=True))
    return {
        "clips": len(pairs),
        "clips with the same offset": sum(a.offset_frames == b.offset_frames for a, b in pairs),
        "largest relative difference of a distance": max(
            float(np.max(np.abs(np.subtract(a.distances, b.distances)) / b.distances)) for a, b in pairs
        ),
        "largest difference of confidence": max(abs(a.confidence - b.confidence) for a, b in pairs),
    }


def _decoded(store: Store, clips: Clips) -> int:
    """What the stage does before its network: the number of crops."""
    n = 0
    for clip in clips.items:
        with np.load(store.at(clip.arrays.path)) as arrays:
            boxes = arrays["box"][:, :4].astype(np.float64)
        pictures = (decoded.images for decoded in frames(Path(store.at(clip.video.path))))
        n += sum(len(some) for some in face_crops(pictures, boxes))
    return n
