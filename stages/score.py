"""A run of a rendered corpus against its truth: what was kept, said, measured and caught, with every miss by name.

Pure: no model, no pixel. Numbers are shares unless a name says otherwise; `None` where nothing could be counted.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from manifests.codec import to_json, to_plain
from manifests.records import RATE_HZ, Verdict
from manifests.sample.truth import Segment, Truth
from stages.judge import Measured
from stages.score_flaws import Planted, planted
from stages.score_match import (
    CUT_TOLERANCE_S,
    Box,
    Placed,
    crosses_cut,
    measures,
    name_of,
    originals,
    place,
    where,
    why_not,
)
from stages.transcript import edits, tokens

_MIN_SEGMENT_S = 3.0
"""Shorter segments are not asked for: no policy of ours keeps clips below 3 s."""
_COVERED = 0.5
"""A segment counts as kept where kept clips cover this share of it."""


@dataclass(frozen=True)
class Rate:
    """So many of so many."""

    n: float
    of: float

    @property
    def share(self) -> float | None:
        """`None` where there was nothing to count."""
        return self.n / self.of if self.of else None


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a run made of a corpus."""

    corpus_seed: int
    hard: bool
    videos: int
    clips: int
    kept: int
    kept_precision: Rate  # kept clips that should be kept
    kept_recall: Rate  # segments that should be kept and are, by at least half of their length
    kept_recall_s: Rate  # the same in seconds
    language_accuracy: Rate  # clips
    word_error_rate: Rate  # edits of words (zh, th: of characters)
    word_error_rate_by_language: dict[str, Rate]
    offset_within_1_frame: Rate  # clips with a voice and the lips that belong to it
    cut_precision: Rate
    cut_recall: Rate
    flaws: tuple[Planted, ...]
    misses: tuple[str, ...] = field(default=())

    @property
    def cut_f1(self) -> float | None:
        """Harmonic mean; cuts count as found within one and a half frames of 25 fps."""
        precision, recall = self.cut_precision.share, self.cut_recall.share
        if precision is None or recall is None:
            return None
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    def to_json(self) -> bytes:
        """The shares by name, what they were counted from, the planted flaws and the misses."""
        counted = {name: value for name, value in to_plain(self).items() if isinstance(value, dict)}
        shares: dict[str, Any] = {name: getattr(self, name).share for name in _RATES}
        by_language = {language: rate.share for language, rate in self.word_error_rate_by_language.items()}
        shares |= {"word_error_rate_by_language": by_language, "cut_f1": self.cut_f1}
        return to_json({**to_plain(self), **shares, "counted": counted, "flaws": self._by_flaw()})

    def _by_flaw(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for one in self.flaws:
            entry = found.setdefault(one.flaw, {"planted": 0, "caught": 0, "cases": []})
            entry["planted"] += 1
            entry["caught"] += one.caught
            entry["cases"].append(to_plain(one))
        return found


_RATES = (
    "kept_precision",
    "kept_recall",
    "kept_recall_s",
    "language_accuracy",
    "word_error_rate",
    "offset_within_1_frame",
    "cut_precision",
    "cut_recall",
)


def score(truth: Truth, measured: Sequence[Measured], verdicts: Iterable[Verdict], windows: Mapping[str, Box]) -> Score:
    """Compare. `windows`: median crop window of every clip in source pixels, by clip key (`crop_windows`).

    Videos are matched by the last part of their URL. Of videos that were not run segments and flaws count as missed;
    cuts are counted in those alone that were watched.
    """
    by_name = {name_of(one.video.url): one for one in measured}
    given = {verdict.key: verdict for verdict in verdicts}
    placed = [p for video in truth.videos if (m := by_name.get(video.path)) for p in place(video, m, given, windows)]
    by_segment: dict[int, list[Placed]] = defaultdict(list)
    for p in placed:
        by_segment[id(p.segment)].append(p)
    misses: list[str] = []
    precision = _precision(truth, placed, misses)
    recall, recall_s = _recall(truth, by_segment, misses)
    cuts = _cuts(truth, by_name, misses)
    words, by_language = _words(placed, misses)
    return Score(
        corpus_seed=truth.seed,
        hard=truth.hard,
        videos=len(by_name),
        clips=len(placed),
        kept=sum(p.kept for p in placed),
        kept_precision=precision,
        kept_recall=recall,
        kept_recall_s=recall_s,
        language_accuracy=_language(placed, misses),
        word_error_rate=words,
        word_error_rate_by_language=by_language,
        offset_within_1_frame=_offsets(placed, misses),
        cut_precision=cuts[0],
        cut_recall=cuts[1],
        flaws=tuple(planted(truth, by_name, by_segment)),
        misses=tuple(misses),
    )


def _precision(truth: Truth, placed: list[Placed], misses: list[str]) -> Rate:
    copied = originals(truth)
    seen: dict[int, str] = {}
    right = of = 0
    for p in placed:
        if not p.kept or (p.segment.should_keep is None and id(p.segment) not in copied):
            continue
        of += 1
        source = copied.get(id(p.segment), p.segment)
        crosses = crosses_cut(p)
        twice = seen.setdefault(id(source), p.video.path) != p.video.path
        if source.should_keep and not crosses and not twice:
            right += 1
        else:
            why = "spans a cut" if crosses else "kept twice" if twice else p.segment.flaw
            misses.append(f"kept, but should not be: {where(p)}: {why}; {measures(p)}")
    return Rate(right, of)


def _recall(truth: Truth, by_segment: Mapping[int, list[Placed]], misses: list[str]) -> tuple[Rate, Rate]:
    copies: dict[int, list[int]] = defaultdict(list)  # by identity, as `originals` has them
    for copied, original in originals(truth).items():
        copies[id(original)].append(copied)
    right = of = 0
    right_s = of_s = 0.0
    for video in truth.videos:
        for segment in video.segments:
            length_s = segment.end_s - segment.start_s
            if not segment.should_keep or length_s < _MIN_SEGMENT_S:
                continue
            shown = [p for s in (id(segment), *copies[id(segment)]) for p in by_segment.get(s, ())]
            covered_s = _union_s([_clipped(p.span, segment) for p in shown if p.kept])
            of, of_s, right_s = of + 1, of_s + length_s, right_s + covered_s
            if covered_s >= _COVERED * length_s:
                right += 1
            else:
                why = "; ".join(why_not(p) for p in shown) or "no clip"
                place = f"{video.path} {segment.start_s:.1f}-{segment.end_s:.1f} s"
                misses.append(f"should be kept, but is not: {place}: {why}")
    return Rate(right, of), Rate(right_s, of_s)


def _clipped(span: tuple[float, float], segment: Segment) -> tuple[float, float]:
    return max(span[0], segment.start_s), min(span[1], segment.end_s)


def _union_s(spans: list[tuple[float, float]]) -> float:
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _language(placed: list[Placed], misses: list[str]) -> Rate:
    right = of = 0
    for p in placed:
        if (speech := p.one.speech) is None or not p.segment.language or p.segment.flaw == "code_switch":
            continue
        of += 1
        if speech.language.split("-")[0] == p.segment.language:
            right += 1
        else:
            heard = speech.language or "no speech"
            misses.append(f"language: {where(p)}: {heard} ({speech.language_probability:.2f}), is {p.segment.language}")
    return Rate(right, of)


def _words(placed: list[Placed], misses: list[str]) -> tuple[Rate, dict[str, Rate]]:
    """Over clips that do not mix languages, whose file is whole."""
    wrong: dict[str, int] = defaultdict(int)
    of: dict[str, int] = defaultdict(int)
    for p in placed:
        language = p.segment.language
        if p.one.speech is None or not language or p.segment.flaw == "code_switch" or p.video.flaw == "truncated":
            continue
        said = tokens(_said(p), language)
        heard = tokens(p.one.speech.text, language)
        n = edits(said, heard)
        wrong[language] += n
        of[language] += len(said)
        if said and n > 0.2 * len(said):
            misses.append(f"words: {where(p)}: {n} of {len(said)} wrong: {p.one.speech.text!r}")
    by_language = {language: Rate(wrong[language], of[language]) for language in of}
    return Rate(sum(wrong.values()), sum(of.values())), by_language


def _said(p: Placed) -> str:
    """What is heard in the clip: the words whose middle lies inside it."""
    start_s, end_s = p.span
    inside = [w.text for w in p.segment.words if start_s <= (w.start_s + w.end_s) / 2 < end_s]
    return " ".join(inside)


def _offsets(placed: list[Placed], misses: list[str]) -> Rate:
    right = of = 0
    for p in placed:
        unheard = p.segment.flaw in ("other_voice", "silent_talker") or not p.segment.talks
        if (sync := p.one.sync) is None or unheard or not p.segment.language:
            continue
        of += 1
        if abs(sync.offset_frames - p.segment.audio_offset_frames) <= 1:
            right += 1
        else:
            expected = p.segment.audio_offset_frames
            misses.append(f"offset: {where(p)}: {sync.offset_frames:+d}, is {expected:+d} ({sync.confidence:.1f})")
    return Rate(right, of)


def _cuts(truth: Truth, by_name: Mapping[str, Measured], misses: list[str]) -> tuple[Rate, Rate]:
    matched = found_all = true_all = 0
    for video in truth.videos:
        measured = by_name.get(video.path)
        if measured is None or measured.seen is None:
            continue
        end_s = measured.seen.n_frames / RATE_HZ
        wanted = [cut for cut in video.cuts_s if cut < end_s - CUT_TOLERANCE_S]
        found = [cut / RATE_HZ for cut in measured.seen.cuts]
        missed = [t for t in wanted if all(abs(t - f) > CUT_TOLERANCE_S for f in found)]
        false = [f for f in found if all(abs(t - f) > CUT_TOLERANCE_S for t in wanted)]
        misses += [f"cut missed: {video.path} {t:.2f} s" for t in missed]
        misses += [f"cut where none is: {video.path} {f:.2f} s" for f in false]
        matched += len(wanted) - len(missed)
        true_all += len(wanted)
        found_all += len(found)
    return Rate(matched, found_all), Rate(matched, true_all)
