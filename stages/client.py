"""yt-dlp, kept from what a stranger's page could have it read or open."""

from collections.abc import Callable
from functools import partial
from typing import Any

from stages.ffmpeg import FORMATS

CHANGED = (TypeError, AttributeError, LookupError)
"""What comes out of an extractor whose site looks otherwise than it did. yt-dlp wraps some of it, and of what is read
of a listing later on nothing."""

_LARGEST_PAGE_BYTES = 16 << 20
"""Of a page, feed or list of pieces, unpacked. YouTube's have 1 to 3 MB and feeds of thousands of talks less than 10;
yt-dlp looks through a page that it does not know at half a second per MB, or much more."""

_PIECE_BYTES = 1 << 16  # what is read at a time: a kilobyte that arrives may unpack to a megabyte

_REPAIRS = ("stretched", "m4a", "m3u8", "timestamp", "duration", "duplicatemoov")  # yt-dlp's names of them
_OPENED = {
    # Merges and repairs read the files that were downloaded, and nothing that those name. What is merged keeps its
    # stamps: else ffmpeg begins pictures and sound each at 0, and of HLS that has them apart the sound is 21 ms late.
    # Errors alone, as yt-dlp passes on the last line: it would be "Conversion failed!" where the disk is full.
    "postprocessor_args": {
        "merger": ["-copyts"],
        **{
            f"{name}+ffmpeg_i": ["-loglevel", "error", "-protocol_whitelist", "file", "-format_whitelist", FORMATS]
            for name in ("merger", *(f"fixup{what}" for what in _REPAIRS))
        },
    },
    # What yt-dlp leaves to ffmpeg to download (some kinds of HLS): FFmpeg's own list for what comes by HTTP.
    "external_downloader_args": {"ffmpeg_i": ["-protocol_whitelist", "http,https,tls,tcp,crypto,httpproxy,data"]},
}


def client(options: dict[str, Any]) -> Any:
    """A `YoutubeDL` that gives up a page of more than 16 MiB with an error that `stages.outcomes` takes for
    `not_a_video`, and whose ffmpeg opens no files but those downloaded. Downloads themselves are not bounded."""
    from yt_dlp import YoutubeDL
    from yt_dlp.networking.exceptions import HTTPError

    ydl = YoutubeDL({**options, **_OPENED})
    plain = ydl.urlopen

    def urlopen(request: Any) -> Any:
        try:
            response = plain(request)
        except HTTPError as error:  # some extractors read the page of an error as well
            error.response.read = partial(_read, error.response.read)
            raise
        response.read = partial(_read, response.read)
        return response

    ydl.urlopen = urlopen
    return ydl


def page(ydl: Any, url: str) -> dict[str, Any]:
    """What an extractor says; redirections between extractors are followed, no format is chosen. Raises
    `YoutubeDLError`, and `ValueError` of a page that names an address that is none."""
    from yt_dlp.utils import YoutubeDLError

    try:
        info: dict[str, Any] = ydl.extract_info(url, download=False, process=False)
        while info.get("_type") in ("url", "url_transparent"):
            info = ydl.extract_info(info["url"], download=False, process=False, ie_key=info.get("ie_key"))
    except CHANGED as error:
        raise YoutubeDLError(f"the extractor cannot read this page: {error!r}") from error
    return info


def _read(read: Callable[[int], bytes], size: int | None = None) -> bytes:
    """The next `size` bytes, as downloads ask for them; or the rest, whole, as pages are read."""
    from yt_dlp.utils import YoutubeDLError

    if size is not None:
        return read(size)
    content = bytearray()
    while piece := read(_PIECE_BYTES):
        content += piece
        if len(content) > _LARGEST_PAGE_BYTES:
            raise YoutubeDLError(f"no video in a page that goes on after {_LARGEST_PAGE_BYTES >> 20} MiB")
    return bytes(content)
