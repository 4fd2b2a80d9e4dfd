"""Which language is spoken, and does it agree with the one that was expected: from probabilities to a verdict.

Languages are compared by BCP-47 primary subtag: `zh-Hant` expects `zh`, `sr-Latn` expects `sr`, but `zh-yue` the `yue`
that it names. Deprecated and three-letter codes stand for their two-letter ones, and some languages count as one for
the verdict, because Whisper cannot tell them apart by ear or names the group by one of its members: see `_GROUPS`.
"""

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from manifests.records import LanguageWindow
from manifests.tags import TWO_LETTER, primary

T = TypeVar("T")

_MODERN = {
    "iw": "he", "in": "id", "ji": "yi", "jw": "jv", "mo": "ro",
    "als": "sq", "arb": "ar", "azj": "az", "cmn": "zh", "ekk": "et", "khk": "mn", "lvs": "lv", "npi": "ne",
    "pes": "fa", "plt": "mg", "swh": "sw", "uzn": "uz", "ydd": "yi", "zsm": "ms",
    **TWO_LETTER,
}  # fmt: skip
"""Deprecated codes (Whisper's own `jw` is one), the chief member of each macrolanguage that lists name instead of it
(IANA's registry), and all of ISO 639-2."""

_GROUPS = (
    ("hr", "bs", "sr", "sh", "cnr", "hbs"),  # one spoken language, four standards
    ("no", "nb", "nn"),  # Bokmål and Nynorsk are ways of writing
    ("fil", "tl"),  # Whisper says `tl`
)

_NOTHING_EXPECTED = frozenset({"", "und", "mul", "mis", "zxx", "x", "i"})
"""Undetermined, multiple, uncoded, no linguistic content, private and grandfathered tags: nothing to compare with."""


_SURE_ALONE = 0.8
"""[own] So much is asked of a language beside another where one window alone is sure of it: with one window of thirty
misheard, one clip of three windows in ten would be mixed by it."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """Language probabilities of one window of speech, by language as `subtag` names it; they sum to 1."""

    start_s: float
    end_s: float
    probabilities: Mapping[str, float]

    @property
    def best(self) -> str:
        """The most probable language; by name where two are equal."""
        return min(self.probabilities, key=lambda language: (-self.probabilities[language], language))

    def record(self) -> LanguageWindow:
        best = self.best
        return LanguageWindow(
            start_s=self.start_s, end_s=self.end_s, language=best, probability=self.probabilities[best]
        )


def subtag(tag: str) -> str:
    """The primary subtag in today's spelling: `zh-Hant` gives `zh`, `iw` gives `he`, `zh-yue` gives `yue`."""
    return _language_and_rest(tag)[0]


def current(tag: str) -> str:
    """A tag with its primary subtag in today's spelling: `iw` gives `he`, `deu-AT` `de-AT`, `zh-yue-HK` `yue-HK`."""
    language, rest = _language_and_rest(tag)
    return "-".join([language, *rest])


def _language_and_rest(tag: str) -> tuple[str, list[str]]:
    """What a tag begins with, in today's spelling, and its other parts. Three letters behind Chinese name one of the
    Chinese languages; the registry's own `zh-min-nan` is `nan`, and of `zh-min` nobody says which of the Min it is."""
    cleaned = tag.strip().replace("_", "-")
    rest = cleaned.split("-")[1:]
    language = _MODERN.get(primary(cleaned), primary(cleaned))
    if language == "zh":
        while rest and len(rest[0]) == 3 and rest[0].isalpha():
            part = rest.pop(0).lower()
            language = language if part == "min" else _MODERN.get(part, part)
    return language, rest


def by_language(items: Iterable[T], language: Callable[[T], str]) -> dict[str, list[T]]:
    """Items by the primary subtag of their language, that with most items first, then by name."""
    found: dict[str, list[T]] = defaultdict(list)
    for item in items:
        found[subtag(language(item))].append(item)
    return dict(sorted(found.items(), key=lambda entry: (-len(entry[1]), entry[0])))


def stated(tag: str | None) -> str:
    """The tag, or nothing where it names no language."""
    return tag if tag and subtag(tag) not in _NOTHING_EXPECTED else ""


