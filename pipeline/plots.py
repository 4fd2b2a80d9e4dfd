"""Histograms of what was measured, kept and dropped clips apart, as plain numbers and SVG rectangles."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from manifests.records import RATE_HZ
from pipeline.figures import Judged
from stages.policies import Policy

WIDTH, HEIGHT = 300, 110
_BARS = 24
_LANGUAGES_SHOWN = 12
_LETTER = 6.0  # SVG units that a letter of a label takes


@dataclass(frozen=True)
class Bar:
    """One bin: x and width in SVG units, heights of the kept part (below) and the dropped part (above it)."""

    x: float
    width: float
    kept_height: float
    dropped_height: float
    label: str


@dataclass(frozen=True)
class Histogram:
    """One measurement over all clips, or those of one language. Limits are x positions in SVG units with labels."""

    title: str
    unit: str
    low: str
    high: str
    most: int  # clips in the highest bin
    bars: tuple[Bar, ...]
    limits: tuple[tuple[float, str], ...]
    clips: int


@dataclass(frozen=True)
class _Plot:
    title: str
    unit: str
    value: Callable[[Judged], float | None]
    limit: str  # the policy's field
    whole: bool = False  # integers: one bar each
    both_signs: bool = False  # the limit holds on either side of zero


def _sync(one: Judged) -> float | None:
    return one.clip.sync.confidence if one.clip.sync else None


_SYNC = _Plot("Sync confidence", "", _sync, "min_confidence")

_PLOTS = (
    _SYNC,
    _Plot(
        "Audio offset", "frames", lambda one: one.clip.sync.offset_frames if one.clip.sync else None,
        "max_offset_frames", whole=True, both_signs=True,
    ),
    _Plot("Face size", "px", lambda one: one.clip.clip.face_px, "min_face_px"),
    _Plot("Yaw, 95th centile", "°", lambda one: one.clip.clip.yaw_p95_deg, "max_yaw_deg"),
    _Plot("Sharpness", "", lambda one: one.clip.clip.sharpness, "min_sharpness"),
    _Plot("Motion of the face", "", lambda one: one.clip.clip.motion, "min_motion"),
    _Plot("Clip length", "s", lambda one: one.clip.clip.n_frames / RATE_HZ, "min_duration_s"),
    _Plot(
        "Speech share", "", lambda one: one.clip.speech.speech_share if one.clip.speech else None, "min_speech_share",
    ),
    _Plot(
        "Voice over noise", "dB", lambda one: one.clip.speech.snr_db if one.clip.speech else None, "min_snr_db",
    ),
    _Plot(
        "Other voices, share", "", lambda one: one.clip.speech.other_voice_share if one.clip.speech else None,
        "max_other_voice_share",
    ),
    _Plot(
        "Identity, lowest cosine", "",
        lambda one: one.clip.identity.spread if one.clip.identity and one.clip.identity.face else None,
        "min_identity_cosine",
    ),
    _Plot(
        "Text in view", "", lambda one: one.clip.identity.text_share if one.clip.identity else None, "max_text_share",
    ),
)  # fmt: skip


def histograms(judged: Sequence[Judged], policy: Policy) -> list[Histogram]:
    """One per measurement that any clip has, in a fixed order."""
    found = []
    for plot in _PLOTS:
        values = [(value, one.verdict.kept) for one in judged if (value := plot.value(one)) is not None]
        if values:
            languages = {one.language for one in judged if plot.value(one) is not None}
            found.append(_histogram(plot, plot.title, values, _limits(plot, policy, languages)))
    return found


def by_language(judged: Sequence[Judged], policy: Policy) -> list[Histogram]:
    """Sync confidence by language, which is the title, on one scale, those with most clips first; none of one alone."""
    found: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for one in judged:
        if (value := _sync(one)) is not None:
            found[one.language].append((value, one.verdict.kept))
    if len(found) < 2:
        return []
    most = sorted(found, key=lambda language: (-len(found[language]), language))[:_LANGUAGES_SHOWN]
    limits = {language: [(limit, f"{limit:g}") for limit, _ in _limits(_SYNC, policy, {language})] for language in most}
    every = [value for language in most for value, _ in found[language]]
    ends = _range(every, [limit for language in most for limit, _ in limits[language]], whole=False)
    return [_histogram(_SYNC, language, found[language], limits[language], ends) for language in most]


def _limits(plot: _Plot, policy: Policy, languages: Iterable[str]) -> list[tuple[float, str]]:
    """Where these languages have their limits, from low to high, and what to write there: an exception with its
    language, or with the number of those that have it."""
    holds: dict[float, list[str]] = defaultdict(list)
    for language in sorted(languages):
        if (limit := policy.limit(plot.limit, language)) is not None:
            holds[limit].append(language)
    found: list[tuple[float, str]] = []
    for limit, those in holds.items():
        who = "" if limit == getattr(policy, plot.limit) else f" {those[0] if len(those) == 1 else len(those)}"
        signs = (-1, 1) if plot.both_signs else (1,)
        found += [(float(sign * limit), f"{sign * limit:g}{who}") for sign in signs]
    return sorted(found)


def _histogram(
    plot: _Plot,
    title: str,
    values: Sequence[tuple[float, bool]],
    limits: Sequence[tuple[float, str]],
    ends: tuple[float, float] | None = None,
) -> Histogram:
    """`values` with whether the clip was kept; `ends` of the scale, else those that suit the values."""
    low, high = ends or _range([value for value, _ in values], [limit for limit, _ in limits], whole=plot.whole)
    n_bars = round(high - low) if plot.whole and high - low <= 2 * _BARS else _BARS
    kept, dropped = [0] * n_bars, [0] * n_bars
    for value, is_kept in values:
        at = min(max(int((value - low) / (high - low) * n_bars), 0), n_bars - 1)
        (kept if is_kept else dropped)[at] += 1
    most = max(k + d for k, d in zip(kept, dropped, strict=True))
    width, step = WIDTH / n_bars, (high - low) / n_bars
    bars = tuple(
        Bar(
            x=n * width,
            width=max(width - 1.5, 1.0),
            kept_height=HEIGHT * k / most,
            dropped_height=HEIGHT * d / most,
            label=f"{_span(low + n * step, step, whole=plot.whole)} {plot.unit}: {k:,} kept, {d:,} dropped",
        )
        for n, (k, d) in enumerate(zip(kept, dropped, strict=True))
    )
    marks = _readable(((limit - low) / (high - low) * WIDTH, label) for limit, label in limits)
    first, last = (low + 0.5, high - 0.5) if plot.whole else (low, high)
    return Histogram(title, plot.unit, f"{first:g}", f"{last:g}", most, bars, marks, len(values))


def _readable(marks: Iterable[tuple[float, str]]) -> tuple[tuple[float, str], ...]:
    """The same, from left to right, without the labels that would be written over the one before."""
    found: list[tuple[float, str]] = []
    taken = -float(WIDTH)
    for x, label in marks:
        half = _LETTER * len(label) / 2
        fits = x - half >= taken
        found.append((x, label if fits else ""))
        taken = x + half if fits else taken
    return tuple(found)


def _span(begin: float, step: float, *, whole: bool) -> str:
    return f"{begin + 0.5:g}" if whole and step == 1 else f"{begin:.3g} to {begin + step:.3g}"


def _range(values: Sequence[float], limits: Sequence[float], *, whole: bool) -> tuple[float, float]:
    """Round ends that hold 99 of 100 values and every limit; the outermost bars take the rest."""
    ordered = sorted(values)
    low = min([ordered[int(0.005 * len(ordered))], *limits])
    high = max([ordered[-1 - int(0.005 * len(ordered))], *limits])
    if whole:
        return low - 0.5, high + 0.5
    low = min(low, 0.0) if low < 0.3 * high else low
    step = 10.0 ** math.floor(math.log10(max(high - low, 1e-6) / 5))
    first, last = step * (low // step), step * -(-high // step)
    return first, last if last > first else first + step
