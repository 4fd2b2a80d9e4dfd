"""Text from outside, as UTF-8 can hold it."""

import unicodedata
from typing import Any


def folded(name: str) -> str:
    """The name or address of a channel, the same however its letters and edges are written: `ü` is one sign or two."""
    return unicodedata.normalize("NFC", name.strip().casefold())


def storable(plain: Any) -> Any:
    """The same builtins, with halves of UTF-16 pairs joined in all texts (yt-dlp reads `&#55357;&#56832;`, a smile, as
    two), and what stays alone, or is a byte of a file name that is not UTF-8, as U+FFFD."""
    if isinstance(plain, str):
        return plain if plain.isascii() else plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(plain, dict):
        return {storable(name): storable(value) for name, value in plain.items()}
    return [storable(value) for value in plain] if isinstance(plain, list | tuple) else plain
