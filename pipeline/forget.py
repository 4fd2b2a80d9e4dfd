"""Take videos out of a store for good: every blob and record of them, and their clips in shards and tables.

A call first writes down what it is to take out, then the tombstones, and every call sweeps what others left: one that
was cut short is finished by the same command, or by the next `forget` of anything else.
"""

import hashlib
import tempfile
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow.compute as pc

from manifests.codec import from_json, to_json
from manifests.records import Identity, Video
from manifests.scratch import prefix
from manifests.store import Store
from pipeline.barred import bar
from pipeline.finish import maker
from pipeline.job import drop_videos
from pipeline.ledger import READERS, forgotten
from pipeline.meant import Today, identities, meant, pages_of
from pipeline.recipes import TalkingFaces
from pipeline.report import REPORT
from pipeline.scoring import SCORE
from stages.card import write_card
from stages.catalogue import CLIPS, VIDEOS, keep_rows
from stages.duplicates import copies, video_of
from stages.fingerprint import picture_distance
from stages.policies import PAPER, Policy
from stages.shard import entries, plan
from stages.shard_index import SUMS, Row, ShardIndex, drop_stale, read_index, shard_name, write_index
from stages.split import mean_face
from stages.tars import join_tar

_REMOVERS = 16

_FEW = 200
"""Videos that are looked up one by one: in an object store in 10 s, in which the outcomes of 10,000 are listed."""

_SAME_PICTURE = 0.2
"""Distance of the hashes of one clip that was measured twice: by chance they differ by one half."""

_COPIED = 0.5
"""So much of its clips makes a video a copy: episodes of a series share a greeting."""

_TOLD = 12  # videos that one line names at most

_CALLS = "forgetting"

_Print = tuple[str, str, str]
"""A clip by its video, pictures and sound, however many versions have measured it."""


@dataclass(frozen=True)
class _Call:
    """One call, for as long as it lasts. From its first tombstone on, nothing else tells whom a person's name meant."""

    what: list[str]
    asked: list[str]
    copies: list[str]
    alone: list[str] = field(default_factory=list)  # asked for without their copies; older calls knew no such thing


@dataclass
class Gone:
    """What was removed, or would be."""

    dry: bool
    videos: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)  # of the videos: gone as near-duplicates of what was asked for
    alike: Mapping[str, float] = field(default_factory=dict)  # videos that stay, and how much of them copies these
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
        if self.dry and self.copies:
            found.append("near-duplicates stay where a video goes alone: forget video:ID --alone")
        found += [f"{would} clip {key} from the shards" for key in self.clips]
        found += [f"{would} shard {name}" for name in self.removed]
        found += [f"wrote shard {name} without them" for name in self.rewritten]
        if self.alike:
            told = list(self.alike.items())[:_TOLD]
            shares = ", ".join(f"{id} ({100 * share:.0f} %)" for id, share in told)
            rest = f" and {len(self.alike) - _TOLD} more" if len(self.alike) > _TOLD else ""
            way = " ".join(f"video:{id}" for id, _ in told)
            said = f"stay, though so much of their clips are copies: {shares}{rest}"
            found.append(f"{said}; to remove them: forget {way}")
        tail = "" if self.dry else "; tombstones keep them out of later runs"
        return [*found, f"{would} {self.objects} stored objects of {len(self.videos)} videos{tail}"]


