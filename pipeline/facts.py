"""What the ledger knows of each video, as `Measured` records for the steps that see the whole data set."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from manifests.codec import from_plain
from manifests.records import Clips, Identities, Seen, Source, Speeches, Syncs, Video
from manifests.store import Store
from pipeline.ledger import Ledger, Outcome, forgotten
from pipeline.stage import Rejection, Stage, keys
from stages.judge import Measured

_READERS = 16
"""Threads: each object store request waits tens of milliseconds, and the answers are small."""

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
    """One record per video, in the order given. Reads only what listings say is there."""
    names, ledger = keys(stages, Video), Ledger(store)
    settled = {stage.name: {s: ledger.videos(names[stage.name], s) for s in ("ok", "rejected")} for stage in stages}
    unsettled = {
        stage.name: ledger.videos(names[stage.name], "failed") | ledger.videos(names[stage.name], "quarantined")
        for stage in stages
    }

    def one(video: Video) -> Measured:
        known: dict[str, Any] = {}
        for stage in stages:
            key = names[stage.name]
            if video.id in settled[stage.name]["ok"]:
                outcome = ledger.read(key, video.id)
                assert outcome is not None
                known[_FIELDS[stage.gives]] = from_plain(outcome.body, stage.gives)
            elif video.id in settled[stage.name]["rejected"]:
                outcome = ledger.read(key, video.id)
                assert outcome is not None
                rejection = from_plain(outcome.body, Rejection)
                return Measured(video=video, **known, rejected=(stage.name, rejection.reason, rejection.measured))
            else:
                if video.id in unsettled[stage.name] and (outcome := ledger.read(key, video.id)):
                    known["failed"] = (stage.name, outcome.status, str(outcome.body["error"]).strip().splitlines()[-1])
                break
        return Measured(video=video, **known)

    tombs = forgotten(store)
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(one, (video for video in videos if video.id not in tombs)))
