"""Take videos out of a store for good: every blob and record of them, and their clips in shards and tables.

A call first writes down what it is to take out, then the tombstones, and every call sweeps what others left: one that
was cut short is finished by the same command, or by the next `forget` of anything else.
"""

import tempfile
import uuid
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.compute as pc

from manifests.codec import from_json, to_json
from manifests.records import Verdict, Video
from manifests.scratch import prefix
from manifests.store import Store
from pipeline.finish import judged
from pipeline.job import drop_videos
from pipeline.ledger import READERS, forgotten
from pipeline.recipes import TalkingFaces
from pipeline.report import REPORT
from stages.catalogue import CLIPS, VIDEOS, keep_rows
from stages.duplicates import copies
from stages.judge import Candidate, Measured, candidates
from stages.policies import PAPER, Policy
from stages.shard_index import Row, ShardIndex, drop_stale, read_index, shard_name, write_index
from stages.split import mean_face
from stages.tars import join_tar

_KINDS = ("video", "channel", "person")
_REMOVERS = 16

_FEW = 200
"""Videos that are looked up one by one: in an object store in 10 s, in which the outcomes of 10,000 are listed."""

_CALLS = "forgetting"


@dataclass(frozen=True)
class _Call:
    """One call, for as long as it lasts. From its first tombstone on, nothing else tells whom a person's name meant."""

    what: list[str]
    asked: list[str]
    copies: list[str]


