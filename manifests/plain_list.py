"""Lists in plain text: one path or address a line."""

import re
from collections.abc import Iterator

from manifests.columns import ADDRESSES, plain
from manifests.urls import is_web, without_login

_TIMES_BEHIND = re.compile(r"\S*\t|\S+\s+[\d:.,;|\s-]+$|https?://(?:[\w-]+\.)*(?:youtube\.com|youtu\.be)/\S*[,;|]\d")
"""Of an address on the web: columns behind it. It would be fetched without them, of YouTube the whole video; other
sites have commas in their addresses."""


def addresses(text: str) -> Iterator[tuple[int, str]]:
    """The number of each line that says something and its path or address, without a comment behind an address.

    Raises `ValueError` with the line and what it holds, where there are columns.
    """
    first = True
    for number, line in enumerate(text.split("\n"), 1):  # `splitlines` splits at form feeds, U+2028 and others too
        address = line.strip()
        if not address or address.startswith("#"):
            continue
        if is_web(address):
            address = re.split(r"\s#", address, maxsplit=1)[0].rstrip()
        if (first and _is_heading(address)) or _has_columns(address):
            shown = without_login(address)
            raise ValueError(f"line {number}: field url: {shown!r}: one address a line; columns belong in a .csv")
        first = False
        yield number, address


def _has_columns(address: str) -> bool:
    before, scheme, _ = address.partition("://")
    return bool(scheme and re.search(r"[\s,;]", before)) or bool(is_web(address) and _TIMES_BEHIND.match(address))


def _is_heading(line: str) -> bool:
    names = [plain(name.strip(' "')) for name in re.split(r"[,;\t]", line)]
    return len(names) > 1 and not ADDRESSES.isdisjoint(names)
