"""Named weights: where each comes from, under which licence, and where it lies on this machine.

A name is a registered one ("syncnet_v2"), or the path of a file or folder of one's own. What is fetched lies under
`$TFW_MODELS`, by default `~/.cache/talkingface-wild`, one entry per name, and may be put there by hand as well.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import pickle
import shutil
import sysconfig
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from manifests.scratch import write_whole
from stages.download import DownloadError, download, sha256_of
from stages.registry import REGISTRY, Entry, HubModel, Installed, Sample, WebFile

_PACKAGE = Path(__file__).parent / "sample"
_DIGEST_LENGTH = 12
_LONGEST_FETCH_S = 4 * 3600.0  # of another process that is waited for: a few GB over a slow line take an hour or two


UNREADABLE = (pickle.UnpicklingError, EOFError, RuntimeError, LookupError, TypeError, ValueError, AssertionError)
"""What `torch.load` raises for a file of other bytes."""


class WeightsMissingError(ValueError):
    """Weights that are wanted are not here and cannot be had: one line that says which, and the way out."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One line of `models list`."""

    name: str
    about: str
    licence: str
    size_mb: float
    state: str  # "packaged", "fetched", "not fetched" or "absent"


def folder() -> Path:
    """Where fetched weights lie: `$TFW_MODELS`, by default `~/.cache/talkingface-wild`."""
    return Path(os.environ.get("TFW_MODELS") or "~/.cache/talkingface-wild").expanduser()


def path(name: str) -> Path:
    """The file or folder of the named weights on this machine, fetched first if need be (once per machine).

    A web file gives a file, an archive or a hub model a folder, a packaged sample its folder, what another package
    brings its file. Raises `WeightsMissingError`.
    """
    return local(name) or fetch(name)


def local(name: str) -> Path | None:
    """As `path`, without fetching: None if it is not on this machine. Raises `WeightsMissingError` on unknown names."""
    entry = REGISTRY.get(name)
    if entry is None:
        return _own(name)
    if isinstance(entry, Sample):
        place = _PACKAGE / entry.folder
        return place if place.is_dir() and any(_members(place)) else None
    place = _place(name, entry)
    if place.is_file() or (place.is_dir() and any(place.iterdir())):
        return place
    return _snapshot(name, entry) if isinstance(entry, HubModel) else None


def digest(name: str) -> str:
    """Twelve hex digits that name the weights' content, without loading and, for registered ones, without fetching.

    Web files go by their published SHA-256, hub models by their commit (by their name where none is fixed), all else by
    the bytes of the files below the path, hidden ones aside (remembered by size and time of change: gigabytes are read
    once).
    Raises `WeightsMissingError`.
    """
    entry = REGISTRY.get(name)
    if isinstance(entry, WebFile):
        return (entry.sha256 or hashlib.sha256(entry.url.encode()).hexdigest())[:_DIGEST_LENGTH]
    if isinstance(entry, HubModel):
        named = entry.revision if entry.pinned else hashlib.sha256(entry.repository.encode()).hexdigest()
        return named[:_DIGEST_LENGTH]
    found = local(name)
    if found is None:
        raise WeightsMissingError(_way_out(name))
    lines = [f"{member.relative_to(found)} {_remembered_sha256(member)}" for member in _members(found)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:_DIGEST_LENGTH]


def fetch(name: str, *, url: str | None = None, sha256: str | None = None) -> Path:
    """Fetch the named weights if they are not here, and return their path. One process per machine fetches at a time.

    `url` takes a web file from another server (a mirror), if it is not here; its published digest still holds, `sha256`
    pins one where none is published. Raises `WeightsMissingError`, also for what is here with another `sha256`.
    """
    entry = REGISTRY.get(name)
    if not isinstance(entry, (WebFile, HubModel)):
        found = local(name)
        if found is None:
            raise WeightsMissingError(_way_out(name))
        if url or sha256:
            raise WeightsMissingError(f"{name} is not fetched: it takes no URL or digest")
        return found
    if isinstance(entry, HubModel) and (url or sha256):
        raise WeightsMissingError(f"{name} is a hub model: it takes no URL or digest; set HF_ENDPOINT for a mirror")
    sha256 = sha256.lower() if sha256 else None
    if isinstance(entry, WebFile) and sha256 and entry.sha256 not in (None, sha256):
        raise WeightsMissingError(f"{name}: the SHA-256 that is published is {entry.sha256}, not {sha256}")
    with _alone(name):
        found = local(name)
        if found is not None:
            if sha256 and found.is_file() and sha256_of(found) != sha256:  # an archive is gone once it is unpacked
                raise WeightsMissingError(f"{name}: the SHA-256 of {found} is not {sha256}; delete it and fetch again")
            return found
        if isinstance(entry, HubModel):
            return _fetch_snapshot(name, entry)
        return _fetch_web(name, entry, url or entry.url, sha256 or entry.sha256)


