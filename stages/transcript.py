"""Transcripts compared: tokens of a text in its language, and the edits between two token lists."""

import unicodedata
from collections.abc import Sequence

UNSPACED = ("zh", "th", "ja")
"""Languages written without spaces between words: compared by character."""

_ARABIC_MARKS = {*range(0x064B, 0x0653), 0x0670, 0x0640}
"""Short vowels, doubling and the stretching stroke: optional in writing."""


def tokens(text: str, language: str) -> list[str]:
    """Words without case and punctuation, characters for languages without spaces."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    kept = [c for c in plain if unicodedata.category(c)[0] not in "PSC" and ord(c) not in _ARABIC_MARKS]
    if language in UNSPACED:
        return [c for c in kept if not c.isspace()]
    return "".join(" " if c.isspace() else c for c in kept).split()


def edits(said: Sequence[str], heard: Sequence[str]) -> int:
    """Fewest insertions, deletions and replacements from one to the other (Levenshtein)."""
    row = list(range(len(heard) + 1))
    for i, one in enumerate(said, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (one != other))
    return row[-1]
