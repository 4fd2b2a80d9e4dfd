"""Discovery: from a language's searches, channels and lists to videos, lazily, until enough hours are found."""

import contextlib
import logging
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote_plus

from manifests import table
from manifests.languages import Language
from manifests.records import Video
from manifests.urls import canonical, is_web, is_youtube_id, refusal, youtube_url
from pipeline.stage import Rejection
from stages.language import may_be
from stages.outcomes import NetworkError
from stages.politeness import HostClosedError, Pace, host_of
from stages.site import LIVE, Access, Info, Site, spoken_hint

log = logging.getLogger(__name__)

_DEEPEST = 2  # a channel's page lists its tabs, and those their videos

_QUERY = "{query}"

# YouTube's own search filters: videos under a Creative Commons licence; videos of any.
_YOUTUBE_SEARCH = {
    "cc": "https://www.youtube.com/results?search_query={query}&sp=EgQQATAB",
    "any": "https://www.youtube.com/results?search_query={query}&sp=EgIQAQ%3D%3D",
}


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """How videos are looked for. Raises `ValueError` for what can find nothing."""

    min_duration_s: float = 60.0  # shorter or longer ones are passed over; unknown durations are not
    max_duration_s: float = 2 * 3600.0
    unknown_duration_s: float = 300.0  # what a video counts for whose listing does not say
    per_source: int = 200  # listings are not read further than this
    look: bool = False  # open each video's page and pass over those whose site says another language is spoken
    search: str = ""  # a results page with {query}, or e.g. "bilisearch50:{query}"; "": YouTube under the licence rule

    def __post_init__(self) -> None:
        if self.search and _QUERY not in self.search:
            raise ValueError(f"search: {self.search!r} has no {_QUERY} where the words go")
        if not 0 <= self.min_duration_s <= self.max_duration_s:
            raise ValueError(f"min_duration_s: {self.min_duration_s:g} is not from 0 to max_duration_s")
        for name, value in (("unknown_duration_s", self.unknown_duration_s), ("per_source", self.per_source)):
            if value <= 0:
                raise ValueError(f"{name}: {value:g} is not more than 0")


def discover(
    language: Language,
    hours: float,
    options: Discovery,
    access: Access,
    pace: Pace,
    known: Container[str] = frozenset(),
) -> Iterator[Video]:
    """Videos of a language, each once, until `hours` of source are found or every source is read to its end.

    Sources take turns, so a small budget is spread over all queries. Pages of those that are `known` (ids), which may
    grow meanwhile, are not opened: each is a turn of its host. A source that fails is passed over with a
    warning; raises `NetworkError` if all of them fail, and `HostClosedError` when a host wants to be left alone, after
    all that others have was yielded.
    """
    site = Site(access, pace)
    failures: list[str] = []
    sources = [(host, _guarded(source, failures)) for host, source in _sources(language, options, site)]
    found_s, seen = 0.0, set[str]()
    for video in _interleaved(sources):
        if found_s >= hours * 3600:
            return
        if video.id in seen:
            continue
        seen.add(video.id)
        if options.look and video.id not in known and not _spoken_may_be(language.tag, site, video):
            continue
        found_s += wanted_s(video, options.unknown_duration_s)
        yield video
    if not seen and failures:
        raise NetworkError(f"{language.tag}: nothing could be listed; first of {len(failures)} failures: {failures[0]}")


def wanted_s(video: Video, unknown_s: float) -> float:
    """How long the wanted part is, in seconds, as far as its row and its listing say; `unknown_s` where they do not."""
    end_s = video.end_s or video.duration_s
    return max(0.0, end_s - (video.start_s or 0.0)) if end_s else unknown_s


def _sources(language: Language, options: Discovery, site: Site) -> Iterator[tuple[str, Callable[[], Iterable[Video]]]]:
    """Each source with the host that is asked for it, "" where that is not known: a file, yt-dlp's own searches.
    Raises `ManifestError`."""

    def listed(url: str) -> tuple[str, Callable[[], Iterable[Video]]]:
        try:
            host = host_of(url)
        except ValueError as error:
            raise table.ManifestError(f"{language.source}: {refusal(url, error)}") from None
        return host, lambda: _from_site(site, url, language.tag, options)

    def read(path: str) -> tuple[str, Callable[[], Iterable[Video]]]:
        place = _place(language, path)
        return "", lambda: _of_language(language.tag, table.read(place), place)

    search = options.search or _YOUTUBE_SEARCH[language.licence]
    quoted = quote_plus if is_web(search) else str  # yt-dlp's own searches take the words as they are
    yield from (read(path) for path in (*language.files, *language.id_lists))
    yield from (listed(url) for url in (*language.urls, *language.channels, *language.playlists))
    yield from (listed(search.replace(_QUERY, quoted(query))) for query in language.queries)


