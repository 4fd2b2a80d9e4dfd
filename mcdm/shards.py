"""The pipeline's shards as bytes: which clips there are, their members by byte range, their pictures by window.

Plain WebDataset tars beside `index.parquet` (see `stages.shard_index`); without the index the tars are scanned. Any
place that fsspec knows.
"""

import hashlib
import io
import json
import logging
import tarfile
import wave
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import Any

import av
import fsspec
import numpy as np

from manifests import parquet
from manifests.npy import read_npy
from manifests.records import RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from mcdm.faces import Bytes, Floats

log = logging.getLogger("mcdm")

_SHOWN = ("mp4", "wav", "lmk.npy", "pose.npy")
"""The members that encodings are made of."""

_ABOUT = {
    "split": str,
    "video_id": str,
    "speaker_id": str,
    "n_frames": int,
    "contiguous_with_prev": bool,
}
"""What a clip's json member must say."""

_TAIL_BYTES = 1 << 16
"""Of a member, hashed where there is no index: all of a small one; an mp4 ends with the sizes of all its frames."""


class SampleError(Exception):
    """A clip that cannot be used: its key, and why in a few words."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key, self.reason = key, reason


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One clip of the shards. `members` maps a name such as `mp4` or `lmk.npy` to its bytes' offset and length."""

    key: str
    shard: str
    split: str
    video: str
    person: str  # "" where no face was told apart
    n_frames: int
    contiguous_with_prev: bool
    members: dict[str, tuple[int, int]]
    content: str = field(default="", compare=False, repr=False)  # digest of what encodings are made of; an index and a
    # scan, which does not read all bytes, give different ones


def files_at(url: str) -> tuple[Any, str]:
    """A file system and the path in it; raises `ValueError` with one line where fsspec cannot reach such a URL here."""
    try:
        fs, root = fsspec.core.url_to_fs(url)
    except (ImportError, OSError, ValueError) as error:  # a package that is not installed is an `ImportError`
        said, _, _ = str(error).partition("\n")
        raise ValueError(f"{url}: {said}") from error
    return fs, root


class Shards:
    """The clips below a URL, in shard order. Raises `ValueError` with one line where there are none or one is missing.

    Cheap to send to other processes.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        fs, root = files_at(self.url)
        there = {name.rsplit("/", 1)[-1] for name in fs.ls(root, detail=False)} if fs.isdir(root) else set()
        if "index.parquet" in there:
            self.clips = _from_index(fs.cat_file(f"{root}/index.parquet"))
        else:
            tars = sorted(name for name in there if name.endswith(".tar"))
            self.clips = [clip for name in tars for clip in _scan(fs, root, name)]
        missing = sorted({clip.shard for clip in self.clips} - there)
        if missing:
            raise ValueError(f"{self.url}: the index names {missing[0]}, which is not there ({len(missing)} missing)")
        if not self.clips:
            packed = any(name.endswith(".tar") for name in there)
            what = "no clips in the shards, a clip has a json member" if packed else "no shards (*.tar) found"
            raise ValueError(f"{self.url}: {what}")

    def split(self, *names: str) -> list[Clip]:
        """The clips of these splits."""
        return [clip for clip in self.clips if clip.split in names]

    def read(self, clip: Clip, member: str) -> bytes:
        """A member's bytes; raises `SampleError` where they are missing or short."""
        if member not in clip.members:
            raise SampleError(clip.key, f"no member {member}")
        offset, length = clip.members[member]
        fs, root = fsspec.core.url_to_fs(self.url)
        try:
            data: bytes = fs.cat_file(f"{root}/{clip.shard}", start=offset, end=offset + length)
        except OSError as error:
            raise SampleError(clip.key, f"{member} cannot be read: {type(error).__name__}") from error
        if len(data) != length:
            raise SampleError(clip.key, f"{member} has {len(data)} of {length} bytes")
        return data

    def array(self, clip: Clip, member: str, shape: tuple[int, ...]) -> Floats:
        """A `.npy` member of this shape, finite, as float32; raises `SampleError` for any other. The pipeline fills
        gaps: no frame of it lacks a landmark or a pose."""
        try:
            array = read_npy(self.read(clip, member))
        except (ValueError, EOFError) as error:
            raise SampleError(clip.key, f"{member} is no array") from error
        if array.shape != shape:
            raise SampleError(clip.key, f"{member} has shape {array.shape}, not {shape}")
        if array.dtype.kind not in "fiu":
            raise SampleError(clip.key, f"{member} holds {array.dtype}, not numbers")
        with np.errstate(over="ignore"):
            numbers = array.astype(np.float32)
        bad = np.count_nonzero(~np.isfinite(numbers).all(tuple(range(1, numbers.ndim))))
        if bad:
            raise SampleError(clip.key, f"{member} is not finite in {bad} of {len(numbers)} frames")
        return numbers

    def sound(self, clip: Clip) -> Floats:
        """Samples (640 F,) in [-1, 1]; raises `SampleError` unless 16 kHz, mono, int16 and of the clip's length."""
        return read_wav(clip.key, self.read(clip, "wav"), clip.n_frames)


