"""Whether a video shows a face at all: a look at its key frames, which costs no decoding of the frames between them."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.stage import Rejection
from stages.media import frames, key_frames

if TYPE_CHECKING:
    from stages.faces import Detector, Image

_PAST_KEY_S = 0.2
"""A part that starts this much after a key frame is decoded from there; at its very time, a seek goes one back."""


@dataclass(frozen=True, kw_only=True)
class Glance:
    """When key frames without a face are enough to say that a video has none.

    What it can miss is a video in which every face stays for less than `max_gap_s` and falls between two key frames;
    encoders put one at most cuts, video sites at least every 5 s or so. A weak find is no face yet (the real SCRFD has
    one in 2 of 23 key frames of a filmed screen): from the key frame before it to the one after it, everything is
    decoded and looked at.
    """

    max_gap_s: float = 6.0  # between key frames, and from the last to the end; 0: nobody glances
    min_s: float = 15.0  # a shorter video has too few key frames (a dark first one, a title), and costs little anyway
    max_share: float = 0.5  # of a video that is decoded for weak finds; if it would be more, all of it is watched

    def faceless(
        self,
        path: Path,
        duration_s: float,
        detector: "Detector",
        *,
        short_side_px: int,
        sure: float,
        end_s: float | None = None,
        threads: int = 1,
    ) -> Rejection | None:
        """Says "no_face" where no face is found with a score of `sure` before `end_s` (else the file's end); None at
        the first, and wherever there is doubt.

        Doubt: a short video, key frames too far apart, times that do not grow, many weak finds. Raises `MediaError`.
        """
        if not self.max_gap_s or duration_s < self.min_s:
            return None
        edges = [0.0]  # the start, the key frames, the end
        scores: list[float] = []  # of every key frame's best find
        shown = key_frames(path, short_side_px=short_side_px, end_s=end_s, threads=threads)
        while sheet := list(itertools.islice(shown, detector.config.per_sheet)):
            edges += [time_s for time_s, _ in sheet]
            scores += _best([image for _, image in sheet], detector)
            if max(scores) >= sure or not self._dense(edges[-len(sheet) - 1 :]):
                return None
        edges.append(duration_s)
        if not scores or not self._dense(edges):
            return None
        spans = _around([i for i, score in enumerate(scores) if score], edges)
        if sum(end - start for start, end in spans) > self.max_share * duration_s:
            return None
        n_frames, best = len(scores), max(scores)
        for start_s, end_s in spans:
            for batch in frames(
                path, start_s=start_s + _PAST_KEY_S, end_s=end_s, short_side_px=short_side_px, threads=threads
            ):
                looked = list(batch.images[:: detector.config.every])
                n_frames, best = n_frames + len(looked), max(best, *_best(looked, detector))
                if best >= sure:
                    return None
        gap_s = max(b - a for a, b in itertools.pairwise(edges))
        return Rejection(
            "no_face", {"n_frames": n_frames, "best_score": round(best, 3), "largest_gap_s": round(gap_s, 2)}
        )

    def _dense(self, edges: list[float]) -> bool:
        """Whether times (the first is the start) grow, by little enough. The first key frame may be at the start."""
        steps = [b - a for a, b in itertools.pairwise(edges)]
        return steps[0] >= 0 and all(step > 0 for step in steps[1:]) and max(steps) <= self.max_gap_s


def _best(images: list["Image"], detector: "Detector") -> list[float]:
    """The score of the best find in each picture; 0 where there is none."""
    return [float(found.box[:, 4].max(initial=0.0)) for found in detector.detect(images)]


def _around(weak: list[int], edges: list[float]) -> list[tuple[float, float]]:
    """Spans from the edge before to the edge after each weak key frame, joined where they meet."""
    spans: list[tuple[float, float]] = []
    for i in weak:
        start = edges[i]
        if spans and start <= spans[-1][1]:
            start, _ = spans.pop()
        spans.append((start, edges[i + 2]))
    return spans
