"""Bytes by path in any place that fsspec knows: a folder, `s3://`, `gs://`, `memory://`. Put whole, get, list."""

import contextlib
import functools
import glob
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from manifests import s3
from manifests.partial import is_abandoned, is_partial, partial_name
from manifests.records import Ref
from manifests.scratch import prefix
from manifests.urls import is_web

_SWEPT = "swept"
"""Holds which start of the machine the ledger was last swept in."""

_OUTAGES = {
    "botocore.exceptions": ("ConnectionError", "HTTPClientError"),
    "aiohttp": ("ClientConnectionError", "ClientPayloadError"),
}
"""Errors of connections, by the module of a store's client."""

_REFUSALS = {
    "botocore.exceptions": (
        *("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "NoRegionError"),
        "ParamValidationError",
    ),
}
"""Errors of what was asked, and by whom."""

_CONFLICT = 409  # what S3 answers who creates an object while another creates or deletes it
_NOT_IMPLEMENTED = 501  # what a copy of S3 answers for good to what it does not know


class UnreachableError(OSError):
    """A store that does not answer, or only with faults of its own, however often it is asked."""


def ref_of(file: Path, path: str) -> Ref:
    """What describes a file as the object at `path`."""
    with file.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256")
    return Ref(path, file.stat().st_size, digest.hexdigest())


def results(url: str) -> "Store":
    """A store that results can be written to. Raises `ValueError`."""
    if is_web(url):
        raise ValueError(f"{url}: a web server takes no results; give a folder or a URL such as s3://bucket/set")
    return Store(url)


class Store:
    """A root URL and the objects below it. Cheap to make, picklable by its URL. Raises `ValueError` for no such place.

    Every write is whole: a temporary name and a rename on a disk, one PUT in an object store. Listings are never
    cached, since fsspec's cache hides what other workers wrote meanwhile.
    """

    def __init__(self, url: str) -> None:
        if not url or re.fullmatch(r"(?!file:)\w+:/*", url):
            raise ValueError(f"{url!r}: not a place for results; give a folder or a URL such as s3://bucket/set")
        self.url = re.sub(r"^file:/+$", "/", url).rstrip("/")
        remote = "://" in url and not url.startswith("file://")
        if not remote and "::" in url:  # fsspec, and whoever reads the shards by it, would take the name up to there
            raise ValueError(f"{url!r}: fsspec reads '::' as a chain of places; give a folder whose path has none")
        of_s3 = s3.options() if url.startswith("s3://") else {}
        options = {"use_listings_cache": False, **of_s3} if remote else {"auto_mkdir": True}
        try:
            fs, root = fsspec.core.url_to_fs(self.url or "/", **options)
        except (ImportError, OSError) as error:  # gs:// wants a package of its own, ftp:// asks its host at once
            raise ValueError(f"{url}: {error}") from None
        self._root = root.rstrip("/")
        self.local = Path(self._root or "/") if isinstance(fs, LocalFileSystem) else None
        self._reading: dict[str, Any] = {}  # options of whatever reads an object whole
        if of_s3:
            s3.leave_requests_to_botocore(fs, _outages)
            self._reading = s3.ONE_REQUEST
        self._fs: Any = _Remote(fs, self.url) if remote else fs

    def __reduce__(self) -> tuple[type["Store"], tuple[str]]:
        return Store, (self.url or "/",)

    def at(self, path: str) -> str:
        """The full URL (or file path) of an object, for a person or another program."""
        return f"{self.url}/{path}"

    def put(self, path: str, data: bytes, *, is_synced: bool = True) -> None:
        """Write an object whole. Not synced it takes a third of the time, and may be empty after a power cut."""
        if self.local is not None:
            with self._replacing(self.local / path, is_synced=is_synced) as temporary:
                temporary.write_bytes(data)
        else:
            self._fs.pipe_file(f"{self._root}/{path}", data)

    def create(self, path: str, data: bytes) -> bool:
        """Write an object only if there is none: of many who try at once, at most one gets True.

        On a disk by `O_EXCL`, in an object store by a conditional PUT (S3 and GCS have it; some copies of S3 do not).
        """
        try:
            if self.local is not None:
                (self.local / path).parent.mkdir(parents=True, exist_ok=True)
                with (self.local / path).open("xb") as f:
                    f.write(data)
            else:
                self._fs.pipe_file(f"{self._root}/{path}", data, mode="create")
        except OSError as error:  # FileExistsError, or what a store makes of "precondition failed" (s3fs: errno 22)
            if _status(error) != _CONFLICT and not self.exists(path):
                raise
            return False
        return True

    def put_file(self, source: Path, path: str, *, move: bool = False) -> Ref:
        """Copy a file in, whole, or move it, and describe it."""
        ref = ref_of(source, path)
        self.take(source, path, move=move)
        return ref

    def take(self, source: Path, path: str, *, move: bool = False) -> None:
        """Copy a file in, whole, or move it."""
        if self.local is not None:
            with self._replacing(self.local / path) as temporary:
                (shutil.move if move else shutil.copyfile)(source, temporary)
        else:
            self._fs.put_file(str(source), f"{self._root}/{path}")
            if move:
                source.unlink()

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[Path]:
        """A file to fill, which becomes the object, whole, where the block ends without an error."""
        if self.local is not None:
            with self._replacing(self.local / path) as temporary:
                yield temporary
        else:
            with tempfile.TemporaryDirectory(prefix=prefix("put")) as folder:
                temporary = Path(folder) / Path(path).name
                yield temporary
                self._fs.put_file(str(temporary), f"{self._root}/{path}")

    def get(self, path: str) -> bytes:
        """Read an object; raises `FileNotFoundError`."""
        data: bytes = self._fs.cat_file(f"{self._root}/{path}", **self._reading)
        return data

    def get_some(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Those of these objects that are there, by path; in an object store all are asked for at once, or 64."""

        def one(path: str) -> bytes | None:
            try:
                return self.get(path)
            except FileNotFoundError:
                return None

        if self.local is not None or len(paths) < 2:
            found = list(map(one, paths))
        else:
            with ThreadPoolExecutor(min(len(paths), s3.CONNECTIONS)) as pool:
                found = list(pool.map(one, paths))
        return {path: data for path, data in zip(paths, found, strict=True) if data is not None}

    def get_file(self, path: str, scratch: Path) -> Path:
        """A readable file of the object: the object itself on a disk, else a copy in `scratch`. Never write to it."""
        if self.local is not None:
            found = self.local / path
            if not found.is_file():
                raise FileNotFoundError(found)
            return found
        target = scratch / f"{hashlib.sha256(path.encode()).hexdigest()[:12]}-{Path(path).name}"
        if not target.exists():
            partial = target.with_name(target.name + ".part")
            self._fs.get_file(f"{self._root}/{path}", str(partial), **self._reading)
            partial.rename(target)
        return target

    def exists(self, path: str) -> bool:
        """Whether the object is there now. Raises `OSError` where the disk does not say, as `list`."""
        if self.local is None:
            return bool(self._fs.exists(f"{self._root}/{path}"))
        try:
            (self.local / path).stat()
        except OSError as error:
            self._unread(error)
            return False
        return True

    def folders(self, prefix: str) -> list[str]:
        """The folders right below a folder, sorted, as paths below the root; none if there is no such folder. What lies
        in them is not listed. Raises as `list`."""
        place, skip = f"{self._root}/{prefix}", len(self._root) + 1
        if self.local is not None:
            _, inside, _ = next(os.walk(place, onerror=self._unread), ("", (), ()))
            return sorted(f"{place}/{name}"[skip:] for name in inside)
        with contextlib.suppress(FileNotFoundError):
            found = self._fs.ls(place, detail=True)
            return sorted(one["name"].rstrip("/")[skip:] for one in found if one["type"] == "directory")
        return []

    def list(self, prefix: str) -> list[str]:
        """All objects below a folder, sorted, as paths below the root; none if there is no such folder. Without what
        consoles and mounts of buckets write to mark a folder.

        Raises `OSError` for a folder that cannot be read, which fsspec takes for an empty one on a disk: then those who
        were forgotten would come back.
        """
        return sorted(path for path in self._below(prefix) if not is_partial(path))

    def partials(self, prefix: str) -> Sequence[str]:
        """The same of what is half written, on whichever machine, which `list` leaves out; no object store has any."""
        return () if self.local is None else sorted(path for path in self._below(prefix) if is_partial(path))

    def _below(self, prefix: str) -> Iterator[str]:
        place, skip = f"{self._root}/{prefix}", len(self._root) + 1
        if self.local is None:
            yield from (path[skip:] for path in self._fs.find(place) if not path.endswith("/"))
        else:
            for folder, _, names in os.walk(place, onerror=self._unread):
                yield from (f"{folder.rstrip('/')}/{name}"[skip:] for name in names)

    def stamps(self, prefix: str) -> dict[str, int]:
        """The same, each with a number that is another once it was written anew; in an object store by the listing."""
        return self._told(prefix, lambda about: hash(str(about)), lambda about: hash((about.st_mtime_ns, about.st_ino)))

    def sizes(self, prefix: str) -> dict[str, int]:
        """The same, each with its bytes."""
        return self._told(prefix, lambda about: int(about["size"]), lambda about: about.st_size)

    def _told(
        self, prefix: str, of_object: Callable[[Any], int], of_file: Callable[[os.stat_result], int]
    ) -> dict[str, int]:
        if self.local is None:
            found = self._fs.find(f"{self._root}/{prefix}", detail=True)
            skip = len(self._root) + 1
            return {path[skip:]: of_object(about) for path, about in found.items() if not path.endswith("/")}
        told = {}
        for path in self.list(prefix):
            with contextlib.suppress(FileNotFoundError):  # another run on this store may have taken it away
                told[path] = of_file(os.stat(f"{self._root}/{path}"))  # noqa: PTH116 (as `_is_empty`)
        return told

    def _unread(self, error: OSError) -> None:
        if isinstance(error, (PermissionError, NotADirectoryError)):
            raise error
        if not isinstance(error, FileNotFoundError):  # of a shared disk that was lost, or with too many open files
            raise UnreachableError(f"{self.url} does not answer: {error}") from error

    def delete(self, path: str) -> None:
        """Remove an object or a folder of objects; nothing happens if it is not there."""
        place = f"{self._root}/{path}"
        with contextlib.suppress(FileNotFoundError):  # also where another run on this store was faster
            # fsspec takes names with brackets or stars for patterns, but for those on a disk.
            self._fs.rm(glob.escape(place) if self.local is None else place, recursive=True)

    def sweep(self, below: str = "") -> int:
        """Remove what killed processes left half written, those of this machine at once and of others after a day, and
        what of the ledger a power cut left empty: listings count it as an outcome, and it is none. Returns how many.

        The size of each of a million objects is asked for, of a file server too, only if the machine has started since
        the last time, as it has after a power cut.
        """
        if self.local is None:
            return 0
        ledger, start = self.local / "ledger", _start_of_machine()
        is_due = not start or self.get_some([_SWEPT]).get(_SWEPT) != start
        dead: list[str] = []
        for folder, _, names in os.walk(self.local / below):
            half = {name for name in names if is_partial(name)}
            dead += (path for name in half if is_abandoned(path := f"{folder}/{name}"))
            if is_due and Path(folder).is_relative_to(ledger):
                dead += (path for name in set(names) - half if _is_empty(path := f"{folder}/{name}"))
        for path in dead:
            Path(path).unlink(missing_ok=True)
        if is_due and start and not below and ledger.is_dir():
            self.put(_SWEPT, start)
        return len(dead)

    @contextlib.contextmanager
    def _replacing(self, target: Path, *, is_synced: bool = True) -> Iterator[Path]:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / partial_name()
        try:
            yield temporary
            if is_synced:  # the bytes before the name: a power cut leaves the name of an empty file else
                with temporary.open("rb") as f:
                    os.fsync(f.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def _start_of_machine() -> bytes:
    """What this machine calls the time since it was started, b"" where it does not say."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_bytes()
    return b""


def _is_empty(path: str) -> bool:
    with contextlib.suppress(OSError):  # another run on this store may have taken it away
        return not os.stat(path).st_size  # noqa: PTH116 (a `Path` for each of millions takes longer than the asking)
    return False


class _Remote:
    """A file system whose outages are all told as `UnreachableError`."""

    def __init__(self, fs: Any, url: str) -> None:
        self._fs, self._url = fs, url

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._fs, name)

        @functools.wraps(method)
        def call(*given: Any, **options: Any) -> Any:
            outages = _outages()
            kinds: tuple[type[Exception], ...] = (OSError, *outages)
            try:
                return method(*given, **options)
            except kinds as error:
                if not isinstance(error, outages) and (_status(error) < 500 or _status(error) == _NOT_IMPLEMENTED):
                    raise
                raise UnreachableError(f"{self._url} does not answer: {' '.join(str(error).split())}") from error

        return call


def _outages() -> tuple[type[Exception], ...]:
    """Errors of a connection: Python's own, and those of the clients of stores that were loaded."""
    return ConnectionError, TimeoutError, *_loaded(_OUTAGES)


def client_errors() -> tuple[type[Exception], ...]:
    """Errors of the clients of stores that the user can mend (no credentials, nobody answers) and that are neither
    `ValueError` nor `OSError`."""
    return *_loaded(_OUTAGES), *_loaded(_REFUSALS)


def mendable() -> tuple[type[Exception], ...]:
    """Errors that are one line to the user of the trainer, and no traceback."""
    return ValueError, OSError, *client_errors()


def _loaded(names: Mapping[str, Sequence[str]]) -> Iterator[type[Exception]]:
    """Those whose client is there: it is not where no bucket was asked."""
    return (getattr(sys.modules[module], name) for module, of in names.items() if module in sys.modules for name in of)


def _status(error: Exception) -> int:
    """What the store answered (503: busy), 0 if it is not known."""
    answer: Any = getattr(error.__cause__, "response", None)  # of botocore, behind the error that s3fs makes of it
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) if isinstance(answer, dict) else 0
