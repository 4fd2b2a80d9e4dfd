"""What happened to each video at each stage, in any place a `Store` can be.

One small object per (stage key, video), `ledger/{stage key}/{status}/{id[:2]}/{id}.json`: the path carries the status,
so a listing is a summary. It is written last, after the blobs it speaks of: the outcome is the commit.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Literal, TypeAlias

from manifests.codec import from_json, to_json
from manifests.store import Store

Status = Literal["ok", "rejected", "failed", "quarantined"]
STATUSES: tuple[Status, ...] = ("ok", "rejected", "quarantined", "failed")
"""What counts first comes first: of several that two runs left, the first is the outcome."""

Listed: TypeAlias = Mapping[str, Mapping[str, tuple[Status, int]]]
"""By stage key and video: the outcome, and its stamp, 0 where none was asked for."""

SETTLED: tuple[Status, ...] = ("ok", "rejected", "quarantined")

READERS = 32
"""Threads: each object store request waits tens of milliseconds, and the answers are small. At 20 and 60 ms 32 read
1.1 to 1.4 times as much as 16, and 64 hardly more: the client's own time, about 1 ms each, is the limit."""

MAX_LOST = 10
"""Attempts of one video in one run that end with their node before they are held against it after all: a spot machine
is taken away now and then, but a video may also take its machine down."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one stage call ended.

    `ok` holds the fact, `rejected` the rejection, `failed` a traceback (it will be tried again), `quarantined` the
    last traceback or the word that the worker died (it will not).
    """

    status: Status
    body: dict[str, Any] = field(default_factory=dict)
    attempt: int = 1
    seconds: float = 0.0
    worker: str = ""
    run: str = ""


def forgotten(store: Store) -> set[str]:
    """Ids of the videos that were taken out for good (see `pipeline.forget`): no run takes them in again."""
    return {PurePosixPath(path).stem for path in store.list("tombstones")}


def is_forgotten(store: Store, video: str) -> bool:
    """The same of one video, by one request."""
    return store.exists(f"tombstones/{video}.json")


@dataclass(frozen=True)
class Tries:
    """The attempts at a call in one run."""

    run: str
    count: int
    said: str = ""
    node: str = ""  # where the last attempt began; "" where that is no matter
    lost: int = 0  # attempts that are not counted, since their node is gone
    postponed: str = ""  # why the last attempt was put off
    beside: tuple[str, int] = ("", 0)  # the run before, and its attempts: it may be at work still


_NEVER = Tries("", 0)