def forget_all(
    store: Store,
    recipe: TalkingFaces,
    videos: Sequence[Video],
    what: Sequence[str],
    *,
    alone: bool = False,
    dry: bool = False,
) -> Gone:
    """Remove `video:ID` (or its beginning), `channel:NAME` (name or address of the uploader) or `person:ID`.

    A person goes with every video that shows them, and near-duplicates of what goes (see `_with_copies`) go too: else
    judging anew would put a re-upload in its place. Both are looked for in dropped clips as well, which another policy
    may keep. What a call that was cut short had still to take out, goes too. Videos that go `alone` take no copies with
    them and keep no others of their source out: one whose times are wrong makes room for the right ones. Raises
    `ValueError` for what is malformed or matches nothing, and for a channel or person that is to go alone.
    """
    if alone and (many := [one for one in what if not one.startswith("video:")]):
        raise ValueError(f"forget {many[0]} --alone: only videos go alone, as video:ID")
    # Another call may end, and take its own away, between the listing and the reading.
    calls = store.get_some(store.list(_CALLS))
    left = {path: from_json(call, _Call, store.at(path)) for path, call in calls.items()}
    before = forgotten(store)
    today = Today.of(recipe, videos, store)
    named = meant(what, [one for call in left.values() for one in call.what], videos, before, today, store)
    asked = set[str]().union(() if alone else named.videos, *(call.asked for call in left.values()))
    lone = set[str]().union(named.videos if alone else (), *(call.alone for call in left.values()))
    prints: dict[str, list[Counter[_Print]]] = defaultdict(list)
    for shown in identities(store):
        asked |= _shown_alike(named.persons, shown, recipe.policy)
        for video, lengths in _lengths(shown).items():
            prints[video].append(lengths)
    barred, alike = _with_copies(asked, prints, recipe.policy, lone)
    barred = barred.union(*(call.copies for call in left.values()))
    every = barred | lone
    alike = {video: share for video, share in sorted(alike.items()) if video not in every}
    gone = Gone(dry=dry, videos=sorted(every), copies=sorted(every - asked - lone), alike=alike)
    this = f"{_CALLS}/{uuid.uuid4().hex}.json"
    if not dry:
        bar(store, [video for video in videos if video.id in barred], named.channels, pages_of(sorted(barred), store))
        store.put(this, to_json(_Call(list(what), sorted(asked), gone.copies, sorted(lone))))
        for id in gone.videos:
            store.put(f"tombstones/{id}.json", to_json({"id": id}))
        every |= before  # what a run that was killed may have left of them
    _from_shards(store, every, gone, lambda: _planned(recipe, today, every))
    if not dry:
        if gone.clips or not store.exists(SUMS):
            _describe(store, recipe, today, every)
        for table in (CLIPS, VIDEOS):
            keep_rows(store, table, ~pc.field("video").isin(sorted(every)))
        for result in (REPORT, SCORE):  # they hold their pictures and words
            store.delete(result)
    found = [*objects(store, every), *_unlisted(store, every)]
    gone.objects = len(found)
    if not dry:
        remove(store, found)
        store.sweep("shards")
        drop_videos(store, every)
        remove(store, (*left, this))
    return gone


def _shown_alike(persons: Sequence[Mapping[str, str]], shown: Sequence[Identity], policy: Policy) -> set[str]:
    """Videos with a clip, kept or dropped, whose face is like that of one of the persons, whom `clips_of` describes.

    A key may name another clip than it did when the results were written: its pictures tell.
    """
    if not persons:
        return set()
    faces = {clip.key: mean_face([clip.face]) for clip in shown if clip.face}
    pictures = {clip.key: clip.picture_hash for clip in shown}

    def is_same(key: str, picture: str) -> bool:
        return not picture or picture_distance(picture, pictures[key]) < _SAME_PICTURE

    theirs = ([faces[key] for key, hash in clips.items() if key in faces and is_same(key, hash)] for clips in persons)
    means = [mean_face(person) for person in theirs if person]
    return {
        video_of(key) for key, face in faces.items() if any(face @ mean >= policy.same_person_cosine for mean in means)
    }


def _lengths(shown: Iterable[Identity]) -> dict[str, Counter[_Print]]:
    """By video the clips that one version has measured, with their lengths: words of the sound, and what one spans."""
    found: dict[str, Counter[_Print]] = defaultdict(Counter)
    for clip in shown:
        video = video_of(clip.key)
        found[video][video, clip.picture_hash, clip.sound_hash] += len(clip.sound_hash) // 4 + 6
    return found


