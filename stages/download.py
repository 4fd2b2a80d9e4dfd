"""One file over HTTP, whole or not at all: resumed where it stopped, checked against its published SHA-256."""

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path

_CHUNK_BYTES = 1 << 20
_PAUSES_S = (1.0, 4.0)  # before the second and the third try
_STALL_S = 60.0  # a body that sends nothing for so long counts as broken off


class DownloadError(Exception):
    """The file cannot be had from this address; the message is one line and says why."""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as hex, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(url: str, target: Path, *, sha256: str | None = None, pauses_s: tuple[float, ...] = _PAUSES_S) -> str:
    """Bring `url` to `target` and return the SHA-256 of its bytes.

    The bytes go to `target`.part first, which survives a killed process and is continued by the next call where the
    server names a validator (ETag or Last-Modified) and honours Range. Network trouble and 5xx answers are tried again
    after each of `pauses_s`. Raises `DownloadError` on any other answer, on trouble that lasts, and on a digest that
    differs from `sha256`; `target` then does not come into being. One process at a time: hold a lock.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    for pause_s in (*pauses_s, None):
        try:
            _continue(url, part)
            break
        except (OSError, http.client.HTTPException) as error:
            gone = isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code != 429
            if gone or pause_s is None:
                raise DownloadError(f"{url}: {error}") from error
            time.sleep(pause_s)
    found = sha256_of(part)
    if sha256 is not None and found != sha256:
        _forget(part)
        raise DownloadError(f"{url}: its SHA-256 is {found}, not {sha256}")
    part.replace(target)
    _forget(part)
    return found


def _continue(url: str, part: Path) -> None:
    """Fetch what `part` lacks. The validator of the bytes that it holds lies beside it, in `part`.tag."""
    tag = part.with_name(part.name + ".tag")
    have = part.stat().st_size if part.exists() and tag.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "talkingface-wild", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", tag.read_text())
    try:
        answer = urllib.request.urlopen(request, timeout=_STALL_S)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            _forget(part)
            return _continue(url, part)
        raise
    with answer:
        resumed = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        if not resumed:
            have = 0
            tag.unlink(missing_ok=True)
        length = answer.headers.get("Content-Length")
        with part.open("ab" if resumed else "wb") as file:
            validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
            if validator and not validator.startswith("W/"):
                tag.write_text(validator)
            while chunk := answer.read(_CHUNK_BYTES):
                file.write(chunk)
            got = file.tell() - have
    # `read(n)` of a body that breaks off returns short and does not raise.
    if length is not None and got != int(length):
        raise http.client.IncompleteRead(b"", int(length) - got)
    return None


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_name(part.name + ".tag").unlink(missing_ok=True)
