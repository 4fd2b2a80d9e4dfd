"""The pipeline's shards as bytes: which clips there are, their members by byte range, their pictures by window.

Plain WebDataset tars beside `index.parquet` (see `stages.shard_index`); without the index the tars are scanned. Any
place that fsspec knows.
"""

import io
import json
import tarfile
import wave
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import av
import fsspec
import numpy as np

from manifests.records import RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from mcdm.faces import Bytes, Floats


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
    language: str
    n_frames: int
    contiguous_with_prev: bool
    members: dict[str, tuple[int, int]]


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
            raise ValueError(f"{self.url}: no shards (*.tar) found")

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
        """A `.npy` member of this shape, as float32; raises `SampleError` for any other."""
        try:
            array = np.load(io.BytesIO(self.read(clip, member)), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise SampleError(clip.key, f"{member} is no array") from error
        if array.shape != shape:
            raise SampleError(clip.key, f"{member} has shape {array.shape}, not {shape}")
        return np.asarray(array, np.float32)

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
            stream.thread_type = "SLICE"  # frame threads decode ahead, for nothing where a window is short
            first = stream.start_time or 0
            tick = stream.time_base
            assert tick is not None
            container.seek(first + round(start / RATE_HZ / tick), stream=stream)
            for frame in container.decode(stream):
                assert frame.pts is not None
                number = round((frame.pts - first) * tick * RATE_HZ)
                if start <= number < stop:
                    frames.append(frame.to_ndarray(format="rgb24"))
                if number >= stop - 1:
                    break
    except (av.error.FFmpegError, IndexError, AssertionError) as error:
        raise SampleError(key, f"mp4 cannot be decoded: {error}") from error
    if len(frames) != stop - start:
        raise SampleError(key, f"mp4 gives {len(frames)} of frames {start} to {stop}")
    return np.stack(frames)


def chains(clips: Iterable[Clip]) -> list[list[Clip]]:
    """Clips that go on where the one before ended, together, each chain in order."""
    found: list[list[Clip]] = []
    for clip in clips:
        follows = found and clip.contiguous_with_prev and found[-1][-1].video == clip.video
        if follows:
            found[-1].append(clip)
        else:
            found.append([clip])
    return found


def _from_index(data: bytes) -> list[Clip]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(data)).to_pylist()
        return [
            Clip(
                members={member["name"]: (member["offset"], member["length"]) for member in row["members"]},
                contiguous_with_prev=row["contiguous_with_prev"],
                **{name: row[name] for name in ("key", "shard", "split", "video", "person", "language", "n_frames")},
            )
            for row in rows
        ]
    except (pa.ArrowInvalid, KeyError) as error:
        raise ValueError(f"index.parquet is not a shard index: {error}") from error


def _scan(fs: Any, root: str, name: str) -> list[Clip]:
    """The clips of one tar without an index: its headers and json members are read."""
    members: dict[str, dict[str, tuple[int, int]]] = {}
    about: dict[str, dict[str, Any]] = {}
    try:
        with fs.open(f"{root}/{name}", "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                key, _, suffix = info.name.partition(".")
                members.setdefault(key, {})[suffix] = (info.offset_data, info.size)
                if suffix == "json":
                    opened = tar.extractfile(info)
                    about[key] = json.load(opened) if opened is not None else {}
    except (tarfile.TarError, ValueError) as error:
        raise ValueError(f"{root}/{name} cannot be read: {error}") from error
    return [
        Clip(
            key=key,
            shard=name,
            split=known["split"],
            video=known["video_id"],
            person=known["speaker_id"],
            language=known["language"],
            n_frames=known["n_frames"],
            contiguous_with_prev=known["contiguous_with_prev"],
            members=members[key],
        )
        for key, known in about.items()
    ]