def _with_copies(
    asked: Collection[str],
    prints: Mapping[str, Sequence[Counter[_Print]]],
    policy: Policy,
    alone: Collection[str] = (),
) -> tuple[set[str], dict[str, float]]:
    """The videos that are asked for, and their copies; and of others with clips of theirs, or of those that go `alone`,
    which share is copied.

    A copy is a video of whose clips half or more are copies, or copies of copies, of theirs; or which has half or more
    of those of one that is asked for. Half of what some version has measured of it, `prints` by video. What else is in
    a copy makes no further copies: nobody asked for it.
    """
    like = _like(prints, policy)

    def share(video: str, of: set[_Print]) -> float:
        return max(sum(n for one, n in clips.items() if one in of) / clips.total() for clips in prints[video])

    every, goes = set(asked), {one for one in like if one[0] in asked}
    inside: dict[tuple[str, str], set[_Print]] = defaultdict(set)  # of a video that is asked for what is in another
    for one in goes:
        for other in like[one]:
            inside[one[0], other[0]].add(one)
    holders = {other for (video, other), of in inside.items() if share(video, of) >= _COPIED}

    def shares(of: set[_Print]) -> dict[str, float]:
        copied = _copied(of, like)
        return {video: share(video, copied) for video in {one[0] for one in copied} - every}

    while more := {video for video, part in shares(goes).items() if part >= _COPIED or video in holders}:
        goes |= {one for one in _copied(goes, like) if one[0] in more}
        every |= more
    return every, shares(goes.union(one for one in like if one[0] in alone))


def _copied(of: Iterable[_Print], like: Mapping[_Print, set[_Print]]) -> set[_Print]:
    return {other for one in of for other in like[one]}


def _like(prints: Mapping[str, Sequence[Counter[_Print]]], policy: Policy) -> dict[_Print, set[_Print]]:
    """Of every clip that has copies in other videos, which these are."""
    every = sorted({one for lists in prints.values() for clips in lists for one in clips})
    by_key = {f"{one[0]}-{number}": one for number, one in enumerate(every)}
    found = copies(
        {
            key: Identity(key=key, face=(), spread=0.0, picture_hash=picture, sound_hash=sound)
            for key, (_, picture, sound) in by_key.items()
        },
        # a policy that drops no duplicates ships them, and forgets them all the same
        max_picture_distance=policy.max_picture_distance or PAPER.max_picture_distance,
        max_sound_distance=policy.max_sound_distance or PAPER.max_sound_distance,
    )
    like: dict[_Print, set[_Print]] = defaultdict(set)
    crowds: dict[str, set[_Print]] = defaultdict(set)
    for copy in found:
        first, second = by_key[copy.first], by_key[copy.second]
        if copy.crowd:
            crowds[copy.crowd] |= {first, second}
        elif first[0] != second[0]:
            like[first].add(second)
            like[second].add(first)
    for crowd in crowds.values():
        for one in crowd:
            like[one] = like[one] | crowd if one in like else crowd  # one set, which hundreds share
    return like


def _planned(recipe: TalkingFaces, today: Today, gone: Collection[str]) -> set[str]:
    """Names of the shards without any of these videos that a run would write of what is known."""
    planned = plan(today.known, today.verdicts, size_bytes=recipe.shard_bytes)
    return {one.name for one in planned if all(entry.video not in gone for entry in one.entries)}


def _from_shards(store: Store, videos: set[str], gone: Gone, planned: Callable[[], Collection[str]]) -> None:
    """Write the shards that hold them anew from their other clips, then the index; other shards are not touched. Those
    that no index names go too, as a call that was cut short may have left its own: but not what is `planned`, which a
    run beside may be about to name."""
    index = read_index(store) or ShardIndex(())
    gone.clips = [row.key for row in index.rows if row.video in videos]
    gone.removed = list(dict.fromkeys(row.shard for row in index.rows if row.video in videos))
    if gone.dry:
        return
    if gone.clips:
        index = _without(store, index, videos, gone)
    gone.removed += [name for name in drop_stale(store, index, planned) if name not in gone.removed]


