"""Stages that only sleep or only compute: all that remains is what carrying videos costs."""

import math
import time
from dataclasses import dataclass, field
from typing import ClassVar

from manifests.records import Video
from pipeline.bench import Bench
from pipeline.stage import RUNTIME, Facts, Stage, Work


@dataclass(frozen=True)
class A:
    """What the first stage gives."""

    n: int


@dataclass(frozen=True)
class B:
    """What the second gives."""

    n: int


@dataclass(frozen=True)
class C:
    """What the third gives."""

    n: int


def videos(n: int) -> list[Video]:
    """So many, each with its number for a title."""
    return [Video.of(f"toy://{i}", title=str(i)) for i in range(n)]


def _sleep(seconds: float) -> None:
    if seconds:
        time.sleep(seconds)


def compute(seconds: float) -> None:
    """Keep one core busy for a fixed amount of work that takes about `seconds` on an idle one."""
    x = 0.0
    for i in range(int(seconds * 12_000_000)):
        x += math.sqrt(i)


@dataclass(frozen=True, kw_only=True)
class First(Stage[A]):
    """Sleeps or computes; makes no blobs."""

    name: ClassVar[str] = "first"
    needs: ClassVar[tuple[type, ...]] = (Video,)
    gives: ClassVar[type] = A
    sleep_s: float = field(default=0.0, metadata=RUNTIME)
    busy_s: float = field(default=0.0, metadata=RUNTIME)

    def open(self) -> Work[A]:
        def work(facts: Facts, bench: Bench) -> A:
            _sleep(self.sleep_s)
            compute(self.busy_s)
            return A(int(facts[Video].title))

        return work


@dataclass(frozen=True, kw_only=True)
class Second(Stage[B]):
    """Sleeps."""

    name: ClassVar[str] = "second"
    needs: ClassVar[tuple[type, ...]] = (A,)
    gives: ClassVar[type] = B
    sleep_s: float = field(default=0.0, metadata=RUNTIME)

    def open(self) -> Work[B]:
        def work(facts: Facts, bench: Bench) -> B:
            _sleep(self.sleep_s)
            return B(facts[A].n)

        return work


@dataclass(frozen=True, kw_only=True)
class Third(Stage[C]):
    """Sleeps."""

    name: ClassVar[str] = "third"
    needs: ClassVar[tuple[type, ...]] = (A, B)
    gives: ClassVar[type] = C
    sleep_s: float = field(default=0.0, metadata=RUNTIME)

    def open(self) -> Work[C]:
        def work(facts: Facts, bench: Bench) -> C:
            _sleep(self.sleep_s)
            return C(facts[A].n + facts[B].n)

        return work
