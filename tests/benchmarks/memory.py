"""Memory: two hours of 1080p through every stage, each stage in a process of its own; and a whole run on Ray."""

import csv
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from manifests.codec import to_plain
from manifests.records import Video
from manifests.store import Store
from pipeline.recipes import TalkingFaces, own
from pipeline.stage import Stage
from pipeline.step import Step
from stages.voice import Voice
from tests.benchmarks.material import (
    ROOT,
    corpus_videos,
    face_pack,
    random_syncnet,
    rendered_head,
    talking_clips,
    whisper,
)
from tests.benchmarks.record import Findings
from tests.benchmarks.resident import FamilyPeak, peak_mb
from tests.benchmarks.turns import Spent, Stopwatch
from tests.media import Look, Sound, hum, times_at, write_video

HOURS = 2.0
SOURCE_HZ = 2
GOP_S = 12.0
FACE_EVERY = 60
"""One piece in so many shows a face: two hours hold two minutes of it, and its clips are cut in minutes."""

LOOK_FRAMES = 24
"""Just inside the second for which a track may go unseen."""
RUN_S = 20.0


def measure(folder: Path, repeats: int) -> Findings:
    """Megabytes at the peak. One turn each: peaks of one process repeat to a few per cent."""
    pack, said = face_pack()
    model, spoken = whisper(folder)
    state = random_syncnet(folder)
    long = long_video(folder / "long.mp4", HOURS)
    recipe = _recipe(pack, str(state), str(model))
    numbers: dict[str, Any] = {"long video: hours": HOURS, "long video: MB": long.stat().st_size / 1e6}
    store = Store(str(folder / "store"))
    ticket = to_plain(Video.of(str(long), language="de"))
    stages = recipe.stages()
    for i, stage in enumerate(stages):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            status, peak, spent = pool.submit(_alone, stage, stages[:i], store.url, ticket).result()
        numbers[f"{stage.name}: peak MB"] = peak
        numbers[f"{stage.name}: outcome, cpu_s"] = f"{status}, {spent.cpu_s:.0f}"
    ceiling = max(value for label, value in numbers.items() if label.endswith("peak MB"))
    numbers["largest worker, MB (ceiling 2048)"] = ceiling
    numbers |= _whole_run(folder, pack, str(state), str(model))
    notes = (
        f"long video: pieces of {GOP_S:g} s of 1080p at {SOURCE_HZ} fps joined packet by packet; one in {FACE_EVERY} "
        "shows a rendered head, the others a moving pattern",
        f"faces: {said}, on the long video looked for every {LOOK_FRAMES} frames, to be done in minutes",
        f"SyncNet: random, published sizes; Whisper: {spoken}",
        "peak: VmHWM of a fresh process, imports and models in it; whole run: Pss over the process tree, each second",
    )
    return Findings(numbers=numbers, notes=notes, once=True)


def _recipe(pack: str, sync: str, model: str) -> TalkingFaces:
    full = own()
    return replace(
        full,
        # a hum is no voice
        watch=replace(
            full.watch, faces=replace(full.watch.faces, pack=pack, every=LOOK_FRAMES), voice=Voice(min_s=0.0)
        ),
        sync=replace(full.sync, model=sync),
        speech=replace(full.speech, model=model, align=False),
        identity=replace(full.identity, pack=pack),
    )


def _alone(stage: Stage[Any], upstream: tuple[Stage[Any], ...], url: str, ticket: Any) -> tuple[str, float, Spent]:
    told: list[str] = []
    watch = Stopwatch()
    Step(stage, upstream, Store(url), "memory", lambda _, status, __: told.append(status))(ticket)
    return told[0], peak_mb(), watch.read()


