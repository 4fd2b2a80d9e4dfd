"""Faces of pictures by an insightface pack: boxes, five landmarks and ArcFace-type embeddings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mcdm.faces import Bytes, Floats

LOOK_PX = 256
"""Small pictures are shown to the detector at this size, with a margin: faces that fill a picture are missed."""


@dataclass(frozen=True)
class Face:
    """A found face: landmarks (5, 2) in the picture's pixels and its unit embedding."""

    landmarks: Floats
    embedding: Floats


class FacePack:
    """A folder with the ONNX files of a pack (detector and recogniser). Raises `ValueError` where there is none."""

    def __init__(self, folder: Path) -> None:
        if not any(folder.glob("*.onnx")):
            raise ValueError(f"{folder}: no face pack (a folder of .onnx files)")
        from insightface.app import FaceAnalysis

        app: Any = FaceAnalysis(
            name=str(folder.absolute()),
            allowed_modules=["detection", "recognition"],
            providers=["CPUExecutionProvider"],
        )
        app.prepare(ctx_id=-1, det_size=(320, 320))
        self._app = app

    def find(self, picture: Bytes) -> list[Face]:
        """The faces of a BGR picture, the largest first."""
        height, width = picture.shape[:2]
        scale = max(LOOK_PX / max(height, width), 1.0)
        shown = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) if scale > 1 else picture
        margin = max(shown.shape[:2]) // 4
        shown = cv2.copyMakeBorder(shown, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=(127, 127, 127))
        found = sorted(self._app.get(shown), key=lambda face: -float(np.prod(face.bbox[2:] - face.bbox[:2])))
        return [
            Face(((face.kps - margin) / scale).astype(np.float32), face.normed_embedding.astype(np.float32))
            for face in found
        ]

    def of(self, rgb: Bytes) -> Face | None:
        """The largest face of an RGB picture, or None."""
        found = self.find(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        return found[0] if found else None
