"""What came of a run: tables for the terminal, and one self-contained page, `report.html`."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from manifests.records import RATE_HZ, Verdict
from manifests.store import Store
from pipeline.figures import PAPER, Figures, Language, Step, collect
from pipeline.report_html import hours_text, page
from stages.judge import Measured, candidates
from stages.language import subtag
from stages.policies import Policy

REPORT = "report.html"
_ERRORS_SHOWN = 10


def write_report(
    store: Store,
    known: Sequence[Measured],
    verdicts: Sequence[Verdict],
    policy: Policy,
    *,
    provenance: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> Figures:
    """Write `report.html` whole and return its numbers.

    `provenance`: what made the data set, shown as it is (values are text, numbers, or mappings of those). `notes`: what
    a reader must know before believing a number, such as that a model's weights are random. Clips are read for their
    pictures; one that is gone from the store shows as a blank.
    """
    figures = collect(known, verdicts, policy)
    store.put(REPORT, page(store, figures, policy, provenance, notes).encode())
    return figures


def print_tables(console: Console, figures: Figures, *, notes: Sequence[str] = ()) -> None:
    """The funnel by stage, the languages, the reasons, and what becomes of the videos that failed."""
    for note in notes:
        console.print(note, style="yellow")
    tables = [funnel_table(figures.steps), language_table(figures)]
    if figures.rules or figures.rejections or figures.failures:
        tables.append(reason_table(figures))
    for table in tables:
        console.print()
        console.print(table)
    for line in figures.outlook:
        console.print(line, style="yellow")


def changes_by_language(known: Iterable[Measured], before: AbstractSet[str], after: AbstractSet[str]) -> list[str]:
    """A line per language of which more, fewer or longer clips are kept: "th: 212 -> 268 clips, 1.90 -> 2.40 h".

    `before`, `after`: keys of the clips that are kept. Of a video whose language is not stated, by the language heard.
    """
    hours: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for one in candidates(known):
        for kept, found in zip((before, after), hours[subtag(one.language)], strict=True):
            if one.clip.key in kept:
                found.append(one.clip.n_frames / RATE_HZ / 3600)
    lines = []
    for language, (old, new) in sorted(hours.items()):
        old_h, new_h = hours_text(sum(old)), hours_text(sum(new))
        if (len(old), old_h) != (len(new), new_h):
            lines.append(f"{language or 'not stated'}: {len(old):,} -> {len(new):,} clips, {old_h} -> {new_h} h")
    return lines


def funnel_table(steps: Sequence[Step]) -> Table:
    """Videos by stage, then clips by verdict."""
    table = plain_table("By stage", "stage")
    for name in ("in", "kept", "rejected", "failed", "waiting"):
        table.add_column(name, justify="right")
    table.add_column("most often because of", overflow="fold")
    for step in steps:
        numbers = (step.entered, step.passed, step.rejected, step.failed, step.waiting)
        name = step.name if step.unit == "videos" else f"{step.name} ({step.unit})"
        table.add_row(name, *(f"{n:,}" if n else "·" for n in numbers), _reasons(step.reasons))
    return table


def language_table(figures: Figures) -> Table:
    """Kept hours, clips and persons by expected language, beside the hours of the paper's data set."""
    table = plain_table("By language", "language")
    for name in ("videos", "clips", "kept", "hours", "persons", "mean s", "paper h"):
        table.add_column(name, justify="right")
    table.add_column("lost most to", overflow="fold")
    for language in figures.languages:
        table.add_row(*_cells(language))
    if figures.total is not None:
        table.add_section()
        table.add_row(*_cells(figures.total), style="bold")
        table.caption = (
            f"The paper's TalkingFace-Wild: {PAPER['clips']:,} clips, {PAPER['persons']:,} persons, "
            f"{PAPER['clip_s']} s a clip."
        )
    return table


def reason_table(figures: Figures) -> Table:
    """Rejected videos by stage and reason, failed ones by stage and error, dropped clips by rule."""
    table = plain_table("By reason", "reason")
    for name in ("videos", "clips", "alone", "hours back"):
        table.add_column(name, justify="right")
    for stage, reason, videos in figures.rejections:
        table.add_row(f"{stage}: {reason}", f"{videos:,}", "·", "·", "·")
    for stage, status, error, videos in figures.failures_alike[:_ERRORS_SHOWN]:
        table.add_row(f"{stage} {status}: {error}", f"{videos:,}", "·", "·", "·")
    if others := sum(videos for *_, videos in figures.failures_alike[_ERRORS_SHOWN:]):
        table.add_row("other errors", f"{others:,}", "·", "·", "·")
    if table.row_count and figures.rules:
        table.add_section()
    for rule in figures.rules:
        hours = hours_text(rule.alone_hours) if rule.alone else "·"
        table.add_row(f"judge: {rule.name}", "·", f"{rule.any:,}", f"{rule.alone:,}" if rule.alone else "·", hours)
    return table


def plain_table(title: str, first: str) -> Table:
    """An empty table with its first column; nothing between the others, so that ten columns fit into 80 letters."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")
    return table


def _cells(one: Language) -> tuple[str, ...]:
    paper = "·" if one.paper_hours is None else f"{one.paper_hours:.1f}"
    numbers = (f"{n:,}" for n in (one.videos, one.clips, one.kept))
    mean = f"{one.mean_clip_s:.1f}" if one.kept else "·"
    return one.name or "not stated", *numbers, hours_text(one.hours), f"{one.persons:,}", mean, paper, one.top_reason


def _reasons(reasons: Sequence[tuple[str, int]], most: int = 3) -> str:
    shown = ", ".join(f"{reason} {n:,}" for reason, n in reasons[:most])
    return f"{shown}, …" if len(reasons) > most else shown
