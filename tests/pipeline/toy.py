"""Toy stages to try the core on: one rejects, one raises, one kills its worker, one hangs in native code."""

import ctypes
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from manifests.records import Video
from pipeline.bench import Bench
from pipeline.stage import (
    RUNTIME,
    Facts,
    MemoryFullError,
    PostponedError,
    Rejection,
    Resources,
    Stage,
    Work,
    WorkerSpoiledError,
)
from stages.encode import ClipWriter
from stages.outcomes import NetworkError

SMALL = Resources(cpus=0.5, workers=(1, 2))


@dataclass(frozen=True)
class Media:
    frames: int


@dataclass(frozen=True)
class Score:
    value: float


@dataclass(frozen=True)
class Text:
    words: int


def videos(count: int) -> list[Video]:
    """Videos whose title is their number."""
    return [Video.of(f"toy://{n}", title=str(n)) for n in range(count)]


def dead_pid() -> int:
    """The number of a process that is gone."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def calls(log: Path) -> Counter[str]:
    """How often each stage was called."""
    return Counter(line.split()[0] for line in log.read_text().splitlines()) if log.exists() else Counter()


def number(facts: Facts) -> int:
    return int(facts[Video].title)


def note(log: str, stage: str, n: int) -> None:
    if log:
        with Path(log).open("a") as f:
            f.write(f"{stage} {n} {time.time():.3f}\n")


def fill(who: str) -> None:
    """Meet a full disk, as Python, PyAV or yt-dlp does."""
    if who == "python":
        Path("/dev/full").write_bytes(b"1")
    if who == "yt-dlp":
        raise NetworkError("x.invalid: unable to write data: [Errno 28] No space left on device")
    ClipWriter(Path("/dev/full"), 64).finish(np.zeros(16_000, np.int16))


@dataclass(frozen=True, kw_only=True)
class Get(Stage[Media]):
    name, needs, gives = "get", (Video,), Media
    resources: Resources = field(default=SMALL, metadata=RUNTIME)
    log: str = field(default="", metadata=RUNTIME)
    delay_s: float = field(default=0.0, metadata=RUNTIME)
    postpone: int = field(default=-1, metadata=RUNTIME)
    unavailable: int = 7

    def open(self) -> Work[Media]:
        def get(facts: Facts, bench: Bench) -> Media | Rejection:
            n = number(facts)
            note(self.log, "get", n)
            time.sleep(self.delay_s)
            if n == self.postpone:
                raise PostponedError("the host asked for a pause")
            if n % self.unavailable == self.unavailable - 1:
                return Rejection("gone", {"status": 404.0})
            (bench.scratch / "x").write_text(str(n))
            bench.keep(bench.scratch / "x", "x.txt")
            return Media(frames=n * 25)

        return get


@dataclass(frozen=True, kw_only=True)
class Rate(Stage[Score]):
    name, needs, gives = "rate", (Media,), Score
    resources: Resources = field(default=SMALL, metadata=RUNTIME)
    log: str = field(default="", metadata=RUNTIME)
    threshold: float = 0.5
    bad: int = field(default=-1, metadata=RUNTIME)
    deadly: int = field(default=-1, metadata=RUNTIME)
    hangs: int = field(default=-1, metadata=RUNTIME)
    spoils: int = field(default=-1, metadata=RUNTIME)
    starves: int | None = field(default=None, metadata=RUNTIME)  # from this number on no memory is free
    broken: bool = field(default=False, metadata=RUNTIME)
    shut: str = field(default="", metadata=RUNTIME)  # what a library says that cannot open
    fills: str = field(default="", metadata=RUNTIME)

    def open(self) -> Work[Score]:
        if self.shut:
            raise RuntimeError(self.shut)

        def rate(facts: Facts, bench: Bench) -> Score:
            n = facts[Media].frames // 25
            note(self.log, "rate", n)
            if self.broken or n == self.bad:
                raise RuntimeError("nan")
            if self.fills:
                fill(self.fills)
            if n == self.deadly:
                os._exit(139)
            if n == self.hangs:
                ctypes.CDLL(None).sleep(3600)  # native code that never returns
            if n == self.spoils:
                raise WorkerSpoiledError("cuda")
            if self.starves is not None and n >= self.starves:
                raise MemoryFullError("CUDA out of memory")
            return Score(value=n / 10)

        return rate


@dataclass(frozen=True, kw_only=True)
class Speak(Stage[Text]):
    name, needs, gives = "speak", (Media, Score), Text
    resources: Resources = field(default=SMALL, metadata=RUNTIME)
    log: str = field(default="", metadata=RUNTIME)

    def open(self) -> Work[Text]:
        def speak(facts: Facts, bench: Bench) -> Text:
            note(self.log, "speak", facts[Media].frames // 25)
            return Text(words=facts[Media].frames // 25 + int(facts[Score].value))

        return speak
