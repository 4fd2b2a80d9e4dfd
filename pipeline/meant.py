"""Whom a call of `forget` means: by what a store was asked for, what its results say, and all that was ever measured.

Also by what was measured under other versions, parameters and weights: after an upgrade half of a store waits to be
measured anew, and is none the less known.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from manifests.codec import from_plain
from manifests.records import Identities, Identity, Verdict, Video
from manifests.store import Store
from manifests.text import folded
from manifests.urls import is_web, loose
from pipeline.finish import judged
from pipeline.ledger import READERS, Ledger
from pipeline.recipes import TalkingFaces
from stages.catalogue import CLIPS, VIDEOS, read_catalogue
from stages.duplicates import video_of
from stages.judge import Measured
from stages.shard_index import read_index
from stages.weights import WeightsMissingError

_KINDS = ("video", "channel", "person")

_LEAST_LETTERS = 8
"""Of an id that is not given whole: a single one often begins one video alone, and nothing brings that back."""


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
    if not colon or kind not in _KINDS or not folded(name):
        raise ValueError(f"forget {one}: expected video:ID, channel:NAME or person:ID")
    return kind, name


def _videos_of(name: str, videos: Sequence[Video], before: Collection[str]) -> set[str]:
    """All at that address, or the one of that id or beginning, of those forgotten `before` only where no other is.
    Raises `ValueError`."""
    if "/" in name:
        address = loose(name)
        return {video.id for video in videos if loose(video.url) == address}
    found = {video.id for video in videos if video.id.startswith(name)}
    found = found or {id for id in before if id.startswith(name)}
    if len(found) > 1 and name not in found:
        raise ValueError(f"forget video:{name}: {len(found)} videos begin so; give more of the id")
    if found and name not in found and len(name) < _LEAST_LETTERS:
        raise ValueError(f"forget video:{name}: give {_LEAST_LETTERS} letters of the id or more: it is for good")
    return {name} if name in found else found


def _channel_of(name: str, videos: Sequence[Video], store: Store) -> tuple[set[str], set[str]]:
    """Videos of the channel of that name or address, and all that these call it, folded.

    Whatever names an address of one of them is of the channel too, which may have been renamed; not what names another
    of its names, which strangers may bear.
    """
    said = [(id, {folded(text) for text in texts} - {""}) for id, texts in _channels(videos, store)]
    known, found = {folded(name)} - {""}, set[str]()
    while more := {id for id, names in said if not known.isdisjoint(names)} - found:
        found |= more
        known |= {text for id, names in said if id in more for text in names if is_web(text)}
    return found, set[str]().union(*(names for id, names in said if id in found))


def _channels(videos: Sequence[Video], store: Store) -> Iterator[tuple[str, Sequence[str]]]:
    """Videos with what names their channel: their rows, their pages, whenever they were fetched, and the tables, which
    know those whose outcomes were taken back since."""
    yield from ((video.id, [video.channel]) for video in videos)
    for sources in _bodies(store, "fetch"):
        for id, body in sources.items():
            yield id, [str(body.get(key) or "") for key in ("uploader", "uploader_url")]
    for table in (CLIPS, VIDEOS):
        for row in _rows(store, table, "video", "channel", "uploader"):
            yield row["video"], [row["channel"] or "", row["uploader"] or ""]


def pages_of(ids: Collection[str], store: Store) -> dict[str, set[str]]:
    """By video the addresses of the pages that it was fetched from, of those of these ids that have any."""
    ledger, found = Ledger(store), dict[str, set[str]]()
    fetches = _keys_of("fetch", store)
    with ThreadPoolExecutor(READERS) as pool:
        for id, outcomes in zip(ids, pool.map(partial(ledger.passed, fetches), ids), strict=True):
            found[id] = {str(outcome.body.get("page_url") or "") for outcome in outcomes.values()}
    for row in _rows(store, VIDEOS, "video", "url"):
        if row["video"] in found:
            found[row["video"]].add(row["url"] or "")
    return {id: pages - {""} for id, pages in found.items() if pages - {""}}


def clips_of(person: str, store: Store) -> dict[str, str]:
    """Keys of the clips that the results in the store say show a person, and their picture hashes, "" if not known.

    The user has read the name there. Judged anew after one more video, the same person may have another one.
    """
    index, shown = read_index(store), _rows(store, CLIPS, "key", "picture_hash", "person")
    found = {row.key: "" for row in (index.rows if index is not None else ()) if row.person == person}
    return found | {row["key"]: row["picture_hash"] or "" for row in shown if row["person"] == person}


def _rows(store: Store, name: str, *columns: str) -> list[dict[str, Any]]:
    """These columns of one of the two tables; none where there is no table."""
    try:
        return read_catalogue(store, name, [*columns]).to_pylist()
    except FileNotFoundError:
        return []


def identities(store: Store) -> Iterator[list[Identity]]:
    """All clips whose identity was ever measured, kept or dropped, a list for each key of that stage: faces are
    comparable within a list alone, fingerprints at large. Reads every such outcome, and the table of clips for those
    whose outcomes were taken back since: these without a face."""
    for outcomes in _bodies(store, "identity"):
        yield [one for body in outcomes.values() for one in from_plain(body, Identities).items]
    rows = _rows(store, CLIPS, "key", "picture_hash", "sound_hash")
    told = [row for row in rows if row["picture_hash"] and row["sound_hash"]]
    yield [Identity(face=(), spread=0.0, **row) for row in told]


def _bodies(store: Store, stage: str) -> Iterator[Mapping[str, Mapping[str, Any]]]:
    """What a stage gave, by video, for each of the keys that it ever had."""
    ledger = Ledger(store)
    for key in _keys_of(stage, store):
        ids = sorted(ledger.videos(key, "ok"))
        with ThreadPoolExecutor(READERS) as pool:
            found = zip(ids, pool.map(partial(ledger.read, key), ids), strict=True)
            yield {id: outcome.body for id, outcome in found if outcome is not None and outcome.status == "ok"}


def _keys_of(stage: str, store: Store) -> list[str]:
    keys = (folder.rpartition("/")[2] for folder in store.folders("ledger"))
    return [key for key in keys if key.rpartition("-")[0] == stage]
