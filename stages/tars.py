"""WebDataset tars as bytes: written so that equal samples give equal files, and read back with every offset."""

import dataclasses
import hashlib
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
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
    """Adjacent members of one key; `offset`, `length` and `sha256` cover their headers and padding too."""

    key: str
    offset: int
    length: int
    sha256: str
    members: tuple[Member, ...]


def split_name(path: str) -> tuple[str, str]:
    """WebDataset's key and suffix: the first dot of the base name parts them."""
    folder, slash, base = path.rpartition("/")
    stem, _, suffix = base.partition(".")
    return folder + slash + stem, suffix


def write_tar(target: Path, samples: Iterable[tuple[str, Mapping[str, Content]]]) -> tuple[Sample, ...]:
    """Write samples in the order given: no times, owners or modes of this machine get in. One file in memory at most.

    Raises `ValueError` for a key with a dot or a slash and for a name over 100 bytes, which plain ustar cannot hold.
    """
    written = []
    with target.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key, contents in samples:
            if not key or "." in key or "/" in key:
                raise ValueError(f"{key!r} cannot be a WebDataset key: no dots or slashes")
            start = file.tell()
            members = tuple(_add(tar, file, key, name, content) for name, content in contents.items())
            written.append((key, start, file.tell() - start, members))
    with target.open("rb") as back:
        return tuple(Sample(key, at, n, _digest(back, at, n), members) for key, at, n, members in written)


def _add(tar: tarfile.TarFile, file: BinaryIO, key: str, name: str, content: Content) -> Member:
    info = tarfile.TarInfo(f"{key}.{name}")
    info.mode = 0o644
    digest = hashlib.sha256()
    if isinstance(content, bytes):
        info.size = len(content)
        digest.update(content)
        tar.addfile(info, BytesIO(content))
    else:
        info.size = content.stat().st_size
        with content.open("rb") as source:
            tar.addfile(info, source)
        with content.open("rb") as source:
            while chunk := source.read(_COPY_BYTES):
                digest.update(chunk)
    padded = -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return Member(name, file.tell() - padded, info.size, digest.hexdigest())


def _digest(file: BinaryIO, offset: int, length: int) -> str:
    digest = hashlib.sha256()
    file.seek(offset)
    while length > 0:
        chunk = file.read(min(length, _COPY_BYTES))
        digest.update(chunk)
        length -= len(chunk) or length
    return digest.hexdigest()


def join_tar(target: Path, source: Path, samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """Write some samples of a tar as a tar, by copying their bytes: what `write_tar` would have made of them.

    Raises `TarError` if the source ends before them.
    """
    moved = []
    with target.open("wb") as file, source.open("rb") as old:
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
        end = file.tell() + _END_BYTES
        file.write(bytes(_END_BYTES + -end % tarfile.RECORDSIZE))
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
            yield Sample(key, offset, end - offset, hashlib.sha256(raw).hexdigest(), tuple(members)), data
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
