"""A score as a table for the terminal, and the crop windows that scoring needs, read from the store."""

import io
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from manifests.records import RATE_HZ
from manifests.sample.truth import FLAWS
from manifests.store import Store
from stages.judge import Measured
from stages.score import Rate, Score
from stages.score_flaws import Planted
from stages.score_match import Box

GOALS = {
    "kept_precision": 0.95,
    "kept_recall": 0.95,
    "language_accuracy": 0.95,
    "word_error_rate": 0.20,
    "offset_within_1_frame": 0.95,
}
"""What the sample world should reach; the word error rate stays below."""

_TITLES = {
    "kept_precision": "kept clips that should be kept",
    "kept_recall": "scenes to keep that are kept",
    "kept_recall_s": "seconds to keep that are kept",
    "language_accuracy": "clips with the right language",
    "word_error_rate": "words wrong (zh, th: characters)",
    "offset_within_1_frame": "audio offsets within 1 frame",
}


def crop_windows(store: Store, measured: Iterable[Measured]) -> dict[str, Box]:
    """Median crop window (left, top, right, bottom; source pixels) of every clip, by key.

    Of a piece that was not cut, the median box of its face.
    """
    found: dict[str, Box] = {}
    for one in measured:
        if one.clips is None:
            continue
        for clip in one.clips.items:
            with np.load(io.BytesIO(store.get(clip.arrays.path)), allow_pickle=False) as arrays:
                found[clip.key] = _median(arrays["crop"])
        if one.clips.spared and one.seen is not None:
            with np.load(io.BytesIO(store.get(one.seen.arrays.path)), allow_pickle=False) as arrays:
                for piece in one.clips.spared:
                    at = arrays[f"{piece.track}/frame"] / RATE_HZ
                    found[piece.key] = _median(arrays[f"{piece.track}/box"][(at >= piece.start_s) & (at < piece.end_s)])
    return found


def _median(boxes: NDArray[np.float32]) -> Box:
    left, top, right, bottom = (float(v) for v in np.median(boxes[:, :4], axis=0))
    return left, top, right, bottom


def tables(score: Score) -> list[Table]:
    """Two tables: the measures with their goals, and the planted flaws."""
    measures = Table(title=f"Score against the truth: {score.videos} videos, {score.clips} clips, {score.kept} kept")
    measures.add_column("measure")
    for name in ("result", "counted", "goal"):
        measures.add_column(name, justify="right")
    for name, title in _TITLES.items():
        rate: Rate = getattr(score, name)
        measures.add_row(title, _percent(rate.share), f"{rate.n:.0f} of {rate.of:.0f}", _goal(name, rate.share))
    measures.add_row("scene cuts, F1", _percent(score.cut_f1), f"{score.cut_recall.of:.0f} cuts", "100 %")
    flaws = Table(title="Planted flaws")
    for name in ("flaw", "caught", "what was measured where missed, else the first case"):
        flaws.add_column(name)
    by_name: dict[str, list[Planted]] = defaultdict(list)
    for planted in score.flaws:
        by_name[planted.flaw].append(planted)
    for name, cases in by_name.items():
        missed = [case for case in cases if not case.caught]
        caught = len(cases) - len(missed)
        shown = "\n".join(f"{case.video} {case.start_s:.1f} s: {case.measured}" for case in missed or cases[:1])
        colour = "green" if not missed else "red"
        flaws.add_row(f"{name}: {FLAWS[name]}", Text(f"{caught} of {len(cases)}", colour), shown)
    return [measures, flaws]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _goal(name: str, share: float | None) -> Text | str:
    goal = GOALS.get(name)
    if goal is None:
        return ""
    below = name == "word_error_rate"
    met = share is not None and (share < goal if below else share >= goal)
    return Text(f"{'<' if below else '>='} {100 * goal:.0f} %", "green" if met else "red")
