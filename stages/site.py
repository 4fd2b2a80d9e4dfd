"""Videos from web sites, by yt-dlp as a library: the one place that asks them for anything."""

import contextlib
import io
import logging
import random
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.cookiejar import LoadError
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from manifests.scratch import prefix
from manifests.text import storable
from pipeline.stage import Rejection, put_off_deadline
from stages.client import CHANGED, client, page
from stages.ffmpeg import bounded_ffmpeg
from stages.outcomes import NetworkError, Refused, Unreachable, outcome
from stages.politeness import HostClosedError, Manners, Pace, host_of

log = logging.getLogger(__name__)

Info = dict[str, Any]
"""What yt-dlp knows of a video: its info dictionary."""

Vet = Callable[[Info], Rejection | None]
"""Looks at a video's page before anything is downloaded."""

_EXTRACTOR_ARGS = re.compile(r"[\w-]+:[\w-]+(=|$)")
_PROXY = re.compile(r"((https?|socks(4a?|5h?)?)://)?[^/\s]+/?")
_LONGEST_FFMPEG_S = 1800.0
_MOST_RESUMED = 100  # tries that brought more: the 8 GB that `Fetch` takes, of a host that hangs up every 50 MB
_LEAST_MORE_BYTES = 1 << 20  # of such a try: one more byte each would hold a worker for hours

# YouTube's AI-upscaled pictures (248-sr) and boosted voices (140-vb; yt-dlp#13515) beside the real ones. yt-dlp ranks
# them no lower: of an upload in 480p the invented 1080p would win.
_REAL = r"[format_id!~='^\d+-(sr|vb)\b']"
_FORMATS = f"bv*{_REAL}+ba{_REAL}/b{_REAL}/bv*+ba/b/bv*"

TRAFFIC = Manners(interval_s=1.0)
"""Turns by which workers share the rate of a host: one of them reads the bytes of a second in each."""
_NEWS = ("cookies are no longer valid", "No supported JavaScript runtime")  # yt-dlp's words
LIVE = {"is_live", "is_upcoming", "post_live"}  # of yt-dlp's `live_status`

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Access:
    """How a site is reached. Nothing here changes what a video contains. Raises `ValueError` for what cannot work."""

    cookies: str = ""  # Netscape cookies file, any fsspec URL; it is copied, never written to
    proxy: str = ""
    rate_limit_bytes_per_s: float | None = None  # from one host, of all workers together
    # between the page requests of one video; yt-dlp's own advice. `Manners` says how often all workers may begin one
    sleep_between_requests_s: float = 0.75
    extractor_args: tuple[str, ...] = ()  # in yt-dlp's own syntax: "youtube:player_client=default,mweb"
    stall_s: float = 30.0  # no byte for so long ends a try
    tries: int = 4  # without those that went a MiB further than the ones before: what has arrived is resumed
    backoff_s: float = 2.0  # before the second try; doubles with each
    refusal_wait_s: float = 60.0  # after a refusal that did not say how long
    longest_download_s: float = 5400.0  # of one try, but for the time that a rate limit of ours takes

    def __post_init__(self) -> None:
        if self.cookies and "://" not in self.cookies and not Path(self.cookies).is_file():
            raise ValueError(f"cookies: no such file: {self.cookies}")
        if self.proxy and not _PROXY.fullmatch(self.proxy):  # which may hold a password
            raise ValueError("proxy: not like http://host:port or socks5://host:port")
        for text in self.extractor_args:
            if not _EXTRACTOR_ARGS.match(text):
                raise ValueError(f"extractor_args: {text!r} is not like 'youtube:player_client=default,mweb'")
        if self.tries < 1:
            raise ValueError(f"tries: {self.tries} is not at least 1")
        if self.rate_limit_bytes_per_s is not None and self.rate_limit_bytes_per_s <= 0:
            raise ValueError(f"rate_limit_bytes_per_s: {self.rate_limit_bytes_per_s:g} is not more than 0")

    def check(self) -> None:
        """Read the cookies file as yt-dlp will, before it costs videos their tries. Raises `ValueError`, `OSError`."""
        if not self.cookies:
            return
        from yt_dlp.cookies import YoutubeDLCookieJar

        jar = YoutubeDLCookieJar()
        try:
            with fsspec.open(self.cookies, "r", encoding="utf-8") as file:
                with contextlib.redirect_stderr(io.StringIO()):  # a warning for every line that is passed over
                    jar.load(file)
        except (LoadError, UnicodeDecodeError):
            jar.clear()
        if not len(jar):
            form = "its first line '# Netscape HTTP Cookie File', then seven fields a line with tabs between; not JSON"
            raise ValueError(f"cookies: {self.cookies} holds no cookies in the form of cookies.txt: {form}")

    def page_language(self) -> str:
        """The language that YouTube's pages are asked for in, "en" unless `extractor_args` say otherwise."""
        return str((_extractor_args(self).get("youtube", {}).get("lang") or ["en"])[0])


