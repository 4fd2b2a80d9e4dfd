"""The head's motion from a video of a face: the landmarks that the prior may be given (section 3.3 of MCDM).

The video says how a head moves, the reference whose it is and where: the reference's own landmarks are moved as those
of the video move about their median place, scaled by the size of the two faces.
"""

import logging
from pathlib import Path

import numpy as np

from manifests.records import RATE_HZ
from mcdm.encode import head_state
from mcdm.faces import Floats, smooth
from mcdm.identity import FacePack
from stages import media
from stages.pose import angles

log = logging.getLogger("mcdm")

_LOOK_PX = 480
"""Shorter side at which pictures are looked at; the detector has no more than 320 x 320."""


def read_driving(path: Path, frames: int, face_pack: str) -> Floats:
    """Smoothed landmarks (frames, 5, 2) of the face of a video on the 25 fps grid, in pixels of any scale. A shorter
    video goes back and forth: its motion nowhere jumps. No more is read than is needed, and no picture is kept.

    Where the face is not found it moves straight from where it was to where it is next. Raises `ValueError` with one
    line for a video that cannot be read or shows no face.
    """
    if not face_pack:
        raise ValueError("--driving needs a --face-pack that finds the face, not none")
    pack, found, n_frames = FacePack(face_pack), dict[int, Floats](), 0
    last: Floats | None = None
    try:
        for part in media.frames(path, end_s=frames / RATE_HZ, short_side_px=_LOOK_PX):
            for number, picture in enumerate(part.images, part.first_frame):
                faces = pack.landmarks(picture)
                if len(faces):
                    found[number] = last = _same(faces, last)
            n_frames = part.first_frame + len(part.images)
    except (media.MediaError, OSError) as error:
        raise ValueError(f"--driving {path}: no video that can be read ({error})") from error
    if not found:
        raise ValueError(f"--driving {path}: {face_pack} finds no face in {n_frames} frames")
    log.info("%s: a face in %d of %d frames", path, len(found), n_frames)
    seen = np.stack(list(found.values())).reshape(len(found), 10)
    tracks = [np.interp(np.arange(n_frames), list(found), track) for track in seen.T]
    landmarks = smooth(np.stack(tracks, 1).reshape(n_frames, 5, 2).astype(np.float32))
    return np.pad(landmarks, ((0, frames - n_frames), (0, 0), (0, 0)), mode="reflect")


def heads_like(driving: Floats, own: Floats) -> Floats:
    """Head states (F, 13), see `mcdm.motion`, of a face with landmarks `own` (5, 2), shares of the picture, that moves
    as `driving` (F, 5, 2) does."""
    usual = np.median(driving, axis=0)
    points = own + _size(own) / max(_size(usual), 1e-6) * (driving - usual)
    return head_state(points, angles(points), 1)


def _same(faces: Floats, last: Floats | None) -> Floats:
    """Of faces (n, 5, 2) the one that was seen last, by its place; at first the largest."""
    far = [-_size(face) if last is None else float(np.linalg.norm(face.mean(0) - last.mean(0))) for face in faces]
    chosen: Floats = faces[int(np.argmin(far))]
    return chosen


def _size(landmarks: Floats) -> float:
    return float(np.linalg.norm(landmarks - landmarks.mean(0)))
