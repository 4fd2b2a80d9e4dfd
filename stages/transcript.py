"""Transcripts: what of a text has times of its own, and two texts compared by the edits between their tokens."""

import re
import unicodedata
import zlib
from collections.abc import Iterable, Sequence
from itertools import groupby, islice

from manifests.records import Word

UNSPACED = ("zh", "th", "ja", "yue", "lo", "km", "my")
"""Languages written without spaces between words: timed and compared by character."""

_SPACED = r"[0-9A-Za-z\u00c0-\u024f\u0300-\u052f\u1e00-\u1eff\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]+"
_UNIT = re.compile(rf"(?:[$€£¥￥](?=\d))?{_SPACED}(?:(?:['’‐-]|(?<=\d)[.,:](?=\d)){_SPACED})*|\S")
"""Of a text without spaces: words and numbers in Latin, Greek and Cyrillic letters are one ("don't", "10,000")."""

_OPENING = ("Ps", "Pi")
"""Unicode categories of brackets and quotation marks that open: part of what stands behind them."""

Piece = tuple[str, float | None, float | None, float | None]
"""A piece of a text as a model placed it: text, start and end in seconds, score."""

MAX_REPETITION = 2.4
"""Above it Whisper itself takes a text for a loop. Two sentences said three times over read 1.9 (Chinese) to 3.0, twice
at most 2.0."""

_PIECE = 500
"""Letters that are looked at together, half a minute of speech. The more there are, the more words zlib has seen
before: 8,000 of plain English read 2.3 to 2.8 together, 2.0 to 2.2 by pieces."""

_LEAST_REPEATED = 50
"""Letters below which "no, no, no ..." may well have been said."""

_ARABIC_MARKS = {*range(0x064B, 0x0653), 0x0670, 0x0640}
"""Short vowels, doubling and the stretching stroke: optional in writing."""


_CREDITS = (
    "amaraorg",  # in every language
    "transcription by castingwords",
    "untertitelung des zdf", "untertitel im auftrag des zdf", "untertitelung im auftrag des zdf",
    "untertitel von stephanie geiges", "untertitelung br 2018", "copyright wdr", "swr 2020", "swr 2021",
    "soustitrage société radiocanada", "soustitrage st 501", "soustitrage mfp", "soustitres mfp", "soustitreurcom",
    "субтитры сделал", "субтитры создавал", "субтитры подогнал", "редактор субтитров", "dimatorzok",
    "ترجمة نانسي قنقر",
    "明镜与点点栏目", "明鏡與點點欄目", "字幕志愿者", "字幕志願者",
    "字幕by", "索兰娅", "优优独播剧场", "優優獨播劇場", "yoyo television",
    "titlovicom", "zeorangercouk", "moojiorg", "alimmentacom", "multimotoeu",
)  # fmt: skip
"""Who made the subtitles that Whisper learned from, as `tokens` has it: what it writes of music and noise. Phrases that
people do say at the end of a video ("thanks for watching") are none: alone under a longer voice they are few words."""


class _Plain(dict[int, str | None]):
    """What `tokens` leaves of a character, by its code, worked out once: rules ask it of every clip, several times."""

    def __missing__(self, code: int) -> str | None:
        letter = chr(code)
        is_left_out = unicodedata.category(letter)[0] in "PSC" or code in _ARABIC_MARKS
        self[code] = " " if letter.isspace() else None if is_left_out else letter  # a line feed is of category C
        return self[code]


_PLAIN = _Plain()

_NUMBER = 3
"""Letters that a digit, or a sign in a sum or before a price, stands for at least: "6", "+", "$"."""

_SYLLABLES = {"CJK": 3, "IDEOGRAPHIC": 3, "HIRAGANA": 3, "KATAKANA": 3, "HANGUL": 2, "ETHIOPIC": 2}
"""[own] Letters that a character which is a syllable stands for, by the first word of its Unicode name. The sample
world's voices say 2.7 to 3.3 Chinese characters a second, and 6 letters and more."""


class _Weights(dict[str, int]):
    """How many letters a character counts as, worked out once."""

    def __missing__(self, letter: str) -> int:
        category = unicodedata.category(letter)
        if category[0] == "N" or (category in ("Sm", "Sc") and letter != "~"):  # "Hi~" says no more than "Hi"
            self[letter] = _NUMBER
        elif _PLAIN[ord(letter)] in (None, " "):
            self[letter] = 0
        else:
            script = re.split("[ -]", unicodedata.name(letter, ""), maxsplit=1)[0]
            self[letter] = _SYLLABLES.get(script, 1)
        return self[letter]


_WEIGHTS = _Weights()


def tokens(text: str, language: str) -> list[str]:
    """Words without case and punctuation, characters for languages without spaces."""
    words = _of_one_form(text).translate(_PLAIN).split()
    return list("".join(words)) if language in UNSPACED else words


