"""Pure: detections of single frames, and where the cuts lie, to face tracks on every frame."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifests.records import RATE_HZ

_MEMORY_FRAMES = 0.2 * RATE_HZ


@dataclass(frozen=True)
class Detections:
    """Faces found in the looked-at frames of one video, as flat rows in order of time. Source pixels.

    `looked` (m,) are the frames that were looked at; row i was found in frame `frame[i]`, with `box[i]` (x0, y0, x1,
    y1, score) and landmarks `lmk[i]` (5, 2): eyes, nose tip, mouth corners, picture left before right.
    """

    looked: NDArray[np.int32]
    frame: NDArray[np.int32]
    box: NDArray[np.float32]
    lmk: NDArray[np.float32]


@dataclass(frozen=True)
class Linking:
    """How detections become tracks.

    Values: see `tests/stages/test_tracks.py` for the crossings and gaps they hold for.
    """

    max_step: float = 0.6  # a face lies at most this far, in face sizes, from where it was or where its motion leads
    max_gap_s: float = 1.0  # a face may stay unseen this long inside a track
    min_score: float = 0.5  # a track begins with, and is somewhere at least, this sure
    min_length_s: float = 0.4  # shorter tracks are dropped: two looks at the default cadence
    smooth_s: float = 0.36  # window of the Savitzky-Golay filter over boxes and landmarks


@dataclass(frozen=True)
class Linked:
    """One face on consecutive frames `start` .. `start + n - 1`, smoothed.

    `box` (n, 5) source pixels and score; the score is 0 where the face was looked for and not found (a bridged gap),
    and interpolated between looks that found it. `lmk` (n, 5, 2). `rows` are the detections that it was made of.
    """

    scene: int
    start: int
    box: NDArray[np.float32]
    lmk: NDArray[np.float32]
    rows: NDArray[np.intp]

    @property
    def end(self) -> int:
        """One past the last frame."""
        return self.start + len(self.box)


class _Open:
    """A track that may still grow: its rows so far, and a constant-velocity guess of where the face is next."""

    def __init__(self, row: int, frame: int, box: NDArray[np.float32]) -> None:
        self.rows = [row]
        self.frame = frame
        self.state = _state(box)
        self._velocity = np.zeros(4)

    def expected(self, frame: int) -> NDArray[np.float64]:
        """Centre and log size at that frame; sizes do not coast, a guess of growth runs away within a second."""
        step = self._velocity * (frame - self.frame)
        return np.asarray(self.state + np.array([step[0], step[1], 0.0, 0.0]))

    def add(self, row: int, frame: int, box: NDArray[np.float32]) -> None:
        state, step = _state(box), frame - self.frame
        # Averaged over about 0.2 s, at any cadence: a jolt of the camera must not carry a face out of reach.
        self._velocity += ((state - self.state) / step - self._velocity) * (1 - np.exp(-step / _MEMORY_FRAMES))
        self.state, self.frame = state, frame
        self.rows.append(row)


def _state(box: NDArray[np.float32]) -> NDArray[np.float64]:
    x0, y0, x1, y1 = (float(v) for v in box[:4])
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2, np.log(max(x1 - x0, 1.0)), np.log(max(y1 - y0, 1.0))])


def link(found: Detections, cuts: Sequence[int], n_frames: int, how: Linking | None = None) -> list[Linked]:
    """Link detections to tracks, ordered by first frame; no track crosses a cut (the first frame of a new scene).

    In every looked-at frame the detections are assigned to the open tracks by least total distance (Kuhn and Munkres,
    `scipy.optimize.linear_sum_assignment`) between the box and the box expected from the track's own motion; sure
    detections first, weaker ones may only continue a track (Zhang et al., ByteTrack, 2022). A track whose face is not
    found coasts until `max_gap_s`, so two people who cross keep their tracks. Between looks boxes and landmarks are
    interpolated (PCHIP: no overshoot), then smoothed (Savitzky and Golay, second order).
    """
    how = how or Linking()
    bounds = [0, *cuts, n_frames]
    linked: list[Linked] = []
    for scene, (start, end) in enumerate(itertools.pairwise(bounds)):
        looked = found.looked[(found.looked >= start) & (found.looked < end)]
        for chain in _chains(found, looked, how):
            track = _filled(found, looked, chain, scene, (start, end), how)
            if len(track.box) >= how.min_length_s * RATE_HZ and found.box[chain, 4].max() >= how.min_score:
                linked.append(track)
    return sorted(linked, key=lambda t: (t.start, float(t.box[0, 0])))


def _chains(found: Detections, looked: NDArray[np.int32], how: Linking) -> list[list[int]]:
    open_tracks: list[_Open] = []
    closed: list[_Open] = []
    firsts = np.searchsorted(found.frame, looked, side="left")
    lasts = np.searchsorted(found.frame, looked, side="right")
    for frame, first, last in zip(looked.tolist(), firsts.tolist(), lasts.tolist(), strict=True):
        lost = [t for t in open_tracks if frame - t.frame > how.max_gap_s * RATE_HZ]
        closed += lost
        open_tracks = [t for t in open_tracks if t not in lost]
        rows = np.arange(first, last)
        sure = found.box[rows, 4] >= how.min_score
        free = _assign(open_tracks, rows[sure], found, frame, how)
        _assign([t for t in open_tracks if t.frame < frame], rows[~sure], found, frame, how)
        open_tracks += [_Open(row, frame, found.box[row]) for row in free]
    return [t.rows for t in closed + open_tracks]


def _assign(tracks: list[_Open], rows: NDArray[np.intp], found: Detections, frame: int, how: Linking) -> list[int]:
    """Add to each track at most one of the rows; return the rows that fit no track."""
    from scipy.optimize import linear_sum_assignment

    if not tracks or not len(rows):
        return [int(row) for row in rows]
    states = np.stack([_state(found.box[row]) for row in rows])
    carried_on = _distance(np.stack([t.expected(frame) for t in tracks]), states)
    # A head that stops is where it was; slightly dearer, so that of two who cross each is carried on.
    cost = np.minimum(carried_on, _distance(np.stack([t.state for t in tracks]), states) + 0.1)
    # A forbidden pair must cost more than any allowed matching can save, else it is bought to please another.
    barred = cost > how.max_step
    pairs = zip(*linear_sum_assignment(np.where(barred, 1e3, cost)), strict=True)
    taken = set()
    for i, j in pairs:
        if not barred[i, j]:
            tracks[i].add(int(rows[j]), frame, found.box[rows[j]])
            taken.add(int(rows[j]))
    return [int(row) for row in rows if int(row) not in taken]


def _distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Between every state of a and of b: of the centres in face sizes, plus the mean change of log size."""
    size = np.exp((a[:, None, 2:] + b[None, :, 2:]) / 2)
    away = (a[:, None, :2] - b[None, :, :2]) / size
    grown = np.abs(a[:, None, 2:] - b[None, :, 2:]).mean(axis=2)
    return np.asarray(np.hypot(away[..., 0], away[..., 1]) + grown)


