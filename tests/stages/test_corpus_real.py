"""The rendered people look like people: a detector that has seen only real faces finds them."""

from pathlib import Path

import av
import pytest

from manifests.sample.serve import CORPUS
from manifests.sample.truth import read_truth
from stages.faces import Faces

PACK = Path(__file__).parents[3] / "shared/models/insightface_root/models/mini_pack"
FRONTAL_DEG = 20.0
BESIDE = {"blur", "tiny_face", "truncated"}
"""Flaws that a detector may fail on."""

pytestmark = [pytest.mark.real, pytest.mark.skipif(not PACK.is_dir(), reason="no real face weights in ../shared")]


def frames(path, segment):
    """A frame per second of the segment, BGR."""
    with av.open(str(path)) as container:
        wanted = segment.start_s + 0.5
        container.seek(int(segment.start_s * av.time_base))
        for frame in container.decode(video=0):
            if frame.time >= segment.end_s:
                return
            if frame.time >= wanted:
                wanted += 1.0
                yield frame.to_ndarray(format="bgr24")


def test_real_scrfd_finds_at_least_95_of_100_frontal_rendered_faces():
    detector = Faces(pack=str(PACK)).open()
    least = detector.config.min_score
    found = asked = 0
    for video in read_truth(CORPUS / "truth.json").videos:
        for segment in video.segments:
            if segment.person < 0 or segment.yaw_deg > FRONTAL_DEG or segment.flaw in BESIDE:
                continue
            x0, y0, x1, y1 = segment.box
            for seen in detector.detect(list(frames(CORPUS / video.path, segment))):
                middles = (seen.box[:, :2] + seen.box[:, 2:4]) / 2
                inside = (middles > (x0, y0)).all(1) & (middles < (x1, y1)).all(1) & (seen.box[:, 4] >= least)
                asked, found = asked + 1, found + bool(inside.any())
    assert asked > 200
    assert found >= 0.95 * asked, f"{found} of {asked}"
