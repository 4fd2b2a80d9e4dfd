"""What is due: for each stage, the videos that enter the run there, where the last run left them."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from manifests.records import Video
from manifests.store import Store
from pipeline.ledger import READERS, STATUSES, Ledger, Listed, Outcome, forgotten
from pipeline.stage import Stage, keys
from stages.fetch import Fetch

MAY_PASS = frozenset({"age", "blocked", "geo", "live", "members_only", "private", "truncated"})
"""Rejections by `Fetch` that cookies or a proxy may turn (`fetch.access`, which is no part of its key), or time: a
premiere is shown, a broadcast ends, a file arrives whole the next time."""

_ONCE = Outcome(status="failed", body={"error": "given up once, and to be tried again"})


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
    left: frozenset[str] = frozenset()  # forgotten ids with an outcome here: a run that was killed was measuring them


def queue(videos: Iterable[Video], *, together: bool) -> list[list[Video]]:
    """Videos in the order in which they are taken up, the longest first; those in one list by one worker.

    `together`: the parts of one source share a list, so that whoever fetches one has fetched them all.
    """
    groups: dict[str, list[Video]] = {}
    for video in sorted(videos, key=lambda video: (video.start_s is None, video.start_s or 0.0, video.id)):
        groups.setdefault(video.url if together else video.id, []).append(video)
    return sorted(groups.values(), key=lambda group: (-max(one.duration_s or 0.0 for one in group), group[0].id))


def waves(due: Sequence[Due], videos: Iterable[Video], size: int) -> Iterator[list[list[Video]]]:
    """Those of the videos that are due, source by source, so many at a time, by the stage that each enters at.

    Nothing is listed for a wave: what others did since the plan was made, `Step` sees when it looks each call up.
    """
    entry = {id: at for at, one in enumerate(due) for id in one.enter}
    entering = {video.id: video for video in videos if video.id in entry}
    by_source = sorted(entering.values(), key=lambda video: (video.url, video.id))
    for first in range(0, len(by_source), size):
        wave: list[list[Video]] = [[] for _ in due]
        for video in by_source[first : first + size]:
            wave[entry[video.id]].append(video)
        yield wave


def plan(
    stages: Sequence[Stage[Any]],
    videos: Iterable[Video],
    store: Store,
    *,
    retry: bool = False,
    again: Mapping[str, Collection[str]] | None = None,
    if_rejected: Mapping[str, Collection[str]] | None = None,
    found: Listed | None = None,
) -> tuple[Due, ...]:
    """By listings alone: four per stage, none of what was `found` before; no object is read. Failed videos are due
    again, and those that `again` names by stage, whatever became of them there, and `if_rejected` if it was that (see
    `pipeline.changed`). With `retry` quarantined ones are too, and those whose rejection may pass: each one by `Fetch`
    is read for it. Where nothing can be fetched now, since the file is not there, both stay what they are.
    """
    names, ledger = keys(stages, Video), Ledger(store)
    gone = forgotten(store)
    urls = {video.id: video.url for video in videos}
    ids = urls.keys() - gone
    due = []
    for stage in stages:
        key = names[stage.name]
        there = ledger.listed(key) if found is None else found[key]
        old = (ids & there.keys()).difference((again or {}).get(stage.name, ()))
        ok, rejected, quarantined, failed = ({id for id in old if there[id][0] == status} for status in STATUSES)
        rejected = rejected.difference((if_rejected or {}).get(stage.name, ()))
        if retry:
            tried = quarantined | _may_pass(stage, key, rejected, ledger)
            if isinstance(stage, Fetch):
                tried = {id for id in tried if _is_there(urls[id])}
            failed |= quarantined & tried
            quarantined, rejected = quarantined - tried, rejected - tried
        enter = ids - ok - rejected - quarantined
        counts = (len(ok), len(rejected), len(failed), len(quarantined))
        due.append(Due(stage, key, tuple(sorted(enter)), *counts, frozenset(gone & there.keys())))
        ids = ok
    return tuple(due)


def _may_pass(stage: Stage[Any], key: str, rejected: AbstractSet[str], ledger: Ledger) -> set[str]:
    if not isinstance(stage, Fetch):
        return set()
    with ThreadPoolExecutor(READERS) as pool:
        found = zip(rejected, pool.map(lambda video: ledger.read(key, video), rejected), strict=True)
        return {video for video, outcome in found if outcome and outcome.body.get("reason") in MAY_PASS}


def _is_there(url: str) -> bool:
    """Whether a file is on a disk of this machine; what lies elsewhere is taken to be there."""
    return "://" in url or os.path.exists(url)  # noqa: PTH110 (a `Path` raises for a name that no file may have)


def release(due: Iterable[Due], store: Store) -> bool:
    """Forget what settled the videos that a plan with `retry` has due again, as if they had never been tried, and those
    that were given up had failed once (see `step.MAX_FAILURES_IN_A_ROW`). Returns whether there are any.
    """
    ledger, n_released = Ledger(store), 0
    for one in due:
        given_up = ledger.videos(one.key, "quarantined")
        settled = given_up | ledger.videos(one.key, "rejected")
        settled -= ledger.videos(one.key, "ok")  # of two runs on one store one may have measured it meanwhile
        released = settled.intersection(one.enter)
        with ThreadPoolExecutor(READERS) as pool:
            for _ in pool.map(partial(ledger.forget, one.key), released):
                n_released += 1
            for _ in pool.map(partial(ledger.write, one.key, outcome=_ONCE), released & given_up):
                pass
    return n_released > 0


def with_followers(first: str, stages: Sequence[Stage[Any]]) -> set[str]:
    """Names of a stage and of all that need what it gives, at any remove."""
    names: set[str] = set()
    given: set[type] = set()
    for stage in stages:
        if stage.name == first or not given.isdisjoint(stage.inputs()):
            names.add(stage.name)
            given.add(stage.gives)
    return names
