"""Read a set of shards back to the last byte and say what is wrong with it: ours, or anybody's WebDataset.

Without our index only the structure is checked: tars, keys, members that decode, a key never in two places.
"""

import contextlib
import io
import json
import os
import tempfile
import wave
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

from manifests.ahead import map_ahead
from manifests.npy import read_npy
from manifests.records import RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from manifests.scratch import prefix
from manifests.store import Store
from stages.card import wrong_sums
from stages.download import sha256_of
from stages.duplicates import video_of
from stages.shard_index import INDEX, Row, placed, read_index
from stages.shard_json import SCHEMA
from stages.split import SPLITS
from stages.tars import Sample, TarError, read_tar

_SHAPES: dict[str, tuple[int, ...]] = {"box.npy": (5,), "lmk.npy": (5, 2), "pose.npy": (3,), "crop.npy": (4,)}
_SINCE = dict.fromkeys(("mp4", "wav", "json", *_SHAPES), 1) | {"crop.npy": 2}
"""What every sample must have, by the schema it came with: sets of older ones are whole as they are."""

_UNREADABLE = (ValueError, EOFError, RuntimeError, wave.Error)
"""What readers raise for damaged members: `wave` a `RuntimeError` for a length beyond its chunk, `json` for depth."""

_COPIED = 4  # shards of an object store in scratch at a time, 1 GB each
_SHARED = ("split", "language", "video_id", "speaker_id")


@dataclass(frozen=True)
class Problem:
    """One thing wrong: in which shard, with which sample ("" for the whole shard), and what."""

    shard: str
    key: str
    what: str


@dataclass
class VerifyReport:
    """What was read and what is wrong. `ok` if nothing is."""

    indexed: bool = False
    shards: int = 0
    samples: int = 0
    bytes: int = 0
    frames: int = 0
    by_split: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


@dataclass
class _Known:
    """What is kept of a sample once it was read: its key, its members' names, and of its json what others may share."""

    key: str
    names: frozenset[str]
    about: dict[str, str]


@dataclass
class _Shard:
    """What one tar holds, and what is wrong with it by itself."""

    name: str
    is_there: bool = True
    bytes: int = 0
    frames: int = 0
    samples: list[_Known] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


@dataclass
class _Places:
    """Where each name was seen, to tell what lies in two places."""

    key: dict[str, str] = field(default_factory=dict)
    video: dict[str, str] = field(default_factory=dict)
    person: dict[str, str] = field(default_factory=dict)
    suffixes: Counter[frozenset[str]] = field(default_factory=Counter)


def verify(store: Store, folder: str = "shards", *, workers: int | None = None) -> VerifyReport:
    """Read every member of every tar in a folder of the store; one sample of each of `workers` shards in memory at a
    time (default: one per core; of an object store, from which each is copied, four at most).

    Raises `FileNotFoundError` if there is no tar at all and `ValueError` if the index is not one of ours.
    """
    index = read_index(store, placed(INDEX, folder))
    names = {path.removeprefix(f"{folder}/") for path in store.list(folder) if path.endswith(".tar")}
    if not names and (index is None or index.rows):
        raise FileNotFoundError(f"no tar in {store.at(folder)}")
    report, places = VerifyReport(indexed=index is not None), _Places()
    rows = index.by_shard if index else {}
    for name in sorted(set(rows) - names):
        report.problems.append(Problem(name, "", "the index names it, but it is not there"))
    for name in sorted(names - set(rows)) if index else ():
        left = "the index does not name it: left by a run that did not finish, or not ours"
        report.problems.append(Problem(name, "", left))

    report.problems += [Problem(name, "", what) for name, what in (wrong_sums(store, index, folder) if index else ())]
    ended = Event()

    def read(name: str) -> _Shard:
        try:
            return _shard(store, f"{folder}/{name}", rows.get(name, ()) if index else None, ended)
        except FileNotFoundError:  # a `judge` that ends beside us removes what its own index does not name
            what = "gone since it was listed: another command has written this set anew, verify that"
            return _Shard(name, is_there=False, problems=[Problem(name, "", what)])

    n = workers or min(len(os.sched_getaffinity(0)), 64 if store.local else _COPIED)
    due = sorted(names & set(rows) if index else names)
    with contextlib.closing(map_ahead(read, due, n=n)) as shards:  # decoding leaves Python to other threads
        try:
            for one in shards:
                _add(report, places, one)
        finally:
            ended.set()  # an interrupted command does not wait for those under way to be read to their end
    if not report.indexed and len(places.suffixes) > 1:
        usual = places.suffixes.most_common(1)[0][0]
        others = sum(n for found, n in places.suffixes.items() if found != usual)
        report.problems.append(Problem("", "", f"{others} samples lack or exceed the usual members {sorted(usual)}"))
    return report