@dataclass(frozen=True)
class Downloaded:
    """A file of one video and what its page said."""

    path: Path
    info: Info


class _VetoError(Exception):
    """Carries a rejection out of yt-dlp's callbacks."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(rejection.reason)
        self.rejection = rejection


class _Silence:
    """yt-dlp's log: warnings to ours, errors arrive as exceptions."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def debug(self, message: str) -> None:
        """Progress lines are of no use in a log."""

    def info(self, message: str) -> None:
        """As `debug`."""

    def warning(self, message: str) -> None:
        """What a person may want to know. Aloud and once what none would find in rejections: that no cookies count any
        more, that YouTube gives less for want of a program."""
        news = {words for words in _NEWS if words in message} - self._told
        self._told |= news
        log.log(logging.ERROR if news else logging.INFO, "yt-dlp: %s", message)

    def error(self, message: str) -> None:
        """Raised as well, and classified there."""
        log.debug("yt-dlp: %s", message)


class Site:
    """A worker's way to videos on the web. Not for several threads at once."""

    def __init__(self, access: Access, pace: Pace, traffic: Pace | None = None) -> None:
        """`traffic`: in turns of `TRAFFIC`, by which all workers share `rate_limit_bytes_per_s` of downloads."""
        self._access = access
        self._pace = pace
        self._traffic = traffic
        self._folder = tempfile.TemporaryDirectory(prefix=prefix("site"))
        folder = Path(self._folder.name)
        self._options: dict[str, Any] = {
            **_reach(access, folder),
            "quiet": True,
            "no_warnings": False,
            "noprogress": True,
            "no_color": True,
            "logger": _Silence(),
            "cachedir": False,
            "ffmpeg_location": str(bounded_ffmpeg(folder, _LONGEST_FFMPEG_S)),
        }

    def download(
        self, url: str, folder: Path, *, max_height_px: int, max_size_bytes: int, vet: Vet
    ) -> Downloaded | Rejection:
        """Download one video, h264 in mp4 at most `max_height_px` high by preference, the spoken original's sound.

        Raises `HostClosedError` if the host sends us away, `NetworkError` after all tries.
        """
        options = {
            **self._options,
            "format": _FORMATS,
            # "lang" first: a site's dubbed sound tracks never win by their codec. "res" is the shorter side.
            "format_sort": ["lang", f"res:{max_height_px}", "vcodec:h264", "acodec:aac"],
            "merge_output_format": "mp4/mkv",
            "paths": {"home": str(folder)},
            "outtmpl": {"default": "source.%(ext)s"},
            "noplaylist": True,
            "playlist_items": "1:2",
            "match_filter": _match_filter(vet),
        }
        share = _share(self._traffic, host_of(url), self._access.rate_limit_bytes_per_s)

        def once() -> Downloaded:
            limits = _limits(max_size_bytes, self._access.longest_download_s, share)
            return _downloaded({**options, "progress_hooks": [limits]}, url)

        return self._retrying(host_of(url), once, lambda: sum(path.stat().st_size for path in folder.iterdir()))

    def entries(self, url: str) -> Iterable[Info]:
        """The videos of a search, channel, playlist, feed or page, lazily: info dictionaries, most of them flat.

        Raises as `download` does; a page that cannot be read for its own fault raises `LookupError`.
        """
        options = {**self._options, "extract_flat": "in_playlist", "lazy_playlist": True, "noplaylist": False}
        found = self._retrying(host_of(url), lambda: _opened(options, url))
        if isinstance(found, Rejection):
            raise LookupError(f"{url}: {found.reason}: {found.measured.get('said', '')}")
        return self._listing(host_of(url), found)

    def look(self, url: str) -> Info | Rejection:
        """What a video's page says, without a download. Raises as `download` does."""
        return self._retrying(host_of(url), lambda: _looked({**self._options, "noplaylist": True}, url))

    def _listing(self, host: str, entries: Iterable[Info]) -> Iterator[Info]:
        """Listings ask for their next page while they are read."""
        from yt_dlp.utils import YoutubeDLError

        try:
            yield from map(storable, entries)
        except (YoutubeDLError, ValueError, *CHANGED) as error:
            result = outcome(error)
            if isinstance(result, Refused):
                self._wait(host, self._access.tries, result)
                raise HostClosedError(host, result.said) from None
            raise LookupError(f"{host}: {error}") from None

    def _retrying(self, host: str, once: Callable[[], T], arrived: Callable[[], int] = lambda: 0) -> T | Rejection:
        """`arrived`: bytes on the disk. A try that left a MiB more than all before does not count, within bounds."""
        from yt_dlp.utils import YoutubeDLError

        tries = resumed = most = 0
        while tries < self._access.tries:
            self._pace.ask(host)
            put_off_deadline()
            try:
                found = once()
            except _VetoError as veto:
                self._pace.served(host)
                return veto.rejection
            except (YoutubeDLError, ValueError) as error:  # the latter of a page that names an address like http://[
                result = outcome(error)
            else:
                self._pace.served(host)
                return found
            if isinstance(result, Rejection):
                # Many files in a row that a host forbids are more likely about us than about them.
                (self._pace.refused(host, 0.0) if result.reason == "blocked" else self._pace.served(host))
                if result.reason != "truncated":
                    return result
            size = arrived()
            if 0 < most <= size - _LEAST_MORE_BYTES and resumed < _MOST_RESUMED and not isinstance(result, Refused):
                resumed += 1
            else:
                tries += 1
            most = max(most, size)
            self._wait(host, tries, result)
        if isinstance(result, Rejection):
            return result
        if isinstance(result, Refused):
            raise HostClosedError(host, result.said)
        raise NetworkError(f"{host}: {result.said}")

    def _wait(self, host: str, tries: int, result: Rejection | Refused | Unreachable) -> None:
        if isinstance(result, Refused):
            self._pace.refused(host, self._access.refusal_wait_s if result.wait_s is None else result.wait_s)
            return  # the next turn is not before that
        if tries < self._access.tries:
            # Jitter, or all workers that a server's restart threw out come back at once.
            time.sleep(self._access.backoff_s * 2 ** (tries - 1) * random.uniform(0.8, 1.2))


