"""Clips as `stages.clip` leaves them, made without a source: a rendered head, or noise, with sound of its length."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from manifests.records import RATE_HZ, SAMPLES_PER_FRAME, Clip, Clips, Ref
from manifests.store import Store
from stages.encode import write_wav
from stages.quality import LOOKS, TEMPLATE, measures
from tests.benchmarks.material import rendered_head, to_and_fro
from tests.media import times_at, write_video

SIZE_PX = 512
_BOX = (156.0, 120.0, 356.0, 376.0, 0.9)  # of the head in the crop


def speech_like(n_samples: int, seed: int) -> np.ndarray:
    """Int16 samples (n,): noise whose loudness changes four times a second."""
    rng = np.random.default_rng(seed)
    loud = np.repeat(rng.uniform(0.02, 1, n_samples // 4000 + 1), 4000)[:n_samples]
    return (loud * rng.normal(0, 4000, n_samples)).clip(-32768, 32767).astype(np.int16)


def make_clips(
    store: Store, folder: Path, lengths_s: Sequence[float], sounds: Sequence[np.ndarray] | None = None
) -> Clips:
    """One clip per length, of one rendered person; `sounds` are int16 at 16 kHz, cut to the clip's length."""
    head = rendered_head(40, width_px=SIZE_PX, height_px=SIZE_PX)
    items = []
    for number, length_s in enumerate(lengths_s):
        n = round(length_s * RATE_HZ)
        name = f"{number:04d}"
        frames = zip(times_at(Fraction(RATE_HZ), length_s), to_and_fro(head[number % 3 :], n), strict=True)
        video = write_video(folder / f"{name}.mp4", frames)
        wanted = n * SAMPLES_PER_FRAME
        sound = speech_like(wanted, number) if sounds is None else np.resize(sounds[number], wanted)
        write_wav(folder / f"{name}.wav", sound)
        items.append(_clip(store, folder, number, n, video))
    return Clips(items=tuple(items))


def _clip(store: Store, folder: Path, number: int, n: int, video: Path) -> Clip:
    name = f"{number:04d}"
    box = np.tile(np.array(_BOX, np.float32), (n, 1))
    side = _BOX[3] - _BOX[1]
    lmk = np.tile(TEMPLATE * side + ((_BOX[0] + _BOX[2] - side) / 2, _BOX[1]), (n, 1, 1))
    pose, crop = np.zeros((n, 3)), np.tile((0.0, 0.0, SIZE_PX, SIZE_PX), (n, 1))
    looked: dict[str, np.ndarray] = {"box": box, "pose": pose, **dict.fromkeys(LOOKS, np.full(n, np.nan))}
    arrays = folder / f"{name}.npz"
    np.savez(arrays, box=box, lmk=lmk.astype(np.float32), pose=pose.astype(np.float32), crop=crop.astype(np.float32))

    def keep(path: Path) -> Ref:
        return store.put_file(path, f"blobs/clips/{path.name}")

    return Clip(
        key=f"made-{name}",
        number=number,
        track=0,
        start_s=0.0,
        end_s=n / RATE_HZ,
        n_frames=n,
        size_px=SIZE_PX,
        video=keep(video),
        audio=keep(folder / f"{name}.wav"),
        arrays=keep(arrays),
        contiguous_with_prev=False,
        others_in_view=(),
        still_s=0.0,
        filled_share=0.0,
        effective_face_px=100.0,
        **measures(looked, width_px=SIZE_PX, height_px=SIZE_PX),
    )
