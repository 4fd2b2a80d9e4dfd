"""WebDataset tars as bytes: written so that equal samples give equal files, and read back with every offset."""

import dataclasses
import hashlib
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedIOBase, BytesIO, RawIOBase
from pathlib import Path
from typing import BinaryIO, TypeAlias

Content: TypeAlias = bytes | Path

_COPY_BYTES = 1 << 20
_END_BYTES = 2 * tarfile.BLOCKSIZE


class TarError(Exception):
    """A tar that cannot be read to its end, or that says something else than WebDataset allows."""


@dataclass(frozen=True)
class Member:
    """One file of a sample: its suffix without the first dot, and where its own bytes lie in the tar."""

    name: str
    offset: int
    length: int
    sha256: str


@dataclass(frozen=True)
class Sample:
    """Adjacent members of one key; `offset` and `length` cover their headers and padding too."""

    key: str
    offset: int
    length: int
    members: tuple[Member, ...]


def split_name(path: str) -> tuple[str, str]:
    """WebDataset's key and suffix: the first dot of the base name parts them."""
    folder, slash, base = path.rpartition("/")
    stem, _, suffix = base.partition(".")
    return folder + slash + stem, suffix


class _Hashed:
    """A file to write, whose digest sees every byte."""

    def __init__(self, file: BinaryIO, digest: "hashlib._Hash | None") -> None:
        self._file, self._digest, self.tell = file, digest, file.tell

    def write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        if self._digest is not None:
            self._digest.update(data)


def write_tar(
    target: Path, samples: Iterable[tuple[str, Mapping[str, Content]]], digest: "hashlib._Hash | None" = None
) -> tuple[Sample, ...]:
    """Write samples in the order given: no times, owners or modes of this machine get in. One MiB in memory at most.

    Contents are read once and hashed on their way; `digest` is told all bytes of the file. Raises `ValueError` for a
    key with a dot or a slash and for a name over 100 bytes, which plain ustar cannot hold.
    """
    written = []
    with target.open("wb") as opened:
        file = _Hashed(opened, digest)
        for key, contents in samples:
            if not key or "." in key or "/" in key:
                raise ValueError(f"{key!r} cannot be a WebDataset key: no dots or slashes")
            start = file.tell()
            members = tuple(_add(file, key, name, content) for name, content in contents.items())
            written.append(Sample(key, start, file.tell() - start, members))
        _end_tar(file)
    return tuple(written)


def _add(file: _Hashed, key: str, name: str, content: Content) -> Member:
    info = tarfile.TarInfo(f"{key}.{name}")
    info.mode = 0o644
    info.size = len(content) if isinstance(content, bytes) else content.stat().st_size
    file.write(info.tobuf(tarfile.USTAR_FORMAT))
    offset, digest = file.tell(), hashlib.sha256()
    with BytesIO(content) if isinstance(content, bytes) else content.open("rb", buffering=0) as source:
        for chunk in _chunks(source):
            file.write(chunk)
            digest.update(chunk)
    if file.tell() != offset + info.size:
        raise ValueError(f"{info.name} changed its length while it was read")
    file.write(bytes(-info.size % tarfile.BLOCKSIZE))
    return Member(name, offset, info.size, digest.hexdigest())


def _chunks(source: RawIOBase | BufferedIOBase) -> Iterator[memoryview]:
    """All bytes of a file, in views of one buffer: each is gone when the next is asked for."""
    buffer = memoryview(bytearray(_COPY_BYTES))
    while n := source.readinto(buffer):
        yield buffer[:n]


def _end_tar(file: _Hashed) -> None:
    end = file.tell() + _END_BYTES
    file.write(bytes(_END_BYTES + -end % tarfile.RECORDSIZE))


def join_tar(
    target: Path, source: Path, samples: Iterable[Sample], digest: "hashlib._Hash | None" = None
) -> tuple[Sample, ...]:
    """Write some samples of a tar as a tar, by copying their bytes: what `write_tar` would have made of them.

    Raises `TarError` if the source ends before them.
    """
    moved = []
    with target.open("wb") as opened, source.open("rb") as old:
        file = _Hashed(opened, digest)
        for sample in samples:
            shift = file.tell() - sample.offset
            old.seek(sample.offset)
            left = sample.length
            while left:
                chunk = old.read(min(left, _COPY_BYTES))
                if not chunk:
                    raise TarError(f"{source.name} ends inside {sample.key}")
                file.write(chunk)
                left -= len(chunk)
            members = tuple(dataclasses.replace(one, offset=one.offset + shift) for one in sample.members)
            moved.append(dataclasses.replace(sample, offset=sample.offset + shift, members=members))
        _end_tar(file)
    return tuple(moved)


def read_tar(path: Path) -> Iterator[tuple[Sample, dict[str, bytes]]]:
    """Every sample with its members' bytes, in order, one sample in memory at a time.

    Raises `TarError` where the file ends early, is not a plain tar, or holds something that is no file.
    """
    end = 0
    with path.open("rb") as file:
        for key, infos in _grouped(path):
            offset, end = infos[0].offset, _end(infos[-1])
            file.seek(offset)
            raw = file.read(end - offset)
            if len(raw) < end - offset:
                raise TarError(f"the file ends inside {infos[-1].name}")
            data, members = {}, []
            for info in infos:
                name, at = split_name(info.name)[1], info.offset_data - offset
                if name in data:
                    raise TarError(f"{info.name} is there twice")
                data[name] = raw[at : at + info.size]
                digest = hashlib.sha256(data[name]).hexdigest()
                members.append(Member(name, info.offset_data, info.size, digest))
            yield Sample(key, offset, end - offset, tuple(members)), data
        file.seek(end)
        # tarfile takes a file that was cut off after a whole member for a complete one.
        if file.read(_END_BYTES) != bytes(_END_BYTES):
            raise TarError("the file ends without the end mark of a tar")


def _end(info: tarfile.TarInfo) -> int:
    return info.offset_data + -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _grouped(path: Path) -> Iterator[tuple[str, list[tarfile.TarInfo]]]:
    key, infos = "", list[tarfile.TarInfo]()
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                if info.isdir():
                    continue
                if not info.isfile():
                    raise TarError(f"{info.name} is not a plain file")
                found, _ = split_name(info.name)
                if found != key and infos:
                    yield key, infos
                    infos = []
                key = found
                infos.append(info)
    except tarfile.TarError as error:
        raise TarError(str(error)) from error
    if infos:
        yield key, infos
