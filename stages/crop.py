"""Where to cut: a square window over a face, of one size and as still as the face lets it be. Pure NumPy and SciPy."""

import itertools

import numpy as np

_STILL_SLACK = 0.03
"""A face may come this near (share of the side) to the edge of a window that stands still."""

_SHIFT = 0.1
"""To stay inside the picture the window may leave the face off centre by this share of its side, and no further."""

_PERIODS_FRAMES = (200.0, 100.0, 50.0, 25.0, 12.0)
"""Cut-off periods tried for a moving window, the smoothest first: from 8 s to half a second."""


def windows(boxes: np.ndarray, *, margin: float, width_px: int, height_px: int) -> np.ndarray:
    """Square windows (n, 4) float64 x0, y0, x1, y1 for face boxes (n, 4), all in source pixels.

    The side is `margin` times the face's (its longer side, 90th percentile), one value for the clip. The window stands
    still, on whole even pixels, if the face stays inside it; else its centre follows the face through the smoothest of
    a few Whittaker filters that keeps the face inside. Near the picture's edge it is shifted inwards a little. It may
    leave the picture.
    """
    sides = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    side = max(2 * round(margin * float(np.percentile(sides, 90)) / 2), 2)
    centres = np.stack([boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3]], axis=1) / 2
    picture = np.array([width_px, height_px])

    middle = (centres.min(axis=0) + centres.max(axis=0)) / 2
    corner = 2 * np.round(_shifted(middle, side, picture) / 2 - side / 4)
    still = np.broadcast_to(np.concatenate([corner, corner + side]), (len(boxes), 4))
    if _inside(boxes, still, _STILL_SLACK * side):
        return still.astype(np.float64)
    for period in _PERIODS_FRAMES:
        path = _shifted(smooth(centres, period), side, picture)
        moving = np.concatenate([path - side / 2, path + side / 2], axis=1)
        if _inside(boxes, moving, 0.0):
            break
    return moving


def filled_share(frames: np.ndarray, *, width_px: int, height_px: int) -> float:
    """Mean share, 0..1, of the area of windows (n, 4) that lies outside a picture of this size, all in its pixels."""
    size = frames[:, 2:] - frames[:, :2]
    within = np.minimum(frames[:, 2:], (width_px, height_px)) - np.maximum(frames[:, :2], 0)
    return float(1 - (within.clip(min=0) / size).prod(axis=1).mean())


def smooth(values: np.ndarray, period: float) -> np.ndarray:
    """Whittaker smoothing of (n, k): least squares plus a penalty on second differences (Eilers 2003).

    Oscillations of the given period in frames keep half their amplitude; slower ones pass, faster ones fall by the
    fourth power. Ends are free, so no lag and no pull towards a border.
    """
    from scipy.linalg import solveh_banded

    n = len(values)
    if n < 3:
        return values.astype(np.float64)
    penalty = (period / (2 * np.pi)) ** 4
    bands = np.zeros((3, n))
    for offset, weights in ((0, (1.0, 4.0, 1.0)), (1, (-2.0, -2.0)), (2, (1.0,))):
        for shift, weight in enumerate(weights):
            bands[2 - offset, offset + shift : n - 2 + offset + shift] += penalty * weight
    bands[2] += 1
    return np.asarray(solveh_banded(bands, values.astype(np.float64)))


def _shifted(centres: np.ndarray, side: float, picture: np.ndarray) -> np.ndarray:
    low, high = np.full(2, side / 2), picture - side / 2
    nearest = np.where(low <= high, np.clip(centres, low, np.maximum(low, high)), picture / 2)
    reach = _SHIFT * side
    return np.asarray(np.clip(nearest, centres - reach, centres + reach))


def _inside(boxes: np.ndarray, frames: np.ndarray, slack_px: float) -> bool:
    low = np.minimum(boxes[:, :2] - frames[:, :2], frames[:, 2:] - boxes[:, 2:])
    return bool(low.min() >= slack_px)


def pieces(start_frame: int, end_frame: int, *, max_frames: int, min_frames: int) -> list[tuple[int, int]]:
    """A span of frames in as few pieces of at most `max_frames` as possible, equal to one frame; none if too short."""
    n = end_frame - start_frame
    if n < min_frames:
        return []
    count = -(-n // max_frames)
    edges = [start_frame + n * i // count for i in range(count + 1)]
    return list(itertools.pairwise(edges))
