"""Time two or more ways in turns (A B A B ...), so that what else the machine does falls on all of them alike."""

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Spent:
    """What one call took: seconds on the clock, and processor seconds of this process and of those it waited for."""

    wall_s: float = 0.0
    cpu_s: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.wall_s + other.wall_s, self.cpu_s + other.cpu_s)

    def __sub__(self, other: "Spent") -> "Spent":
        return Spent(self.wall_s - other.wall_s, self.cpu_s - other.cpu_s)

    def __mul__(self, times: float) -> "Spent":
        return Spent(self.wall_s * times, self.cpu_s * times)


@dataclass(frozen=True)
class Spread:
    """Smallest, median and largest of repeated measurements."""

    least: float
    median: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.least:.3g} .. {self.most:.3g})"


def spread(values: list[float]) -> Spread:
    """Of at least one value."""
    return Spread(*(round(v, 4) for v in (min(values), statistics.median(values), max(values))))


class Stopwatch:
    """Runs from its making."""

    def __init__(self) -> None:
        self._wall_s, self._cpu_s = time.perf_counter(), _cpu_s()

    def read(self) -> Spent:
        return Spent(time.perf_counter() - self._wall_s, _cpu_s() - self._cpu_s)


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


@dataclass(frozen=True)
class Turns:
    """What every turn of every way took, and what its last turn returned."""

    spent: dict[str, list[Spent]]
    made: dict[str, Any]

    def cpu_s(self, name: str) -> Spread:
        return spread([one.cpu_s for one in self.spent[name]])

    def wall_s(self, name: str) -> Spread:
        return spread([one.wall_s for one in self.spent[name]])

    def cpu_ratio(self, name: str, of: str) -> Spread:
        """How many times the processor seconds of `of` the way `name` takes, turn by turn."""
        return spread([a.cpu_s / b.cpu_s for a, b in zip(self.spent[name], self.spent[of], strict=True)])

    def wall_ratio(self, name: str, of: str) -> Spread:
        """The same on the clock."""
        return spread([a.wall_s / b.wall_s for a, b in zip(self.spent[name], self.spent[of], strict=True)])


def in_turns(ways: Mapping[str, Callable[[], Any]], repeats: int, *, warm: bool = False) -> Turns:
    """Call every way once per turn, in order, `repeats` times.

    With `warm`, once more before, untimed: what a worker does for its first video only (imports, the first plan of a
    convolution) is then left out.
    """
    if warm:
        for way in ways.values():
            way()
    spent: dict[str, list[Spent]] = {name: [] for name in ways}
    made: dict[str, Any] = {}
    for _ in range(repeats):
        for name, way in ways.items():
            watch = Stopwatch()
            made[name] = way()
            spent[name].append(watch.read())
    return Turns(spent, made)