def n_letters(text: str) -> int:
    """Letters of a text in any script, and their marks: a Chinese or Japanese character counts as three, a Korean or
    Ethiopic syllable as two, a digit and a sign in a sum as three."""
    return sum(_WEIGHTS[letter] for letter in _of_one_form(text))


def _of_one_form(text: str) -> str:
    """However its letters are encoded, and large or small."""
    return unicodedata.normalize("NFKC", text).casefold()


def n_credits(text: str) -> int:
    """How many makers of subtitles a text names, whom nobody speaks of: Whisper invented it, or the end of it."""
    plain = " ".join(tokens(text, ""))
    return sum(one in plain for one in _CREDITS)


def units(text: str, language: str) -> list[str]:
    """What has times of its own: words with their punctuation, in languages without spaces characters with theirs.

    A mark that stands alone belongs to what is before it ("bien ?"), one that opens to what follows.
    """
    found: list[str] = []
    waiting = ""
    for part in _UNIT.findall(text) if language in UNSPACED else text.split():
        if any(map(str.isalnum, part)):
            found.append(waiting + part)
            waiting = ""
        elif found and not waiting and unicodedata.category(part[0]) not in _OPENING:
            found[-1] += part
        else:
            waiting += part
    if waiting and found:
        found[-1] += waiting
    return found or [waiting] * bool(waiting)


def placed(text: str, language: str, pieces: Iterable[Piece]) -> tuple[Word, ...] | None:
    """The units of a text with the times of its pieces; None where these do not make the same text.

    A piece of several letters gives each an equal part of its time, and none to punctuation. Pieces that begin at one
    instant are taken for one: Whisper's time warping puts all but the last of them there without any length. What has
    no length even so has no times.
    """
    letters: list[Piece] = []
    for start_s, at_once in groupby(pieces, key=lambda piece: piece[1]):
        run = list(at_once)
        step_s = _step_s(run)
        n_heard = 0
        for part, _, _, score in run:
            for letter in part:
                if letter.isspace():
                    continue
                if start_s is None or not step_s or not is_heard(letter):
                    letters.append((letter, None, None, None))
                else:
                    from_s = start_s + n_heard * step_s
                    letters.append((letter, from_s, from_s + step_s, score))
                    n_heard += 1
    if [letter for letter, *_ in letters] != list("".join(text.split())):
        return None
    left = iter(letters)
    return tuple(_word(unit, islice(left, len(unit))) for unit in units(text, language))


def is_heard(letter: str) -> bool:
    """Whether a character of a text takes time to say: letters with their marks, numbers and symbols."""
    return unicodedata.category(letter)[0] in "LMNS"


def _step_s(run: Sequence[Piece]) -> float:
    """Seconds of each letter of pieces that begin at one instant; 0 where there are none for them."""
    said = [(sum(map(is_heard, part)), start_s, end_s) for part, start_s, end_s, _ in run]
    lengths = [end_s - start_s for n, start_s, end_s in said if n and start_s is not None and end_s is not None]
    return max(lengths) / sum(n for n, *_ in said) if lengths else 0.0


def untimed(text: str, language: str) -> tuple[Word, ...]:
    """The units of a text without times."""
    return tuple(_word(unit, ()) for unit in units(text, language))


def _word(unit: str, letters: Iterable[Piece]) -> Word:
    timed = [(start, end, score) for _, start, end, score in letters if start is not None and end is not None]
    start_s = round(float(min((start for start, *_ in timed), default=0.0)), 3)
    end_s = round(float(max((end for _, end, _ in timed), default=0.0)), 3)
    if start_s >= end_s:
        return Word(text=unit, start_s=None, end_s=None, score=None)
    scores = [score for *_, score in timed if score is not None]
    score = round(float(sum(scores) / len(scores)), 3) if scores else None
    return Word(text=unit, start_s=start_s, end_s=end_s, score=score)


def repetition(text: str) -> float:
    """How often a text says the same in those 500 letters that do most: letters by the bytes that zlib needs for them;
    0 for a text under 50 letters.

    Whisper's own measure of loops, with one byte a letter in every script: of UTF-8 Thai has three, two of which hardly
    change, and reads up to 2.4 where nothing is repeated. So counted no 500 letters of sentences in ten languages read
    above 1.7.
    """
    if len(text) < _LEAST_REPEATED:
        return 0.0
    last = max(len(text) - _PIECE, 0)
    return max(_repetition(text[start : start + _PIECE]) for start in (*range(0, last, _PIECE // 2), last))


def _repetition(text: str) -> float:
    numbers = {letter: number % 256 for number, letter in enumerate(dict.fromkeys(text))}
    return len(text) / len(zlib.compress(bytes(numbers[letter] for letter in text)))


def edits(said: Sequence[str], heard: Sequence[str]) -> int:
    """Fewest insertions, deletions and replacements from one to the other (Levenshtein)."""
    row = list(range(len(heard) + 1))
    for i, one in enumerate(said, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (one != other))
    return row[-1]
