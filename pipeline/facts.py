"""What the ledger knows of each video, as `Measured` records for the steps that see the whole data set."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from manifests.codec import from_plain
from manifests.records import Video
from manifests.store import Store
from pipeline.ledger import READERS, Ledger, Listed, Outcome, forgotten
from pipeline.stage import Rejection, Stage, keys
from stages.judge import STAGES, Measured


def outcomes(stages: Sequence[Stage[Any]], video: str, store: Store) -> dict[str, Outcome]:
    """Every outcome of one video by stage name, in the order of the stages."""
    ledger = Ledger(store)
    found = ((name, ledger.read(key, video)) for name, key in keys(stages, Video).items())
    return {name: outcome for name, outcome in found if outcome is not None}


def listed(stages: Sequence[Stage[Any]], store: Store, *, stamped: bool = False) -> Listed:
    """Every outcome there is. By listings alone; `stamped`: see `Ledger.listed`."""
    ledger = Ledger(store)
    return {key: ledger.listed(key, stamped=stamped) for key in keys(stages, Video).values()}


def marks(found: Listed, videos: Iterable[Video]) -> dict[str, int]:
    """Of each video a number that is another once one of its outcomes is."""
    return {video.id: hash(tuple((key, of.get(video.id)) for key, of in found.items())) for video in videos}


def measured(
    stages: Sequence[Stage[Any]],
    videos: Iterable[Video],
    store: Store,
    found: Listed | None = None,
    known: Mapping[str, Measured] | None = None,
) -> list[Measured]:
    """One record per video, in the order given. Reads only what listings say is there, and nothing of those videos
    that are `known` as they are now.

    What it reads may differ from what was listed minutes before, where a run goes on meanwhile: what is read counts.
    """
    names, ledger = keys(stages, Video), Ledger(store)
    there = listed(stages, store) if found is None else found

    def one(video: Video) -> Measured:
        if known and video.id in known:
            return known[video.id]
        facts: dict[str, Any] = {}
        for stage in stages:
            key = names[stage.name]
            status, _ = there[key].get(video.id, (None, 0))
            outcome = ledger.read(key, video.id, status) if status else None
            if outcome is None:
                break
            if outcome.status == "ok":
                facts[STAGES[stage.name]] = from_plain(outcome.body, stage.gives)
            elif outcome.status == "rejected":
                rejection = from_plain(outcome.body, Rejection)
                return Measured(video=video, **facts, rejected=(stage.name, rejection.reason, rejection.measured))
            else:
                facts["failed"] = (stage.name, outcome.status, str(outcome.body["error"]).strip().splitlines()[-1])
                break
        return Measured(video=video, **facts)

    tombs = forgotten(store)
    with ThreadPoolExecutor(READERS) as pool:
        every = list(pool.map(one, (video for video in videos if video.id not in tombs)))
    return _with_postponed(stages, every, ledger)


def _with_postponed(stages: Sequence[Stage[Any]], found: Sequence[Measured], ledger: Ledger) -> list[Measured]:
    """The same, saying of each that waits for one of these stages why its last attempt was put off. Asks nothing where
    no video waits."""
    names = keys(stages, Video)
    waiting: dict[str, set[str]] = defaultdict(set)
    for one in found:
        if one.lacks in names and not one.rejected and not one.failed:
            waiting[one.lacks].add(one.video.id)
    why = {
        video: (stage, said)
        for stage, ids in waiting.items()
        for video, said in ledger.postponed(names[stage], ids).items()
    }
    return [replace(one, postponed=why[one.video.id]) if one.video.id in why else one for one in found]
