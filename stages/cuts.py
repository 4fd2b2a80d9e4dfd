"""Observer: scene cuts, by PySceneDetect's own detectors on the frames that everybody looks at."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from stages.media import Frames


_DEVIATION = 48.0


@dataclass(frozen=True, kw_only=True)
class Cuts:
    """Which detectors, how strict.

    Ratio and window are those that score best over PySceneDetect's public benchmarks. `min_change` and
    `min_scene_frames` are lower than its defaults (15 and 15 frames): the jump cuts of one speaker before one
    background change the picture by 13 to 14, and cuts 10 to 13 frames apart are real. Over 60 clips of real footage
    this finds 5 true cuts more, and two false ones in restless shots of crowds and sport; none on a single take of a
    talking head. A cut that is missed costs a clip that jumps; one too many costs a shorter clip.

    A jump cut before a still background may change the picture by 5 and less. The second detector sees it where it is
    many times what the frames around it change, in luma freed of brightness and contrast: coarsely coded key frames and
    steps of exposure change hue and brightness as much, shapes hardly. Of 483 made jump cuts in 27 clips 274 are found,
    not 180 (head and shoulders 3 of 4, small figures 1 of 4), with no cut more in 7 minutes of real footage. At a ratio
    of 5 it would be 21 more, and two false cuts. What stands still for a few frames may be cut where it goes on.
    """

    adaptive_threshold: float = 3.5  # a frame's change against the mean change of its neighbours
    window_frames: int = 3  # neighbours to either side
    min_change: float = 12.0  # mean change of hue, saturation and luma below which nothing is a cut, 0..255
    jump_ratio: float | None = 6.0  # as adaptive_threshold, of the second detector; None: it is not asked
    min_jump: float = 4.0  # as min_change, of luma whose standard deviation is made 48
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
        self._jumps: Any = None
        if c.jump_ratio is not None:
            self._jumps = AdaptiveDetector(
                adaptive_threshold=c.jump_ratio,
                min_scene_len=c.min_scene_frames,
                window_width=c.window_frames,
                min_content_val=c.min_jump,
                luma_only=True,
            )
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
        # Not that of jumps: any movement is many times what a picture that stands still changes.
        for extra in range(1, self.config.window_frames + 1):
            self._found.update(self._detectors[0].process_frame(number + extra, small))
        for detector in self._detectors:
            self._found.update(detector.post_process(number))
        return self._apart(sorted(cut for cut in self._found if 0 < cut <= number))

    def _process(self, number: int, small: NDArray[np.uint8]) -> None:
        for detector in self._detectors:
            self._found.update(detector.process_frame(number, small))
        if self._jumps is not None:
            self._found.update(self._jumps.process_frame(number, _evened(small)))

    def _apart(self, cuts: list[int]) -> tuple[int, ...]:
        """Two detectors may report one change: the earlier stands for both."""
        kept: list[int] = []
        for cut in cuts:
            if not kept or cut - kept[-1] >= self.config.min_scene_frames:
                kept.append(cut)
        return tuple(kept)


def _evened(small: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma at half the size, its mean 128 and its standard deviation 48, as a grey picture (h/2, w/2, 3)."""
    luma = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    if min(luma.shape) > 1:
        luma = cv2.resize(luma, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    mean, deviation = luma.mean(), luma.std()
    # A flat or black picture is all noise: it is not made louder than five times.
    even = (luma - mean) * (_DEVIATION / max(deviation, _DEVIATION / 5)) + 128
    grey = np.clip(even, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