def _add(report: VerifyReport, places: _Places, one: _Shard) -> None:
    report.shards += one.is_there
    report.samples += len(one.samples)
    report.bytes += one.bytes
    report.frames += one.frames
    report.problems += one.problems
    for sample in one.samples:
        places.suffixes[sample.names] += 1
        report.problems += [Problem(one.name, sample.key, what) for what in _twice(sample, one.name, places)]
        if report.indexed:
            report.by_split[sample.about["split"]] += 1


def _shard(store: Store, path: str, rows: Sequence[Row] | None, ended: Event) -> _Shard:
    """`rows`: what our index says of it, None where there is none. It stops where `ended` is set."""
    shard = _Shard(path.rpartition("/")[2])
    expected = {row.key: row for row in rows or ()}
    with tempfile.TemporaryDirectory(prefix=prefix("verify")) as scratch:
        file = store.get_file(path, Path(scratch))
        shard.bytes = file.stat().st_size
        try:
            for sample, data in read_tar(file):
                if ended.is_set():
                    break
                found = _read(data)
                about = {name: str(found.about.get(name, "")) for name in _SHARED}
                shard.samples.append(_Known(sample.key, found.names, about))
                shard.frames += round(found.duration_s * RATE_HZ)
                wrong = found.problems + (
                    [] if rows is None else [*_against(expected.pop(sample.key, None), sample, found)]
                )
                shard.problems += [Problem(shard.name, sample.key, what) for what in wrong]
        except TarError as error:
            last = shard.samples[-1].key if shard.samples else ""
            shard.problems.append(Problem(shard.name, last, f"not readable to its end: {error}"))
        said = rows[0].shard_sha256 if rows else ""
        if said and not (expected or shard.problems) and sha256_of(file) != said:
            shard.problems.append(Problem(shard.name, "", "its SHA-256 is not that of the index, though its clips are"))
    shard.problems += [Problem(shard.name, key, "in the index, not in the tar") for key in expected]
    order = [sample.key for sample in shard.samples]
    # 10000 goes after 9999, though its letters do not
    if rows is not None and order != sorted(order, key=lambda key: (video_of(key), len(key), key)):
        shard.problems.append(Problem(shard.name, "", "clips are not in the order of their keys"))
    return shard


@dataclass
class _Content:
    """One sample decoded."""

    about: dict[str, Any] = field(default_factory=dict)  # the json
    names: frozenset[str] = frozenset()
    n_frames: int = 0
    rate_hz: float = 0.0
    sound: tuple[int, int, int, int] = (0, 0, 0, 0)  # samples, rate, channels, bytes per sample
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def duration_s(self) -> float:
        """Of the picture."""
        return self.n_frames / self.rate_hz if self.rate_hz else 0.0


def _read(data: dict[str, bytes]) -> _Content:
    """Decode every member whose suffix says how, to its end."""
    found = _Content(names=frozenset(data))
    for name in sorted(data):
        kind = name.rpartition(".")[2]
        try:
            if name == "mp4":
                found.n_frames, found.rate_hz = _picture(data[name])
            elif name == "wav":
                found.sound = _sound(data[name])
            elif kind == "npy":
                found.shapes[name] = read_npy(data[name]).shape
            elif kind == "json":
                about = json.loads(data[name])
                found.about = about if name == "json" and isinstance(about, dict) else found.about
            elif not kind:
                found.problems.append("a member has no suffix")
        except _UNREADABLE as error:
            found.problems.append(f"{name} cannot be read: {' '.join(str(error).split()) or 'it ends early'}")
    if found.n_frames and found.sound[0]:
        sound_s = found.sound[0] / found.sound[1]
        if abs(sound_s - found.duration_s) > 1 / RATE_HZ:
            found.problems.append(f"wav lasts {sound_s:.3f} s, mp4 {found.duration_s:.3f} s")
    return found