def _without(store: Store, index: ShardIndex, videos: Collection[str], gone: Gone) -> ShardIndex:
    rows: list[Row] = []
    for shard, inside in index.by_shard.items():
        kept = [row for row in inside if row.video not in videos]
        if shard not in gone.removed:
            rows += kept
        elif kept:
            rows += _rewrite(store, shard, kept)
            gone.rewritten.append(rows[-1].shard)
    left = replace(index, rows=tuple(rows))
    write_index(store, left)
    return left


def _describe(store: Store, recipe: TalkingFaces, today: Today, gone: Collection[str]) -> None:
    """Write the card of the shards that are left, as they were judged; sums alone where that was otherwise, or how they
    were made is not known without weights that are gone."""
    index = read_index(store)
    if index is not None:
        known = [one for one in today.known if one.video.id not in gone]
        verdicts = [verdict for verdict in today.verdicts if verdict.video not in gone]
        described = {entry.content: entry.description for entry in entries(known, verdicts)}
        write_card(store, index, described, None if today.lack else maker(recipe, known, verdicts))


def _rewrite(store: Store, shard: str, kept: Sequence[Row]) -> list[Row]:
    split, bucket, _ = shard.split("-")
    name = shard_name(split, int(bucket), (row.content for row in kept))
    with tempfile.TemporaryDirectory(prefix=prefix("forget")) as folder, store.writing(f"shards/{name}") as target:
        source = store.get_file(f"shards/{shard}", Path(folder))
        samples = join_tar(target, source, (row.sample for row in kept), digest := hashlib.sha256())
    return [row.moved(name, digest.hexdigest(), sample) for row, sample in zip(kept, samples, strict=True)]


def objects(store: Store, videos: Collection[str]) -> list[str]:
    """Paths of all outcomes and attempts, and then of all blobs, of these videos, under whatever keys.

    Each of a few is asked for by its paths, by some 30 requests and as many again for each set of old keys. For more
    the outcomes are listed, folder by folder as a plan does: for a million videos in an object store 20 minutes. Never
    all at once, which would take 13 GB.
    """
    are_few = len(videos) <= _FEW
    folders = [folder for key in store.folders("ledger") for folder in store.folders(key)]
    ends = sorted({f"{id[:2]}/{id}" if are_few else id[:2] for id in videos})
    with ThreadPoolExecutor(READERS) as pool:
        if are_few:
            paths = [f"{folder}/{end}.json" for folder in folders for end in ends]
            found = [path for there in pool.map(lambda path: store.get_some([path]), paths) for path in there]
        else:
            found = _of(videos, map(store.list, folders))
        return found + _of(videos, pool.map(store.list, _blob_folders(store, videos)))


def _unlisted(store: Store, videos: Collection[str]) -> list[str]:
    """Paths of what nobody else removes: halves of blobs, on whichever machine they are being written, and what the
    trainer encoded of any of the clips (`mcdm.encode`): `shards/encoded/ENCODING/CLIP.CONTENT.KIND.npy`."""
    halves = _of(videos, map(store.partials, _blob_folders(store, videos)))
    encoded = (path for folder in store.folders("shards/encoded") for path in store.list(folder))
    return halves + [path for path in encoded if video_of(path.rpartition("/")[2].partition(".")[0]) in videos]


def _blob_folders(store: Store, videos: Collection[str]) -> list[str]:
    """Where blobs of these videos lie: of few, of no others."""
    ends = sorted({f"{id[:2]}/{id}" if len(videos) <= _FEW else id[:2] for id in videos})
    return [f"{key}/{end}" for key in store.folders("blobs") for end in ends]


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
