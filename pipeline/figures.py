"""The numbers of a report: who came how far, by stage, language and reason. Pure."""

import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from manifests.records import RATE_HZ, Verdict
from stages.judge import STAGES, Candidate, Measured, candidates, tightest
from stages.language import by_language, stated, subtag
from stages.policies import Policy

PAPER_HOURS = {
    "de": 32.4, "pl": 20.3, "ru": 22.0, "fr": 25.9, "hr": 24.6, "zh": 28.8, "ar": 17.6, "en": 35.8, "th": 14.5,
    "es": 19.8,
}  # fmt: skip
"""TalkingFace-Wild's hours by language: its 241.6 h times the shares of its pie chart (MCDM, arXiv 2502.09533)."""

PAPER = {"hours": 241.6, "clips": 31_300, "persons": 3_452, "languages": 10, "clip_s": 27.8}
"""TalkingFace-Wild's totals as its paper states them."""


@dataclass(frozen=True)
class Step:
    """One stage, counted in videos; or judging, counted in clips."""

    name: str
    entered: int
    passed: int
    rejected: int
    failed: int
    waiting: int  # reached this stage, not done yet
    reasons: tuple[tuple[str, int], ...]
    unit: str = "videos"


@dataclass(frozen=True)
class Language:
    """One expected language ("" where none was stated), or all together."""

    name: str
    videos: int
    clips: int
    kept: int
    hours: float
    persons: int
    mean_clip_s: float
    paper_hours: float | None
    top_reason: str  # the rule or rejection that cost it most, counted in videos


@dataclass(frozen=True)
class Rule:
    """What one rule cost."""

    name: str
    first: int  # clips it was the first to drop
    any: int  # clips that break it
    alone: int  # clips that break nothing else: these come back without it, of copies one
    alone_hours: float
    median_margin: float


@dataclass(frozen=True)
class Judged:
    """One clip with its verdict and the rule that it keeps or breaks most narrowly (relative to the limit)."""

    clip: Candidate
    verdict: Verdict
    tightest: str
    margin: float

    @property
    def language(self) -> str:
        """The one that chooses its limits, "" where none is known."""
        return subtag(self.clip.language)

    @property
    def decisive(self) -> str:
        """The rule that dropped it, or comes nearest to it."""
        return self.verdict.receipts[0].rule if self.verdict.receipts else self.tightest


@dataclass
class Figures:
    """Everything that tables and pages show."""

    steps: list[Step] = field(default_factory=list)
    languages: list[Language] = field(default_factory=list)
    total: Language | None = None
    rules: list[Rule] = field(default_factory=list)
    rules_by_language: dict[str, dict[str, Rule]] = field(default_factory=dict)  # with most clips first, then by name
    rejections: list[tuple[str, str, int]] = field(default_factory=list)  # stage, reason, videos
    failures: list[tuple[str, str, str, str]] = field(default_factory=list)  # video, stage, status, error
    postponed: list[str] = field(default_factory=list)  # why, of each video that waits for it
    judged: list[Judged] = field(default_factory=list)
    splits: dict[str, tuple[int, float, int]] = field(default_factory=dict)  # clips, hours, groups
    licences: list[tuple[str, int]] = field(default_factory=list)  # of kept clips
    word_times: list[tuple[str, int]] = field(default_factory=list)  # of kept clips: who gave them
    models: dict[str, str] = field(default_factory=dict)

    @property
    def failures_alike(self) -> list[tuple[str, str, str, int]]:
        """Stage, status, error and videos, the most frequent first."""
        alike = Counter((stage, status, _general(error)) for _, stage, status, error in self.failures)
        return [(*one, n) for one, n in alike.most_common()]

    @property
    def outlook(self) -> list[str]:
        """What becomes of the videos that failed or were put off, a line for each kind."""
        of = f"of {sum(one.videos for one in self.languages):,} videos"
        numbers = Counter(status for _, _, status, _ in self.failures)
        kinds = (
            ("failed", "failed", "tried again by the next run"),
            ("quarantined", "given up after three tries", "tried again by run --retry"),
        )
        lines = [f"{said}: {numbers[kind]:,} {of}, {then}" for kind, said, then in kinds if numbers[kind]]
        if self.postponed:
            n, most = len(self.postponed), _most_frequent(self.postponed)
            lines.append(f"postponed: {n:,} {of}, taken up by the next run: {most}")
        return lines


def collect(known: Sequence[Measured], verdicts: Iterable[Verdict], policy: Policy) -> Figures:
    """Count everything. `known` and `verdicts` as `judge` took and gave them."""
    by_key = {verdict.key: verdict for verdict in verdicts}
    judged = [_judged(one, by_key[one.clip.key], policy) for one in candidates(known)]
    judged.sort(key=lambda one: one.clip.clip.key)
    figures = Figures(judged=judged, steps=[*_steps(known), _judging(judged)])
    figures.languages, figures.total = _languages(known, judged)
    figures.rules = _rules(judged)
    figures.rules_by_language = _rules_by_language(judged)
    rejections = Counter((one.rejected[0], one.rejected[1]) for one in known if one.rejected)
    figures.rejections = [(stage, reason, n) for (stage, reason), n in rejections.most_common()]
    figures.failures = [(one.video.id, *one.failed) for one in known if one.failed]
    figures.postponed = [one.postponed[1] for one in known if one.postponed]
    kept = [one for one in judged if one.verdict.kept]
    for split in ("train", "val", "test"):
        inside = [one for one in kept if one.verdict.split == split]
        groups = {one.verdict.group for one in inside}
        figures.splits[split] = (len(inside), _hours(inside), len(groups))
    figures.licences = Counter(one.clip.measured.licence or "none stated" for one in kept).most_common()
    spoken = [one.clip.speech for one in kept if one.clip.speech is not None and one.clip.speech.words]
    givers = Counter("a forced aligner" if one.aligned else "the recogniser itself" for one in spoken)
    figures.word_times = givers.most_common()
    for one in known:
        for stage, record in (("sync", one.syncs), ("speech", one.speeches), ("identity", one.identities)):
            if record is not None:
                figures.models[stage] = record.model
    return figures