def read_wav(key: str, data: bytes, n_frames: int | None = None) -> Floats:
    """Samples in [-1, 1] of a 16 kHz mono int16 WAV; raises `SampleError` for any other."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            kind = (file.getframerate(), file.getnchannels(), file.getsampwidth())
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    except (wave.Error, EOFError, ValueError) as error:
        raise SampleError(key, f"wav cannot be read: {error}") from error
    if kind != (SAMPLE_RATE_HZ, 1, 2):
        raise SampleError(key, f"wav has {kind[0]} Hz, {kind[1]} channels, {8 * kind[2]} bits; expected 16000, 1, 16")
    if n_frames is not None and len(samples) != n_frames * SAMPLES_PER_FRAME:
        raise SampleError(key, f"wav has {len(samples)} samples, not {n_frames * SAMPLES_PER_FRAME}")
    scaled: Floats = samples.astype(np.float32) / np.float32(32768)
    return scaled


def decode(key: str, data: bytes, start: int, stop: int) -> Bytes:
    """Frames start to stop of an mp4, (n, h, w, 3) RGB, from the key frame before. Raises `SampleError`."""
    frames: list[Bytes] = []
    try:
        with av.open(io.BytesIO(data)) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1  # frame threads decode ahead, for nothing where a window is short
            first = stream.start_time or 0
            tick = stream.time_base
            assert tick is not None
            container.seek(first + round(start / RATE_HZ / tick), stream=stream)
            for frame in container.decode(stream):
                assert frame.pts is not None
                number = round((frame.pts - first) * tick * RATE_HZ)
                if start <= number < stop:
                    frames.append(frame.to_ndarray(format="rgb24", threads=1))
                if number >= stop - 1:
                    break
    except (av.error.FFmpegError, IndexError, AssertionError) as error:
        raise SampleError(key, f"mp4 cannot be decoded: {error}") from error
    if len(frames) != stop - start:
        raise SampleError(key, f"mp4 gives {len(frames)} of frames {start} to {stop}")
    return np.stack(frames)


def chains(clips: Iterable[Clip], chosen: Container[str]) -> list[list[Clip]]:
    """The chosen ones, by key, that go on where the one before ended, together, each chain in order. `clips` are all of
    the shards: what a clip goes on from is the one that lies before it there, chosen or not."""
    found: list[list[Clip]] = []
    before: Clip | None = None
    for clip in clips:
        if clip.key in chosen:
            follows = found and found[-1][-1] is before and clip.contiguous_with_prev
            if follows and found[-1][-1].video == clip.video:
                found[-1].append(clip)
            else:
                found.append([clip])
        before = clip
    return found


def _from_index(data: bytes) -> list[Clip]:
    try:
        rows: list[dict[str, Any]] = parquet.read(data).to_pylist()
        return [
            Clip(
                members={member["name"]: (member["offset"], member["length"]) for member in row["members"]},
                contiguous_with_prev=row["contiguous_with_prev"],
                content=_content(row["n_frames"], {member["name"]: member["sha256"] for member in row["members"]}),
                **{name: row[name] for name in ("key", "shard", "split", "video", "person", "n_frames")},
            )
            for row in rows
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"index.parquet is not a shard index: {error}") from error


def _scan(fs: Any, root: str, name: str) -> list[Clip]:
    """The clips of one tar without an index: its headers, json members and the ends of the others are read."""
    members: dict[str, dict[str, tuple[int, int]]] = {}
    digests: dict[str, dict[str, str]] = {}
    about: dict[str, dict[str, Any]] = {}
    try:
        with fs.open(f"{root}/{name}", "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                key, suffix = _key_of(info.name)
                members.setdefault(key, {})[suffix] = (info.offset_data, info.size)
                if suffix == "json":
                    about[key] = _about(info.name, _end(tar, info, info.size))
                elif suffix in _SHOWN:
                    tail = hashlib.sha256(_end(tar, info, _TAIL_BYTES)).hexdigest()
                    digests.setdefault(key, {})[suffix] = f"{info.size} {tail}"
    except (tarfile.TarError, ValueError) as error:
        raise ValueError(f"{root}/{name} cannot be read: {error}") from error
    if lost := sorted(digests.keys() - about.keys()):
        log.warning("%s: %d clips have no json member and are left out, %s for one", name, len(lost), lost[0])
    return [
        Clip(
            key=key,
            shard=name,
            split=known["split"],
            video=known["video_id"],
            person=known["speaker_id"],
            n_frames=known["n_frames"],
            contiguous_with_prev=known["contiguous_with_prev"],
            members=members[key],
            content=_content(known["n_frames"], digests.get(key, {})),
        )
        for key, known in about.items()
    ]


def _key_of(name: str) -> tuple[str, str]:
    """A member's clip and suffix, parted at the first dot of its base name as WebDataset does. Folders are part of the
    key, with dashes: files are named by it."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}{slash}{stem}".replace("/", "-"), suffix


def _end(tar: tarfile.TarFile, info: tarfile.TarInfo, count: int) -> bytes:
    opened = tar.extractfile(info)
    if opened is None:
        raise ValueError(f"{info.name} is no file")
    opened.seek(max(info.size - count, 0))
    return opened.read()


def _about(name: str, data: bytes) -> dict[str, Any]:
    try:
        known = json.loads(data)
    except ValueError as error:
        raise ValueError(f"{name} is no JSON: {error}") from error
    if not isinstance(known, dict):
        raise ValueError(f"{name} is no JSON object")
    for wanted, kind in _ABOUT.items():
        if not isinstance(known.get(wanted), kind):
            raise ValueError(f"{name} has no {wanted} ({kind.__name__})")
    return known


def _content(n_frames: int, digests: dict[str, str]) -> str:
    known = "\n".join([str(n_frames), *(f"{name} {digests.get(name, '')}" for name in _SHOWN)])
    return hashlib.sha256(known.encode()).hexdigest()[:12]
