"""Held-out clips as an evaluation reads them: those that go on where one ended are one video, seen in one frame."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from manifests.records import SAMPLES_PER_FRAME
from mcdm.encode import face_parts, head_state, resize
from mcdm.encoders import heard
from mcdm.faces import Bytes, Floats, View, align, mouth_opening, view_of
from mcdm.generate import Talker, moved, placing
from mcdm.shards import Clip, Shards, decode


@dataclass
class Truth:
    """A held-out video: pictures at the recipe's size, sound, landmarks (view shares), openings, motion tokens."""

    key: str
    pictures: Bytes
    samples: Floats
    audio: Tensor  # (F, v, c)
    landmarks: Floats
    boxes: Floats
    opening: Floats
    tokens: Floats  # (F, n, d)


def read_truth(shards: Shards, chain: list[Clip], talker: Talker, audio: nn.Module, frames: int) -> Truth:
    """A chain of clips as one video, cut at `frames`; raises `SampleError`. `audio`: the recipe's encoder.

    The pipeline lays a window over each clip (30 s at most) anew, and a made video keeps the frame of its reference. So
    all clips are seen in the frame of the first: the next one's first landmarks, 40 ms later, are put where its last
    ones were (`crop.npy` has the windows themselves, but not in shards of schema 1). The truth ends where a face would
    leave the view.
    """
    recipe = talker.recipe
    parts: dict[str, list[NDArray[Any]]] = {}
    done, size, view = 0, 0, View(0, 0, 0)
    scale, shift, last = 1.0, np.zeros(2, np.float32), np.zeros((5, 2), np.float32)
    for clip in chain:
        count = min(clip.n_frames, frames - done)
        if count <= 0:
            break
        landmarks, pose = face_parts(clip, shards)
        data, sound = shards.read(clip, "mp4"), shards.sound(clip)
        corners = shards.array(clip, "box.npy", (clip.n_frames, 5))[:, :4].reshape(-1, 2, 2)
        if not done:
            size = decode(clip.key, data, 0, 1).shape[1]
            view = view_of(landmarks, size, recipe.codec.view)
        else:
            scale, shift = placing(landmarks[0], last)
            landmarks, corners = scale * landmarks + shift, scale * corners + shift
        last = landmarks[-1]
        landmarks, corners = view.move(landmarks), view.move(corners)
        if done and not ((landmarks[:count] >= 0) & (landmarks[:count] < view.side)).all():
            break
        for start in range(0, count, 64):
            part = slice(start, min(start + 64, count))
            whole = decode(clip.key, data, start, part.stop)
            if done:
                whole = np.stack([moved(picture, scale, shift, size) for picture in whole])
            new = _seen(talker, view.cut(whole), landmarks[part], corners[part], pose[part])
            for name, values in new.items():
                parts.setdefault(name, []).append(values)
        parts.setdefault("samples", []).append(sound[: count * SAMPLES_PER_FRAME])
        done += count
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    with torch.no_grad():
        features = audio(torch.from_numpy(joined["samples"]).to(talker.device))
    return Truth(key=chain[0].key, audio=features, **joined)


def _seen(talker: Talker, pictures: Bytes, landmarks: Floats, corners: Floats, pose: Floats) -> dict[str, NDArray[Any]]:
    """What a truth holds of some frames of a view, whose landmarks and boxes' corners are given in its pixels."""
    motion, size = talker.recipe.motion, pictures.shape[1]
    faces, _ = align(pictures, landmarks, motion.face_px)
    head = head_state(landmarks, pose, size)
    shown = torch.from_numpy(faces).to(talker.device)[None].float() / 127.5 - 1
    tokens = talker.motion.tokens(shown, torch.from_numpy(head).to(talker.device)[None])[0]
    return {
        "pictures": resize(pictures, talker.recipe.codec.size_px),
        "landmarks": landmarks / size,
        "boxes": corners.reshape(-1, 4) / size,
        "opening": mouth_opening(faces),
        "tokens": tokens.cpu().numpy(),
    }


def audio_window(truth: Truth, talker: Talker, start: int) -> Tensor:
    """Audio tokens (history + f, k, c) of the clip at `start`; the sound starts over where it ends."""
    reach, length = talker.recipe.audio.reach, len(truth.audio)
    at = torch.arange(start - talker.history - reach, start + talker.recipe.frames + reach).clamp(min=0)
    return heard(truth.audio[at.to(truth.audio.device) % length], reach)
