"""Transcripts: what of a text has times of its own, and two texts compared by the edits between their tokens."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import islice

from manifests.records import Word

UNSPACED = ("zh", "th", "ja", "yue", "lo", "km", "my")
"""Languages written without spaces between words: timed and compared by character."""

_UNIT = re.compile(r"[A-Za-z0-9]+|\S")
_ATTACHED = ("Mn", "Mc", "Po", "Pe", "Pf")
"""Unicode categories of marks, and of punctuation that closes: part of what stands before them."""

Piece = tuple[str, float | None, float | None, float | None]
"""A piece of a text as a model placed it: text, start and end in seconds, score."""

_ARABIC_MARKS = {*range(0x064B, 0x0653), 0x0670, 0x0640}
"""Short vowels, doubling and the stretching stroke: optional in writing."""


def tokens(text: str, language: str) -> list[str]:
    """Words without case and punctuation, characters for languages without spaces."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    kept = [c for c in plain if unicodedata.category(c)[0] not in "PSC" and ord(c) not in _ARABIC_MARKS]
    if language in UNSPACED:
        return [c for c in kept if not c.isspace()]
    return "".join(" " if c.isspace() else c for c in kept).split()


def units(text: str, language: str) -> list[str]:
    """What has times of its own: words with their punctuation, in languages without spaces characters with theirs."""
    if language not in UNSPACED:
        return text.split()
    found: list[str] = []
    for part in _UNIT.findall(text):
        if found and unicodedata.category(part[0]) in _ATTACHED:
            found[-1] += part
        else:
            found.append(part)
    return found


def placed(text: str, language: str, pieces: Iterable[Piece]) -> tuple[Word, ...] | None:
    """The units of a text with the times of its pieces; None where these do not make the same text.

    A piece of several letters gives each an equal part of its time, and none to punctuation.
    """
    letters: list[Piece] = []
    for part, start_s, end_s, score in pieces:
        heard = [unicodedata.category(letter)[0] in "LMNS" for letter in part]
        step_s = 0.0 if start_s is None or end_s is None else (end_s - start_s) / max(1, sum(heard))
        for n, letter in enumerate(part):
            if letter.isspace():
                continue
            if start_s is None or end_s is None or not heard[n]:
                letters.append((letter, None, None, None))
            else:
                from_s = start_s + sum(heard[:n]) * step_s
                letters.append((letter, from_s, from_s + step_s, score))
    if [letter for letter, *_ in letters] != list("".join(text.split())):
        return None
    left = iter(letters)
    return tuple(_word(unit, islice(left, len(unit))) for unit in units(text, language))


def untimed(text: str, language: str) -> tuple[Word, ...]:
    """The units of a text without times."""
    return tuple(_word(unit, ()) for unit in units(text, language))


def _word(unit: str, letters: Iterable[Piece]) -> Word:
    timed = [(start, end, score) for _, start, end, score in letters if start is not None and end is not None]
    if not timed:
        return Word(text=unit, start_s=None, end_s=None, score=None)
    scores = [score for *_, score in timed if score is not None]
    return Word(
        text=unit,
        start_s=round(float(min(start for start, *_ in timed)), 3),
        end_s=round(float(max(end for _, end, _ in timed)), 3),
        score=round(float(sum(scores) / len(scores)), 3) if scores else None,
    )


def edits(said: Sequence[str], heard: Sequence[str]) -> int:
    """Fewest insertions, deletions and replacements from one to the other (Levenshtein)."""
    row = list(range(len(heard) + 1))
    for i, one in enumerate(said, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (one != other))
    return row[-1]
