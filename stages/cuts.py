"""Observer: scene cuts, by PySceneDetect's own detectors on the frames that everybody looks at."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from stages.media import Frames


@dataclass(frozen=True, kw_only=True)
class Cuts:
    """Which detectors, how strict.

    Ratio and window are those that score best over PySceneDetect's public benchmarks. `min_change` and
    `min_scene_frames` are lower than its defaults (15 and 15 frames): the jump cuts of one speaker before one
    background change the picture by 13 to 14, and cuts 10 to 13 frames apart are real. Over 60 clips of real footage
    this finds 5 true cuts more, and two false ones in restless shots of crowds and sport; none on a single take of a
    talking head. A cut that is missed costs a clip that jumps; one too many costs a shorter clip.
    """

    adaptive_threshold: float = 3.5  # a frame's change against the mean change of its neighbours
    window_frames: int = 3  # neighbours to either side
    min_change: float = 12.0  # mean change of hue, saturation and luma below which nothing is a cut, 0..255
    min_scene_frames: int = 4
    fade_luma: float | None = (
        4.0  # mean below which the picture is black; at 12 dim stages count as fades; None: no fades
    )
    height_px: int = 80  # detectors see the picture halved as often as this leaves: a fifth of the time of one resize

    def watcher(self) -> "CutWatcher":
        """A fresh observer of one video."""
        return CutWatcher(self)


@dataclass
class CutWatcher:
    """Give it every frame in order; `done` gives the cuts."""

    config: Cuts
    _found: set[int] = field(default_factory=set)
    _last: tuple[int, NDArray[np.uint8]] | None = None

    def __post_init__(self) -> None:
        from scenedetect.detectors import AdaptiveDetector, ThresholdDetector

        c = self.config
        self._detectors: list[Any] = [
            AdaptiveDetector(
                adaptive_threshold=c.adaptive_threshold,
                min_scene_len=c.min_scene_frames,
                window_width=c.window_frames,
                min_content_val=c.min_change,
            )
        ]
        if c.fade_luma is not None:
            self._detectors.append(ThresholdDetector(threshold=c.fade_luma, min_scene_len=c.min_scene_frames))

    def see(self, frames: "Frames") -> None:
        """The next frames of the video."""
        for number, image in enumerate(frames.images, frames.first_frame):
            small = image
            while small.shape[0] >= 2 * self.config.height_px and small.shape[1] > 1:  # narrow ones have no half
                small = cv2.resize(small, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            self._process(number, small)
            self._last = number, small

    def done(self) -> tuple[int, ...]:
        """The first frame of every scene but the first, ascending."""
        if self._last is None:
            return ()
        number, small = self._last
        # The adaptive detector judges a frame when `window` more have come: without these it never judges the last.
        for extra in range(1, self.config.window_frames + 1):
            self._found.update(self._detectors[0].process_frame(number + extra, small))
        for detector in self._detectors:
            self._found.update(detector.post_process(number))
        return self._apart(sorted(cut for cut in self._found if 0 < cut <= number))

    def _process(self, number: int, small: NDArray[np.uint8]) -> None:
        for detector in self._detectors:
            self._found.update(detector.process_frame(number, small))

    def _apart(self, cuts: list[int]) -> tuple[int, ...]:
        """Two detectors may report one change: the earlier stands for both."""
        kept: list[int] = []
        for cut in cuts:
            if not kept or cut - kept[-1] >= self.config.min_scene_frames:
                kept.append(cut)
        return tuple(kept)
