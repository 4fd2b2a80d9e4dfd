"""What a run does once more: it was done under other settings, by another version or with other weights."""

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from manifests.records import Video
from manifests.store import Store
from pipeline.job import Job, read_job
from pipeline.ledger import Ledger
from pipeline.plan import Due, with_followers
from pipeline.stage import Stage, keys
from stages.fetch import Fetch

_UNTOLD = "under other settings, by another version or with other weights than before"


def done_again(due: Sequence[Due], store: Store, changed: Mapping[str, Collection[str]]) -> Iterator[str]:
    """A line for each stage where videos enter that an outcome under another key shows as done there, and why they are
    not settled, as far as the job of the store tells. Not of those whose rows have `changed`, by stage.

    Of the store it lists what no plan has: which keys there are and, of stages where videos enter, those under others.
    """
    if not any(one.enter for one in due):
        return
    held = [PurePosixPath(path).name for path in store.folders("ledger")]
    ledger, job, stages = Ledger(store), read_job(store), [one.stage for one in due]
    for one in due:
        name, is_fetch = one.stage.name, isinstance(one.stage, Fetch)
        left, counts = set(one.enter).difference(changed.get(name, ())), Counter[str]()
        last = (job.stages or {}).get(name) if job else None
        others = (key for key in held if key.rpartition("-")[0] == name and key != one.key)
        for key in sorted(others, key=lambda key: key != last):  # that of the last run first
            done = ledger.videos(key, "ok") if left else set()
            if left and not is_fetch:  # what could not be fetched may be another time, and cost little
                done |= ledger.videos(key, "rejected")
            if found := left & done:
                counts[_why(one.stage, stages, job, key) if job and key == last else _UNTOLD] += len(found)
            left -= found
        names = ", ".join(stage.name for stage in stages if stage.name in with_followers(name, stages))
        for why, n in counts.items():
            yield f"videos {'fetched' if is_fetch else 'measured'} again: {n:,} (stages: {names}), {why}"


def _why(stage: Stage[Any], stages: Sequence[Stage[Any]], job: Job, key: str) -> str:
    """What of a stage and of those that it needs differs from the last run, which had this key for it."""
    try:
        then = {one.name: one for one in job.build().stages()}
        is_other_version = keys(then.values(), Video)[stage.name] != key
    except ValueError:  # a setting that there is no more, or weights that are gone
        return _UNTOLD
    differing: dict[str, None] = {}  # as a set that keeps its order: clip and speech share a cascade
    for one in stages:
        if stage.name in with_followers(one.name, stages):
            before, now = (dict(_settings(one.name, config)) for config in (then[one.name], one))
            differing |= dict.fromkeys(_differing(before, now))
    settings = f"under other settings than before: {', '.join(differing)}" if differing else ""
    if is_other_version:
        return " and ".join(filter(None, (settings, "by another version or with other weights")))
    return f"{settings}; with those of before they stay as they are" if differing else _UNTOLD


def _settings(name: str, config: Any) -> Iterator[tuple[str, object]]:
    """What makes a (nested) configuration's results, by name."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and field.metadata.get("semantic", True):
            yield from _settings(f"{name}.{field.name}", value)
        elif field.metadata.get("semantic", True):
            yield f"{name}.{field.name}", value


def _differing(then: Mapping[str, object], now: Mapping[str, object]) -> Iterator[str]:
    """The settings that differ, as they are assigned; by a word those that follow from a cascade and its policy."""
    for name in {**then, **now}:
        is_, was = now.get(name), then.get(name)
        if is_ != was:
            spares = name.endswith(".spare")
            yield "the limits of its cascade" if spares else f"{name}={is_!s:.60} (was {was!s:.60})"
