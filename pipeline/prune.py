"""Give back the room of what a store's own recipe names no more: what older versions, settings and weights have made.

All outcomes go before any blob, those of later stages before those of earlier ones: a call that was cut short leaves no
outcome whose blob is gone, nor one whose input is, and the same command finishes it.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from rich.table import Table

from manifests.records import Video
from manifests.store import Store
from pipeline.finish import is_finished
from pipeline.forget import about, remove
from pipeline.job import Job, masked, read_job, read_videos
from pipeline.ledger import READERS, Ledger
from pipeline.plan import plan
from pipeline.recipes import TalkingFaces
from pipeline.stage import keys

_KEY = re.compile(r"(.+)-[0-9a-f]{10}")

_Kind: TypeAlias = Literal["ledger", "blobs"]
_KINDS: tuple[_Kind, ...] = ("ledger", "blobs")
"""In the order in which they go."""


@dataclass
class Superseded:
    """What was removed of one key, or would be."""

    key: str
    outcomes: int = 0
    objects: int = 0  # outcomes, attempts and blobs
    bytes: int = 0  # of blobs


@dataclass
class Pruned:
    """What was removed, or would be."""

    dry: bool
    recipe: str  # with the settings that its keys come from
    keys: list[Superseded] = field(default_factory=list)
    spared: set[str] = field(default_factory=set)  # videos of which something stays, see `_spared`

    def table(self) -> Table:
        """A row for each key."""
        table = Table("stage", "outcomes", "objects", "MB", box=None)
        table.add_column("key", no_wrap=True, overflow="fold")
        for column in table.columns[1:-1]:
            column.justify = "right"
        for one in self.keys:
            stage = one.key.rpartition("-")[0]
            table.add_row(stage, f"{one.outcomes:,}", f"{one.objects:,}", f"{one.bytes / 1e6:,.1f}", one.key)
        return table

    def lines(self) -> list[str]:
        """What it comes to."""
        stays = "videos that are due, were given up or could not be fetched, of which all that was ever measured stays"
        found = [f"{stays}: {len(self.spared)}"] if self.spared else []
        if not self.keys:
            return [*found, f"nothing to remove: all keys are those of {self.recipe}"]
        objects, size = sum(one.objects for one in self.keys), sum(one.bytes for one in self.keys)
        would = "would remove" if self.dry else "removed"
        return [*found, f"{would} {objects:,} objects, {size / 1e6:,.1f} MB, that are not of {self.recipe}"]


def prune(store: Store, job: Job, *, dry: bool = False) -> Pruned:
    """Remove outcomes and blobs under keys that the job's recipe does not name, but those of videos that are due, were
    given up or could not be fetched.

    Raises `ValueError` where the results in the store are not finished with that recipe, were last run with other
    versions or weights, or where another run that has other keys begins or is at work meanwhile.
    """
    recipe, videos = job.build(), read_videos(store)
    names = keys(recipe.stages(), Video)
    sets = [f"--set {shlex.quote(masked(one))}" for one in job.overrides if not one.startswith("policy.")]
    said = " ".join(["recipe", job.recipe, *sets])
    if not job.is_of(names):
        raise ValueError(f"prune: {store.url} was run last with other versions or weights, {said}: run it first")
    if not is_finished(store, recipe, videos, or_postponed=True):
        raise ValueError(
            f"prune: the results in {store.url} are not finished with what was run last, {said}: end that run first,"
            " or run it as before, since what was only tried must not take what was measured otherwise"
        )
    pruning = _Pruning(store, job, names, _spared(store, recipe, videos, names), dry=dry)
    found = [Superseded(key) for key in pruning.superseded()]
    for kind in _KINDS:
        for one in found:
            pruning.clear(kind, one)
    return Pruned(dry, said, [one for one in found if one.objects], pruning.kept)


def _spared(store: Store, recipe: TalkingFaces, videos: Sequence[Video], names: Mapping[str, str]) -> set[str]:
    """Ids of videos of which all stays: those that are due, those given up, and those that could not be fetched with
    the settings of now. They may be private or gone since, and an older source the last copy there is."""
    ledger, fetch = Ledger(store), names[recipe.fetch.name]
    found = ledger.videos(fetch, "rejected") - ledger.videos(fetch, "ok")
    for key in names.values():
        found |= ledger.videos(key, "quarantined")
    return found.union(*(one.enter for one in plan(recipe.stages(), videos, store)))


class _Pruning:
    """One call at work."""

    def __init__(
        self, store: Store, job: Job, names: Mapping[str, str], spared: AbstractSet[str], *, dry: bool
    ) -> None:
        self._store, self._job, self._names, self._spared, self._dry = store, job, names, spared, dry
        self.kept: set[str] = set()
        """Those of the spared videos of which something stays."""

    def superseded(self) -> list[str]:
        """Keys that the recipe does not name, those of its last stage first; before them those of no stage it has."""
        found = {path.partition("/")[2] for kind in _KINDS for path in self._store.folders(kind)}
        order = list(self._names)

        def place(key: str) -> tuple[int, str]:
            stage = key.rpartition("-")[0]
            return -order.index(stage) if stage in order else -len(order), key

        return sorted((key for key in found if _KEY.fullmatch(key) and key not in self._names.values()), key=place)

    def clear(self, kind: _Kind, one: Superseded) -> None:
        """Remove the outcomes or the blobs of a key, and count them: folder by folder, as not all fit into memory."""
        place = f"{kind}/{one.key}"
        if kind == "blobs" and not self._dry:
            self._refuse_work(one.key)
        folders = self._store.folders(place)
        if kind == "ledger":
            folders = [folder for status in folders for folder in self._store.folders(status)]
        kept = set[str]()
        with ThreadPoolExecutor(READERS) as pool:
            for folder, (gone, stays) in zip(folders, pool.map(self._clear, folders), strict=True):
                one.objects += len(gone)
                one.outcomes += len(gone) if kind == "ledger" and folder.split("/")[2] != "tries" else 0
                one.bytes += sum(gone)
                kept |= stays
        self.kept |= kept
        if not self._dry and not kept:
            self._refuse_others()
            self._store.delete(place)  # empty folders, and what is half written

    def _clear(self, folder: str) -> tuple[list[int], set[str]]:
        """Remove a folder, but of spared videos: the bytes of each object that goes, 0 of an outcome, and the videos
        that stay."""
        is_blobs = folder.startswith("blobs/")
        found = self._store.sizes(folder) if is_blobs else dict.fromkeys(self._store.list(folder), 0)
        gone = {path: size for path, size in found.items() if about(path)[1] not in self._spared}
        if gone and not self._dry:
            self._refuse_others()
            if len(gone) == len(found):
                self._store.delete(folder)
            else:
                remove(self._store, gone)
        return list(gone.values()), {about(path)[1] for path in found.keys() - gone.keys()}

    def _refuse_others(self) -> None:
        """Raise `ValueError` where a run has begun that has other keys: it may be at work on what is to go."""
        now = read_job(self._store)
        if now is None or (now != self._job and not self._is_same(now)):
            raise ValueError(
                f"prune: another run has begun in {self._store.url} that has other settings; nothing more goes"
            )
        self._job = now

    def _is_same(self, job: Job) -> bool:
        return job.is_of(self._names) and keys(job.build().stages(), Video) == self._names

    def _refuse_work(self, key: str) -> None:
        """Raise `ValueError` where outcomes have come since those of the key went: of a run with other settings that is
        at work, which needs the blobs."""
        videos = {about(path)[1] for path in self._store.list(f"ledger/{key}")}
        if not videos - {""} <= self._spared:
            raise ValueError(f"prune: a run with other settings is at work in {self._store.url}; nothing more goes")
