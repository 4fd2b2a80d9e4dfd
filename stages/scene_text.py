"""How much of a picture is lines of text: subtitles, headlines, name plates, what is written on walls and shirts."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
ShareOf = Callable[[Sequence[Image]], float | None]

_SIDE_PX = 256
"""Of the square that the detector looks at. Letters of 16 px of a 512 px clip are found there; at 512 px a look costs
five times as much, and large soft faces are taken for text."""

_LEAST_LENGTH, _MOST_HEIGHT = 3.0, 0.25
"""A line is at least so many times as long as high, and at most so much of the picture high. What is shorter or larger
may be a logo, and in pictures of faces is mostly eyes, earrings, whole faces."""


def open_detector(model: Path) -> ShareOf:
    """The share of square pictures (n, n, 3) BGR that lies within lines of text, the most of any; None of no picture.

    Subtitles come and go, so the most. `model` is the ONNX file of PP-OCR's detector (differentiable binarization, Liao
    et al., arXiv 1911.08947), which runs on one core of the processor. Lines that run up or down do not count.
    """
    from rapidocr import RapidOCR

    find = RapidOCR(
        params={
            "Global.use_cls": False,
            "Global.use_rec": False,
            "Global.log_level": "error",
            "Det.model_path": str(model),
            "Det.limit_side_len": _SIDE_PX,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,  # the default takes every core, for each worker
        }
    )

    def share(image: Image) -> float:
        boxes = find(cv2.resize(image, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA)).boxes
        return lines_share(np.empty((0, 4, 2)) if boxes is None else boxes, _SIDE_PX)

    return lambda images: max((share(image) for image in images), default=None)


def lines_share(boxes: NDArray[np.number], side_px: int) -> float:
    """The share of a square picture within those boxes (n, 4, 2: clockwise from the top left) that are lines of text.

    Boxes that overlap count twice, up to 1.
    """
    length, height = (np.linalg.norm(boxes[:, 0] - boxes[:, corner], axis=1) for corner in (1, 3))
    lines = (length >= _LEAST_LENGTH * height) & (height <= _MOST_HEIGHT * side_px)
    return min(float((length * height)[lines].sum()) / side_px**2, 1.0)
