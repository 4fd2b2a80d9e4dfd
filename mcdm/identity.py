"""Faces of pictures by an insightface pack: boxes, five landmarks and ArcFace-type embeddings."""

import contextlib
import io
import warnings
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from mcdm.faces import Bytes, Floats

LOOK_PX = 256
"""Small pictures are shown to the detector at this size, with a margin: faces that fill a picture are missed."""

PACKAGED = "sample/faces"
"""The pack that comes with the project: small networks for the rendered sample world."""


@dataclass(frozen=True)
class Face:
    """A found face: landmarks (5, 2) in the picture's pixels and its unit embedding."""

    landmarks: Floats
    embedding: Floats


class FacePack:
    """Detector and recogniser of a pack: a registered name or a folder of ONNX files. Raises `ValueError`."""

    def __init__(self, name: str) -> None:
        import onnxruntime
        from insightface.app import FaceAnalysis
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        from stages import weights

        try:
            folder = weights.path(name)
        except weights.WeightsMissingError as error:
            raise ValueError(f"--face-pack {name}: {error}") from error
        if not any(folder.glob("*.onnx")):
            raise ValueError(f"--face-pack {name}: no .onnx files in {folder}")
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # torch wants the cores in between
        unreadable = (state.InvalidProtobuf, state.InvalidGraph, state.InvalidArgument, state.Fail, state.NoSuchFile)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it lists what it opens
                app: Any = FaceAnalysis(
                    name=str(folder.absolute()),
                    allowed_modules=["detection", "recognition"],
                    providers=["CPUExecutionProvider"],
                    sess_options=options,
                )
                app.prepare(ctx_id=-1, det_size=(320, 320))
        except unreadable as error:
            raise ValueError(f"--face-pack {name}: {' '.join(str(error).split())}") from error
        except AssertionError as error:  # insightface's, where no file is a detector
            raise ValueError(f"--face-pack {name}: no detector in {folder}") from error
        if "recognition" not in app.models:
            raise ValueError(f"--face-pack {name}: no recogniser in {folder}")
        self.name, self._app = name, app

    def find(self, picture: Bytes) -> list[Face]:
        """The faces of a BGR picture, the largest first."""
        shown, margin, scale = _shown(picture)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # insightface calls scikit-image by an old name
            seen = self._app.get(shown)
        found = sorted(seen, key=lambda face: -float(np.prod(face.bbox[2:] - face.bbox[:2])))
        return [
            Face(((face.kps - margin) / scale).astype(np.float32), face.normed_embedding.astype(np.float32))
            for face in found
        ]

    def landmarks(self, picture: Bytes) -> Floats:
        """Landmarks (n, 5, 2) of the faces of a BGR picture, in its pixels: `find` without the recogniser."""
        shown, margin, scale = _shown(picture)
        _, points = self._app.det_model.detect(shown, max_num=0, metric="default")
        found: Floats = ((points - margin) / scale).astype(np.float32)
        return found

    def of(self, rgb: Bytes) -> Face | None:
        """The largest face of an RGB picture, or None."""
        found = self.find(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        return found[0] if found else None


def _shown(picture: Bytes) -> tuple[Bytes, int, float]:
    """A picture as the detector is shown it, the margin around it, and how many times as large it is."""
    height, width = picture.shape[:2]
    scale = max(LOOK_PX / max(height, width), 1.0)
    shown = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) if scale > 1 else picture
    margin = max(shown.shape[:2]) // 4
    shown = cv2.copyMakeBorder(shown, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=(127, 127, 127))
    return np.asarray(shown, np.uint8), margin, scale
