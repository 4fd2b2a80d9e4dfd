"""`python -m pipeline calibrate`: what the limit on sync confidence costs each language, and which would be fair."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from pipeline.report import plain_table
from stages.calibrate import Trust

_LEGEND = (
    "Per cent, estimated from offsets that are plainly wrong. lost: in sync, yet dropped (90 %: in nine of ten draws of"
    " the videos). wrong: not in sync, yet kept; a dub that fits well counts as in sync. fair: the limit with {}."
)


def print_trusts(console: Console, trusts: Sequence[Trust], *, wrong: float, judge: str) -> None:
    """The table by language, then the command that sets what it proposes. `judge`: that command without its `--set`."""
    if not trusts:
        console.print("no clip has a sync reading and breaks no other rule: nothing to calibrate with")
        return
    console.print(trust_table(trusts))
    console.print(_LEGEND.format(f"wrong at {100 * wrong:.3g}"), style="dim")
    new = [one for one in trusts if one.language and one.proposed is not None and one.proposed != one.limit]
    if new:
        sets = " ".join(f"--set policy.min_confidence.{one.language}={one.proposed:g}" for one in new)
        console.print(f"to set these limits: {judge} {sets}", soft_wrap=True)
    languages = trusts[:-1] if len(trusts) > 1 else trusts
    for said, few in (
        ("too few clips (30 that look right and 5 plainly wrong ones are the least) to say what is fair", True),
        (f"no limit lets pass as few as {100 * wrong:.3g} % (--wrong) that are not in sync", False),
    ):
        if names := [one.language or "not stated" for one in languages if one.proposed is None and one.few == few]:
            console.print(f"{said}: {', '.join(names)}", soft_wrap=True)


def trust_table(trusts: Sequence[Trust]) -> Table:
    """Shares in per cent; a dot where there is nothing to estimate from."""
    table = plain_table("Sync by language", "language")
    for name in ("videos", "clips", "in sync", "limit", "lost", "90 %", "wrong", "fair", "lost then"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in trusts:
        between = "·" if one.lost_range is None else " to ".join(f"{100 * end:.0f}" for end in one.lost_range)
        table.add_row(
            one.language or ("all" if one is trusts[-1] and len(trusts) > 1 else "not stated"),
            f"{one.videos:,}",
            f"{one.clips:,}",
            f"{one.in_sync:,.0f}",
            _number(one.limit),
            _share(one.lost),
            between,
            _share(one.wrong),
            _number(one.proposed),
            _share(one.lost_then),
        )
    return table


def _number(limit: float | None) -> str:
    return "·" if limit is None else f"{limit:g}"


def _share(share: float | None) -> str:
    return "·" if share is None else f"{100 * share:.1f}"