class Ledger:
    """Outcomes and attempts in a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def read(self, key: str, video: str, likely: Status = "ok") -> Outcome | None:
        """The outcome of a call, None if there is none yet. What is likely is asked for first, by itself."""
        others = [self._at(key, status, video) for status in STATUSES if status != likely]
        found = self._some([self._at(key, likely, video)]) or self._some(others)
        return self._first(key, video, found)

    def look(self, key: str, video: str) -> tuple[Outcome | None, Tries]:
        """The same, and the attempts so far, of a call that is likely to have no outcome: all is asked for at once."""
        found = self._some([self._at(key, folder, video) for folder in (*STATUSES, "tries")])
        at = self._at(key, "tries", video)
        tries = from_json(found[at], Tries, self.store.at(at)) if at in found else _NEVER
        return self._first(key, video, found), tries

    def passed(self, stages: Sequence[str], video: str) -> dict[str, Outcome]:
        """The outcomes of a video by stage key, of those stages that it passed: all are asked for at once."""
        paths = {self._at(key, "ok", video): key for key in stages}
        found = self._some(list(paths))
        return {paths[path]: from_json(data, Outcome, self.store.at(path)) for path, data in found.items()}

    def _some(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Those of these objects that say something. An empty one, as a power cut leaves it on whichever machine holds
        the disk, is no outcome though listings count it as one: it goes, so that the next plan has the video due."""
        found = self.store.get_some(paths)
        for path in [path for path, data in found.items() if not data]:
            del found[path]
            with contextlib.suppress(OSError):  # in a store that its reader may not change, it is only passed over
                self.store.delete(path)
        return found

    def _first(self, key: str, video: str, found: Mapping[str, bytes]) -> Outcome | None:
        paths = (self._at(key, status, video) for status in STATUSES)
        return next((from_json(found[path], Outcome, self.store.at(path)) for path in paths if path in found), None)

    def write(self, key: str, video: str, outcome: Outcome) -> None:
        """Record an outcome; what stood there before and counts for less, in the order of `STATUSES`, goes afterwards.

        What counts for more stays and is what is read: of two runs on one store one may fail where the other measured.
        """
        self._put(key, outcome.status, video, outcome)
        if outcome.attempt > 1:
            for other in STATUSES[STATUSES.index(outcome.status) + 1 :]:
                self.store.delete(self._at(key, other, video))

    def begin(
        self,
        key: str,
        video: str,
        run: str,
        node: str = "",
        is_lost: Callable[[str], bool] = lambda node: False,
        before: Tries | None = None,
    ) -> int:
        """Count an attempt before it is made, so that a dying worker leaves a trace; returns its number in this run.

        Only attempts of one run are added up, also where two take turns: when the run itself is killed, the videos then
        at work are not to blame. Nor are they for a `node` that was taken away with all its workers, which `is_lost`
        tells afterwards. `before`: the attempts so far, where they were read already.
        """
        before = before or self._tries(key, video)
        if before.run != run:
            other, count = before.beside
            before = Tries(run, count if other == run else 0, beside=(before.run, before.count))
        elif before.node and before.lost < MAX_LOST and is_lost(before.node):
            before = replace(before, count=before.count - 1, lost=before.lost + 1)
        now = replace(before, count=before.count + 1, node=node, postponed="")
        self._put(key, "tries", video, now)
        return now.count

    def complain(self, key: str, video: str, said: str) -> None:
        """Leave what a worker said that dies of this call; nothing where the call was forgotten meanwhile."""
        tries = self._tries(key, video)
        if tries.count:
            self._put(key, "tries", video, replace(tries, said=said))

    def last_words(self, key: str, video: str) -> str:
        """What a worker that died of this call said last, "" if none of this run could."""
        return self._tries(key, video).said

    def put_off(self, key: str, video: str, run: str, count: int, why: str) -> None:
        """Take back the attempt that `begin` counted, of a call that was postponed: nobody died of it. Leaves why."""
        now = Tries(run, count - 1, postponed=why)  # and no node: none is lost
        self._put(key, "tries", video, now)

    def postponed(self, key: str, videos: AbstractSet[str]) -> dict[str, str]:
        """Why the last attempt was put off, by video, of those of these where it was: one listing, and one small object
        for each that was ever begun."""
        begun = sorted(videos & self.videos(key, "tries"))
        with ThreadPoolExecutor(READERS) as pool:
            reasons = pool.map(lambda video: self._tries(key, video).postponed, begun)
            return {video: why for video, why in zip(begun, reasons, strict=True) if why}

    def videos(self, key: str, folder: Status | Literal["tries"]) -> set[str]:
        """Ids of all videos with that outcome at that stage, or that were ever begun there, by one listing."""
        return {PurePosixPath(path).stem for path in self.store.list(f"ledger/{key}/{folder}")}

    def listed(self, key: str, *, stamped: bool = False) -> dict[str, tuple[Status, int]]:
        """Of every video with an outcome at that stage which it is, and its stamp (`Store.stamps`), 0 unless `stamped`:
        on a file server each stamp is a round trip."""
        stamps = self.store.stamps if stamped else lambda prefix: dict.fromkeys(self.store.list(prefix), 0)
        return {
            PurePosixPath(path).stem: (status, stamp)
            for status in reversed(STATUSES)
            for path, stamp in stamps(f"ledger/{key}/{status}").items()
        }

    def forget(self, key: str, video: str) -> None:
        """Remove every trace of a call."""
        for folder in (*STATUSES, "tries"):
            self.store.delete(self._at(key, folder, video))

    def _tries(self, key: str, video: str) -> Tries:
        path = self._at(key, "tries", video)
        found = self._some([path])
        return from_json(found[path], Tries, self.store.at(path)) if found else _NEVER

    def _put(self, key: str, folder: str, video: str, record: Outcome | Tries) -> None:
        """Not synced, which would be most of its time: what a power cut leaves empty is no record (see `_some`)."""
        self.store.put(self._at(key, folder, video), to_json(record), is_synced=False)

    def _at(self, key: str, folder: str, video: str) -> str:
        return f"ledger/{key}/{folder}/{video[:2]}/{video}.json"