def _place(language: Language, path: str) -> str:
    """Where a list of a language lies: relative to the language's own file."""
    return path if "://" in path else str(Path(language.source).parent / Path(path).expanduser())


def own_files(language: Language) -> set[str]:
    """Ids of what the language's own lists name that is on no web; nothing of lists that cannot be read now."""
    found: set[str] = set()
    for path in (*language.files, *language.id_lists):
        with contextlib.suppress(table.ManifestError):
            found.update(video.id for video in table.read(_place(language, path)) if not is_web(video.url))
    return found


def _of_language(tag: str, videos: Sequence[Video], place: str) -> Iterator[Video]:
    """Those of a language or of none that is stated, under its tag, by which hours and rules are looked up.

    How many others the list at `place` has is logged in one line.
    """
    own = [video for video in videos if may_be(video.language, tag)]
    if len(own) < len(videos):
        log.warning("%s: for %s, %d rows in other languages left out", place, tag, len(videos) - len(own))
    return (replace(video, language=tag) for video in own)


def _guarded(source: Callable[[], Iterable[Video]], failures: list[str]) -> Iterator[Video]:
    """The videos of one source up to its first failure; opened only when its turn comes."""
    try:
        yield from source()
    except (LookupError, NetworkError) as error:
        failures.append(str(error))
        log.warning("a source was passed over: %s", error)


def _interleaved(sources: Iterable[tuple[str, Iterator[Video]]]) -> Iterator[Video]:
    waiting = list(sources)
    closed: dict[str, HostClosedError] = {}
    while waiting:
        alive = []
        for host, source in waiting:
            if host and host in closed:  # its other listings would ask it for their next pages
                continue
            try:
                video = next(source, None)
            except HostClosedError as why:
                log.warning("left alone: %s", why)
                closed[why.host] = why
                continue
            if video is not None:
                yield video
                alive.append((host, source))
        waiting = alive
    for trouble in closed.values():
        raise trouble


def _from_site(site: Site, url: str, tag: str, options: Discovery, depth: int = 0) -> Iterator[Video]:
    count = 0
    for info in site.entries(url):
        if info.get("_type") == "playlist" or (info.get("ie_key") or "").endswith(("Tab", "Playlist")):
            address = str(info.get("webpage_url") or info.get("url") or "")
            if depth < _DEEPEST and _on_the_web(address):
                yield from _from_site(site, address, tag, options, depth + 1)
            continue
        count += 1
        if count > options.per_source:
            return
        if (video := _video(info, tag, options)) is not None:
            yield video


def _video(info: Info, tag: str, options: Discovery) -> Video | None:
    """The record of one listed video; None for what is live, or too short or long, or spoken in another language, or
    has no address on the web."""
    duration_s = info.get("duration")
    too_far = duration_s and not options.min_duration_s <= duration_s <= options.max_duration_s
    if too_far or info.get("live_status") in LIVE or not may_be(spoken_hint(info), tag):
        return None
    # The videos of a page that shows several have no address but that of their file.
    formats = info.get("formats") or [{}]
    address = str(info.get("webpage_url") or info.get("url") or formats[-1].get("url") or "")
    if is_youtube_id(address):
        address = youtube_url(address)
    if (url := _on_the_web(address)) is None:
        return None
    return Video.of(
        url,
        language=tag,
        title=str(info.get("title") or ""),
        channel=str(info.get("channel") or info.get("uploader") or ""),
        licence=str(info.get("license") or ""),
        duration_s=float(duration_s) if duration_s else None,
    )


def _on_the_web(address: str) -> str | None:
    """The canonical form of an address that a page states, which may be any text: of a file of ours, or a bucket, that
    fetch would copy; or of no address at all."""
    try:
        url = canonical(address)
    except ValueError:
        return None
    return url if is_web(url) else None


def _spoken_may_be(tag: str, site: Site, video: Video) -> bool:
    if not is_web(video.url):
        return True
    try:
        info = site.look(video.url)
    except (NetworkError, HostClosedError):
        return True
    return not isinstance(info, Rejection) and may_be(spoken_hint(info), tag)
