"""How often a host is asked, agreed on by all workers of a run wherever they are, and when it is asked no more.

What is agreed on lies as small objects below one folder per host in a store that all workers reach, so it holds
across processes and nodes alike with no server and no lock: a turn is an object that only one worker can create, a
refusal is an object that every worker sees. Clocks of the nodes are taken to agree to a fraction of the interval.
"""

import math
import random
import time
import uuid
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from manifests.store import Store
from pipeline.stage import PostponedError

_TURN_KEPT_S = 60.0
_LONGEST_TURNLESS_S = 1800.0  # less than the deadline of `Fetch`, 4 h, which counts anew from each turn
_JITTER_S = 1.0  # more than clocks differ: else the node whose clock is ahead takes every turn that comes up
_SAME_HOST = {"youtu.be": "youtube.com", "youtube-nocookie.com": "youtube.com"}


class HostClosedError(PostponedError):
    """The host said "too many" (or "not a bot?") and is left alone for now; nothing is known about the video."""

    def __init__(self, host: str, said: str) -> None:
        super().__init__(f"{host}: {said}")
        self.host = host

    def __reduce__(self) -> tuple[type["HostClosedError"], tuple[str, str]]:
        return HostClosedError, (self.host, str(self).removeprefix(f"{self.host}: "))


class Pace(Protocol):
    """When a host may be asked; `refused` and `served` tell the other workers how it went."""

    def ask(self, host: str) -> None:
        """Wait for this worker's turn; raises `HostClosedError` if the host is closed, or no turn came for long."""

    def refused(self, host: str, wait_s: float) -> None:
        """The host sent us away: nobody asks it for `wait_s` seconds."""

    def served(self, host: str) -> None:
        """The host answered: refusals known before the question no longer count."""


@dataclass(frozen=True)
class Refusal:
    """One "go away": when it was said and when we may come back, in seconds of the epoch."""

    at_s: float
    until_s: float


@dataclass(frozen=True, kw_only=True)
class Manners:
    """How politely a host is treated, by the whole fleet together."""

    interval_s: float = 5.0  # at least this long from one video of a host to its next; 0: no limit
    refusals: int = 5  # so many refusals with no success between them close the host
    closed_s: float = 900.0  # how long it stays closed after the last of them; then one more may be tried
    longest_wait_s: float = 120.0  # longer than this no refusal is waited for, and no turn is taken ahead

    def __post_init__(self) -> None:
        for name in ("interval_s", "closed_s", "longest_wait_s"):
            if not (value := getattr(self, name)) >= 0:
                raise ValueError(f"{name}: {value:g} is not at least 0")


def standing(refusals: list[Refusal], now_s: float, manners: Manners) -> tuple[float, bool]:
    """When the host may be asked next (seconds of the epoch), and whether it is closed until then."""
    if not refusals:
        return now_s, False
    until_s = max(refusal.until_s for refusal in refusals)
    if len(refusals) < manners.refusals:
        return max(now_s, until_s), False
    until_s = max(until_s, max(refusal.at_s for refusal in refusals) + manners.closed_s)
    return max(now_s, until_s), now_s < until_s


def host_of(url: str) -> str:
    """The host that a URL's videos are counted under: its name without `www.`, with its port if that is stated.

    >>> host_of("https://www.youtube.com/watch?v=x"), host_of("https://youtu.be/x"), host_of("http://127.0.0.1:80/a")
    ('youtube.com', 'youtube.com', '127.0.0.1:80')
    """
    parts = urlsplit(url)
    name = (parts.hostname or "").lower()
    for prefix in ("www.", "m.", "music."):
        name = name.removeprefix(prefix)
    name = _SAME_HOST.get(name, name)
    return f"{name}:{parts.port}" if parts.port else name


class SharedPace:
    """The `Pace` of all workers that are given the same store URL: a folder, or a bucket with conditional writes.

    Time is divided into turns of `interval_s`; whoever creates a turn's object may ask the host when the turn begins.
    A worker tries the turns in order from the next one on, so it makes at most one attempt per waiting worker. Where
    all of the next `longest_wait_s` are taken, it looks again when one more comes up: its video, put off, would be lost
    to the run, and the worker would take up the next one only to find as much. A run that was killed leaves no more
    turns behind than those.
    """

    def __init__(self, url: str, manners: Manners) -> None:
        self._store = Store(url)
        self._manners = manners
        self._seen: dict[str, list[str]] = {}

    def ask(self, host: str) -> None:
        """As `Pace.ask`. One listing, and one small write per try for a turn; once more if others were refused.

        While all turns are taken, a listing and a write per interval.
        """
        while (free_s := self._free(host)) > time.time() or self._manners.interval_s > 0:
            begins_s = self._turn(host, free_s)
            time.sleep(max(0.0, begins_s - time.time()))
            if self._free(host) <= time.time():
                return

    def refused(self, host: str, wait_s: float) -> None:
        """As `Pace.refused`."""
        at_s = time.time()
        self._store.put(f"{_folder(host)}/refused-{at_s:.3f}-{at_s + wait_s:.3f}-{uuid.uuid4().hex[:8]}", b"")

    def served(self, host: str) -> None:
        """As `Pace.served`."""
        for name in self._seen.pop(host, []):
            self._store.delete(name)

    def _free(self, host: str) -> float:
        names = self._store.list(_folder(host))
        self._seen[host] = [name for name in names if "/refused-" in name]
        refusals = [_refusal(name) for name in self._seen[host]]
        now_s = time.time()
        free_s, closed = standing(refusals, now_s, self._manners)
        if closed or free_s - now_s > self._manners.longest_wait_s:
            said = f"refused {len(refusals)} times, not asked for another {free_s - now_s:.0f} s"
            raise HostClosedError(host, said)
        self._forget_turns(names, now_s)
        return free_s

    def _turn(self, host: str, free_s: float) -> float:
        interval_s = self._manners.interval_s
        if interval_s <= 0:
            return free_s
        since_s = time.time()
        number = math.ceil(free_s / interval_s)
        while not self._store.create(f"{_folder(host)}/turn-{number * interval_s:.3f}", b""):
            number += 1
            ahead_s = number * interval_s - time.time() - self._manners.longest_wait_s
            if ahead_s <= 0:
                continue
            if time.time() - since_s > _LONGEST_TURNLESS_S:
                raise HostClosedError(host, f"no turn came for {_LONGEST_TURNLESS_S:.0f} s: too many workers ask it")
            time.sleep(ahead_s + random.uniform(0.0, min(interval_s, _JITTER_S)))
            number = max(number, math.ceil(self._free(host) / interval_s))  # raises if the host was closed meanwhile
        return number * interval_s

    def _forget_turns(self, names: list[str], now_s: float) -> None:
        for name in names:
            begins = name.rpartition("/turn-")[2]
            if begins != name and float(begins) < now_s - _TURN_KEPT_S:
                self._store.delete(name)


def _folder(host: str) -> str:
    return host.replace(":", "_") or "_"


def _refusal(name: str) -> Refusal:
    _, at_s, until_s, _ = name.rpartition("/")[2].split("-")
    return Refusal(float(at_s), float(until_s))