def spoken_hint(info: Info) -> str:
    """The language that a site says is spoken (BCP-47), or "".

    YouTube marks the caption track that its recogniser made of the original sound `xx-orig`; others state a language.
    """
    for name in info.get("automatic_captions") or {}:
        if name.endswith("-orig"):
            return str(name).removesuffix("-orig")
    return str(info.get("language") or "")


def version() -> str:
    """The installed yt-dlp, e.g. "yt-dlp 2026.08.19"."""
    from yt_dlp.version import __version__

    return f"yt-dlp {__version__}"


def _reach(access: Access, folder: Path) -> dict[str, Any]:
    """The options by which every request is made."""
    options: dict[str, Any] = {
        "socket_timeout": access.stall_s,
        "retries": 1,  # resumes a broken body; the rest of the patience is ours: yt-dlp ignores Retry-After
        "fragment_retries": 3,
        "retry_sleep_functions": {"fragment": lambda n: access.backoff_s * 2**n},  # else all at once
        "skip_unavailable_fragments": False,  # a hole in the middle shifts sound against picture
        "extractor_retries": 1,
        "geo_bypass": False,
        "sleep_interval_requests": access.sleep_between_requests_s,
        "proxy": access.proxy or None,
    }
    if access.cookies:
        own = folder / "cookies.txt"  # yt-dlp writes the jar back at the end: never to a file that workers share
        with fsspec.open(access.cookies, "rb") as source, own.open("wb") as target:
            shutil.copyfileobj(source, target)
        options["cookiefile"] = str(own)
    options["extractor_args"] = _extractor_args(access)
    return options


