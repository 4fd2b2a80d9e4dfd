"""What the ledger and the driver cost: stages that only sleep or only compute, many videos, the plain loop and Ray."""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from manifests.records import Video
from manifests.store import Store
from pipeline.bench import Bench
from pipeline.cluster import Cluster, run_on_ray
from pipeline.here import run_here
from pipeline.stage import RUNTIME, Facts, Resources, Stage, Work
from tests.benchmarks.record import Findings
from tests.benchmarks.turns import Stopwatch, in_turns

MANY = (1000, 4000)
BUSY_S, BUSY_VIDEOS = 0.25, 120
REALISTIC_CALL_S = 5.0
"""A mean stage call of the chain benchmark on half a minute of footage takes this or more."""


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


def _sleep(seconds: float) -> None:
    if seconds:
        time.sleep(seconds)


def _compute(seconds: float) -> None:
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
            _compute(self.busy_s)
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


def measure(folder: Path, repeats: int) -> Findings:
    """Milliseconds per call, beside the call itself."""
    numbers: dict[str, object] = {}
    half = Resources(cpus=0.5, workers=(1, 1))
    stages = (First(resources=half), Second(resources=half), Third(resources=half))
    per_call_s = 0.0
    for n in MANY:
        videos = [Video.of(f"toy://{i}", title=str(i)) for i in range(n)]
        watch = Stopwatch()
        assert run_here(stages, videos, Store(str(folder / f"here{n}")), "a") == n
        numbers[f"plain loop, {n} videos x 3 stages: ms per call"] = 1000 * watch.read().wall_s / (3 * n)
        watch = Stopwatch()
        assert run_here(stages, videos, Store(str(folder / f"here{n}")), "b") == n
        numbers[f"plain loop, {n} videos again: ms per known call"] = 1000 * watch.read().wall_s / (3 * n)
        watch = Stopwatch()
        assert run_on_ray(stages, videos, Store(str(folder / f"ray{n}")), "a", cluster=Cluster(cpus=2)) == n
        per_call_s = watch.read().wall_s / (3 * n)
        numbers[f"Ray with start, {n} videos x 3 stages: ms per call"] = 1000 * per_call_s
        watch = Stopwatch()
        assert run_on_ray(stages, videos, Store(str(folder / f"ray{n}")), "b", cluster=Cluster(cpus=2)) == 0
        numbers[f"Ray with start, {n} videos, nothing due: s"] = watch.read().wall_s
    numbers["share of a call of 5 s on one worker"] = per_call_s / REALISTIC_CALL_S
    numbers["arithmetic, not measured: 100,000 videos x 6 stages, hours of driver and ledger"] = (
        per_call_s * 600_000 / 3600
    )
    cores = in_turns({"one": lambda: _busy(folder, 1), "two": lambda: _busy(folder, 2)}, repeats)
    numbers["busy stage, one core: s"] = cores.wall_s("one")
    numbers["busy stage, two cores: s"] = cores.wall_s("two")
    return Findings(
        ratios={"one core / two cores, wall with start of Ray": cores.wall_ratio("one", "two")},
        numbers=numbers,
        notes=(
            f"busy: {BUSY_VIDEOS} calls of about {BUSY_S} s of one core's work; two cores with other load on them "
            "cannot show 2",
            "Ray on this machine, started within the time; one worker per stage, three at once",
        ),
    )


def _busy(folder: Path, cpus: int) -> int:
    stage = First(busy_s=BUSY_S, resources=Resources(cpus=1.0, workers=(1, cpus), initial=cpus))
    videos = [Video.of(f"toy://{i}", title=str(i)) for i in range(BUSY_VIDEOS)]
    store = Store(str(folder / f"busy{cpus}-{time.monotonic_ns()}"))
    return run_on_ray((stage,), videos, store, "a", cluster=Cluster(cpus=cpus))
