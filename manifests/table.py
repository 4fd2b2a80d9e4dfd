"""Lists of videos: CSV, JSON, JSON lines, Parquet, text, a folder, one URL or file, and published ID lists."""

import csv
import io
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from manifests import parquet
from manifests.columns import ADDRESSES, FIELD, TIMES, fields_of, flattened, plain, seconds
from manifests.json_text import parsed
from manifests.plain_list import addresses
from manifests.records import Video
from manifests.tags import UNSTATED, UnknownLanguageError, language_tag
from manifests.text import storable
from manifests.urls import (
    canonical,
    host_without_scheme,
    is_web,
    is_web_host,
    is_youtube_id,
    local,
    refusal,
    without_login,
    youtube_url,
)

log = logging.getLogger(__name__)

_VIDEOS = "mp4 m4v mov mkv webm avi flv ts m2ts mts mpg mpeg wmv ogv 3gp mxf mpeg4 m2v vob asf f4v 3g2 divx qt dv rm"
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _VIDEOS.split())
LIST_SUFFIXES = frozenset([".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".txt"])
_OTHER_LISTS = frozenset(
    [".xlsx", ".xls", ".ods", ".m3u", ".m3u8", ".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".tar"]
)

_TOLD = 12  # names of columns, or endings of files, that one line of what was passed over spells out at most
_AVSPEECH_COLUMNS = 5  # YouTube id, start, end, x and y of the face's centre; no header


class ManifestError(ValueError):
    """A list of videos that cannot be used: the message names the file, the line or entry, and the field."""


def read(source: str, *, language: str | None = None) -> tuple[Video, ...]:
    """Read a list of videos; rows with the same source and part collapse into the first, which is logged in one line.

    `source` is a list by its ending (`.csv .tsv .json .jsonl .ndjson .parquet .txt`; a local path or any fsspec URL), a
    folder (all videos below it), or else one video. `language` is assumed where a row states none. Relative paths are
    relative to the list. Columns and files that were passed over are logged in one line. Raises `ManifestError`.
    """
    source = local(source)
    videos: dict[str, Video] = {}
    columns = {field.name: field.name != "id" for field in fields(Video)}  # a list made of records has them all
    again = otherwise = 0
    try:
        for place, row in _rows(source):
            video = _video(place, fields_of(row, columns), source, language)
            columns["id"] |= row.get("id") in (None, video.id)
            first = videos.setdefault(video.id, video)
            again += first is not video
            otherwise += first.language != video.language
    except RecursionError:
        raise ManifestError(f"{source}: not a list of videos: nested too deeply") from None
    if not videos:
        raise ManifestError(f"{source}: no videos in it")
    unused = [name for name, used in columns.items() if name.strip() and not used]  # pandas has no name for its index
    if unused:
        log.warning("%s: columns not used: %s", source, _told(unused))
    if again:
        said = "%s: rows of a source and part that one before them has, whose word counts: %d, in another language: %d"
        log.warning(said, source, again, otherwise)
    if any(video.start_s and video.duration_s and video.end_s is None for video in videos.values()):
        log.warning("%s: without end_s a part goes on to the end: duration_s is that of the whole video", source)
    return tuple(videos.values())


def _rows(source: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows with the place to name in an error."""
    suffix = PurePosixPath(source.partition("?")[0]).suffix.lower()
    if suffix in LIST_SUFFIXES:
        return _listed(source, suffix, _bytes(source))
    if is_web(source):
        return iter([(source, {"url": source})])
    try:
        here = "://" not in source
        fs, path = (LocalFileSystem(), str(Path(source).absolute())) if here else fsspec.core.url_to_fs(source)
    except (ImportError, ValueError, OSError) as error:  # a package is not there, no such kind of place, no such host
        raise ManifestError(f"{source}: {error}") from None
    if fs.isdir(path):
        return _folder(source, fs.find(path), fs)
    if fs.exists(path) and suffix in _OTHER_LISTS:
        raise ManifestError(f"{source}: save or unpack it as one of {' '.join(sorted(LIST_SUFFIXES))}, or as videos")
    if fs.exists(path):
        return iter([(source, {"url": _absolute(source)})])
    if host_without_scheme(source):
        return iter([(source, {"url": source})])
    raise ManifestError(f"{source}: no such file or folder")


def _bytes(source: str) -> bytes:
    try:
        if "://" not in source:  # where fsspec would take `::` in a name for a chain of places
            return Path(source).read_bytes()
        with fsspec.open(source, "rb") as f:
            data: bytes = f.read()
    except FileNotFoundError as error:  # which fsspec also says of a web server that refuses, or does not answer
        raise ManifestError(f"{source}: {(is_web(source) and error.__cause__) or 'no such file'}") from None
    except (OSError, ValueError, ImportError) as error:  # no permission, no such host; an unknown kind of URL
        raise ManifestError(f"{source}: {' '.join(str(error).split())}") from None
    return data


def _folder(source: str, found: list[str], fs: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    others: list[str] = []
    unnamed: list[str] = []
    made, n_made = _made_by_runs(found), 0
    for path in sorted(found):
        name = PurePosixPath(path)
        if path.startswith(made):
            n_made += 1
            continue
        if name.name.startswith("."):
            continue
        if name.suffix.lower() in VIDEO_SUFFIXES and storable(path) != path:
            unnamed.append(ascii(name.name))
        elif name.suffix.lower() in VIDEO_SUFFIXES:
            yield source, {"url": str(fs.unstrip_protocol(path)) if "://" in source else path}
        else:
            others.append(name.suffix.lower() or name.name)
    if n_made:
        log.warning("%s: %d files left out that runs wrote into %s", source, n_made, _told(list(made)))
    if others:
        log.warning("%s: %d other files passed over: %s", source, len(others), _told(sorted(set(others))))
    if unnamed:
        log.warning("%s: %d videos passed over, whose names are not UTF-8: %s", source, len(unnamed), _told(unnamed))


def _made_by_runs(found: Iterable[str]) -> tuple[str, ...]:
    """Where stores among these files have what they copied and cut: no new footage. Not the stores as a whole, since
    `--store .` has its own among the videos."""
    jobs = {path.rpartition("/")[0] for path in found if path.endswith("/job.json")}
    ledgers = {path.rpartition("/ledger/")[0] for path in found if "/ledger/" in path}
    return tuple(f"{root}/{folder}/" for root in sorted(jobs & ledgers) for folder in ("blobs", "ledger"))


def _told(names: list[str]) -> str:
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return ", ".join(" ".join(storable(name).split()) for name in names[:_TOLD]) + more


def _listed(source: str, suffix: str, data: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if suffix == ".parquet":
        return _parquet(source, data)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        said = f"not UTF-8 text (byte {error.start}); save it as UTF-8, which Excel calls CSV UTF-8"
        raise ManifestError(f"{source}: {said}") from None
    if "\n" not in text:
        text = text.replace("\r", "\n")  # as the first Macintosh ended its lines, and Excel still can
    if suffix == ".txt":
        return _lines(source, text)
    if suffix in (".csv", ".tsv"):
        return _csv(source, text, "\t" if suffix == ".tsv" else ",")
    return _json(source, text) if suffix == ".json" else _json_lines(source, text)


def _lines(source: str, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        for number, address in addresses(text):
            yield f"{source}: line {number}", {"url": address}
    except ValueError as error:
        raise ManifestError(f"{source}: {error}") from None


def _csv(source: str, text: str, delimiter: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    above, delimiter = _heading(text, delimiter)
    text = text.split("\n", above)[above]
    form: dict[str, Any] = {"delimiter": delimiter, "strict": True, "skipinitialspace": True}
    if delimiter == "\t" and _has_stray_quotes(text, form):
        form["quoting"] = csv.QUOTE_NONE
    first: list[str] = next(_strictly(source, above, csv.reader(io.StringIO(text), **form)), [])
    begins = len(first) == _AVSPEECH_COLUMNS and re.fullmatch(r"\d+(\.\d+)?", first[1].strip())
    headless = begins and is_youtube_id(first[0])
    names = ["youtube_id", "start_s", "end_s", "x", "y"] if headless else None
    reader = csv.DictReader(io.StringIO(text), fieldnames=names, **form)
    if not headless and not {plain(name) for name in first} & ADDRESSES:
        there = without_login(_told(first)) or "none"
        said = f"no column url, path or youtube_id among {there}; write a heading such as youtube_id,start_s,end_s"
        raise ManifestError(f"{source}: line {above + 1}: {said}")
    spelt = Counter(plain(name) for name in first if not headless)
    if twice := [name for name in first if plain(name) in FIELD and spelt[plain(name)] > 1]:
        raise ManifestError(f"{source}: line {above + 1}: columns of one name, {_told(twice)}: only one would count")
    assert reader.fieldnames is not None  # reads the header, if there is one: rows begin after it
    # Where commas part no fields, they begin the decimals, as German spreadsheets write them.
    times = [] if delimiter == "," else [name for name in reader.fieldnames if FIELD.get(plain(name)) in TIMES]
    for row in _strictly(source, above, reader):
        place = f"{source}: line {above + reader.line_num}"
        if None in row:
            raise ManifestError(f"{place}: more fields than columns; quote fields that hold {delimiter!r}")
        if any((value or "").strip() for value in row.values()):  # Excel writes rows that were emptied as commas
            yield place, row | {name: row[name].replace(",", ".") for name in times if row[name]}


def _heading(text: str, delimiter: str) -> tuple[int, str]:
    """How many lines lie above the heading (blank ones, Excel's `sep=;`), and what parts the fields of its own."""
    for above, line in enumerate(text.split("\n")):
        stated = re.fullmatch(r'"?sep=(.)"?', line.rstrip("\r"), re.IGNORECASE)
        if stated:
            delimiter = stated[1]
        elif line.strip(" ,;\t\r"):
            marks = [mark for mark in (delimiter, ";", "\t", ",") if ADDRESSES & _names_of(line, mark)]
            return above, (marks or [delimiter])[0]
    return 0, delimiter


def _names_of(heading: str, delimiter: str) -> set[str]:
    return {plain(name.strip(' "')) for name in heading.split(delimiter)}


def _has_stray_quotes(text: str, form: Mapping[str, Any]) -> bool:
    """Whether a quote is a letter like any other, as in many lists with tabs: no header or address is quoted, and the
    rest makes no sense as quoting."""
    try:
        return not all(True for _ in csv.reader(io.StringIO(text), **form))
    except csv.Error:
        try:
            rows = list(csv.reader(io.StringIO(text), **form, quoting=csv.QUOTE_NONE))
        except csv.Error:
            return False  # it is no question of quotes: `_strictly` names the line
        at = [i for i, name in enumerate(rows[0]) if plain(name) in ADDRESSES] or [0]
        return not any(row[i].startswith('"') for row in rows for i in at if i < len(row))


def _strictly(source: str, above: int, reader: Any) -> Iterator[Any]:
    """The rows of a strict reader: a quote that is never closed would swallow all that follow it."""
    while True:
        line = above + reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # which tells of a carriage return how Python opens files
            why = "a carriage return outside quotes" if "new-line" in str(error) else error
            raise ManifestError(f"{source}: line {line}: not CSV: {why} in the row that begins there") from None
        yield row


def _json_lines(source: str, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = parsed(line, number)
            except ValueError as error:
                raise ManifestError(f"{source}: {error}") from None
            yield f"{source}: line {number}", _entry(f"{source}: line {number}", row)


def _json(source: str, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """An array of entries, or (MultiTalk, CelebV) an object of them by name, perhaps below "clips"."""
    try:
        found = parsed(text)
    except ValueError as error:
        raise ManifestError(f"{source}: {error}") from None
    if isinstance(found, dict):
        found = found.get("clips", found)
    if isinstance(found, dict):
        items: list[tuple[Any, Any]] = [(name, _named(name, row)) for name, row in found.items()]
    elif isinstance(found, list):
        items = list(enumerate(found, 1))
    else:
        raise ManifestError(f"{source}: neither an array nor an object of entries")
    for name, row in items:
        place = f"{source}: entry {name}"
        yield place, _entry(place, row)


def _named(name: str, row: Any) -> Any:
    return {"name": name, **row} if isinstance(row, dict) else row


def _parquet(source: str, data: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow as pa

    try:
        rows = parquet.read(data).to_pylist()
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # a damaged page, text that is not UTF-8
        raise ManifestError(f"{source}: not Parquet: {' '.join(str(error).split())}") from None
    for number, row in enumerate(rows, 1):
        yield f"{source}: row {number}", _entry(f"{source}: row {number}", row)


def _entry(place: str, row: Any) -> Mapping[str, Any]:
    if isinstance(row, str):
        return {"url": row}
    if not isinstance(row, dict):
        raise ManifestError(f"{place}: neither an object nor a URL")
    return flattened(row)


def _video(place: str, known: dict[str, Any], source: str, language: str | None) -> Video:
    url = known.pop("url", None)
    youtube = str(known.pop("youtube", "")).strip()
    if youtube:
        if not is_youtube_id(youtube):
            raise ManifestError(f"{place}: field youtube_id: {youtube!r} is not the id of a YouTube video")
        url = url if url is not None and _is_there(url, source) else youtube_url(youtube)
    if url is None:
        raise ManifestError(f"{place}: field url: missing (a URL, a path, or youtube_id)")
    if not isinstance(url, str):
        raise ManifestError(f"{place}: field url: not text")
    if "\0" in url or storable(source + url) != source + url:  # and so no name of a file, and in no record
        raise ManifestError(f"{place}: field url: {refusal(url, ValueError('it holds what is not UTF-8, or a NUL'))}")
    for name in TIMES:
        if name in known:
            known[name] = _seconds(place, name, known[name])
    for name in ("start", "end"):
        if (from_ms := known.pop(f"{name}_ms", None)) is not None:
            known.setdefault(f"{name}_s", from_ms)
    start_s, end_s = known.get("start_s"), known.get("end_s")
    if end_s is not None and end_s <= (start_s or 0.0):
        raise ManifestError(f"{place}: field end_s: {end_s:g} is not after the start at {start_s or 0.0:g}")
    whole_s = known.get("duration_s")
    if end_s is None and start_s and whole_s and whole_s <= start_s:
        said = f"{whole_s:g}, the whole video's, is not after the start at {start_s:g}; of a part state end_s"
        raise ManifestError(f"{place}: field duration_s: {said}")
    for name in ("title", "channel", "licence", "name"):
        if name in known:
            known[name] = storable(str(known[name]).strip())
    spoken = str(known.pop("language", "")).strip()
    try:
        known["language"] = language_tag(spoken) if spoken and spoken.lower() not in UNSTATED else language
    except UnknownLanguageError as error:
        raise ManifestError(f"{place}: field language: {error}") from None
    resolved = _resolved(place, local(url.strip()), source)
    protocol = fsspec.core.split_protocol(resolved)[0]
    if protocol not in (None, "http", "https"):
        try:
            fsspec.get_filesystem_class(protocol)
        except (ImportError, ValueError) as error:
            raise ManifestError(f"{place}: field url: {protocol}:// cannot be read: {error}") from None
    return Video.of(resolved, **known)


def _is_there(url: Any, source: str) -> bool:
    """Whether what stands beside an id is an address of the web, or a file that this machine sees: then it counts."""
    text = local(str(url).strip())
    web = is_web(text) or is_web_host(host_without_scheme(text))
    return web or ("://" not in text + source and LocalFileSystem().isfile(str(Path(source).parent / text)))


def _resolved(place: str, url: str, source: str) -> str:
    """The canonical URL, or a path relative to where the list lies."""
    if "://" in url:
        try:
            return canonical(url)
        except ValueError as error:
            raise ManifestError(f"{place}: field url: {refusal(url, error)}") from None
    if is_youtube_id(url) and not Path(source).with_name(url).exists():
        return youtube_url(url)
    if url.startswith("/"):
        return os.path.normpath(url)  # symlinks stay: nodes may lead them elsewhere, and ids are made of this
    host = host_without_scheme(url)
    if host and ("://" in source or not Path(source).with_name(url.partition("/")[0]).exists()):
        if is_web_host(host):
            return canonical(f"https://{url}")
        if "://" not in source:
            raise ManifestError(f"{place}: field url: no file {url!r}; if it is on the web, put https:// before it")
    if "://" in source:
        return f"{source.rpartition('/')[0]}/{url}"
    return _absolute(str(Path(source).parent / url))


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).resolve())


def _seconds(place: str, field: str, value: Any) -> float:
    """Seconds, or `[hours:]minutes:seconds`; of a field in milliseconds those."""
    text, in_ms = str(value).strip(), field.endswith("_ms")
    try:
        total = seconds(text, in_ms=in_ms)
    except ValueError:
        unit = "milliseconds" if in_ms else "seconds or h:mm:ss"
        raise ManifestError(f"{place}: field {field}: {value!r} is not a time in {unit}") from None
    if not 0 <= total < float("inf"):
        raise ManifestError(f"{place}: field {field}: {value!r:.60} is not a time in a video")
    return total
