"""The packaged SyncNet, trained on rendered people, on real ones: printed as it is, and held to what the README says.

`python -m pytest -s tests/stages/test_sync_real.py` prints the table.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from manifests.records import RATE_HZ, SAMPLES_PER_FRAME, Sync
from stages import weights
from stages.media import audio_array, frames
from stages.nets.syncnet import SyncNet, load
from stages.sync import face_crops, offset_distances, reading, state_file

SHARED = Path(__file__).parents[3] / "shared"
PACK = SHARED / "models/insightface_root/models/mini_pack"
CLIPS = SHARED / "clips"
LOOK_EVERY = 4  # frames between two detections

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not (PACK.is_dir() and CLIPS.is_dir()), reason="no real weights and footage in ../shared"),
    pytest.mark.skipif(weights.local("sample/sync") is None, reason="no packaged SyncNet"),
]


@dataclass
class Footage:
    """One real clip: what is seen and heard, once decoded."""

    name: str
    label: str
    truth: dict
    made_from: list
    crops: np.ndarray
    samples: np.ndarray

    def read(self, network: SyncNet, samples: np.ndarray | None = None) -> Sync:
        heard = self.samples if samples is None else samples
        matrix = offset_distances(network, [self.crops], heard, reach=15, batch=64, device=torch.device("cpu"))
        return reading(self.name, matrix, window_s=3.0, hop_s=1.0)


def decode(entry: dict, finder) -> Footage | None:
    """Up to eight seconds of a clip with the largest face cropped; None where no face is found."""
    path = CLIPS / entry["file"]
    pictures, boxes = [], []
    for batch in frames(path, end_s=8.0, short_side_px=360):
        for i, image in enumerate(batch.images):
            if (batch.first_frame + i) % LOOK_EVERY == 0:
                pad = max(image.shape) // 4  # faces that fill the picture are missed without a margin
                found = finder.get(cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_CONSTANT))
                if found:
                    largest = max(found, key=lambda face: np.prod(face.bbox[2:4] - face.bbox[:2]))
                    boxes.append((batch.first_frame + i, *(largest.bbox - pad)))
        pictures.append(batch.images)
    if len(boxes) < 5:
        return None
    count, known = sum(map(len, pictures)), np.array(boxes)
    every = np.stack([np.interp(np.arange(count), known[:, 0], known[:, k]) for k in range(1, 5)], 1)
    crops = np.concatenate(list(face_crops(pictures, every)))
    samples = audio_array(path, start_s=0.0, end_s=count / RATE_HZ)
    return Footage(entry["file"], entry["label"], entry.get("truth", {}), entry.get("made_from", []), crops, samples)


@pytest.fixture(scope="module")
def footage() -> list[Footage]:
    import onnxruntime
    from insightface.app import FaceAnalysis

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    finder = FaceAnalysis(
        name=str(PACK), allowed_modules=["detection"], providers=["CPUExecutionProvider"], sess_options=options
    )
    finder.prepare(-1, det_thresh=0.4, det_size=(320, 320))
    labels = {"talking", "derived_desync", "derived_still_photo", "derived_dubbed", "neg_mismatched_audio"}
    index = json.loads((CLIPS / "INDEX.json").read_text())
    read = (decode(entry, finder) for entry in index if entry["label"] in labels)
    return [clip for clip in read if clip is not None]


@pytest.fixture(scope="module")
def network() -> SyncNet:
    return load(state_file(weights.path("sample/sync")))


def auc(high: list[float], low: list[float]) -> float:
    a, b = np.array(high)[:, None], np.array(low)[None]
    return float(((a > b) + 0.5 * (a == b)).mean())


def test_what_the_sample_weights_do_on_real_faces(footage, network):
    talking = [clip for clip in footage if clip.label == "talking" and len(clip.crops) >= 50]
    own = {clip.name: clip.read(network) for clip in talking}
    other = [
        clip.read(network, np.resize(talking[(i + 7) % len(talking)].samples, len(clip.samples)))
        for i, clip in enumerate(talking)
    ]
    shifted, early = [], 6
    for clip in talking:
        moved = np.roll(clip.samples, early * SAMPLES_PER_FRAME)
        shifted.append(abs(clip.read(network, moved).offset_frames - own[clip.name].offset_frames - early) <= 1)
    planted = []
    for clip in footage:
        if clip.label == "derived_desync" and clip.made_from[0] in own:
            apart = clip.read(network).offset_frames - own[clip.made_from[0]].offset_frames
            planted.append(abs(apart - clip.truth["audio_shift_frames25"]) <= 1)
    confidence = [found.confidence for found in own.values()]
    stills = [clip.read(network).confidence for clip in footage if clip.label == "derived_still_photo"]
    near = np.mean([abs(found.offset_frames) <= 2 for found in own.values()])
    listed = [
        clip.read(network).confidence for clip in footage if clip.label in ("neg_mismatched_audio", "derived_dubbed")
    ]
    of_own, of_listed, of_stills = (auc(confidence, low) for low in ([o.confidence for o in other], listed, stills))
    table = (
        f"{len(talking)} real talking clips of 2 to 8 s, weights trained on rendered people only\n"
        f"offset within 2 frames of 0:                      {near:.2f}\n"
        f"rolled by {early} frames, change found within 1:         {np.mean(shifted):.2f} of {len(shifted)}\n"
        f"derived shifts of 5 and 10 frames, within 1:      {np.mean(planted):.2f} of {len(planted)}\n"
        f"AUC of confidence, own voice over another's:      {of_own:.3f}\n"
        f"AUC, talking over listed mismatched and dubbed:   {of_listed:.3f} ({len(listed)} clips)\n"
        f"AUC, talking over still photos:                   {of_stills:.3f} ({len(stills)} clips)\n"
        f"confidence, median: own {np.median(confidence):.2f}, other {np.median([o.confidence for o in other]):.2f}\n"
    )
    sys.stdout.write("\n" + table)
    assert len(talking) >= 15
    assert min(confidence) > 0
    assert np.mean(shifted) >= 0.80 and len(planted) >= 6 and all(planted)
    assert of_own >= 0.80 and of_stills >= 0.95
