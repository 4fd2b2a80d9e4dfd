"""A generated minute as one picture: two held-out people every five seconds, then half a second of one mouth.

The last two rows: 13 frames in a row, made above and true below. And what a process that makes much longer video holds.
"""

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from PIL import Image

from mcdm.cli import main
from mcdm.config import tiny
from mcdm.encode import face_parts, resize
from mcdm.faces import Bytes, view_of
from mcdm.held_out import divide
from mcdm.shards import Clip, Shards, decode
from tests.benchmarks.resident import megabytes

SECONDS, EVERY, COLUMNS, SIDE = 60, 5, 13, 96
LENGTHS_S = (30, 300)
"""Of the videos whose making is watched for its memory."""

ROOT = Path(__file__).parents[2]
PICTURE = Path(__file__).parent / "sheet.png"


def show(options: Namespace) -> dict[str, Any]:
    """Write `sheet.png`; answers how much contrast and sharpness the last second keeps of the first."""
    shards = Shards(options.shards)
    people = one_each(divide(shards, options.run).held_out)[:2]
    rows, numbers = [], {}
    for clip in people:
        video = minute(shards, clip, options.run, options.work)
        shown = [video[min(second * 25, len(video) - 1)] for second in range(0, SECONDS + 1, EVERY)]
        rows.append(np.concatenate([large(picture) for picture in shown], 1))
        first, last = (np.stack([contrast(p) for p in part]).mean(0) for part in (video[:25], video[-25:]))
        numbers[clip.key] = {
            "frames": len(video),
            "contrast_kept": float(last[0] / first[0]),
            "detail_kept": float(last[1] / first[1]),
        }
        if clip is people[0]:
            near = [
                np.concatenate([large(p) for p in part[50 : 50 + COLUMNS]], 1) for part in (video, true(shards, clip))
            ]
    sheet = Image.fromarray(np.concatenate([*rows, *near], 0)).quantize(200, dither=Image.Dither.NONE)
    sheet.save(PICTURE, optimize=True)
    held = {
        f"{seconds} s": peak_mb(given(shards, people[0], options.run, options.work, seconds)) for seconds in LENGTHS_S
    }
    return {"seconds": SECONDS, "held_out_people": numbers, "peak_mb_of_a_process_that_makes": held}


def one_each(clips: list[Clip]) -> list[Clip]:
    """The longest clip of every person."""
    best: dict[str, Clip] = {}
    for clip in sorted(clips, key=lambda clip: clip.n_frames):
        best[clip.person or clip.video] = clip
    return list(best.values())


def given(shards: Shards, clip: Clip, run: Path, work: Path, seconds: int) -> list[str]:
    """The command line's words for a video from the clip's first frame and its sound; the last is where it goes."""
    work.mkdir(parents=True, exist_ok=True)
    face, voice, out = (work / f"{clip.key}.{kind}" for kind in ("png", "wav", "mp4"))
    whole = decode(clip.key, shards.read(clip, "mp4"), 0, 1)[0]
    cv2.imwrite(str(face), cv2.cvtColor(whole, cv2.COLOR_RGB2BGR))
    voice.write_bytes(shards.read(clip, "wav"))
    words = ["generate", "--run", run, "--reference", face, "--audio", voice, "--seconds", seconds, "--device", "cpu"]
    return [str(word) for word in [*words, "--out", out]]


def minute(shards: Shards, clip: Clip, run: Path, work: Path) -> list[Bytes]:
    """Generate from the clip's first frame and its sound, as the command line does."""
    words = given(shards, clip, run, work, SECONDS)
    if main(words):
        raise SystemExit(2)
    with av.open(words[-1]) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def peak_mb(words: list[str]) -> float:
    """The most that a process of the command held."""
    process = subprocess.Popen([sys.executable, "-m", "mcdm", *words], cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(2)
    return megabytes(usage.ru_maxrss)


def true(shards: Shards, clip: Clip) -> Bytes:
    """The clip's own pictures, as the recipe sees them."""
    recipe = tiny()
    landmarks, _ = face_parts(clip, shards)
    pictures = decode(clip.key, shards.read(clip, "mp4"), 0, clip.n_frames)
    return resize(view_of(landmarks, pictures.shape[1], recipe.codec.view).cut(pictures), recipe.codec.size_px)


def large(picture: Bytes) -> Bytes:
    found: Bytes = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return found


def contrast(picture: Bytes) -> np.ndarray:  # type: ignore[type-arg]
    """Spread of the grey values, and of their Laplacian."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.array([grey.std(), cv2.Laplacian(grey, cv2.CV_32F).std()])
