"""What a manifest says anew of videos that a store holds, and which stages are due again for it.

The id of a video covers its address and part alone. What else of its row a stage has used is named here: where that
differs, the outcome of the stage holds no longer, nor do those that were made of it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from manifests.records import Video
from manifests.store import Store
from manifests.urls import is_web
from pipeline.forget import about, objects, remove
from pipeline.job import reread
from pipeline.plan import with_followers
from pipeline.stage import Stage
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
    return row.licence_rule == "any"


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

    @classmethod
    def of(cls, before: Iterable[Video], words: Iterable[Video], stages: Sequence[Stage[Any]]) -> "Changes":
        """Compare the rows of a manifest with the list of a store. Reads nothing."""
        known = {video.id: video for video in before}
        pairs = [(known[word.id], reread(known[word.id], word)) for word in words if word.id in known]
        again: dict[str, set[str]] = defaultdict(set)
        rejected: dict[str, set[str]] = defaultdict(set)
        lines = []
        is_ruled = any(isinstance(stage, Fetch) and stage.licence != "any" for stage in stages)
        for use in (*_USES, *(_UNDER_A_RULE if is_ruled else ())):
            rows = [new for old, new in pairs if getattr(old, use.field) not in (use.unstated, getattr(new, use.field))]
            if rows:
                lines.append(f"videos {use.said}: {len(rows)}")
            if passing := {row.id for row in rows if use.passes(row)}:
                rejected[use.stage] |= passing
            if others := {row.id for row in rows if not use.passes(row)}:
                for name in with_followers(use.stage, stages):
                    again[name] |= others
        return cls(again, rejected, tuple(lines))

    def take_back(self, store: Store) -> None:
        """Remove what no longer holds, outcomes and blobs, whatever the parameters that they were made with.

        Before the new rows go into the list: a run that is killed in between finds the same changes again.
        """
        ids = set[str]().union(*self.again.values(), *self.rejected.values())
        if ids:
            remove(store, [path for path in objects(store, ids) if self._is_void(path)])

    def _is_void(self, path: str) -> bool:
        stage, video = about(path)
        is_rejected = path.split("/")[2] == "rejected"
        return video in self.again.get(stage, ()) or (is_rejected and video in self.rejected.get(stage, ()))
