"""What the ledger knows of each video, as `Measured` records for the steps that see the whole data set."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from manifests.codec import from_plain
from manifests.records import Clips, Identities, Seen, Source, Speeches, Syncs, Video
from manifests.store import Store
from pipeline.ledger import READERS, STATUSES, Ledger, Outcome, forgotten
from pipeline.stage import Rejection, Stage, keys
from stages.judge import Measured

_FIELDS: dict[type, str] = {
    Source: "source",
    Seen: "seen",
    Clips: "clips",
    Syncs: "syncs",
    Speeches: "speeches",
    Identities: "identities",
}


def outcomes(stages: Sequence[Stage[Any]], video: str, store: Store) -> dict[str, Outcome]:
    """Every outcome of one video by stage name, in the order of the stages."""
    ledger = Ledger(store)
    found = ((name, ledger.read(key, video)) for name, key in keys(stages, Video).items())
    return {name: outcome for name, outcome in found if outcome is not None}


def measured(stages: Sequence[Stage[Any]], videos: Iterable[Video], store: Store) -> list[Measured]:
    """One record per video, in the order given. Reads only what listings say is there.

    What it reads may differ from what was listed minutes before, where a run goes on meanwhile: what is read counts.
    """
    names, ledger = keys(stages, Video), Ledger(store)
    listed = {
        stage.name: set[str]().union(*(ledger.videos(names[stage.name], status) for status in STATUSES))
        for stage in stages
    }

    def one(video: Video) -> Measured:
        known: dict[str, Any] = {}
        for stage in stages:
            outcome = ledger.read(names[stage.name], video.id) if video.id in listed[stage.name] else None
            if outcome is None:
                break
            if outcome.status == "ok":
                known[_FIELDS[stage.gives]] = from_plain(outcome.body, stage.gives)
            elif outcome.status == "rejected":
                rejection = from_plain(outcome.body, Rejection)
                return Measured(video=video, **known, rejected=(stage.name, rejection.reason, rejection.measured))
            else:
                known["failed"] = (stage.name, outcome.status, str(outcome.body["error"]).strip().splitlines()[-1])
                break
        return Measured(video=video, **known)

    tombs = forgotten(store)
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(one, (video for video in videos if video.id not in tombs)))
    return _with_postponed(stages, found, ledger)


def _with_postponed(stages: Sequence[Stage[Any]], found: Sequence[Measured], ledger: Ledger) -> list[Measured]:
    """The same, saying of each that waits why its last attempt was put off. Asks nothing where no video waits."""
    names = keys(stages, Video)
    waiting: dict[str, set[str]] = defaultdict(set)
    for one in found:
        stage = next((stage.name for stage in stages if getattr(one, _FIELDS[stage.gives]) is None), None)
        if stage and not one.rejected and not one.failed:
            waiting[stage].add(one.video.id)
    why = {
        video: (stage, said)
        for stage, ids in waiting.items()
        for video, said in ledger.postponed(names[stage], ids).items()
    }
    return [replace(one, postponed=why[one.video.id]) if one.video.id in why else one for one in found]
