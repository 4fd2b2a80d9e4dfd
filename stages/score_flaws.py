"""Planted flaws of a rendered corpus: which a run caught, and what it measured on them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from manifests.sample.truth import Truth, VideoTruth
from stages.judge import Measured
from stages.score_match import Placed, crosses_cut, measures, originals, why_not

KEEP_FLAWS = ("small_shift", "cut_in_speech")
"""Flaws that are caught by keeping."""


@dataclass(frozen=True, kw_only=True)
class Planted:
    """One planted flaw: where, whether it was handled as it should be, and what was measured."""

    flaw: str
    video: str
    start_s: float
    caught: bool
    measured: str


def planted(truth: Truth, by_name: Mapping[str, Measured], by_segment: Mapping[int, list[Placed]]) -> Iterator[Planted]:
    for video in truth.videos:
        measured = by_name.get(video.path)
        if video.flaw:
            clips = [p for segment in video.segments for p in by_segment.get(id(segment), ())]
            caught = _file_handled(video, measured, clips, truth, by_segment)
            yield Planted(
                flaw=video.flaw, video=video.path, start_s=0.0, caught=caught, measured=_found(measured, clips)
            )
            continue
        for segment in video.segments:
            if not segment.flaw:
                continue
            clips = by_segment.get(id(segment), [])
            kept = any(p.kept for p in clips)
            caught = kept and not any(crosses_cut(p) for p in clips) if segment.flaw in KEEP_FLAWS else not kept
            yield Planted(
                flaw=segment.flaw,
                video=video.path,
                start_s=segment.start_s,
                caught=caught and measured is not None,
                measured=_found(measured, clips),
            )


def _file_handled(
    video: VideoTruth,
    measured: Measured | None,
    clips: list[Placed],
    truth: Truth,
    by_segment: Mapping[int, list[Placed]],
) -> bool:
    if measured is None or measured.failed is not None:
        return False
    if video.flaw == "truncated":  # what lies before the end may be kept
        return measured.rejected is not None or all(p.span[1] <= video.duration_s for p in clips)
    if video.flaw != "duplicate":
        return not any(p.kept for p in clips)
    copied = originals(truth)
    both = [p for p in clips if p.kept and any(q.kept for q in by_segment.get(id(copied.get(id(p.segment))), ()))]
    return not both


def _found(measured: Measured | None, clips: list[Placed]) -> str:
    if measured is None:
        return "not run"
    if measured.failed is not None:
        return "failed: " + measured.failed[2]
    if measured.rejected is not None:
        stage, reason, _ = measured.rejected
        return f"{stage}: {reason}"
    return "; ".join(f"{why_not(p)}; {measures(p)}" for p in clips) or "no clip"
