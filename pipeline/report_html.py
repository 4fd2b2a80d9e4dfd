"""`report.html`: one file with everything inside, in light and dark, without scripts."""

import base64
import dataclasses
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from manifests.records import RATE_HZ, Clip
from manifests.store import Store
from manifests.tags import ENGLISH_NAMES
from pipeline.figures import PAPER, Figures, Judged
from pipeline.job import masked
from pipeline.pictures import MOMENTS, jpeg, thumbnails
from pipeline.plots import HEIGHT, WIDTH, Histogram, by_language, histograms
from stages.catalogue import CLIPS, VIDEOS
from stages.origin import origin_of, span_s
from stages.policies import Policy

_KEPT_SHOWN = 48
_BORDER_SHOWN = 16  # on each side of the limit
_RECEIPTS_SHOWN = 300
_THUMB_PX = 112


@dataclasses.dataclass(frozen=True)
class _Card:
    """One clip in a gallery."""

    judged: Judged
    pictures: list[str]  # data URIs

    @property
    def verdict(self) -> str:
        """The nearest limit in words: "low_sync +12 %"."""
        rule, margin = self.judged.decisive, _relative(self.judged)
        return rule if margin is None else f"{rule} {margin:+.0%}" if rule else ""

    @property
    def place(self) -> str:
        """Of which video it is, and its seconds there."""
        clip, source = self.judged.clip, self.judged.clip.measured.source
        start_s, end_s = span_s(clip.clip, source)
        return f"{masked(origin_of(clip.measured.video, source).url)}, {start_s:g} to {end_s:g} s"


def page(store: Store, figures: Figures, policy: Policy, provenance: Mapping[str, Any], notes: Sequence[str]) -> str:
    """The page as text; equal inputs give equal pages."""
    import jinja2

    template = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template.filters |= {"number": _number, "hours": hours_text, "bar": _share, "language": language_name}
    kept, narrow, missed = gallery(figures)
    plots: list[Histogram] = histograms(figures.judged, policy)
    source = Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
    return template.from_string(source).render(
        figures=figures,
        policy=policy,
        limits=[(f.name, getattr(policy, f.name)) for f in dataclasses.fields(policy)],
        provenance=provenance,
        notes=notes,
        paper=PAPER,
        plots=plots,
        by_language=by_language(figures.judged, policy),
        kept=[_card(store, one) for one in kept],
        narrow=[_card(store, one) for one in narrow],
        missed=[_card(store, one) for one in missed],
        receipts=receipts(figures)[:_RECEIPTS_SHOWN],
        files={clip.key: clip.video.path for one in figures.judged if isinstance(clip := one.clip.clip, Clip)},
        clips_table=CLIPS,
        videos_table=VIDEOS,
        thumb_px=_THUMB_PX,
        moments=len(MOMENTS),
        rate_hz=RATE_HZ,
        width=WIDTH,
        height=HEIGHT,
        dropped=sum(not one.verdict.kept for one in figures.judged),
        widest={unit: max(s.entered for s in figures.steps if s.unit == unit) for unit in ("videos", "clips")},
    )


def gallery(figures: Figures) -> tuple[list[Judged], list[Judged], list[Judged]]:
    """Clips to look at: a sample of the kept, those kept most narrowly, and those dropped most narrowly.

    All take languages in turn, the narrow ones rules as well: one of either would fill them. The sample takes clips by
    the hash of their keys: the same in every run, favouring none.
    """
    kept = [one for one in figures.judged if one.verdict.kept]
    sample = sorted(kept, key=lambda one: hashlib.sha256(one.clip.clip.key.encode()).digest())
    narrow = sorted((one for one in kept if one.tightest), key=lambda one: (one.margin, one.clip.clip.key))
    # Of the dropped, those that one rule alone keeps out: their margin is what decides.
    missed = sorted(
        (one for one in figures.judged if len(one.verdict.receipts) == 1 and one.clip.is_whole),
        key=lambda one: (_farness(_relative(one)), one.clip.clip.key),
    )
    return _in_turn(sample)[:_KEPT_SHOWN], _varied(narrow)[:_BORDER_SHOWN], _varied(missed)[:_BORDER_SHOWN]


def _varied(found: Iterable[Judged]) -> list[Judged]:
    """Languages in turn, and in each language rules in turn."""
    return _in_turn(_in_turn(found, lambda one: (one.language, one.decisive)))


def _in_turn(found: Iterable[Judged], kind: Callable[[Judged], object] = lambda one: one.language) -> list[Judged]:
    """The first of each kind, then the second of each, and so on; those of one turn in the order given."""
    turns: Counter[object] = Counter()
    ranked = []
    for one in found:
        turns[kind(one)] += 1
        ranked.append((turns[kind(one)], one))
    return [one for _, one in sorted(ranked, key=lambda entry: entry[0])]


def receipts(figures: Figures) -> list[tuple[str, str, Any, float | None]]:
    """Key, language, receipt and relative margin of every broken rule, the narrowest first, those without one last."""
    found = [
        (one.clip.clip.key, one.clip.language, receipt, _of_limit(receipt.margin, receipt.limit))
        for one in figures.judged
        for receipt in one.verdict.receipts
    ]
    return sorted(found, key=lambda entry: (_farness(entry[3]), entry[0]))


def language_name(code: str) -> str:
    """A language in English where we know it, else its code."""
    return {"all": "All", "": "Not stated"}.get(code) or ENGLISH_NAMES.get(code, code)


def _relative(one: Judged) -> float | None:
    if one.verdict.receipts:
        return _of_limit(one.verdict.receipts[0].margin, one.verdict.receipts[0].limit)
    return one.margin


def _of_limit(margin: float, limit: float | str) -> float | None:
    """The margin in units of the limit; None where that has no meaning: a limit of zero, a limit in words."""
    return margin / abs(limit) if isinstance(limit, float) and limit else None


def _farness(relative: float | None) -> float:
    return math.inf if relative is None else -relative


def _card(store: Store, one: Judged) -> _Card:
    clip = one.clip.clip
    assert isinstance(clip, Clip), "what is shown was cut"
    pictures = thumbnails(store, clip, size_px=_THUMB_PX)
    return _Card(one, [f"data:image/jpeg;base64,{base64.b64encode(jpeg(one)).decode()}" for one in pictures])


def _number(value: Any, digits: int = 0) -> str:
    return f"{value:,.{digits}f}" if isinstance(value, int | float) else str(value)


def hours_text(hours: float) -> str:
    """Hours to three digits that say something: 241.6, 3.52, 0.146."""
    return f"{hours:,.1f}" if hours >= 10 else f"{hours:.2f}" if hours >= 1 else f"{hours:.3f}"


def _share(part: float, whole: float) -> str:
    """A width in per cent, for a bar."""
    return f"{100 * part / whole:.2f}%" if whole else "0%"