@dataclass
class Gone:
    """What was removed, or would be."""

    dry: bool
    videos: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)  # of the videos: gone as near-duplicates of what was asked for
    objects: int = 0
    clips: list[str] = field(default_factory=list)  # keys that were in shards
    rewritten: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The proof, line by line."""
        if not self.videos:
            return ["nothing to remove"]
        would = "would remove" if self.dry else "removed"
        found = [f"{would} video {id}" + (" (a near-duplicate)" if id in self.copies else "") for id in self.videos]
        found += [f"{would} clip {key} from the shards" for key in self.clips]
        found += [f"{would} shard {name}" for name in self.removed]
        found += [f"wrote shard {name} without them" for name in self.rewritten]
        tail = "" if self.dry else "; tombstones keep them out of later runs"
        return [*found, f"{would} {self.objects} stored objects of {len(self.videos)} videos{tail}"]


def forget_all(
    store: Store, recipe: TalkingFaces, videos: Sequence[Video], what: Sequence[str], *, dry: bool = False
) -> Gone:
    """Remove `video:ID` (or its beginning), `channel:NAME` (name or address of the uploader) or `person:ID`.

    A person goes with every video that shows them, and near-duplicates of what goes, go too: else judging anew would
    put a re-upload in its place. Both are looked for in dropped clips as well, which another policy may keep. What a
    call that was cut short had still to take out, goes too. Raises `ValueError` for what is malformed or matches
    nothing.
    """
    # Another call may end, and take its own away, between the listing and the reading.
    calls = store.get_some(store.list(_CALLS))
    left = {path: from_json(call, _Call, store.at(path)) for path, call in calls.items()}
    before = forgotten(store)
    known, verdicts = judged(recipe, videos, store)
    clips = list(candidates(known))
    asked = {id for call in left.values() for id in call.asked}
    for one in what:
        meant = _matching(one, videos, known, verdicts, before)
        if not meant and not any(one in call.what for call in left.values()):
            raise ValueError(f"forget {one}: no {one.partition(':')[0]} of that name in this store")
        asked |= meant
    asked |= _shown_alike(what, clips, verdicts, recipe.policy)
    every = _with_copies(asked, clips, recipe.policy).union(*(call.copies for call in left.values()))
    gone = Gone(dry=dry, videos=sorted(every), copies=sorted(every - asked))
    this = f"{_CALLS}/{uuid.uuid4().hex}.json"
    if not dry:
        store.put(this, to_json(_Call(list(what), sorted(asked), gone.copies)))
        for id in gone.videos:
            store.put(f"tombstones/{id}.json", to_json({"id": id}))
        every |= before  # what a run that was killed may have left of them
    _from_shards(store, every, gone)
    if not dry:
        for table in (CLIPS, VIDEOS):
            keep_rows(store, table, ~pc.field("video").isin(sorted(every)))
        store.delete(REPORT)  # it holds their pictures
    found = objects(store, every)
    gone.objects = len(found)
    if not dry:
        remove(store, found)
        drop_videos(store, every)
        remove(store, (*left, this))
    return gone


def _matching(
    one: str, videos: Sequence[Video], known: Sequence[Measured], verdicts: Sequence[Verdict], before: Collection[str]
) -> set[str]:
    """Videos that are meant, of those forgotten `before` only where no other is. Raises `ValueError` if malformed."""
    kind, colon, name = one.partition(":")
    if not colon or kind not in _KINDS or not name:
        raise ValueError(f"forget {one}: expected video:ID, channel:NAME or person:ID")
    if kind == "video":
        found = {video.id for video in videos if video.id.startswith(name)}
        found = found or {id for id in before if id.startswith(name)}
        if len(found) > 1 and name not in found:
            raise ValueError(f"forget {one}: {len(found)} videos begin so; give more of the id")
        found = {name} if name in found else found
    elif kind == "channel":
        found = {video.id for video in videos if _same(name, video.channel)}
        found |= {m.video.id for m in known if m.source and _same(name, m.source.uploader, m.source.uploader_url)}
    else:
        found = {verdict.video for verdict in verdicts if verdict.person == name}
    return found


def _same(name: str, *others: str) -> bool:
    return name.strip().casefold() in {other.strip().casefold() for other in others}


def _shown_alike(
    what: Sequence[str], clips: Sequence[Candidate], verdicts: Sequence[Verdict], policy: Policy
) -> set[str]:
    """Videos with a clip, kept or dropped, whose face is like that of a `person:ID`; none of anything else. Only clips
    that break no rule were given a person."""
    named = {verdict.key: verdict.person for verdict in verdicts if f"person:{verdict.person}" in what}
    if not named:
        return set()
    faces = {clip.clip.key: mean_face([clip.identity.face]) for clip in clips if clip.identity and clip.identity.face}
    theirs = ([faces[key] for key in named if key in faces and named[key] == one] for one in set(named.values()))
    means = [mean_face(person) for person in theirs if person]
    return {
        clip.measured.video.id
        for clip in clips
        if (face := faces.get(clip.clip.key)) is not None
        and any(face @ mean >= policy.same_person_cosine for mean in means)
    }


def _with_copies(asked: Iterable[str], clips: Sequence[Candidate], policy: Policy) -> set[str]:
    video_of = {clip.clip.key: clip.measured.video.id for clip in clips}
    found = copies(
        {clip.clip.key: clip.identity for clip in clips if clip.identity},
        # a policy that drops no duplicates ships them, and forgets them all the same
        max_picture_distance=policy.max_picture_distance or PAPER.max_picture_distance,
        max_sound_distance=policy.max_sound_distance or PAPER.max_sound_distance,
    )
    pairs = [(video_of[copy.first], video_of[copy.second]) for copy in found]
    every = set(asked)
    while more := {video for pair in pairs if every & set(pair) for video in pair} - every:
        every |= more
    return every


def _from_shards(store: Store, videos: set[str], gone: Gone) -> None:
    """Write the shards that hold them anew from their other clips, then the index; other shards are not touched."""
    index = read_index(store)
    if index is None:
        return
    gone.clips = [row.key for row in index.rows if row.video in videos]
    gone.removed = list(dict.fromkeys(row.shard for row in index.rows if row.video in videos))
    if gone.dry or not gone.clips:
        return
    rows: list[Row] = []
    for shard, inside in index.by_shard.items():
        kept = [row for row in inside if row.video not in videos]
        if shard not in gone.removed:
            rows += kept
        elif kept:
            rows += _rewrite(store, shard, kept)
            gone.rewritten.append(rows[-1].shard)
    left = ShardIndex(tuple(rows))
    write_index(store, left)
    drop_stale(store, left)


def _rewrite(store: Store, shard: str, kept: Sequence[Row]) -> list[Row]:
    split, bucket, _ = shard.split("-")
    name = shard_name(split, int(bucket), (row.content for row in kept))
    with tempfile.TemporaryDirectory(prefix=prefix("forget")) as folder, store.writing(f"shards/{name}") as target:
        source = store.get_file(f"shards/{shard}", Path(folder))
        samples = join_tar(target, source, (row.sample for row in kept))
    return [row.moved(name, sample) for row, sample in zip(kept, samples, strict=True)]


def objects(store: Store, videos: Collection[str]) -> list[str]:
    """Paths of all outcomes and attempts, and then of all blobs, of these videos, under whatever keys.

    Each of a few is asked for by its paths, by some 30 requests and as many again for each set of old keys. For more
    the outcomes are listed, folder by folder as a plan does: for a million videos in an object store 20 minutes. Never
    all at once, which would take 13 GB.
    """
    are_few = len(videos) <= _FEW
    folders = [folder for key in store.folders("ledger") for folder in store.folders(key)]
    ends = sorted({f"{id[:2]}/{id}" if are_few else id[:2] for id in videos})
    blobs = [f"{key}/{end}" for key in store.folders("blobs") for end in ends]
    with ThreadPoolExecutor(READERS) as pool:
        if are_few:
            paths = [f"{folder}/{end}.json" for folder in folders for end in ends]
            found = [path for there in pool.map(lambda path: store.get_some([path]), paths) for path in there]
        else:
            found = _of(videos, map(store.list, folders))
        return found + _of(videos, pool.map(store.list, blobs))


def _of(videos: Collection[str], listings: Iterable[Iterable[str]]) -> list[str]:
    return [path for listing in listings for path in listing if about(path)[1] in videos]


def remove(store: Store, paths: Iterable[str]) -> None:
    """Delete many objects, several at a time: an object store takes its time over each."""
    with ThreadPoolExecutor(_REMOVERS) as pool:
        for _ in pool.map(store.delete, paths):
            pass


def about(path: str) -> tuple[str, str]:
    """The name of the stage and the id of the video that a blob or a ledger object is about, "" for what is neither:
    `ledger/KEY/STATUS/ID[:2]/ID.json` and `blobs/KEY/ID[:2]/ID/NAME`."""
    parts = path.split("/")
    if parts[0] == "ledger" and len(parts) == 5:
        video = parts[4].removesuffix(".json")
    else:
        video = parts[3] if parts[0] == "blobs" and len(parts) > 4 else ""
    return parts[1].rpartition("-")[0] if video else "", video
