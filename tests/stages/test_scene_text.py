"""Lines of text are found in pictures of faces, and faces are not taken for text."""

import dataclasses
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from stages import weights
from stages.identity import Recognise
from stages.policies import STRICT
from stages.registry import REGISTRY
from stages.scene_text import lines_share, open_detector
from stages.weights import WeightsMissingError

FONT = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans-Bold.ttf"
SUBTITLES = (
    "We never thought it would",
    "Je ne sais pas pourquoi",
    "Добрый вечер, друзья",
    "Dziękuję bardzo, do jutra",
)


@pytest.fixture(scope="module")
def share():
    return open_detector(weights.path("ppocr_v6_det"))


def head() -> np.ndarray:
    """Something like a speaker before a wall with a shelf: large soft shapes, and hard edges that are no letters."""
    picture = np.full((512, 512, 3), (150, 130, 110), np.uint8)
    cv2.rectangle(picture, (20, 60), (120, 70), (60, 60, 70), -1)
    cv2.ellipse(picture, (256, 250), (110, 150), 0, 0, 360, (140, 170, 215), -1)
    cv2.ellipse(picture, (256, 560), (230, 150), 0, 0, 360, (90, 50, 40), -1)
    for x in (215, 297):
        cv2.circle(picture, (x, 220), 14, (250, 250, 250), -1)
        cv2.circle(picture, (x, 220), 7, (40, 40, 40), -1)
    cv2.ellipse(picture, (256, 330), (42, 16), 0, 0, 360, (80, 70, 170), -1)
    noise = np.random.default_rng(0).normal(0, 6, picture.shape)
    return np.clip(cv2.GaussianBlur(picture, (0, 0), 1.5) + noise, 0, 255).astype(np.uint8)


def subtitled(text: str, size_px: int = 28) -> np.ndarray:
    picture = Image.fromarray(head())
    font = ImageFont.truetype(str(FONT), size_px)
    ImageDraw.Draw(picture).text(
        (256, 440), text, fill="white", font=font, anchor="mm", stroke_width=2, stroke_fill="black"
    )
    return np.asarray(picture)


@pytest.mark.parametrize("text", SUBTITLES)
def test_a_subtitle_is_read_as_about_the_share_that_it_covers(share, text):
    left, top, right, bottom = ImageFont.truetype(str(FONT), 28).getbbox(text)
    covered = (right - left) * (bottom - top) / 512**2
    assert (STRICT.max_text_share or 1) < 0.7 * covered < share([subtitled(text)]) < 2.5 * covered


def test_a_face_without_text_reads_none(share):
    assert share([head()]) == 0


def test_a_subtitle_in_one_of_the_pictures_counts_as_in_all(share):
    text = subtitled(SUBTITLES[0])
    assert share([head(), text, head()]) == share([text]) > 0
    assert share([]) is None


def box(x0: float, y0: float, x1: float, y1: float) -> list[list[float]]:
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def test_only_what_is_long_and_low_is_a_line():
    line, logo, whole, column = box(10, 200, 110, 220), box(0, 0, 30, 20), box(0, 0, 250, 80), box(5, 0, 15, 200)
    assert lines_share(np.array([line, logo, whole, column]), 256) == pytest.approx(100 * 20 / 256**2)
    assert lines_share(np.array([logo, whole, column]), 256) == 0
    assert lines_share(np.array([box(0, 0, 256, 60)] * 6), 256) == 1


def test_no_text_is_looked_for_where_no_picture_is_to_be_read():
    assert Recognise(pack="sample/faces", text_pictures=0).models() == ("sample/faces",)
    assert "text_model" not in Recognise(pack="sample/faces", text_pictures=0).weights()
    assert Recognise(pack="sample/faces").models() == ("sample/faces", "ppocr_v6_det")
    with pytest.raises(ValueError, match="text_pictures must not be negative, not -1"):
        Recognise(pack="sample/faces", text_pictures=-1)


def test_without_the_package_that_brings_the_detector_its_name_is_told(monkeypatch):
    elsewhere = dataclasses.replace(REGISTRY["ppocr_v6_det"], package="of_no_environment")
    monkeypatch.setitem(REGISTRY, "ppocr_v6_det", elsewhere)
    assert weights.local("ppocr_v6_det") is None
    with pytest.raises(WeightsMissingError, match=r"^weights 'ppocr_v6_det': .*`pip install of_no_environment` puts"):
        weights.path("ppocr_v6_det")
    (listed,) = (one for one in weights.listing() if one.name == "ppocr_v6_det")
    assert listed.state == "absent"
