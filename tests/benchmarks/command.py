"""The command on one core and on two, between its first video and its last; and where it has nothing to do."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from manifests.store import Store
from tests.benchmarks.counts import passed_at, stages_in
from tests.benchmarks.growth import sources
from tests.benchmarks.record import Findings
from tests.benchmarks.tools import empty
from tests.benchmarks.turns import Stopwatch, in_turns, spread
from tests.command import pipeline

HOURS = 0.2
_LONGEST_S = 3600.0


def measure(folder: Path, repeats: int) -> Findings:
    """The recipe sample over so much footage; one turn. Raises `RuntimeError` on a machine of one core."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise RuntimeError("one core cannot be held against two here")
    links, seconds = sources(folder / "videos", 3600 * HOURS)
    stores = {"one core": folder / "one", "two cores": folder / "two"}
    ways: dict[str, Callable[[], float]] = {
        name: partial(_between, links, store, cores[: n + 1]) for n, (name, store) in enumerate(stores.items())
    }
    turns = in_turns(ways, 1)
    again = [_seconds(links, store, cores) for store in stores.values() for _ in range(repeats)]
    return Findings(
        ratios={
            "one core / two cores, between the first video and the last": spread(
                [turns.made["one core"] / turns.made["two cores"]]
            ),
            "one core / two cores, the whole command": turns.wall_ratio("one core", "two cores"),
        },
        numbers={
            "footage_s": seconds,
            **{f"{name}: s between the first video and the last": turns.made[name] for name in stores},
            **{f"{name}: s of the whole command": turns.wall_s(name) for name in stores},
            "nothing to do: s of the whole command": spread(again),
        },
        notes=(
            "recipe sample over videos of the sample corpus, by `python -m pipeline run`; between: from when faces of "
            "a first video are known until a last one has passed every stage",
        ),
        once=True,
    )


def _between(links: Path, store: Path, cores: list[int]) -> float:
    """Seconds from the end of the first look at a video to the end of the last stage of all."""
    _seconds(links, empty(store), cores)
    made = Store(str(store))
    names = stages_in(made)
    return passed_at(made, names["identity"])[-1] - passed_at(made, names["watch"])[0]


def _seconds(links: Path, store: Path, cores: list[int]) -> float:
    """Of the whole command, held to these cores."""
    mine, watch = os.sched_getaffinity(0), Stopwatch()
    os.sched_setaffinity(0, cores)  # children have it from their parent
    try:
        given = ("--manifest", links, "--store", store, "--cpus", str(len(cores)))
        said = pipeline("run", "sample", *given, timeout_s=_LONGEST_S)
    finally:
        os.sched_setaffinity(0, mine)
    spent = watch.read()
    if said.code:
        raise RuntimeError((said.out + said.err)[-2000:])
    return spent.wall_s
