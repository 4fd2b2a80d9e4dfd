"""Kept clips into WebDataset tars, by byte copy: what was scored is what ships.

A shard is named by its split, its number and a digest of its content, and the index is written after all of them. So
a crash at any moment leaves the old set whole, a finished shard is never written again, and equal clips give equal
bytes and names whatever the number of workers. Tars that the new index does not name are removed after it is there.
"""

import contextlib
import hashlib
import io
import math
import shutil
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from manifests.ahead import map_ahead
from manifests.codec import to_json
from manifests.records import RATE_HZ, Clip, Ref, Verdict
from manifests.scratch import prefix
from manifests.store import Store
from stages.card import Maker, write_card
from stages.download import sha256_of
from stages.judge import Candidate, Measured, candidates
from stages.shard_index import Row, ShardIndex, drop_stale, read_index, shard_name, tars, write_index
from stages.shard_json import describe
from stages.shift import shift_audio
from stages.tars import Content, Sample, TarError, read_tar, write_tar

_ARRAYS = ("box.npy", "lmk.npy", "pose.npy", "crop.npy")

_AHEAD = 8
"""Clips of a shard that are fetched while one is written: of an object store each of three files is a wait."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One clip to be shipped."""

    clip: Clip
    video: str
    split: str
    person: str
    language: str
    contiguous_with_prev: bool
    face: Sequence[float]
    shift_frames: int  # taken out of the sound: positive, it moves earlier
    description: bytes  # the json member

    @cached_property
    def content(self) -> str:
        """A digest of all that goes into the sample."""
        clip = self.clip
        parts = [clip.key, self.split, self.person, clip.video.sha256, clip.audio.sha256, clip.arrays.sha256]
        digest = hashlib.sha256("\n".join([*parts, str(self.shift_frames)]).encode())
        digest.update(_npy(np.asarray(self.face, np.float32)) + self.description)
        return digest.hexdigest()


@dataclass(frozen=True)
class Planned:
    """One shard to be."""

    name: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Sharded:
    """What `shard` did: the index, the shards written now, those found there, and the stale ones removed."""

    index: ShardIndex
    written: tuple[str, ...]
    found: tuple[str, ...]
    removed: tuple[str, ...]


class ChangedBlobsError(ValueError):
    """Clips that are gone, or whose bytes are not those that were scored. `videos` are all that have such clips.

    Two runs that measured one video at the same time may leave the blobs of one and the facts of the other; a `prune`
    beside a run with other settings, facts alone.
    """

    def __init__(self, place: str, videos: AbstractSet[str], *, is_gone: bool = False) -> None:
        what = "is gone" if is_gone else "is not the file that was scored: its SHA-256 differs"
        super().__init__(f"{place} {what}")
        self.place, self.videos, self.is_gone = place, videos, is_gone

    @classmethod
    def of(cls, errors: Sequence["ChangedBlobsError"]) -> "ChangedBlobsError":
        """Several as one, with the place of the first."""
        first, videos = errors[0], set[str]().union(*(error.videos for error in errors))
        return cls(first.place, videos, is_gone=first.is_gone)


def shard(
    store: Store,
    measured: Iterable[Measured],
    verdicts: Iterable[Verdict],
    *,
    size_bytes: int = 1_000_000_000,
    workers: int = 4,
    maker: Maker | None = None,
) -> Sharded:
    """Write the kept clips as `shards/*.tar` and `shards/index.parquet`, their sums and, where their maker is told, a
    card; does nothing where they stand already.

    Raises, when all other shards are written, `ChangedBlobsError` for clips that are gone or whose bytes are not those
    that were scored; `FileNotFoundError` where the store has no blobs at all, or one goes while it is copied.
    """
    verdicts = tuple(verdicts)
    planned = plan(measured, verdicts, size_bytes=size_bytes)
    policy = next((verdict.policy for verdict in verdicts), maker.policy.name if maker else "")
    old = read_index(store)
    there = set(tars(store))
    described = {entry.content: entry.description for one in planned for entry in one.entries}
    stands = old is not None and old.policy == policy and old.is_summed
    if old is not None and stands and set(old.shards) == {one.name for one in planned} == there:
        write_card(store, old, described, maker)  # it may have been broken off before, or some limits are others
        return Sharded(old, (), old.shards, ())
    # What an index of before there were digests names is read back once, for them.
    known = old.by_shard if old is not None else {}
    known = {name: rows for name, rows in known.items() if name in there and rows[0].shard_sha256}
    rows = _settle(store, planned, known, there, workers)
    index = ShardIndex(tuple(row for one in planned for row in rows[one.name]), policy)
    write_index(store, index)
    removed = drop_stale(store, index)
    write_card(store, index, described, maker)
    found = tuple(one.name for one in planned if one.name in there)
    return Sharded(index, tuple(one.name for one in planned if one.name not in there), found, removed)