def _general(error: str) -> str:
    """The last line of a traceback without what is one video's own: its id at a site, folders, what wraps what."""
    return _short(re.sub(r"^(\w+\.)+", "", error))


def _short(said: str) -> str:
    text = re.sub(r"(?<=\] )\S+: (?=\S)|HTTPS?Connection\(.*?\): | \(caused by .*", "", said)
    return textwrap.shorten(re.sub(r"(?<![:/\w])/\S*/", "", text), 120, placeholder=" …")


def _most_frequent(reasons: Sequence[str]) -> str:
    """One of those that were given most often: how many times a host refused, and for how long, tells none apart."""
    kinds = [re.sub(r"\b\d+(?= (s|times)\b)", "", _short(said)) for said in reasons]
    ((most, _),) = Counter(kinds).most_common(1)
    return _short(reasons[kinds.index(most)])


def _judged(one: Candidate, verdict: Verdict, policy: Policy) -> Judged:
    return Judged(one, verdict, *(tightest(one, policy) or ("", 0.0)))


def _hours(judged: Iterable[Judged]) -> float:
    return sum(one.clip.clip.n_frames for one in judged) / RATE_HZ / 3600


def _steps(known: Sequence[Measured]) -> list[Step]:
    steps = []
    entered = list(known)
    for stage, fact in STAGES.items():
        rejected = [one for one in entered if one.rejected and one.rejected[0] == stage]
        failed = [one for one in entered if one.failed and one.failed[0] == stage]
        passed = [one for one in entered if getattr(one, fact) is not None]
        waiting = len(entered) - len(rejected) - len(failed) - len(passed)
        reasons = Counter(one.rejected[1] for one in rejected if one.rejected).most_common()
        steps.append(Step(stage, len(entered), len(passed), len(rejected), len(failed), waiting, tuple(reasons)))
        entered = passed
    return steps


def _judging(judged: Sequence[Judged]) -> Step:
    kept = sum(one.verdict.kept for one in judged)
    reasons = Counter(one.verdict.receipts[0].rule for one in judged if one.verdict.receipts).most_common()
    return Step("judge", len(judged), kept, len(judged) - kept, 0, 0, tuple(reasons), "clips")


def _languages(known: Sequence[Measured], judged: Sequence[Judged]) -> tuple[list[Language], Language]:
    videos = by_language(known, lambda one: stated(one.video.language))
    clips = by_language(judged, lambda one: stated(one.clip.measured.video.language))
    found = [_language(name, inside, clips.get(name, [])) for name, inside in videos.items()]
    found.sort(key=lambda one: (-one.hours, one.name))
    return found, _language("all", known, judged)


def _language(name: str, videos: Sequence[Measured], clips: Sequence[Judged]) -> Language:
    kept = [one for one in clips if one.verdict.kept]
    hours = _hours(kept)
    return Language(
        name=name,
        videos=len(videos),
        clips=len(clips),
        kept=len(kept),
        hours=hours,
        persons=len({one.verdict.person for one in kept} - {""}),
        mean_clip_s=hours * 3600 / len(kept) if kept else 0.0,
        paper_hours=PAPER["hours"] if name == "all" else PAPER_HOURS.get(name),
        top_reason=_top_reason(videos, clips),
    )


def _top_reason(videos: Sequence[Measured], clips: Sequence[Judged]) -> str:
    """By videos: one that was rejected counts as much as all clips of another."""
    lost: dict[str, float] = defaultdict(float)
    of_video = Counter(one.clip.measured.video.id for one in clips)
    for video in videos:
        if video.rejected:
            lost[video.rejected[1]] += 1
    for clip in clips:
        if clip.verdict.receipts:
            lost[clip.verdict.receipts[0].rule] += 1 / of_video[clip.clip.measured.video.id]
    return max(lost, key=lambda reason: lost[reason], default="")


def _rules_by_language(judged: Iterable[Judged]) -> dict[str, dict[str, Rule]]:
    clips = by_language(judged, lambda one: one.language)
    return {language: {rule.name: rule for rule in _rules(inside)} for language, inside in clips.items()}


def _rules(judged: Sequence[Judged]) -> list[Rule]:
    first = Counter(one.verdict.receipts[0].rule for one in judged if one.verdict.receipts)
    broken: dict[str, list[float]] = defaultdict(list)
    alone: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        for receipt in one.verdict.receipts:
            broken[receipt.rule].append(receipt.margin)
        if len(one.verdict.receipts) == 1 and one.clip.is_whole:
            alone[one.verdict.receipts[0].rule].append(one)
    return [
        Rule(name, first[name], len(margins), len(alone[name]), _hours(alone[name]), median(margins))
        for name, margins in sorted(broken.items(), key=lambda item: (-first[item[0]], -len(item[1]), item[0]))
    ]
