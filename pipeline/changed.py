"""What a manifest says anew of videos that a store holds, and which stages are due again for it.

The id of a video covers its address and part alone. What else of its row a stage has used is named here: where that
differs, the outcome of the stage holds no longer, nor do those that were made of it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from manifests.records import Video
from manifests.store import Store
from manifests.urls import is_web
from pipeline.forget import about, objects, remove
from pipeline.job import is_back, reread
from pipeline.ledger import READERS, Ledger
from pipeline.plan import with_followers
from pipeline.stage import Stage, keys
from stages.fetch import Fetch, is_free


@dataclass(frozen=True)
class _Use:
    """A field of `Video`, the first stage that uses it, and what to say of videos whose field differs."""

    field: str
    stage: str
    said: str
    unstated: str | None = ""  # its value in rows of before there was the field, which say nothing
    passes: Callable[[Video], bool] = lambda row: False  # whether what had passed the stage passes as the row is now


def _is_ruled_any(row: Video) -> bool:
    return row.licence_rule == "any" or not is_web(row.url)


def _is_allowed(row: Video) -> bool:
    return is_free(row.licence) or not is_web(row.url)


_USES = (
    _Use("stamp", "fetch", "that changed since they were fetched, measured anew"),
    _Use("language", "speech", "now expected in another language, their speech measured anew"),
)
_UNDER_A_RULE = (
    _Use("licence", "fetch", "of another licence, fetched anew where it decides", None, _is_allowed),
    _Use("licence_rule", "fetch", "under another licence rule, fetched anew where it decides", "", _is_ruled_any),
)


@dataclass(frozen=True)
class Changes:
    """Which videos are due again, by stage, and why, in a line per reason."""

    again: Mapping[str, AbstractSet[str]]
    rejected: Mapping[str, AbstractSet[str]]  # only where the stage has rejected them
    lines: tuple[str, ...]
    order: tuple[str, ...]  # names of all stages, as they follow one another

    @classmethod
    def of(
        cls, before: Iterable[Video], words: Iterable[Video], stages: Sequence[Stage[Any]], store: Store
    ) -> "Changes":
        """Compare the rows of a manifest with the list of a store. Of the store itself it reads nothing, but where a
        licence decides what the pages said of these videos."""
        known = {video.id: video for video in before}
        pairs = [(known[word.id], reread(known[word.id], word)) for word in words if word.id in known]
        again: dict[str, set[str]] = defaultdict(set)
        rejected: dict[str, set[str]] = defaultdict(set)
        lines = []
        if back := {new.id for old, new in pairs if is_back(old, new)}:
            lines.append(f"videos whose files are there again, fetched where they were missed: {len(back)}")
            rejected["fetch"] |= back
            pairs = [(replace(old, stamp=new.stamp) if new.id in back else old, new) for old, new in pairs]
        is_ruled = any(isinstance(stage, Fetch) and stage.licence != "any" for stage in stages)
        for use in (*_USES, *(_UNDER_A_RULE if is_ruled else ())):
            rows = [new for old, new in pairs if getattr(old, use.field) not in (use.unstated, getattr(new, use.field))]
            if rows:
                lines.append(f"videos {use.said}: {len(rows)}")
            if passing := {row.id for row in rows if use.passes(row)}:
                rejected[use.stage] |= passing
            others = [row for row in rows if not use.passes(row)]
            free = _stated_free(others, stages, store) if others and use in _UNDER_A_RULE else set()
            if due := {row.id for row in others} - free:
                for name in with_followers(use.stage, stages):
                    again[name] |= due
        return cls(again, rejected, tuple(lines), tuple(stage.name for stage in stages))

    def take_back(self, store: Store) -> None:
        """Remove what no longer holds, outcomes and blobs, whatever the parameters that they were made with.

        Before the new rows go into the list: a run that is killed in between finds the same changes again. The last
        stage first, of all videos, and blobs when no outcome speaks of them: wherever it ends, what is left is of one
        file, and no run measures on from what was made of another.
        """
        ids = set[str]().union(*self.again.values(), *self.rejected.values())
        if not ids:
            return
        outcomes: dict[str, list[str]] = defaultdict(list)
        blobs: list[str] = []
        for path in filter(self._is_void, objects(store, ids)):
            (outcomes[about(path)[0]] if path.startswith("ledger/") else blobs).append(path)
        for stage in reversed(self.order):
            remove(store, outcomes[stage])
        remove(store, blobs)

    def _is_void(self, path: str) -> bool:
        stage, video = about(path)
        is_rejected = path.split("/")[2] == "rejected"
        return video in self.again.get(stage, ()) or (is_rejected and video in self.rejected.get(stage, ()))


def _stated_free(rows: Iterable[Video], stages: Sequence[Stage[Any]], store: Store) -> set[str]:
    """Ids of those fetched that any rule lets pass, by the site's word or else the row's: a listing and a read each."""
    ledger, key = Ledger(store), keys(stages, Video)["fetch"]
    fetched = ledger.videos(key, "ok")
    asked = [row for row in rows if row.id in fetched]

    def is_stated_free(row: Video) -> bool:
        outcome = ledger.read(key, row.id)
        return outcome is not None and is_free(str(outcome.body.get("licence") or row.licence))

    with ThreadPoolExecutor(READERS) as pool:
        return {row.id for row, free in zip(asked, pool.map(is_stated_free, asked), strict=True) if free}