def _picture(mp4: bytes) -> tuple[int, float]:
    """Frames decoded, and their average rate in Hz."""
    import av

    n_frames = 0
    try:
        with av.open(io.BytesIO(mp4)) as source:
            if not source.streams.video:
                raise ValueError("it has no picture")
            stream = source.streams.video[0]
            for _ in source.decode(stream):
                n_frames += 1
            rate_hz = float(stream.average_rate or 0)
    except av.FFmpegError as error:
        raise ValueError(f"{error} (after {n_frames} frames)") from error
    if not n_frames:
        raise ValueError("it has no frames")
    return n_frames, rate_hz


def _sound(data: bytes) -> tuple[int, int, int, int]:
    with wave.open(io.BytesIO(data)) as sound:
        n, width = sound.getnframes(), sound.getnchannels() * sound.getsampwidth()
        if len(sound.readframes(n)) < n * width:
            raise ValueError("it ends early")
        if not sound.getframerate():
            raise ValueError("its sample rate is 0 Hz")
        return n, sound.getframerate(), sound.getnchannels(), sound.getsampwidth()


def _twice(sample: _Known, shard: str, places: _Places) -> Iterator[str]:
    if sample.key in places.key:
        yield f"its key was there before, in {places.key[sample.key]}"
    places.key[sample.key] = shard
    video, person, split = (sample.about[name] for name in ("video_id", "speaker_id", "split"))
    if video and places.video.setdefault(video, shard) != shard:
        yield f"its video {video} is also in {places.video[video]}"
    if person and places.person.setdefault(person, split) != split:
        yield f"its speaker {person} is in {places.person[person]} and in {split}"


def _against(row: Row | None, sample: Sample, found: _Content) -> Iterator[str]:
    """What our own samples must be beyond WebDataset's rules: the index's row, and the json's word."""
    about = found.about
    schema: Any = about.get("schema")
    if schema not in range(1, SCHEMA + 1):
        yield f"schema is {schema!r}, this version reads 1 to {SCHEMA}"
        schema = SCHEMA
    yield from (f"has no {name}" for name, since in _SINCE.items() if since <= schema and name not in found.names)
    if row is None:
        yield "in the tar, not in the index"
    else:
        if row.sample != sample:
            yield _difference(row.sample, sample)
        said = (row.split, row.language, row.n_frames, row.video, row.person, row.contiguous_with_prev)
        fields = ("split", "language", "n_frames", "video_id", "speaker_id", "contiguous_with_prev")
        yield from (
            f"{name} is {about.get(name)!r} in the json, {value!r} in the index"
            for name, value in zip(fields, said, strict=True)
            if about.get(name) != value
        )
    if about.get("split") not in SPLITS:
        yield f"split is {about.get('split')!r}, none of {', '.join(SPLITS)}"
    if sample.key != f"{about.get('video_id')}-{str(about.get('clip_no')).zfill(4)}":
        yield "the key is not the json's video and number"
    yield from _lengths(about.get("n_frames"), found)


def _lengths(n_frames: Any, found: _Content) -> Iterator[str]:
    if not isinstance(n_frames, int):
        yield "json says no n_frames"
        return
    if found.n_frames and (found.n_frames, found.rate_hz) != (n_frames, RATE_HZ):
        yield f"mp4 has {found.n_frames} frames at {found.rate_hz:g} Hz, json says {n_frames} at {RATE_HZ}"
    if found.sound[0] and found.sound != (n_frames * SAMPLES_PER_FRAME, SAMPLE_RATE_HZ, 1, 2):
        samples, rate_hz, channels, width = found.sound
        needed = f"{n_frames} frames need {n_frames * SAMPLES_PER_FRAME} at {SAMPLE_RATE_HZ} Hz, mono, 16 bit"
        yield f"wav has {samples} samples at {rate_hz} Hz, {channels} channels, {8 * width} bit; {needed}"
    for name, inner in _SHAPES.items():
        if name in found.shapes and found.shapes[name] != (n_frames, *inner):
            yield f"{name} has shape {found.shapes[name]}, not {(n_frames, *inner)}"


def _difference(said: Sample, found: Sample) -> str:
    for one, other in zip(said.members, found.members, strict=False):
        if one != other:
            return f"{other.name} is not as the index has it: {one} there, {other} here"
    return f"bytes {found.offset}+{found.length} are not as the index has them: {said.offset}+{said.length}"