def check(name: str) -> str:
    """Read every byte of the named weights again; return one line that says what was compared.

    Raises `WeightsMissingError` if they are not here, or are not what was fetched or published.
    """
    found = local(name)
    if found is None:
        raise WeightsMissingError(_way_out(name))
    if record := _read(_record(name)):
        for member, expected in json.loads(record).items():
            file = found / member if member else found
            if not file.is_file() or sha256_of(file) != expected:
                raise WeightsMissingError(f"{name}: {file} is not the file that was fetched; delete it and fetch again")
        return f"{name}: {found} holds the bytes that were fetched"
    entry = REGISTRY.get(name)
    if isinstance(entry, HubModel) and (compared := _compared(name, found)):
        return f"{name}: {found}, {compared} large files have the SHA-256 that the hub published"
    if isinstance(entry, WebFile) and not entry.unzip and entry.sha256:
        if sha256_of(found) != entry.sha256:
            raise WeightsMissingError(
                f"{name}: the SHA-256 of {found} is not {entry.sha256}; delete it and fetch again"
            )
        return f"{name}: {found} has the published SHA-256"
    return f"{name}: {found} is readable, digest {digest(name)}; no digest is published to compare with"


def listing() -> list[Listed]:
    """All registered weights, for `models list`."""
    return [_listed(name, entry) for name, entry in REGISTRY.items()]


def _listed(name: str, entry: Entry) -> Listed:
    here, absent = ("fetched", "not fetched") if isinstance(entry, (WebFile, HubModel)) else ("packaged", "absent")
    state = here if local(name) else absent
    return Listed(name=name, about=entry.about, licence=entry.licence, size_mb=entry.size_mb, state=state)


def _own(name: str) -> Path:
    given = Path(name).expanduser()
    if given.exists():
        return given.resolve()
    known = ", ".join(REGISTRY)
    raise WeightsMissingError(f"no weights named {name!r}: give the path of a file or folder, or one of {known}")


def _place(name: str, entry: Entry) -> Path:
    if isinstance(entry, Sample):
        return _PACKAGE / entry.folder
    if isinstance(entry, Installed):
        spec = importlib.util.find_spec(entry.package)
        package = (
            Path(spec.origin).parent if spec and spec.origin else Path(sysconfig.get_path("purelib"), entry.package)
        )
        return package / entry.file
    suffix = Path(entry.url).suffix if isinstance(entry, WebFile) and not entry.unzip else ""
    return folder() / f"{name}{suffix}"


def _page(entry: HubModel) -> str:
    return f"https://huggingface.co/{entry.repository}/tree/{entry.revision}"


def _way_out(name: str, why: str = "not on this machine") -> str:
    entry = REGISTRY[name]
    if isinstance(entry, Sample):
        return f"weights {name!r}: {why}; the package has them at {_place(name, entry)}, `{entry.maker}` makes them"
    if isinstance(entry, Installed):
        return f"weights {name!r}: {why}; `pip install {entry.package}` puts them at {_place(name, entry)}"
    origin = entry.url if isinstance(entry, WebFile) else _page(entry)
    without = f", or {entry.without}" if entry.without else ""
    return (
        f"weights {name!r}: {why}; run `python -m pipeline models fetch {name}` where {origin} can be reached, "
        f"or put its content at {_place(name, entry)}{without}"
    )


def _members(place: Path) -> list[Path]:
    """Its files, but those that tools keep hidden beside weights: `hf download` notes the time of day there, and git an
    index that a mere `git status` writes anew. Either would be other weights, and all would be measured again."""
    if place.is_file():
        return [place]
    found = (p for p in place.rglob("*") if p.is_file() and p.suffix not in {".py", ".pyc"})
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(place).parts))


