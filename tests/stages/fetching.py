"""One worker of the fetch stage with a store of its own, for the tests of fetch, and what they have in common."""

import itertools
from pathlib import Path

from manifests.records import Source, Video
from manifests.store import Store
from pipeline.bench import Bench
from pipeline.stage import Facts, Rejection, keys
from stages.fetch import Fetch
from stages.politeness import Manners
from stages.site import Access

ACCESS = Access(tries=2, backoff_s=0.05, stall_s=1.0, refusal_wait_s=0.1)
MANNERS = Manners(interval_s=0.0, refusals=3, closed_s=60.0, longest_wait_s=10.0)


class Fetching:
    """One worker with a store of its own."""

    def __init__(self, folder: Path, **config: object) -> None:
        self.store = Store(str(folder / "store"))
        self.stage = Fetch(**{"access": ACCESS, "manners": MANNERS, **config})  # type: ignore[arg-type]
        self._work = self.stage.open()

    def __call__(self, url: str | Path, **known: object) -> Source | Rejection:
        video = Video.of(str(url), **known)  # type: ignore[arg-type]
        with Bench(self.store, keys([self.stage], Video)["fetch"], video.id) as bench:
            return self._work(Facts([video]), bench)

    def stored(self) -> list[str]:
        return self.store.list("blobs")


def reason(result: Source | Rejection) -> str:
    assert isinstance(result, Rejection), result
    return result.reason


def keep_the_interval(store: Store, taken: list[float], interval_s: float) -> None:
    """Each asked at a turn of its own, and not before: when turns begin is exact, unlike when a worker wakes.

    `taken` in seconds of the epoch.
    """
    begins = sorted(float(name.rpartition("/turn-")[2]) for name in store.list("") if "/turn-" in name)
    assert len(begins) == len(taken)
    assert all(later - earlier > interval_s - 0.001 for earlier, later in itertools.pairwise(begins))
    assert all(at >= begin - 0.01 for at, begin in zip(taken, begins, strict=True))
