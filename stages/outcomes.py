"""What went wrong with a download: something about the video, a host that sends us away, or the network.

yt-dlp tells most of it in words. The patterns below are from its extractors' messages (2026.08) and, for YouTube,
from the site's own playability reasons; HTTP statuses are used where no words say more.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from pipeline.stage import Rejection


class NetworkError(Exception):
    """The download failed for a reason that says nothing about the video, after all tries."""


@dataclass(frozen=True)
class Refused:
    """The host asks us to go away for a while; `wait_s` is its `Retry-After`, if it sent one."""

    said: str
    wait_s: float | None = None


@dataclass(frozen=True)
class Unreachable:
    """The network, the server or the extractor failed."""

    said: str


_REFUSED = re.compile(
    r"(not|as) a bot\b|captcha|too many requests|HTTP Error 429|rate-?limit|try (again )?later|unusual traffic"
    r"|(blocked|rejected) by server|likely being blocked|your IP address is unable",
    re.IGNORECASE,
)

_REASONS = (
    # The order matters: "Join this channel" pages and age gates also say "sign in".
    ("live", r"live event (will begin|has not started)|premieres? (in|will)|is live|not currently live|is offline"),
    (
        "members_only",
        r"members?[- ]only|join this channel|available to .{0,40}members|requires? payment|purchase|rental"
        r"|subscription needed|for subscribers|is paid,|participating tv providers|not have access to",
    ),
    ("age", r"confirm your age|age[- ]?restricted|inappropriate for some users|age verification|over 18"),
    (
        "geo",
        r"in your (country|region|location)|geo.?(restrict|block)|from your location|on this country domain"
        r"|not available in .{0,40}(country|region)",
    ),
    (
        "private",
        r"private video|video is private|is private|login required|log ?in to|sign in|registered users|--cookies"
        r"|password[- ]protected|protected by a pass(word|code)",
    ),
    (
        "gone",
        r"video (is )?(unavailable|not available)|no longer available|available any ?more|not archived"
        r"|(has been|was) (removed|deleted|terminated)|does ?n.t exist|no longer exists|copyright (claim|grounds)"
        r"|account .{0,40}(terminated|closed)|removed by the (uploader|user)|not found|incomplete youtube id",
    ),
    ("blocked", r"drm protect|blocked it|who has blocked|your IP address is blocked"),
    (
        "not_a_video",
        r"unsupported url|no video formats|no (media|video|videos) (found|in)|requested format is not available"
        r"|there.s no video|no video could be found|is not a video|not (contain|have) (a|any) video|not a valid url"
        r"|site is (not|no longer) supported|forget to quote the url",
    ),
    (
        "truncated",
        r"bytes read, \d+ more expected|downloaded \d+ bytes, expected \d+ bytes|did not get any data blocks",
    ),
)
_NO_FORMATS = re.compile(r"^\[youtube\b.*(requested format is not available|no video formats found)", re.IGNORECASE)
"""Every video there has formats: what is missing is the program that solves the site's riddles, or a newer yt-dlp."""

_PATTERNS = tuple((reason, re.compile(pattern, re.IGNORECASE)) for reason, pattern in _REASONS)

_STATUSES = {401: "private", 402: "members_only", 403: "blocked", 404: "gone", 410: "gone", 451: "geo"}
_FORBIDDEN = 403
_TOO_MANY = {412, 429}  # the first is Bilibili's; nothing that we ask has a condition that could fail
_LONGEST_WAIT_S = 86400.0
_LONGEST_SAID = 300  # letters of what is recorded
_NAMES = re.compile(r"https?://\S+|'[^' ]*\.[^' ]*'")
_DATA = "unable to download video data"
_NO_HANDLER = "Unable to handle request"  # of a proxy that yt-dlp cannot use, say; then it also names all it cannot
_PIECE_FORBIDDEN = "Got error: HTTP Error 403"  # of a stream in pieces: only the words arrive, without the status
_SERVER_ERRORS = range(500, 600)


def outcome(error: BaseException, now_s: float | None = None) -> Rejection | Refused | Unreachable:
    """Sort an exception raised by yt-dlp.

    What no pattern and no status explains is `Unreachable`: a video is only rejected for a reason that was stated.
    """
    from yt_dlp.utils import GeoRestrictedError

    full = _said(error)
    said, words = full[:_LONGEST_SAID], _words(full, error)
    status, headers, looped = _http(error)
    wait_s = retry_after_s(headers.get("Retry-After"), time.time() if now_s is None else now_s)
    # A page that was served and whose data is forbidden: the address of the data was made for somebody else, or the
    # tool is out of date. YouTube does this to robots; it is never about the one video.
    data_forbidden = (status == _FORBIDDEN and _DATA in said) or _PIECE_FORBIDDEN in said
    told_to_wait = status in _SERVER_ERRORS and wait_s is not None
    if status in _TOO_MANY or data_forbidden or told_to_wait or _REFUSED.search(words):
        return Refused(said, wait_s)
    if status in _SERVER_ERRORS or _NO_FORMATS.search(said) or _NO_HANDLER in said:
        return Unreachable(said)
    measured: dict[str, float | str] = {"said": said}
    if status is not None:
        measured["status"] = status
    if looped:
        return Rejection("gone", measured)
    if any(isinstance(cause, GeoRestrictedError) for cause in _causes(error)):  # in the words of each site
        return Rejection("geo", measured)
    for reason, pattern in _PATTERNS:
        if pattern.search(words):
            return Rejection(reason, measured)
    if status in _STATUSES:
        return Rejection(_STATUSES[status], measured)
    return Unreachable(said)


def retry_after_s(value: str | None, now_s: float) -> float | None:
    """The seconds that a `Retry-After` header asks for (RFC 9110: a number, or a date); None without a usable one.

    A day at most: some hosts send the time of day there, or milliseconds, and would be closed for years.
    """
    if not value:
        return None
    try:
        wait_s = float(value) if value.strip().isdecimal() else parsedate_to_datetime(value).timestamp() - now_s
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, wait_s), _LONGEST_WAIT_S)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    due: list[object] = [error]
    while due:
        found = due.pop(0)
        if not isinstance(found, BaseException) or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        carried = getattr(found, "exc_info", None) or (None, None)
        due += [carried[1], getattr(found, "cause", None), found.__cause__, found.__context__]


def _http(error: BaseException) -> tuple[int | None, dict[str, str], bool]:
    from yt_dlp.networking.exceptions import HTTPError

    for cause in _causes(error):
        if isinstance(cause, HTTPError):
            return cause.status, cause.response.headers, cause.redirect_loop
    return None, {}, False


def _said(error: BaseException) -> str:
    """The message without terminal colours, yt-dlp's "ERROR:" and its advice to report a bug; one line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).removeprefix("ERROR: ").replace("’", "'")
    text = text.partition("; please report this issue")[0]
    return " ".join(text.split())


def _words(said: str, error: BaseException) -> str:
    """What is said without names: ids (of a file its own name), addresses and hosts may have any words in them."""
    for cause in _causes(error):
        if name := getattr(cause, "video_id", None):
            said = said.replace(" ".join(f"{name}: ".split()), "", 1)
    return _NAMES.sub("", said)