def _record(name: str) -> Path:
    """Digests of the members of a fetched web file, by name; "" is the file itself."""
    return folder() / f".{name}.json"


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    from filelock import FileLock, Timeout

    try:
        folder().mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise WeightsMissingError(f"{folder()} is no folder; weights lie in $TFW_MODELS once fetched") from None
    lock = FileLock(folder() / f".{name}.lock", timeout=_LONGEST_FETCH_S)
    try:
        held = lock.acquire()
    except Timeout:
        said = f"another process has been fetching it for {_LONGEST_FETCH_S / 3600:g} h and holds {lock.lock_file}"
        raise WeightsMissingError(_way_out(name, said)) from None
    with held:
        yield


def _fetch_web(name: str, entry: WebFile, url: str, sha256: str | None) -> Path:
    place = _place(name, entry)
    archive = folder() / f".{name}.zip" if entry.unzip else place
    try:
        found = download(url, archive, sha256=sha256)
        record = _unzip(archive, place) if entry.unzip else {"": found}
    except (DownloadError, zipfile.BadZipFile, OSError) as error:
        raise WeightsMissingError(_way_out(name, f"could not be fetched ({error})")) from error
    write_whole(_record(name), json.dumps(record))
    return place


def _unzip(archive: Path, place: Path) -> dict[str, str]:
    """Members of all folders of the archive, flat, into a folder that appears whole."""
    unpacked = place.with_name(f".{place.name}.unpacked")
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir()
    digests = {}
    with zipfile.ZipFile(archive) as zipped:
        for member in zipped.infolist():
            target = unpacked / Path(member.filename).name
            if member.is_dir() or member.filename.startswith("__MACOSX"):
                continue
            with zipped.open(member) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
            digests[target.name] = sha256_of(target)
    unpacked.replace(place)
    archive.unlink()
    return digests


def _snapshot(name: str, entry: HubModel) -> Path | None:
    """The snapshot that `_fetch_snapshot` completed; a killed one has some of its files and no note."""
    place = Path(_read(_record(name).with_suffix(".snapshot")))
    # An empty note, of a disk that was full, is the working directory.
    wanted = place.is_absolute() and place.is_dir() and (place.name == entry.revision or not entry.pinned)
    return place if wanted else None


def _fetch_snapshot(name: str, entry: HubModel) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    # requests' and the hub's errors are OSErrors; a refused answer to the file list can be a ValueError.
    try:
        about = HfApi().model_info(entry.repository, revision=entry.revision)
        place = Path(
            snapshot_download(
                entry.repository,
                revision=about.sha,
                allow_patterns=list(entry.files),
                cache_dir=folder().absolute() / "hub",
            )
        )
        # Where the hub does not answer, that gives what a fetch that broke off has left.
        listed = [file.rfilename for file in about.siblings or ()]
        wanted = [file for file in listed if any(fnmatch(file, pattern) for pattern in entry.files)]
        if missing := [file for file in wanted if not (place / file).is_file()]:
            raise FileNotFoundError(f"no {missing[0]}")
    except (OSError, ValueError) as error:
        why = str(error).strip().splitlines()[0]
        raise WeightsMissingError(_way_out(name, f"could not be fetched ({why})")) from error
    write_whole(_record(name).with_suffix(".snapshot"), str(place))
    return place


def _read(note: Path) -> str:
    """What a note says, "" if there is none."""
    return note.read_text() if note.is_file() else ""


def _compared(name: str, found: Path) -> int:
    """How many files were compared with the hub's sums: its cache names the bytes of a large file by their SHA-256, a
    folder that was put there by hand does not."""
    compared = 0
    for file in _members(found):
        expected = file.resolve().name
        if len(expected) == hashlib.sha256().digest_size * 2:
            compared += 1
            if sha256_of(file) != expected:
                raise WeightsMissingError(f"{name}: {file} is damaged; delete {found} and fetch again")
    return compared


def _remembered_sha256(file: Path) -> str:
    """SHA-256 of a file, remembered under our folder as long as its path, size and time of change stay."""
    stat = file.stat()
    seen = hashlib.sha256(f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()
    note = folder() / "digests" / seen
    with contextlib.suppress(OSError):
        if len(known := note.read_text()) == hashlib.sha256().digest_size * 2:
            return known
    found = sha256_of(file)
    with contextlib.suppress(OSError):  # a read-only home costs time, not the run
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(found)
    return found
