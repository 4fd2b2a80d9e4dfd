"""What carrying videos costs beside the work: ledger, driver and Ray; one core against two."""

import multiprocessing
import time
from pathlib import Path
from typing import Any

from manifests.records import Video
from manifests.store import Store
from pipeline.cluster import Cluster, run_on_ray
from pipeline.here import run_here
from pipeline.plan import plan
from pipeline.stage import Resources, keys
from tests.benchmarks.counts import passed_at, size_bytes
from tests.benchmarks.record import Findings
from tests.benchmarks.resident import peak_mb
from tests.benchmarks.toy import First, Second, Third, compute, videos
from tests.benchmarks.turns import Stopwatch, in_turns, spread

HERE, ON_RAY, KNOWN = 5_000, 2_000, 100_000
"""Videos in the plain loop and on Ray, three stages each; videos in the ledger when a run only plans, one stage."""

SLEEPS = ((0.5, 60), (3.0, 20))
"""Seconds of a call, and videos: a short call, and one as long as those of real stages (mean in `chain`: 4.9 s)."""

BUSY_S, BUSY_VIDEOS = 0.25, 80


def measure(folder: Path, repeats: int) -> Findings:
    """Milliseconds per call beside the call itself, shares of a run, and ratios."""
    start_s = _ray_start_s(folder)
    numbers: dict[str, Any] = {"start of Ray, first call of a stage included: s": start_s}
    numbers |= _per_call(folder)
    for sleep_s, n_videos in SLEEPS:
        numbers |= _overhead(folder, sleep_s, n_videos)
    numbers |= _known(folder)
    one, two, bare = [], [], []
    ways = {
        "one": lambda: one.append(_busy(folder, 1)),
        "two": lambda: two.append(_busy(folder, 2)),
        "bare": lambda: bare.append(_bare(2) / _bare(1)),
    }
    cores = in_turns(ways, repeats)
    numbers |= {
        f"busy stage, {name} core: calls per s between the first and the last": spread(rates)
        for name, rates in (("one", one), ("two", two))
    }
    return Findings(
        ratios={
            "one core / two cores, wall with start of Ray": cores.wall_ratio("one", "two"),
            "two cores / one core, calls per s, start of Ray left out": spread(
                [more / fewer for more, fewer in zip(two, one, strict=True)]
            ),
            "the same work in two bare processes / in one: what the machine itself gives": spread(bare),
        },
        numbers=numbers,
        notes=(
            f"busy: {BUSY_VIDEOS} calls of about {BUSY_S} s of one core's work; two cores with other load on them "
            "cannot show 2",
        ),
    )


def _ray_start_s(folder: Path) -> float:
    watch = Stopwatch()
    _on_ray((First(resources=Resources(cpus=0.5)),), 1, Store(str(folder / "start")), "a")
    return watch.read().wall_s


def _on_ray(stages: Any, n: int, store: Store, run: str, cpus: int = 2) -> int:
    return run_on_ray(stages, videos(n), store, run, cluster=Cluster(cpus=cpus))


def _per_call(folder: Path) -> dict[str, Any]:
    """Stages that do nothing: what a call costs."""
    half = Resources(cpus=0.5, workers=(1, 1))
    stages = (First(resources=half), Second(resources=half), Third(resources=half))
    here, ray = Store(str(folder / "here")), Store(str(folder / "ray"))
    watch = Stopwatch()
    assert run_here(stages, videos(HERE), here, "a") == HERE
    spent = watch.read()
    watch = Stopwatch()
    assert run_here(stages, videos(HERE), here, "b") == HERE
    again = watch.read()
    watch = Stopwatch()
    assert _on_ray(stages, ON_RAY, ray, "a") == ON_RAY
    on_ray = watch.read()
    span_s = _span_s(ray, keys(stages, Video)["third"])
    return {
        f"plain loop, {HERE} videos x 3 stages: ms per call": 1000 * spent.wall_s / (3 * HERE),
        f"plain loop, {HERE} videos x 3 stages: cpu ms per call": 1000 * spent.cpu_s / (3 * HERE),
        f"plain loop, {HERE} videos again: ms per known call": 1000 * again.wall_s / (3 * HERE),
        f"Ray, {ON_RAY} videos x 3 stages at once: s with start": on_ray.wall_s,
        f"Ray, {ON_RAY} videos x 3 stages at once: ms per video between the first and the last": 1000
        * span_s
        / (ON_RAY - 1),
    }


def _overhead(folder: Path, sleep_s: float, n_videos: int) -> dict[str, Any]:
    """Stages that sleep, one worker each: what the run takes beyond the sleep."""
    half = Resources(cpus=0.5, workers=(1, 1))
    stages = [kind(sleep_s=sleep_s, resources=half) for kind in (First, Second, Third)]
    store = Store(str(folder / f"asleep{sleep_s}"))
    watch = Stopwatch()
    assert _on_ray(stages, n_videos, store, "a") == n_videos
    whole_s = watch.read().wall_s
    asleep_s, span_s = sleep_s * (n_videos - 1), _span_s(store, keys(stages, Video)["third"])
    return {
        f"Ray, {n_videos} videos x 3 stages of {sleep_s} s: s with start": whole_s,
        f"Ray and ledger, share of the run between the first and the last of {n_videos}, calls of {sleep_s} s": 1
        - asleep_s / span_s,
    }


def _span_s(store: Store, key: str) -> float:
    """From the first outcome of a stage to the last."""
    written = passed_at(store, key)
    return written[-1] - written[0]


def _known(folder: Path) -> dict[str, Any]:
    """A ledger of very many videos: filling it in the plain loop, and planning a run over it."""
    stages, store, many = (First(),), Store(str(folder / "known")), videos(KNOWN)
    watch = Stopwatch()
    assert run_here(stages, many, store, "a") == KNOWN
    filled = watch.read()
    before = peak_mb()
    watch = Stopwatch()
    assert not plan(stages, many, store)[0].enter
    planned, after = watch.read(), peak_mb()
    watch = Stopwatch()
    assert _on_ray(stages, KNOWN, store, "b") == 0
    return {
        f"{KNOWN} videos x 1 stage in the plain loop: s": filled.wall_s,
        f"{KNOWN} videos x 1 stage in the plain loop: cpu ms per call": 1000 * filled.cpu_s / KNOWN,
        f"{KNOWN} videos known, plan: s": planned.wall_s,
        f"{KNOWN} videos known, plan: MB more at the peak": after - before,
        f"{KNOWN} videos known, run on Ray with nothing due: s": watch.read().wall_s,
        f"{KNOWN} videos: bytes of ledger per video": size_bytes(folder / "known") / KNOWN,
    }


def _busy(folder: Path, cpus: int) -> float:
    """Calls per second of a stage that computes, between its first call's end and its last."""
    stage = First(busy_s=BUSY_S, resources=Resources(cpus=1.0, workers=(cpus, cpus)))
    store = Store(str(folder / f"busy{cpus}-{time.monotonic_ns()}"))
    _on_ray((stage,), BUSY_VIDEOS, store, "a", cpus)
    return (BUSY_VIDEOS - cpus) / _span_s(store, keys((stage,), Video)["first"])


def _bare(processes: int) -> float:
    """Calls per second of the same work in plain processes, without Ray and without a ledger."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.map(compute, [0.0] * processes)  # started, all imported
        watch = Stopwatch()
        pool.map(compute, [BUSY_S] * BUSY_VIDEOS, chunksize=1)
        return BUSY_VIDEOS / watch.read().wall_s
