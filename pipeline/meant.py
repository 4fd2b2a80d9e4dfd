"""Whom a call of `forget` means: by what a store was asked for, what its results say, and all that was ever measured.

Also by what was measured under other versions, parameters and weights: after an upgrade half of a store waits to be
measured anew, and is none the less known.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from manifests import parquet
from manifests.codec import from_plain
from manifests.records import Identities, Identity, Verdict, Video
from manifests.store import Store
from manifests.text import folded
from pipeline.finish import judged
from pipeline.ledger import READERS, Ledger
from pipeline.recipes import TalkingFaces
from stages.catalogue import CLIPS
from stages.judge import Measured
from stages.shard_index import read_index
from stages.weights import WeightsMissingError

_KINDS = ("video", "channel", "person")


@dataclass(frozen=True)
class Today:
    """What is known of the videos under the settings of now, and the verdicts on it; neither where weights are gone,
    by whose digests outcomes are found."""

    known: Sequence[Measured]
    verdicts: Sequence[Verdict]
    lack: WeightsMissingError | None = None

    @classmethod
    def of(cls, recipe: TalkingFaces, videos: Sequence[Video], store: Store) -> "Today":
        """Judge them. Writes nothing."""
        try:
            return cls(*judged(recipe, videos, store))
        except WeightsMissingError as lack:
            return cls((), (), lack)

    def clips_of(self, person: str) -> dict[str, str]:
        """As the function of that name. Raises `WeightsMissingError`."""
        if self.lack is not None:
            raise self.lack
        keys = {verdict.key for verdict in self.verdicts if verdict.person == person}
        shown = (clip for one in self.known if one.identities for clip in one.identities.items)
        return {clip.key: clip.picture_hash for clip in shown if clip.key in keys}


@dataclass
class Meant:
    """Videos by id; the clips of each person, as `clips_of` has them; names and addresses of channels."""

    videos: set[str] = field(default_factory=set)
    persons: list[Mapping[str, str]] = field(default_factory=list)
    channels: set[str] = field(default_factory=set)


def meant(
    what: Sequence[str],
    left: Collection[str],
    videos: Sequence[Video],
    before: Collection[str],
    today: Today,
    store: Store,
) -> Meant:
    """What these mean. Videos forgotten `before` are meant where no other is, and what calls that were cut short have
    `left` may mean nobody any more. Raises `ValueError` for what is malformed or matches nothing."""
    found = Meant()
    for one in what:
        kind, name = _kind_and_name(one)
        if kind == "video":
            ids = _videos_of(name, videos, before)
        elif kind == "channel":
            ids, names = _channel_of(name, videos, store)
            found.channels |= {name, *names}
        else:
            clips = clips_of(name, store) or ({} if one in left else today.clips_of(name))
            ids = set(map(video_of, clips))
            found.persons += [clips] if clips else []
        if not ids and one not in left:
            raise ValueError(f"forget {one}: no {kind} of that name in this store")
        found.videos |= ids
    return found


def _kind_and_name(one: str) -> tuple[str, str]:
    """Kind and name of what is to be forgotten. Raises `ValueError` if malformed."""
    kind, colon, name = one.partition(":")
    if not colon or kind not in _KINDS or not name:
        raise ValueError(f"forget {one}: expected video:ID, channel:NAME or person:ID")
    return kind, name


def _videos_of(name: str, videos: Sequence[Video], before: Collection[str]) -> set[str]:
    """The video of that id or beginning, of those forgotten `before` only where no other is. Raises `ValueError`."""
    found = {video.id for video in videos if video.id.startswith(name)}
    found = found or {id for id in before if id.startswith(name)}
    if len(found) > 1 and name not in found:
        raise ValueError(f"forget video:{name}: {len(found)} videos begin so; give more of the id")
    return {name} if name in found else found


def _channel_of(name: str, videos: Sequence[Video], store: Store) -> tuple[set[str], set[str]]:
    """Videos whose row names the channel, or whose page did, by name or address, whenever it was fetched; and what else
    their pages call it."""
    found, names = {video.id for video in videos if _same(name, video.channel)}, set[str]()
    for sources in _bodies(store, "fetch"):
        for id, body in sources.items():
            said = [str(body.get(key) or "") for key in ("uploader", "uploader_url")]
            if _same(name, *said):
                found.add(id)
                names.update(said)
    return found, names - {""}


def _same(name: str, *others: str) -> bool:
    return folded(name) in map(folded, others)


def clips_of(person: str, store: Store) -> dict[str, str]:
    """Keys of the clips that the results in the store say show a person, and their picture hashes, "" if not known.

    The user has read the name there. Judged anew after one more video, the same person may have another one.
    """
    index = read_index(store)
    found = {row.key: "" for row in (index.rows if index is not None else ()) if row.person == person}
    return found | {row["key"]: row["picture_hash"] or "" for row in _rows(store, "person") if row["person"] == person}


def _rows(store: Store, *columns: str) -> list[dict[str, Any]]:
    """Keys and picture hashes, with these columns, of the table of clips; none where there is no table."""
    table = store.get_some([CLIPS]).get(CLIPS)
    return parquet.read(table, ["key", "picture_hash", *columns]).to_pylist() if table else []


def video_of(key: str) -> str:
    """The id of the video that a clip is of."""
    return key.rpartition("-")[0]


def identities(store: Store) -> Iterator[list[Identity]]:
    """All clips whose identity was ever measured, kept or dropped, a list for each key of that stage: faces are
    comparable within a list alone, fingerprints at large. Reads every such outcome, and the table of clips for those
    whose outcomes were taken back since: these without a face."""
    for outcomes in _bodies(store, "identity"):
        yield [one for body in outcomes.values() for one in from_plain(body, Identities).items]
    told = [row for row in _rows(store, "sound_hash") if row["picture_hash"] and row["sound_hash"]]
    yield [Identity(face=(), spread=0.0, **row) for row in told]


def _bodies(store: Store, stage: str) -> Iterator[Mapping[str, Mapping[str, Any]]]:
    """What a stage gave, by video, for each of the keys that it ever had."""
    ledger = Ledger(store)
    for key in (folder.rpartition("/")[2] for folder in store.folders("ledger")):
        if key.rpartition("-")[0] == stage:
            ids = sorted(ledger.videos(key, "ok"))
            with ThreadPoolExecutor(READERS) as pool:
                found = zip(ids, pool.map(partial(ledger.read, key), ids), strict=True)
                yield {id: outcome.body for id, outcome in found if outcome is not None and outcome.status == "ok"}