def same(one: str, other: str) -> bool:
    """Whether two primary subtags count as one language for the verdict."""
    return other in _group(one)


def _group(language: str) -> tuple[str, ...]:
    """The language and all that count as the same."""
    return next((group for group in _GROUPS if language in group), (language,))


def may_be(hint: str | None, tag: str) -> bool:
    """Whether what a site or a list says is spoken, if it says anything, counts as the language of a tag."""
    return not stated(hint) or same(subtag(hint or ""), subtag(tag))


def overall(windows: Sequence[Heard]) -> dict[str, float]:
    """Mean probabilities over windows, weighted by their length."""
    total_s = sum(window.end_s - window.start_s for window in windows)
    mean: dict[str, float] = {}
    for window in windows:
        for language, probability in window.probabilities.items():
            mean[language] = mean.get(language, 0.0) + probability * (window.end_s - window.start_s) / total_s
    return mean


def languages_heard(windows: Sequence[Heard], *, sure: float, mixed_share: float) -> tuple[str, ...]:
    """Languages that windows are sure of (probability at least `sure`) for at least `mixed_share` of the time.

    The longest heard first; languages that count as one are one, under the name heard longer. Of several, those that
    one window alone is sure of must have a probability of 0.8 there.
    """
    total_s = sum(window.end_s - window.start_s for window in windows)
    seconds: dict[str, float] = {}
    surest: dict[str, list[float]] = defaultdict(list)
    for window in windows:
        best = likeliest(window.probabilities)
        if (probability := together(window.probabilities, best)) >= sure:
            seconds[best] = seconds.get(best, 0.0) + window.end_s - window.start_s
            surest[best].append(probability)
    found: list[tuple[str, bool]] = []
    for language in sorted(seconds, key=lambda language: (-seconds[language], language)):
        if any(same(language, known) for known, _ in found):
            continue
        names = [other for other in seconds if same(language, other)]
        readings = [probability for other in names for probability in surest[other]]
        if sum(seconds[other] for other in names) >= mixed_share * total_s:
            found.append((language, len(readings) > 1 or readings[0] >= _SURE_ALONE))
    return tuple(language for language, is_clear in found if is_clear or len(found) == 1)


def together(probabilities: Mapping[str, float], language: str) -> float:
    """The probability of a language and of all that count as the same."""
    return sum(probabilities.get(other, 0.0) for other in _group(language))


def likeliest(probabilities: Mapping[str, float]) -> str:
    """The most probable language where those that count as one add up: the most probable of these, by name where two
    are equal."""
    return min(probabilities, key=lambda one: (-together(probabilities, one), -probabilities[one], one))


def called(language: str, expected: str | None, known: Container[str]) -> str:
    """The name that a manifest expects a language under, where that counts as the same and the model knows it."""
    wanted = subtag(expected or "")
    return wanted if wanted in known and same(language, wanted) else language


def verdict(
    windows: Sequence[Heard], expected: str | None, *, known: Iterable[str], sure: float, mixed_share: float
) -> str:
    """Spoken against expected language: "agree", "other", "mixed", "unsure", or "" with nothing expected.

    "mixed": windows are sure of two languages, each for `mixed_share` of the time. "agree" and "other": the expected,
    or another one, has a mean probability of at least `sure`. "unsure": everything else, no speech at all, and
    languages that the model cannot name (`known` are those it can), since it would call them something else.
    """
    wanted = subtag(expected or "")
    if wanted in _NOTHING_EXPECTED:
        return ""
    if not windows:
        return "unsure"
    if len(languages_heard(windows, sure=sure, mixed_share=mixed_share)) > 1:
        return "mixed"
    if not any(same(wanted, language) for language in known):
        return "unsure"
    mean = overall(windows)
    if together(mean, wanted) >= sure:
        return "agree"
    return "other" if together(mean, likeliest(mean)) >= sure else "unsure"


def spread(lengths_s: Sequence[float], most: int) -> list[int]:
    """At most `most` of some windows, by their index: the longest of each of as many even runs, as short ones are
    misheard more."""
    count, runs = len(lengths_s), min(most, len(lengths_s))
    bounds = [run * count // runs for run in range(runs + 1)] if runs else [0]
    return [max(range(start, end), key=lengths_s.__getitem__) for start, end in pairwise(bounds)]