def plan(measured: Iterable[Measured], verdicts: Iterable[Verdict], *, size_bytes: int) -> tuple[Planned, ...]:
    """Which clip goes into which shard: a function of the clips alone.

    A split has the smallest power of two of shards that keeps their mean at `size_bytes` or below. The hash of its id
    gives a video its shard, so one more or one less changes the shard it lies in and no other. Inside, clips are sorted
    by video and number. A shard that would be empty is left out.
    """
    by_split: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries(measured, verdicts):
        by_split[entry.split].append(entry)
    planned = []
    for split in sorted(by_split):
        total = sum(ref.size_bytes for one in by_split[split] for ref in (one.clip.video, one.clip.audio))
        n_shards = 1 << max(0, math.ceil(math.log2(max(total, 1) / size_bytes)))
        buckets: dict[int, list[Entry]] = defaultdict(list)
        for entry in by_split[split]:
            at = int.from_bytes(hashlib.sha256(entry.video.encode()).digest()[:8])
            buckets[at * n_shards >> 64].append(entry)
        for number, bucket in sorted(buckets.items()):
            planned.append(Planned(shard_name(split, number, (one.content for one in bucket)), tuple(bucket)))
    return tuple(planned)


def entries(measured: Iterable[Measured], verdicts: Iterable[Verdict]) -> list[Entry]:
    """The kept clips, sorted by video and number, each with its json."""
    kept = {verdict.key: verdict for verdict in verdicts if verdict.kept}
    clips = [one for one in candidates(measured) if one.clip.key in kept]
    clips.sort(key=lambda one: (one.measured.video.id, one.clip.number))
    n_clips: dict[str, int] = defaultdict(int)
    for one in clips:
        n_clips[one.measured.video.id] += 1
    found = []
    for before, one in zip([None, *clips], clips, strict=False):
        verdict = kept[one.clip.key]
        follows = before is not None and _follows(before, one)
        assert isinstance(one.clip, Clip), "what is kept was cut"
        described = describe(one, verdict, n_clips=n_clips[one.measured.video.id], follows=follows)
        found.append(
            Entry(
                clip=one.clip,
                video=one.measured.video.id,
                split=verdict.split,
                person=verdict.person,
                language=described["language"],
                contiguous_with_prev=follows,
                face=one.identity.face if one.identity else (),
                shift_frames=verdict.shift_frames,
                description=to_json(described),
            )
        )
    return found


def _follows(before: Candidate, one: Candidate) -> bool:
    """Whether the clip goes on where the clip shipped before it ends: a dropped clip between them is a gap."""
    same = before.measured.video.id == one.measured.video.id and before.clip.track == one.clip.track
    return same and one.clip.contiguous_with_prev and abs(before.clip.end_s - one.clip.start_s) < 0.5 / RATE_HZ


def _settle(
    store: Store, planned: Sequence[Planned], known: dict[str, tuple[Row, ...]], there: set[str], workers: int
) -> dict[str, tuple[Row, ...]]:
    """The index rows of every shard, `known` as the old index has them, by name; all of them lie there in the end.

    Another command that ends on this store meanwhile removes what its own index does not name: that is written again.
    """
    rows = dict(known)
    while due := [one for one in planned if one.name not in rows]:
        with ThreadPoolExecutor(max_workers=workers) as pool:
            found = [pool.submit(_rows, store, there, one) for one in due]
        if wrong := [error for one in found if isinstance(error := one.exception(), ChangedBlobsError)]:
            raise ChangedBlobsError.of(wrong)
        rows |= {one.name: part.result() for one, part in zip(due, found, strict=True)}
        there = set(tars(store))
        rows = {name: part for name, part in rows.items() if name in there}
    return rows


def _rows(store: Store, there: set[str], planned: Planned) -> tuple[Row, ...]:
    """The index rows of a shard: read back, else of the shard written now."""
    with tempfile.TemporaryDirectory(prefix=prefix("shard")) as folder:
        path, samples = f"shards/{planned.name}", tuple[Sample, ...]()
        with contextlib.suppress(TarError):  # a power cut left it without its bytes
            if planned.name in there:  # written by a run that died before its index
                found = store.get_file(path, Path(folder))
                samples = tuple(sample for sample, _ in read_tar(found))
                sha256 = sha256_of(found)
        if not samples:
            with store.writing(path) as target:
                samples = _write(store, target, planned.entries, digest := hashlib.sha256())
            sha256 = digest.hexdigest()
    return tuple(_row(planned.name, sha256, *pair) for pair in zip(planned.entries, samples, strict=True))


