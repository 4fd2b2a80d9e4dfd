"""Latents and features beside the clips, so that training does not pay for encoders at every step.

At the paper's scale the VAE is 46 % of a step. One `.npy` per clip and kind below `<shards>/encoded/<encoding>/`, where
`encoding` names codec, audio and image encoder: windows are read from them by byte range. A file's name holds a digest
of the clip's bytes: a clip that has changed is encoded anew, and what it was stays until somebody removes it.

latent (F, c, h, w) and audio (F, v, c) float16; image (ceil(F / 5), e) float16, of every fifth frame; face (F, s, s)
uint8, the aligned grey face; points (F, 5, 2) float32, its landmarks; head (F, 13) float32, see `mcdm.motion`.
"""

import io
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any

import cv2
import fsspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from manifests.store import Store
from mcdm.config import Recipe
from mcdm.encoders import encode_pictures, make_audio, make_codec, make_image
from mcdm.faces import Bytes, Floats, View, align, smooth, view_of
from mcdm.shards import Clip, SampleError, Shards, decode, files_at

KINDS = ("latent", "audio", "image", "face", "points", "head")

REFERENCE_STRIDE = 5
"""Every fifth frame can be a reference."""

_CHUNK = 64

log = logging.getLogger(__name__)


class Encoded:
    """What `encode` wrote for a recipe below a URL: which clips, and their rows by range."""

    def __init__(self, url: str, encoding: str) -> None:
        self.url = f"{url.rstrip('/')}/{encoding}"
        self._headers: dict[str, tuple[int, tuple[int, ...], np.dtype[Any]]] = {}

    def whole(self, clips: list[Clip]) -> list[Clip]:
        """Those of the clips that are encoded as they are now: the last file of each is there. Raises `ValueError` for
        a URL that cannot be reached."""
        fs, root = files_at(self.url)
        fs.invalidate_cache(root)  # an object store's listing may be from before other processes wrote
        there = {path.rsplit("/", 1)[-1] for path in fs.ls(root, detail=False)} if fs.isdir(root) else set()
        return [clip for clip in clips if file_name(clip, KINDS[-1]) in there]

    def rows(self, clip: Clip, kind: str, start: int, stop: int) -> NDArray[Any]:
        """Rows start to stop; raises `SampleError` where the file is missing or short."""
        fs, root = fsspec.core.url_to_fs(self.url)
        name = file_name(clip, kind)
        path = f"{root}/{name}"
        try:
            if name not in self._headers:
                head = io.BytesIO(fs.cat_file(path, start=0, end=512))
                if (version := np.lib.format.read_magic(head)) != (1, 0):
                    raise SampleError(clip.key, f"{name} has version {version}")
                shape, _, dtype = np.lib.format.read_array_header_1_0(head)
                self._headers[name] = (head.tell(), shape, dtype)
            offset, shape, dtype = self._headers[name]
            size = int(np.prod(shape[1:])) * dtype.itemsize
            data = fs.cat_file(path, start=offset + start * size, end=offset + stop * size)
            return np.frombuffer(data, dtype).reshape(stop - start, *shape[1:])
        except (OSError, ValueError) as error:
            raise SampleError(clip.key, f"{name}: {error}") from error


def file_name(clip: Clip, kind: str) -> str:
    """What a clip's rows of this kind are called."""
    return f"{clip.key}.{clip.content}.{kind}.npy"


def face_parts(clip: Clip, shards: Shards) -> tuple[Floats, Floats]:
    """Smoothed landmarks (F, 5, 2) in crop pixels and pose (F, 3) in degrees."""
    return (
        smooth(shards.array(clip, "lmk.npy", (clip.n_frames, 5, 2))),
        shards.array(clip, "pose.npy", (clip.n_frames, 3)),
    )


def head_state(landmarks: Floats, pose: Floats, size_px: int) -> Floats:
    """(F, 13): landmarks as shares of the view minus one half, pose over 90 degrees."""
    flat = landmarks.reshape(len(landmarks), 10) / size_px - 0.5
    return np.concatenate([flat, pose / 90], 1).astype(np.float32)


