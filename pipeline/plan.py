"""What is due: for each stage, the videos that enter the run there, where the last run left them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manifests.records import Video
from manifests.store import Store
from pipeline.ledger import Ledger, forgotten
from pipeline.stage import Stage, keys


@dataclass(frozen=True)
class Due:
    """One stage's share of a run."""

    stage: Stage[Any]
    key: str
    enter: tuple[str, ...]  # ids that enter the flow here
    ok: int
    rejected: int
    failed: int
    quarantined: int


def queue(videos: Iterable[Video], *, together: bool) -> list[list[Video]]:
    """Videos in the order in which they are taken up, the longest first; those in one list by one worker.

    `together`: the parts of one source share a list, so that whoever fetches one has fetched them all.
    """
    groups: dict[str, list[Video]] = {}
    for video in sorted(videos, key=lambda video: (video.start_s is None, video.start_s or 0.0, video.id)):
        groups.setdefault(video.url if together else video.id, []).append(video)
    return sorted(groups.values(), key=lambda group: (-max(one.duration_s or 0.0 for one in group), group[0].id))


def plan(
    stages: Sequence[Stage[Any]],
    videos: Iterable[Video],
    store: Store,
    *,
    retry: bool = False,
    again: Mapping[str, Collection[str]] | None = None,
    if_rejected: Mapping[str, Collection[str]] | None = None,
) -> tuple[Due, ...]:
    """By listings alone: four per stage, no object is read. Failed videos are due again, with `retry` quarantined ones
    too, and those that `again` names by stage, whatever became of them there, and `if_rejected` if it was that (see
    `pipeline.changed`).
    """
    names, ledger = keys(stages, Video), Ledger(store)
    ids = {video.id for video in videos} - forgotten(store)
    found = []
    for stage in stages:
        key = names[stage.name]
        old = ids.difference((again or {}).get(stage.name, ()))
        ok, rejected = (ledger.videos(key, status) & old for status in ("ok", "rejected"))  # type: ignore[arg-type]
        rejected = rejected.difference((if_rejected or {}).get(stage.name, ()))
        quarantined = (ledger.videos(key, "quarantined") & old) - ok - rejected
        failed = (ledger.videos(key, "failed") & old) - ok - rejected - quarantined
        if retry:
            failed, quarantined = failed | quarantined, set()
        enter = ids - ok - rejected - quarantined
        found.append(Due(stage, key, tuple(sorted(enter)), len(ok), len(rejected), len(failed), len(quarantined)))
        ids = ok
    return tuple(found)


def release(stages: Sequence[Stage[Any]], store: Store) -> None:
    """Forget what is quarantined at these stages, so that it is tried again as if for the first time."""
    ledger = Ledger(store)
    for key in keys(stages, Video).values():
        # Of two runs on one store one may have given up what the other measured: that stays.
        for video in ledger.videos(key, "quarantined") - ledger.videos(key, "ok") - ledger.videos(key, "rejected"):
            ledger.forget(key, video)


def with_followers(first: str, stages: Sequence[Stage[Any]]) -> set[str]:
    """Names of a stage and of all that need what it gives, at any remove."""
    names: set[str] = set()
    given: set[type] = set()
    for stage in stages:
        if stage.name == first or not given.isdisjoint(stage.inputs()):
            names.add(stage.name)
            given.add(stage.gives)
    return names
