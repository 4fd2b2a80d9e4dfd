"""How well lips and voice of each clip agree, and by how many frames they are apart: SyncNet over the shipped bytes.

Signs: `offset_frames` is positive where the audio is late against the picture. syncnet-python prints the opposite sign
(its "AV offset" is positive where the picture is late): ours is minus its.
"""

import os
import wave
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from manifests.records import RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, Clip, Clips, Sync, Syncs
from pipeline.bench import Bench
from pipeline.stage import RUNTIME, Facts, Rejection, Stage, Work
from stages import weights
from stages.cuda import exactly, spoiled_by, torch_device

if TYPE_CHECKING:
    import torch

    from stages.nets.syncnet import SyncNet

CROP_SCALE = 0.4
"""Margin of the face crop as a share of the half side of the face box (syncnet-python's `crop_scale`)."""

_BORDER = (110, 110, 110)  # what syncnet-python sees beyond the picture
_MEDIAN_FRAMES = 13  # its smoothing of the boxes
_SHORTEST_FRAMES = 6  # it leaves the last of the five-frame windows out

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ScoreSync(Stage[Syncs]):
    """One `Sync` per clip. A clip of fewer than six frames gets one with no distances and confidence 0."""

    name: ClassVar[str] = "sync"
    version: ClassVar[int] = 3  # a drift has a least size
    needs: ClassVar[tuple[type, ...]] = (Clips,)
    gives: ClassVar[type] = Syncs

    model: str = "syncnet_v2"  # a name of `stages.weights`, or the path of a state dict of that layout
    reach: int = 15  # offsets from -reach to +reach frames are tried
    every: int = 1  # lips are looked at from every so manyth frame on, five frames each; 1 as syncnet-python does
    # ... or more often, so that a clip has so many looks: a mean of few would be a guess
    least_windows: int = field(default=0, metadata={"absent": 0})
    curve_window_s: float = 3.0
    curve_hop_s: float = 1.0  # at most: the windows lie evenly, the first and the last at the clip's ends
    batch: int = field(default=0, metadata=RUNTIME)  # lip windows per step; 0: 8 on a processor, 64 on a GPU
    device: str = field(default="auto", metadata=RUNTIME)  # "auto": a GPU if it asks for one that is there

    def __post_init__(self) -> None:
        if self.device != "auto" and not self.device.startswith(("cpu", "cuda")):
            raise ValueError(f"sync: device must be auto, cpu or cuda, not {self.device!r}")
        if self.reach < 1 or self.batch < 0 or self.curve_window_s <= 0 or self.curve_hop_s <= 0:
            raise ValueError("sync: reach, curve_window_s and curve_hop_s must be positive, and batch not negative")
        if not 1 <= self.every < _SHORTEST_FRAMES or self.least_windows < 0:
            raise ValueError(
                "sync: every must lie in 1..5 (beyond that some frames are not looked at), least_windows >= 0"
            )

    def step_frames(self, n_frames: int) -> int:
        """From one look at the lips to the next in a clip of so many frames."""
        if not self.least_windows:
            return self.every
        return min(self.every, max(1, (n_frames - _SHORTEST_FRAMES + 1) // self.least_windows))

    def models(self) -> tuple[str, ...]:
        return (self.model,)

    def weights(self) -> dict[str, str]:
        return {"model": weights.digest(self.model)}

    def open(self) -> Work[Syncs]:
        import cv2
        import torch

        from stages.media import frames
        from stages.nets.syncnet import load

        cv2.setNumThreads(1)  # OpenCV's default takes every core of the machine, for each worker
        device = torch.device(torch_device(self.device, self.resources.gpus))
        batch = self.batch or (8 if device.type == "cpu" else 64)  # 8 windows stay in a processor's cache
        if device.type == "cpu":  # Ray's own count is that of the share that the stage has of a small machine: one
            torch.set_num_threads(max(1, min(int(self.resources.cpus), os.cpu_count() or 1)))
        network = load(state_file(weights.path(self.model))).to(device)
        model = f"{Path(self.model).name} {weights.digest(self.model)}"

        def work(facts: Facts, bench: Bench) -> Syncs | Rejection:
            clips = facts[Clips].items
            longest = max((clip.n_frames for clip in clips), default=0)
            if longest < _SHORTEST_FRAMES and (clips or not facts[Clips].spared):
                return Rejection("clips_too_short_for_sync", {"longest_frames": longest})
            with spoiled_by(RuntimeError):
                files = bench.ahead((clip.audio, clip.arrays, clip.video) for clip in clips)
                found = tuple(score(clip, *paths) for clip, paths in zip(clips, files, strict=True))
            return Syncs(items=found, model=model)

        def score(clip: Clip, sound: Path, measures: Path, video: Path) -> Sync:
            samples = read_wav(sound)
            with np.load(measures) as arrays:
                boxes = arrays["box"][:, :4].astype(np.float64)
            pictures = (decoded.images for decoded in frames(video))
            crops = face_crops(pictures, boxes)
            every = self.step_frames(clip.n_frames)
            matrix = offset_distances(
                network, crops, samples, reach=self.reach, batch=batch, device=device, every=every
            )
            rate_hz = RATE_HZ / every
            return reading(clip.key, matrix, window_s=self.curve_window_s, hop_s=self.curve_hop_s, rate_hz=rate_hz)

        return work


def state_file(place: Path) -> Path:
    """The state dict that `place` is or, being a folder, holds; raises `WeightsMissingError`."""
    found = sorted(place.glob("*.model")) if place.is_dir() else [place]
    if len(found) != 1:
        raise weights.WeightsMissingError(f"{place} holds {len(found)} files named *.model: give the path of one")
    return found[0]


def read_wav(path: Path) -> NDArray[np.int16]:
    """Mono int16 samples at 16 kHz; raises `ValueError` on any other form."""
    with wave.open(str(path)) as sound:
        form = (sound.getnchannels(), sound.getsampwidth(), sound.getframerate())
        if form != (1, 2, SAMPLE_RATE_HZ):
            raise ValueError(f"{path.name}: channels, sample bytes and rate are {form}, not (1, 2, {SAMPLE_RATE_HZ})")
        return np.frombuffer(sound.readframes(sound.getnframes()), np.int16)


def face_crops(pictures: Iterable[Images | Sequence[Images]], boxes: NDArray[np.float64]) -> Iterator[Images]:
    """Crop every picture as syncnet-python does: (n, 224, 224, 3) BGR per batch of pictures.

    `boxes` (F, 4) are x1, y1, x2, y2 in pixels. The crop is a square of 1.4 times the longer side of the
    median-smoothed box, its top at the box's: the lower 0.8 half sides show the chin. Beyond the picture it is grey.
    """
    from scipy.signal import medfilt

    half = medfilt(np.maximum(boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]) / 2, _MEDIAN_FRAMES)
    x = medfilt((boxes[:, 0] + boxes[:, 2]) / 2, _MEDIAN_FRAMES)
    y = medfilt((boxes[:, 1] + boxes[:, 3]) / 2, _MEDIAN_FRAMES)
    at = 0
    for batch in pictures:
        span = range(at, min(at + len(batch), len(boxes)))
        if span:
            yield np.stack([_crop(batch[i - at], x[i], y[i], half[i]) for i in span])
        at += len(batch)


def _crop(image: Images, x: float, y: float, half: float) -> Images:
    import cv2

    from stages.nets.syncnet import FACE_PX

    # the truncations are those of syncnet-python, which pads the whole picture first and cuts then
    pad = int(half * (1 + 2 * CROP_SCALE))
    top, bottom = int(y + pad - half) - pad, int(y + pad + half * (1 + 2 * CROP_SCALE)) - pad
    left, right = int(x + pad - half * (1 + CROP_SCALE)) - pad, int(x + pad + half * (1 + CROP_SCALE)) - pad
    height, width = image.shape[:2]
    inner = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if inner.size == 0:
        return np.full((FACE_PX, FACE_PX, 3), _BORDER[0], np.uint8)
    borders = (max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0))
    if any(borders):
        inner = cv2.copyMakeBorder(inner, *borders, cv2.BORDER_CONSTANT, value=_BORDER)
    crop: Images = cv2.resize(inner, (FACE_PX, FACE_PX))
    return crop


