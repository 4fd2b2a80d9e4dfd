"""Read a set of shards back to the last byte and say what is wrong with it: ours, or anybody's WebDataset.

Without our index only the structure is checked: tars, keys, members that decode, a key never in two places.
"""

import io
import json
import tempfile
import wave
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from manifests.records import RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from manifests.scratch import prefix
from manifests.store import Store
from stages.shard import SCHEMA
from stages.shard_index import Row, read_index
from stages.split import SPLITS
from stages.tars import Sample, TarError, read_tar

_SHAPES: dict[str, tuple[int, ...]] = {"box.npy": (5,), "lmk.npy": (5, 2), "pose.npy": (3,)}
_REQUIRED = ("mp4", "wav", "json", *_SHAPES)


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
    by_language: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def hours(self) -> float:
        """Of picture, at 25 frames per second."""
        return self.frames / RATE_HZ / 3600


@dataclass
class _Places:
    """Where each name was seen, to tell what lies in two places."""

    key: dict[str, str] = field(default_factory=dict)
    video: dict[str, str] = field(default_factory=dict)
    person: dict[str, str] = field(default_factory=dict)
    suffixes: Counter[frozenset[str]] = field(default_factory=Counter)


def verify(store: Store, folder: str = "shards") -> VerifyReport:
    """Read every member of every tar in a folder of the store; one sample in memory at a time.

    Raises `FileNotFoundError` if there is no tar at all and `ValueError` if the index is not one of ours.
    """
    index = read_index(store) if folder == "shards" else None
    names = sorted(path.removeprefix(f"{folder}/") for path in store.list(folder) if path.endswith(".tar"))
    if not names and (index is None or index.rows):
        raise FileNotFoundError(f"no tar in {store.at(folder)}")
    report, places = VerifyReport(indexed=index is not None), _Places()
    rows = index.by_shard if index else {}
    for name in sorted(set(names) | set(rows)):
        if name not in names:
            report.problems.append(Problem(name, "", "the index names it, but it is not there"))
        elif report.indexed and name not in rows:
            left = "the index does not name it: left by a run that did not finish, or not ours"
            report.problems.append(Problem(name, "", left))
        else:
            found = _shard(store, f"{folder}/{name}", rows.get(name, ()), report, places)
            report.problems += [Problem(name, key, what) for key, what in found]
    if not report.indexed and len(places.suffixes) > 1:
        usual = places.suffixes.most_common(1)[0][0]
        others = sum(n for found, n in places.suffixes.items() if found != usual)
        report.problems.append(Problem("", "", f"{others} samples lack or exceed the usual members {sorted(usual)}"))
    return report


def _shard(
    store: Store, path: str, rows: Sequence[Row], report: VerifyReport, places: _Places
) -> Iterator[tuple[str, str]]:
    name = path.rpartition("/")[2]
    report.shards += 1
    expected = {row.key: row for row in rows}
    order = []
    with tempfile.TemporaryDirectory(prefix=prefix("verify")) as scratch:
        file = store.get_file(path, Path(scratch))
        report.bytes += file.stat().st_size
        try:
            for sample, data in read_tar(file):
                order.append(sample.key)
                report.samples += 1
                found = _read(data)
                report.frames += round(found.duration_s * RATE_HZ)
                places.suffixes[frozenset(data)] += 1
                wrong = [*found.problems, *_twice(sample.key, name, found, places)]
                if report.indexed:
                    wrong += _against(expected.pop(sample.key, None), sample, found, report)
                yield from ((sample.key, what) for what in wrong)
        except TarError as error:
            yield order[-1] if order else "", f"not readable to its end: {error}"
    yield from ((key, "in the index, not in the tar") for key in expected)
    if report.indexed and order != sorted(order):
        yield "", "clips are not in the order of their keys"


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
                found.shapes[name] = np.load(io.BytesIO(data[name]), allow_pickle=False).shape
            elif kind == "json":
                about = json.loads(data[name])
                found.about = about if name == "json" and isinstance(about, dict) else found.about
            elif not kind:
                found.problems.append("a member has no suffix")
        except (ValueError, EOFError, wave.Error) as error:
            found.problems.append(f"{name} cannot be read: {error or 'it ends early'}")
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
        return n, sound.getframerate(), sound.getnchannels(), sound.getsampwidth()


def _twice(key: str, shard: str, found: _Content, places: _Places) -> Iterator[str]:
    if key in places.key:
        yield f"its key was there before, in {places.key[key]}"
    places.key[key] = shard
    video, person, split = (str(found.about.get(name, "")) for name in ("video_id", "speaker_id", "split"))
    if video and places.video.setdefault(video, shard) != shard:
        yield f"its video {video} is also in {places.video[video]}"
    if person and places.person.setdefault(person, split) != split:
        yield f"its speaker {person} is in {places.person[person]} and in {split}"


def _against(row: Row | None, sample: Sample, found: _Content, report: VerifyReport) -> Iterator[str]:
    """What our own samples must be beyond WebDataset's rules: the index's row, and the json's word."""
    about = found.about
    report.by_split[str(about.get("split", ""))] += 1
    report.by_language[str(about.get("language", ""))] += 1
    yield from (f"has no {name}" for name in _REQUIRED if name not in found.names)
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
    if about.get("schema") != SCHEMA:
        yield f"schema is {about.get('schema')!r}, this version writes {SCHEMA}"
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