def _extractor_args(access: Access) -> dict[str, dict[str, list[str]]]:
    """By extractor, then by argument: its values."""
    if not access.extractor_args:
        return {}
    from yt_dlp import parse_options

    arguments = [part for text in access.extractor_args for part in ("--extractor-args", text)]
    found: dict[str, dict[str, list[str]]] = parse_options(arguments).ydl_opts["extractor_args"]
    return found


def _match_filter(vet: Vet) -> Callable[..., None]:
    def match(info: Info, *, incomplete: bool = False) -> None:
        if (info.get("n_entries") or 1) > 1:
            raise _VetoError(Rejection("playlist", {"said": "several videos at this address", "entries_at_least": 2.0}))
        if not incomplete and (rejection := vet(info)) is not None:
            raise _VetoError(rejection)

    return match


def _limits(max_size_bytes: int, longest_s: float, share: Callable[[Info], None]) -> Callable[[Info], None]:
    begin_s = time.monotonic()

    def hook(progress: Info) -> None:
        nonlocal begin_s
        size = max(progress.get("downloaded_bytes") or 0, progress.get("total_bytes") or 0)
        if size > max_size_bytes:
            raise _VetoError(Rejection("too_big", {"bytes_at_least": float(size), "limit": float(max_size_bytes)}))
        if time.monotonic() - begin_s > longest_s:
            raise NetworkError(f"download not done after {longest_s:.0f} s")
        waiting_s = time.monotonic()
        share(progress)
        begin_s += time.monotonic() - waiting_s  # many workers may share little: no fault of the host's, nor a hang

    return hook


def _share(traffic: Pace | None, host: str, limit_bytes_per_s: float | None) -> Callable[[Info], None]:
    """Pays for what arrived by turns, of which each worker has its own, and reads on when they have come."""
    paid = seen = 0.0

    def hook(progress: Info) -> None:
        nonlocal paid, seen
        if traffic is None or limit_bytes_per_s is None:
            return
        size = float(progress.get("downloaded_bytes") or 0)
        paid -= size - seen if size >= seen else size  # less: another file, or the same from its start
        seen = 0.0 if progress.get("status") == "finished" else size
        while paid < 0:
            traffic.ask(host)
            put_off_deadline()
            paid += limit_bytes_per_s * TRAFFIC.interval_s

    return hook


def _downloaded(options: dict[str, Any], url: str) -> Downloaded:
    from yt_dlp.utils import DownloadError

    with client(options) as ydl:
        info = ydl.extract_info(url)
        if info and info.get("_type") == "playlist":
            info = next(iter(info.get("entries") or ()), None)
        files = (info or {}).get("requested_downloads") or [{}]
        if not info or not files[0].get("filepath"):
            raise DownloadError("no video formats found")
        return Downloaded(Path(files[0]["filepath"]), ydl.sanitize_info(info))


def _opened(options: dict[str, Any], url: str) -> Iterable[Info]:
    """What a page lists, read lazily; the page itself if it is a video's."""
    info = page(client(options), url)
    if info.get("_type") in ("playlist", "multi_video"):
        return (entry for entry in info.get("entries") or () if entry)
    return [info]


def _looked(options: dict[str, Any], url: str) -> Info:
    """A video's page; with the language of its preferred sound if it states none itself and the sound has but one.

    Not with `ignore_no_formats_error`: "not a bot?" would be a warning then, and the page of a video without formats.
    """
    with client(options) as ydl:
        info = page(ydl, url)
    sounds = [one for one in info.get("formats") or () if one.get("language")]
    most = max((one.get("language_preference") or -1 for one in sounds), default=-1)
    tags = {str(one["language"]) for one in sounds if (one.get("language_preference") or -1) == most}
    return info if info.get("language") or len(tags) != 1 else {**info, "language": tags.pop()}