def offset_distances(
    network: "SyncNet",
    crops: Iterable[Images],
    samples: NDArray[np.int16],
    *,
    reach: int,
    batch: int,
    device: "torch.device",
    every: int = 1,
) -> Floats:
    """Distances of lips to voice, (windows, 2 reach + 1): row i starts at frame i `every`, column k is k - reach later.

    With `every` 1 equal to syncnet-python's for equal weights and crops, its last window left out as it does. No rows
    if there are fewer than six frames. Crops stream through: held are `batch` windows and one feature per window.
    """
    import torch

    from stages.nets.syncnet import WINDOW_FRAMES, distances, voice_windows

    with torch.inference_mode(), exactly():
        lips, seen = [], 0
        for piece in _overlapping(crops, batch * every):
            lips.append(network.lips(network.inputs(piece, device), every))
            seen += len(piece) - WINDOW_FRAMES + 1
        windows = voice_windows(samples)
        sounding = len(samples) // SAMPLES_PER_FRAME
        count = min(seen - 1, sounding - WINDOW_FRAMES, len(windows))
        if count < 1:
            return np.empty((0, 2 * reach + 1), np.float32)
        heard = [
            network.voices(torch.from_numpy(windows[i : min(i + 4 * batch, count)]).to(device))
            for i in range(0, count, 4 * batch)
        ]
        rows = -(-count // every)
        found: Floats = distances(torch.cat(lips)[:rows], torch.cat(heard), reach, every).cpu().numpy()
    return found


def _overlapping(batches: Iterable[Images], windows: int) -> Iterator[Images]:
    """Regroup a stream of frames into runs of `windows` + 4, each beginning with the last four of the one before."""
    from stages.nets.syncnet import WINDOW_FRAMES

    held: Images | None = None
    for batch in batches:
        held = batch if held is None else np.concatenate([held, batch])
        while len(held) >= windows + WINDOW_FRAMES - 1:
            yield held[: windows + WINDOW_FRAMES - 1]
            held = held[windows:]
    if held is not None and len(held) >= WINDOW_FRAMES:
        yield held


def reading(key: str, matrix: Floats, *, window_s: float, hop_s: float, rate_hz: float = RATE_HZ) -> Sync:
    """Condense distances (windows, 2 reach + 1) as `offset_distances` gives them, `rate_hz` rows a second.

    Confidence is the median minus the minimum of the mean distances. The drift is the Theil-Sen slope of the curve's
    offsets, taken to fractions of a frame by a parabola through each minimum; 0 if its windows span less than 2 hops.
    A slope of few windows is noise (steady clips of 7 s read up to a frame from end to end), so its least size is kept.
    """
    if len(matrix) == 0:
        return Sync(
            key=key,
            offset_frames=0,
            confidence=0.0,
            distance=0.0,
            distances=(),
            curve_offset_frames=(),
            curve_confidence=(),
            curve_hop_s=hop_s,
            drift_frames_per_min=0.0,
            drift_least_frames_per_min=0.0,
        )
    reach = matrix.shape[1] // 2
    mean = matrix.mean(0)
    best = int(mean.argmin())
    window, hop = max(1, round(window_s * rate_hz)), max(1, round(hop_s * rate_hz))
    span = max(len(matrix) - window, 0)
    starts, step = np.linspace(0, span, 1 + -(-span // hop), retstep=True)
    between_s = (float(step) if span else hop) / rate_hz
    curve = np.stack([matrix[start : start + window].mean(0) for start in starts.round().astype(int)])
    slope, least = _drift(curve, between_s) if span >= 2 * hop else (0.0, 0.0)
    return Sync(
        key=key,
        offset_frames=best - reach,
        confidence=float(np.median(mean) - mean[best]),
        distance=float(mean[best]),
        distances=tuple(mean.tolist()),
        curve_offset_frames=tuple((curve.argmin(1) - reach).tolist()),
        curve_confidence=tuple((np.median(curve, 1) - curve.min(1)).tolist()),
        curve_hop_s=between_s,
        drift_frames_per_min=slope,
        drift_least_frames_per_min=least,
    )


def _drift(curve: Floats, hop_s: float) -> tuple[float, float]:
    """The slope of the curve's offsets in frames a minute, and the end of its 90 % interval that is nearer to zero."""
    from scipy.stats import theilslopes

    at = np.clip(curve.argmin(1), 1, curve.shape[1] - 2)
    rows = np.arange(len(curve))
    before, lowest, after = curve[rows, at - 1], curve[rows, at], curve[rows, at + 1]
    bend = before - 2 * lowest + after
    shift = np.where(bend > 0, (before - after) / (2 * np.where(bend > 0, bend, 1)), 0)
    offsets = at + np.clip(shift, -1, 1)
    slope, _, low, high = map(float, theilslopes(offsets, rows * hop_s / 60, alpha=0.9))
    return slope, 0.0 if low <= 0 <= high else min(low, high, key=abs)