def _row(name: str, sha256: str, entry: Entry, sample: Sample) -> Row:
    return Row(
        key=entry.clip.key,
        shard=name,
        shard_sha256=sha256,
        split=entry.split,
        video=entry.video,
        person=entry.person,
        language=entry.language,
        n_frames=entry.clip.n_frames,
        contiguous_with_prev=entry.contiguous_with_prev,
        content=entry.content,
        sample=sample,
    )


def _write(store: Store, target: Path, entries: Sequence[Entry], digest: "hashlib._Hash") -> tuple[Sample, ...]:
    """Raises `ChangedBlobsError`, with all videos that it is about, when there is no more to write."""
    wrong: list[ChangedBlobsError] = []
    samples = write_tar(target, _samples(store, entries, wrong), digest)
    by_key = {entry.clip.key: entry for entry in entries}
    for sample in samples:
        try:
            _check_copies(store, by_key[sample.key], sample)
        except ChangedBlobsError as error:
            wrong.append(error)
    if wrong:
        raise ChangedBlobsError.of(wrong)
    return samples


def _samples(
    store: Store, entries: Iterable[Entry], wrong: list[ChangedBlobsError]
) -> Iterator[tuple[str, dict[str, Content]]]:
    """Without those that are found gone or changed before they are copied: errors go to `wrong`. From an object store
    the next clips are fetched while one is written."""
    with tempfile.TemporaryDirectory(prefix=prefix("clips")) as scratch:

        def fetch(entry: Entry) -> tuple[Entry, Path, dict[Ref, Path] | ChangedBlobsError]:
            folder = Path(scratch) / entry.clip.key
            folder.mkdir()
            return entry, folder, _files(store, entry, folder)

        ahead = _AHEAD if store.local is None else 0
        with contextlib.closing(map_ahead(fetch, entries, n=ahead)) as fetched:
            for entry, folder, files in fetched:
                try:
                    if isinstance(files, ChangedBlobsError):
                        raise files
                    members = _members(store, entry, files)
                except ChangedBlobsError as error:
                    wrong.append(error)
                else:
                    yield entry.clip.key, members
                shutil.rmtree(folder)


def _files(store: Store, entry: Entry, folder: Path) -> dict[Ref, Path] | ChangedBlobsError:
    """The three files of a clip; the error, not raised, where one is gone. Raises `FileNotFoundError` where no blob is
    there: of a disk that is away nothing is lost."""
    files: dict[Ref, Path] = {}
    for ref in (entry.clip.video, entry.clip.audio, entry.clip.arrays):
        try:
            files[ref] = store.get_file(ref.path, folder)
        except FileNotFoundError:
            if not store.folders("blobs"):
                raise
            return ChangedBlobsError(store.at(ref.path), {entry.video}, is_gone=True)
    return files


def _members(store: Store, entry: Entry, files: Mapping[Ref, Path]) -> dict[str, Content]:
    clip = entry.clip
    for ref in files if entry.shift_frames else (clip.arrays,):  # a copy is checked by the digest that writing it gives
        _check(store, entry, ref, sha256_of(files[ref]))
    video: Content = files[clip.video]
    audio: Content = files[clip.audio]
    if entry.shift_frames:
        video, audio = shift_audio(files[clip.video], files[clip.audio], frames=entry.shift_frames)
    members: dict[str, Content] = {"mp4": video, "wav": audio, "json": entry.description}
    # By their bytes: two threads that parse `.npy` headers at once fail ("AST constructor recursion depth mismatch").
    with zipfile.ZipFile(files[clip.arrays]) as arrays:
        members |= {name: arrays.read(name) for name in _ARRAYS}
    if entry.face:
        members["id.npy"] = _npy(np.asarray(entry.face, np.float32))
    return members


def _check_copies(store: Store, entry: Entry, sample: Sample) -> None:
    """Raises `ChangedBlobsError` if what was copied into the tar is not what was scored."""
    if not entry.shift_frames:
        written = {member.name: member.sha256 for member in sample.members}
        _check(store, entry, entry.clip.video, written["mp4"])
        _check(store, entry, entry.clip.audio, written["wav"])


def _check(store: Store, entry: Entry, ref: Ref, sha256: str) -> None:
    if sha256 != ref.sha256:
        raise ChangedBlobsError(store.at(ref.path), {entry.video})


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