def long_video(path: Path, hours: float) -> Path:
    """Hours of 1080p with sound in seconds: two pieces are encoded, and their packets written again and again."""
    head = [cv2.resize(f, (1920, 1080), interpolation=cv2.INTER_CUBIC) for f in rendered_head(25)]
    rng = np.random.default_rng(0)
    wall = cv2.resize(rng.integers(0, 255, (9, 16, 3), np.uint8), (1920, 1080), interpolation=cv2.INTER_CUBIC)
    look = Look(gop=int(GOP_S * SOURCE_HZ), b_frames=0, crf=30)
    times = times_at(Fraction(SOURCE_HZ), GOP_S)
    sound = Sound(samples=hum(GOP_S, rate_hz=16_000), rate_hz=16_000)
    shown = {
        "face": [head[min(i % 48, 48 - i % 48)] for i in range(len(times))],
        "wall": [np.roll(wall, i * 4, axis=1) for i in range(len(times))],
    }
    pieces = {
        name: write_video(path.with_name(f"{name}.mp4"), zip(times, frames, strict=True), look=look, sound=sound)
        for name, frames in shown.items()
    }
    packets = {name: _packets(piece) for name, piece in pieces.items()}
    count = round(hours * 3600 / GOP_S)
    with av.open(str(pieces["wall"])) as like, av.open(str(path), "w") as target:
        streams = [target.add_stream_from_template(stream) for stream in like.streams]
        for number in range(count):
            kind = "face" if number % FACE_EVERY == FACE_EVERY // 2 else "wall"
            for kept in packets[kind]:
                target.mux(kept.at(number * GOP_S, streams))
    return path


class _Kept:
    """A packet's bytes and times, to be written at another time."""

    def __init__(self, packet: Any) -> None:
        self._bytes, self._key, self._stream = bytes(packet), packet.is_keyframe, packet.stream.index
        self._times = packet.pts, packet.dts, packet.duration
        self._base: Fraction = packet.time_base

    def inside(self, length_s: float) -> bool:
        """Whether its time lies in the piece: AAC begins with a packet before it."""
        return bool(0 <= self._times[1] * self._base < length_s - 1e-6)

    def at(self, start_s: float, streams: list[Any]) -> Any:
        packet = av.Packet(self._bytes)
        shift = round(start_s / self._base)
        pts, dts, duration = self._times
        packet.pts, packet.dts, packet.duration = pts + shift, dts + shift, duration
        packet.time_base, packet.is_keyframe = self._base, self._key
        packet.stream = streams[self._stream]
        return packet


def _packets(path: Path) -> list[_Kept]:
    with av.open(str(path)) as container:
        kept = [_Kept(packet) for packet in container.demux() if packet.dts is not None and packet.pts is not None]
    return [one for one in kept if one.inside(GOP_S)]


def _whole_run(folder: Path, pack: str, sync: str, model: str) -> dict[str, Any]:
    """`python -m pipeline run` on 20 seconds of footage with full-size networks, Ray and all."""
    paths = corpus_videos(RUN_S) or talking_clips(RUN_S)
    if not paths:
        return {}
    manifest = folder / "few.csv"
    with manifest.open("w", newline="", encoding="utf-8") as f:
        csv.writer(f).writerows([("url", "language"), *((str(path), "de") for path in paths)])
    sets = {
        "watch.faces.pack": pack,
        "identity.pack": pack,
        "sync.model": sync,
        "speech.model": model,
        "speech.align": "false",
    }
    command = [sys.executable, "-m", "pipeline", "run", "--manifest", str(manifest), "--store", str(folder / "run")]
    command += [part for name, value in sets.items() for part in ("--set", f"{name}={value}")]
    started = time.monotonic()
    with (folder / "run.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        with FamilyPeak(process) as held:
            code = process.wait()
    said = (folder / "run.log").read_text(encoding="utf-8", errors="replace")
    if code:
        raise RuntimeError(said[-2000:])
    return {
        "whole run on Ray: peak MB of all processes (ceiling 6144)": held.peak_mb,
        "whole run on Ray: processes at the peak": held.processes,
        "whole run on Ray: s": time.monotonic() - started,
        "whole run on Ray: videos": len(paths),
    }
