"""Pure: where a head looks, from the five landmarks that SCRFD gives."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

# A mean adult face in mm: eyes, nose tip, mouth corners (picture left before right); x right, y down, z away from the
# camera, origin at the nose tip. Widths and heights are those of the ArcFace template (insightface.utils.face_align)
# at 63 mm between the pupils: over 40 real clips, seen from the front, the median pitch is then -2 degrees. Depths are
# common anthropometric means; on rendered heads turned by 25 and 45 degrees they give 26 and 47.
MODEL_MM: NDArray[np.float64] = np.array(
    [(-31.5, -36.0, 36.0), (31.5, -36.0, 36.0), (0.0, 0.0, 0.0), (-26.0, 37.0, 30.0), (26.0, 37.0, 30.0)]
)

_CENTRED = MODEL_MM - MODEL_MM.mean(axis=0)
_FIT = np.linalg.pinv(_CENTRED)


def angles(landmarks: ArrayLike) -> NDArray[np.float32]:
    """Yaw, pitch and roll in degrees, (n, 3), of n faces with landmarks (n, 5, 2) in pixels.

    Positive yaw looks to the picture's right, positive pitch up, positive roll tilts clockwise; all zero is the mean
    face seen from the front. Solved as pose from orthography (DeMenthon and Davis, Model-based object pose, 1995,
    first step): the best scaled projection, made a rotation by SVD. Needs no focal length, which wild video never
    states; a face that fills the picture costs a few degrees.
    """
    points = np.asarray(landmarks, np.float64).reshape(-1, 5, 2)
    centred = points - points.mean(axis=1, keepdims=True)
    projection = np.einsum("ij,njk->nki", _FIT, centred)  # (n, 2, 3): scaled first two rows of the rotation
    u, _, vt = np.linalg.svd(projection, full_matrices=False)
    first, second = np.moveaxis(u @ vt, 1, 0)
    third = np.cross(first, second)
    yaw = np.arctan2(third[:, 0], np.hypot(first[:, 0], second[:, 0]))
    pitch = -np.arctan2(third[:, 1], third[:, 2])
    roll = np.arctan2(second[:, 0], first[:, 0])
    return np.asarray(np.degrees(np.stack([yaw, pitch, roll], axis=1)), np.float32)
