"""Clips and the segments of the truth that they show."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from manifests.records import RATE_HZ, Speech, Sync, Verdict
from manifests.sample.truth import Segment, Truth, VideoTruth
from stages.judge import Candidate, Measured, candidates

CUT_TOLERANCE_S = 1.5 / RATE_HZ
"""A cut found this near to a true one is that cut."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Placed:
    """A clip and the segment of the truth that it shows."""

    video: VideoTruth
    segment: Segment
    one: Candidate
    verdict: Verdict | None

    @property
    def kept(self) -> bool:
        return self.verdict is not None and self.verdict.kept

    @property
    def span(self) -> tuple[float, float]:
        return self.one.clip.start_s, self.one.clip.end_s


def name_of(url: str) -> str:
    """The last part of a URL or path."""
    return unquote(PurePosixPath(urlsplit(url).path).name)


def place(
    video: VideoTruth, measured: Measured, given: Mapping[str, Verdict], windows: Mapping[str, Box]
) -> Iterator[Placed]:
    for one in candidates([measured]):
        segment = _shown(video, one.clip.start_s, one.clip.end_s, windows.get(one.clip.key))
        if segment is not None:
            yield Placed(video, segment, one, given.get(one.clip.key))


def _shown(video: VideoTruth, start_s: float, end_s: float, window: Box | None) -> Segment | None:
    """The segment that a clip shows most of: by shared time, then by the person nearest to the window's middle."""

    def fit(segment: Segment) -> tuple[float, float]:
        shared = min(segment.end_s, end_s) - max(segment.start_s, start_s)
        if window is None or segment.person < 0:
            return round(shared, 2), 0.0
        dx = (segment.box[0] + segment.box[2] - window[0] - window[2]) / 2
        dy = (segment.box[1] + segment.box[3] - window[1] - window[3]) / 2
        return round(shared, 2), -(dx * dx + dy * dy)

    best = max(video.segments, key=fit, default=None)
    return best if best is not None and fit(best)[0] > 0 else None


def where(p: Placed) -> str:
    start_s, end_s = p.span
    return f"{p.video.path} {start_s:.1f}-{end_s:.1f} s"


def why_not(p: Placed) -> str:
    if p.verdict is None:
        return "not judged"
    said = [f"{r.rule} {_short(r.value)} (limit {_short(r.limit)})" for r in p.verdict.receipts]
    return ", ".join(said) or "kept"


def _short(value: float | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def originals(truth: Truth) -> dict[int, Segment]:
    """Segments of copies by identity to the segment of the video they are copies of."""
    by_path = {video.path: video for video in truth.videos}
    return {
        id(copied): original
        for video in truth.videos
        if video.copy_of in by_path
        for copied, original in zip(video.segments, by_path[video.copy_of].segments, strict=True)
    }


def crosses_cut(p: Placed) -> bool:
    start_s, end_s = p.span
    return any(start_s + CUT_TOLERANCE_S < cut < end_s - CUT_TOLERANCE_S for cut in p.video.cuts_s)


def measures(p: Placed) -> str:
    sync: Sync | None = p.one.sync
    speech: Speech | None = p.one.speech
    said = [] if sync is None else [f"offset {sync.offset_frames:+d}", f"confidence {sync.confidence:.1f}"]
    if speech is not None:
        said.append(f"{speech.language or 'no'} speech {speech.speech_share:.0%}")
    return ", ".join(said)