def _filled(
    found: Detections,
    looked: NDArray[np.int32],
    chain: list[int],
    scene: int,
    bounds: tuple[int, int],
    how: Linking,
) -> Linked:
    """The chain on every frame, carried on to the scene's bounds where no look lies between, smoothed."""
    from scipy.interpolate import PchipInterpolator
    from scipy.signal import savgol_filter

    rows = np.array(chain)
    at = found.frame[rows]
    # Cadence: a face seen at the first look of a scene was there from the cut on, though nobody looked.
    start = bounds[0] if at[0] == looked[0] else int(at[0])
    end = bounds[1] if at[-1] == looked[-1] else int(at[-1]) + 1
    frames = np.arange(start, end)
    values = np.concatenate([found.box[rows, :4], found.lmk[rows].reshape(-1, 10)], axis=1).astype(np.float64)
    inner = np.clip(frames, at[0], at[-1])
    full = PchipInterpolator(at, values, axis=0)(inner) if len(rows) > 1 else np.repeat(values, len(frames), axis=0)
    if len(rows) > 1:
        for edge, near, outside in ((0, 1, frames < at[0]), (-1, -2, frames > at[-1])):
            speed = (values[edge] - values[near]) / float(at[edge] - at[near])
            full[outside] = values[edge] + speed * (frames[outside] - at[edge])[:, None]
    window = min(round(how.smooth_s * RATE_HZ) // 2 * 2 + 1, (len(frames) - 1) // 2 * 2 + 1)
    if window >= 5:
        full = savgol_filter(full, window, polyorder=2, axis=0, mode="interp")
    score = np.interp(inner, at, found.box[rows, 4])
    missed = np.setdiff1d(looked[(looked > at[0]) & (looked < at[-1])], at)
    # Every frame between the last look that found it and the next: nothing is known of the face there.
    before = np.searchsorted(at, missed, side="right") - 1
    for k in np.unique(before):
        score[at[k] + 1 - start : at[k + 1] - start] = 0.0
    box = np.concatenate([full[:, :4], score[:, None]], axis=1).astype(np.float32)
    return Linked(scene, start, box, full[:, 4:].reshape(-1, 5, 2).astype(np.float32), rows)
