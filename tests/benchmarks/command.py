"""The command on one core and on two, between its first video and its last; and where it has nothing to do."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.benchmarks.growth import sources
from tests.benchmarks.material import ROOT
from tests.benchmarks.record import Findings
from tests.benchmarks.tools import empty
from tests.benchmarks.turns import Stopwatch, in_turns, spread

HOURS = 0.2


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
    watched, done = ([path.stat().st_mtime for path in store.glob(f"ledger/{stage}-*/ok/*/*.json")]
                     for stage in ("watch", "identity"))  # fmt: skip
    return max(done) - min(watched)


def _seconds(links: Path, store: Path, cores: list[int]) -> float:
    """Of the whole command, held to these cores."""
    command = [sys.executable, "-m", "pipeline", "run", "sample", "--manifest", str(links), "--store", str(store)]
    mine, watch = os.sched_getaffinity(0), Stopwatch()
    os.sched_setaffinity(0, cores)  # children have it from their parent
    try:
        done = subprocess.run(
            [*command, "--cpus", str(len(cores))], cwd=ROOT, capture_output=True, text=True, check=False
        )
    finally:
        os.sched_setaffinity(0, mine)
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr)[-2000:])
    return watch.read().wall_s
