"""One spelling for each address, so that one video is one record however it was found."""

import os
import re
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

_YOUTUBE_ID = re.compile(r"[0-9A-Za-z_-]{11}")
_NO_IDS = {"videoseries", "live_stream"}  # players of a whole list, and of what a channel shows just now
_YOUTUBE_HOSTS = {"youtube.com", "m.youtube.com", "music.youtube.com", "youtube-nocookie.com"}
_SHAPES = "shorts|embed|live|v"
_MORE_SHAPES = f"{_SHAPES}|watch|e"  # whose addresses lists have had as they stand: as watch pages they had other ids
_TRACKING = re.compile(r"utm_.*|si|share|feature|fbclid|gclid")
_HOST = re.compile(r"(?:[0-9a-z-]{1,63}\.){1,3}[a-z]{2,24}", re.IGNORECASE)


def canonical(url: str) -> str:
    """The URL without its fragment, host in lower case; every form of a YouTube video's address as its watch page.
    Raises `ValueError` for what can be no URL.

    >>> canonical("https://youtu.be/abcdefghijk?t=9")
    'https://www.youtube.com/watch?v=abcdefghijk'
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return url
    if not parts.hostname:
        raise ValueError("no host")
    _ = parts.hostname.encode("idna"), parts.port  # they raise what asking the host would, too late to name a place
    host = parts.hostname.removeprefix("www.")
    if found := _youtube_id(host, parts.path, parts.query, _SHAPES):
        return youtube_url(found)
    user, at, place = parts.netloc.rpartition("@")  # a password knows large from small
    return urlunsplit((parts.scheme, f"{user}{at}{place.lower()}", parts.path, parts.query, ""))


def _youtube_id(host: str, path: str, query: str, shapes: str) -> str:
    found = ""
    if host == "youtu.be":
        found = path.strip("/")
    elif host in _YOUTUBE_HOSTS:
        shape = re.fullmatch(rf"/(?:{shapes})/([^/]+)/?", path)
        found = shape[1] if shape else (parse_qs(query).get("v") or [""])[0]
    return found if is_youtube_id(found) and found not in _NO_IDS else ""


def loose(url: str) -> str:
    """One key for the spellings that most likely lead to one video: for what must not come back, and never for ids.

    Without scheme, login, default port, `www.`, a slash or dot at the end and what only counts visits; of a file where
    its links lead on this machine.

    >>> loose("http://www.vimeo.com:80/76979871/?share=copy")
    '//vimeo.com/76979871'
    """
    if "://" not in url or url[:7].lower() == "file://":
        return os.path.realpath(local(url))
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip(".").removeprefix("www."), parts.port
    except ValueError:  # nobody can fetch it either
        return url
    if parts.scheme not in ("http", "https"):
        return url
    path = unquote(parts.path).rstrip("/.")
    if found := _youtube_id(host.removeprefix("gaming."), path, parts.query, _MORE_SHAPES):
        return youtube_url(found)
    if host == "player.vimeo.com" and path.startswith("/video/"):
        host, path = "vimeo.com", path.removeprefix("/video")
    asked = sorted(pair for pair in parse_qsl(parts.query, keep_blank_values=True) if not _TRACKING.fullmatch(pair[0]))
    place = host if port in (None, 80, 443) else f"{host}:{port}"
    return f"//{place}{path}" + (f"?{urlencode(asked)}" if asked else "")


def public(url: str) -> str:
    """The same address for others: without who logs in at it."""
    return re.sub(r"(?<=://)[^/?#\s]*@", "", url, count=1)


def without_login(url: str) -> str:
    """A URL that is refused, as it may be shown: without who logs in at it, wrongly spelled or not (a `/` in a password
    ends the host)."""
    return re.sub(r"//.*@", "//***@", url, flags=re.DOTALL)


def refusal(url: str, why: ValueError) -> str:
    """Why `canonical` refuses a URL, without who logs in at it, and then without what the error quotes.

    >>> refusal("http://me:s3/cr3t@host/a", ValueError("port 's3'"))
    "'http://***@host/a' cannot be an address: port ***"
    """
    shown = without_login(url)
    said = str(why) if shown == url else re.sub(r"'.*'", "***", str(why), flags=re.DOTALL)
    return f"{shown!r:.200} cannot be an address: {said}"


def local(text: str) -> str:
    """The path that a `file://` URL names, unquoted, and `~/` as the home folder; any other text as it is.

    >>> local("file:///talks/a%20b.mp4")
    '/talks/a b.mp4'
    """
    if text[:7].lower() == "file://":
        text = unquote(text[7:])
        text = text.removeprefix("localhost") if text.startswith("localhost/") else text
    return str(Path(text).expanduser()) if text == "~" or text.startswith("~/") else text


def host_without_scheme(text: str) -> str:
    """The host that an address without its `https://` seems to begin with, in lower case, or nothing."""
    first, slash, _ = text.partition("/")
    return first.lower() if slash and _HOST.fullmatch(first) else ""


def is_web(url: str) -> bool:
    """Whether an address is one of the web, where pages are, and not of a disk or a bucket."""
    return url[:8].lower().startswith(("http://", "https://"))  # phones begin a line with a capital


def is_web_host(host: str) -> bool:
    """Whether a name is that of a web site for sure: `www.` and YouTube's own."""
    return host.startswith("www.") or host in _YOUTUBE_HOSTS or host == "youtu.be"


def is_youtube_id(text: str) -> bool:
    """Whether a text has the form of a YouTube video id."""
    return _YOUTUBE_ID.fullmatch(text) is not None


def youtube_url(video_id: str) -> str:
    """The watch page of a YouTube video."""
    return f"https://www.youtube.com/watch?v={video_id}"
