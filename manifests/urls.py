"""One spelling for each address, so that one video is one record however it was found."""

import re
from urllib.parse import parse_qs, urlsplit, urlunsplit

_YOUTUBE_ID = re.compile(r"[0-9A-Za-z_-]{11}")
_YOUTUBE_HOSTS = {"youtube.com", "m.youtube.com", "music.youtube.com", "youtube-nocookie.com"}


def canonical(url: str) -> str:
    """The URL without its fragment, host in lower case; every form of a YouTube video's address as its watch page.

    >>> canonical("https://youtu.be/abcdefghijk?t=9")
    'https://www.youtube.com/watch?v=abcdefghijk'
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return url
    host = (parts.hostname or "").removeprefix("www.")
    found = ""
    if host == "youtu.be":
        found = parts.path.strip("/")
    elif host in _YOUTUBE_HOSTS:
        shape = re.fullmatch(r"/(?:shorts|embed|live|v)/([^/]+)/?", parts.path)
        found = shape[1] if shape else (parse_qs(parts.query).get("v") or [""])[0]
    if is_youtube_id(found):
        return youtube_url(found)
    user, at, place = parts.netloc.rpartition("@")  # a password knows large from small
    return urlunsplit((parts.scheme, f"{user}{at}{place.lower()}", parts.path, parts.query, ""))


def is_youtube_id(text: str) -> bool:
    """Whether a text has the form of a YouTube video id."""
    return _YOUTUBE_ID.fullmatch(text) is not None


def youtube_url(video_id: str) -> str:
    """The watch page of a YouTube video."""
    return f"https://www.youtube.com/watch?v={video_id}"
