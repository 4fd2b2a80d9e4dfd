"""What a manifest says anew of videos that a store holds, and which stages are due again for it.

The id of a video covers its address and part alone. What else of its row a stage has used is named here: where that
differs, the outcome of the stage holds no longer, nor do those that were made of it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from manifests.records import Video
from manifests.store import Store
from pipeline.forget import about, objects, remove
from pipeline.job import reread
from pipeline.stage import Stage


@dataclass(frozen=True)
class _Use:
    """A field of `Video`, the first stage that uses it, and what to say of videos whose field differs."""

    field: str
    stage: str
    said: str


_USES = (
    _Use("stamp", "fetch", "that changed since they were fetched, measured anew"),
    _Use("language", "speech", "now expected in another language, their speech measured anew"),
)


@dataclass(frozen=True)
class Changes:
    """Which videos are due again, by stage, and why, in a line per reason."""

    again: Mapping[str, AbstractSet[str]]
    lines: tuple[str, ...]

    @classmethod
    def of(cls, before: Iterable[Video], words: Iterable[Video], stages: Sequence[Stage[Any]]) -> "Changes":
        """Compare the rows of a manifest with the list of a store. Reads nothing."""
        known = {video.id: video for video in before}
        pairs = [(known[word.id], reread(known[word.id], word)) for word in words if word.id in known]
        again: dict[str, set[str]] = defaultdict(set)
        lines = []
        for use in _USES:
            # "": a row of before there were stamps, which says nothing of its file
            ids = {new.id for old, new in pairs if getattr(old, use.field) not in ("", getattr(new, use.field))}
            if ids:
                lines.append(f"videos {use.said}: {len(ids)}")
            for name in _with_followers(use.stage, stages) if ids else ():
                again[name] |= ids
        return cls(again, tuple(lines))

    def take_back(self, store: Store) -> None:
        """Remove what no longer holds, outcomes and blobs, whatever the parameters that they were made with.

        Before the new rows go into the list: a run that is killed in between finds the same changes again.
        """
        ids = set[str]().union(*self.again.values())
        if ids:
            found = ((path, *about(path)) for path in objects(store, ids))
            remove(store, [path for path, stage, video in found if video in self.again.get(stage, ())])


def _with_followers(first: str, stages: Sequence[Stage[Any]]) -> set[str]:
    """Names of a stage and of all that need what it gives, at any remove."""
    names: set[str] = set()
    given: set[type] = set()
    for stage in stages:
        if stage.name == first or not given.isdisjoint(stage.inputs()):
            names.add(stage.name)
            given.add(stage.gives)
    return names