def resize(frames: Bytes, size_px: int) -> Bytes:
    """Frames (n, h, w, 3) at another size, by area; they themselves where they have it."""
    if frames.shape[1:3] == (size_px, size_px):
        return frames
    return np.stack([cv2.resize(frame, (size_px, size_px), interpolation=cv2.INTER_AREA) for frame in frames])


def encode(
    shards: Shards,
    recipe: Recipe,
    url: str,
    *,
    device: torch.device,
    clips: list[Clip] | None = None,
    workers: int = 2,
    tick: Callable[[Clip], None] = lambda _: None,
) -> list[SampleError]:
    """Encode the clips that are not encoded yet, `workers` at a time; returns those that could not be. On a GPU they
    take turns with the encoders, which are fast, while the others read, decode, align and write."""
    encoded = Encoded(url, recipe.encoding)
    wanted = shards.clips if clips is None else clips
    done = {clip.key for clip in encoded.whole(wanted)}
    todo = [clip for clip in wanted if clip.key not in done]
    if not todo:
        return []
    store = Store(encoded.url)
    encoders, turn = [make(part).to(device) for make, part in _encoders(recipe)], _turn(device)

    def one(clip: Clip) -> SampleError | None:
        try:
            arrays = encode_clip(shards, clip, recipe, encoders, device, turn)
        except SampleError as error:
            log.warning("skipped %s", error)
            return error
        for kind in KINDS:
            buffer = io.BytesIO()
            np.save(buffer, arrays[kind], allow_pickle=False)
            store.put(file_name(clip, kind), buffer.getvalue())
        tick(clip)
        return None

    with ThreadPoolExecutor(workers) as pool:
        return [error for error in pool.map(one, todo) if error is not None]


def _encoders(recipe: Recipe) -> list[tuple[Callable[[Any], nn.Module], Any]]:
    return [(make_codec, recipe.codec), (make_audio, recipe.audio), (make_image, recipe.image)]


def _turn(device: torch.device) -> AbstractContextManager[object]:
    """Held by the thread that uses the encoders: on a GPU by one at a time, so that its memory holds one chunk."""
    return nullcontext() if device.type == "cpu" else Lock()


@torch.no_grad()
def encode_clip(
    shards: Shards,
    clip: Clip,
    recipe: Recipe,
    encoders: list[Any],
    device: torch.device,
    turn: AbstractContextManager[object],
) -> dict[str, NDArray[Any]]:
    """All arrays of one clip; raises `SampleError`. Pictures pass by chunks: a clip is never whole in memory."""
    codec, audio, image = encoders
    landmarks, pose = face_parts(clip, shards)
    data = shards.read(clip, "mp4")
    latents, images, faces, points = [], [], [], []
    view, shown = View(0, 0, 0), landmarks
    for start in range(0, clip.n_frames, _CHUNK):
        stop = min(start + _CHUNK, clip.n_frames)
        frames = decode(clip.key, data, start, stop)
        if not start:
            view = view_of(landmarks, frames.shape[1], recipe.codec.view)
            shown = view.move(landmarks)
        frames = view.cut(frames)
        face, point = align(frames, shown[start:stop], recipe.motion.face_px)
        shrunk = torch.from_numpy(resize(frames, recipe.codec.size_px))
        with turn:
            small = shrunk.to(device)
            latents.append(encode_pictures(codec, small[None])[0].half().cpu().numpy())
            candidates = small[-start % REFERENCE_STRIDE :: REFERENCE_STRIDE].permute(0, 3, 1, 2).float() / 127.5 - 1
            if len(candidates):
                images.append(image(candidates).half().cpu().numpy())
        faces.append(face)
        points.append(point)
    sound = torch.from_numpy(shards.sound(clip))
    with turn:
        heard = audio(sound.to(device)).half().cpu().numpy()
    return {
        "latent": np.concatenate(latents),
        "audio": heard,
        "image": np.concatenate(images),
        "face": np.concatenate(faces),
        "points": np.concatenate(points),
        "head": head_state(shown, pose, view.side),
    }
