"""Tiny shards in the pipeline's format, with drawn faces whose mouths follow the sound."""

import io
import json
import wave
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np

from manifests.store import Store
from stages.shard_index import Row, ShardIndex, shard_name, write_index
from stages.tars import write_tar

SIDE_PX = 128
FPS = 25


@dataclass(frozen=True)
class Person:
    """Colours and proportions."""

    skin: tuple[int, int, int]
    hair: tuple[int, int, int]
    background: tuple[int, int, int]
    width: float


def person(number: int) -> Person:
    rng = np.random.default_rng([7, number])
    tone = rng.uniform(0.55, 1.0)
    skin = tuple(int(c * tone) for c in (235, 190, 160))
    return Person(skin, tuple(rng.integers(10, 120, 3).tolist()), tuple(rng.integers(60, 200, 3).tolist()), 0.29)


def speech(n_frames: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples (640 F,) int16 of a buzzing voice, and how open the mouth is per frame, its envelope."""
    rng = np.random.default_rng([11, seed])
    t = np.arange(n_frames * 640) / 16_000
    rate, phase = rng.uniform(1.5, 2.5), rng.uniform(0, 6)
    opening = np.clip(np.sin(2 * np.pi * rate * np.arange(n_frames) / FPS + phase), 0, 1)
    opening = opening * (np.sin(2 * np.pi * 0.37 * np.arange(n_frames) / FPS + phase) > -0.5)
    envelope = np.interp(t, np.arange(n_frames) / FPS + 0.5 / FPS, opening)
    voice = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 12))
    return (voice * envelope * 6000 + rng.normal(0, 20, len(t))).astype(np.int16), opening.astype(np.float32)


def draw(who: Person, opening: float, at: tuple[float, float], side: int = SIDE_PX) -> tuple[np.ndarray, np.ndarray]:
    """A face (side, side, 3) RGB and its landmarks (5, 2)."""
    image = np.full((side, side, 3), who.background, np.uint8)

    def point(x: float, y: float) -> tuple[int, int]:
        return int((x + at[0]) * side), int((y + at[1]) * side)

    def size(x: float, y: float) -> tuple[int, int]:
        return max(int(x * side), 1), max(int(y * side), 1)

    cv2.ellipse(image, point(0.5, 0.46), size(who.width + 0.05, 0.40), 0, 0, 360, who.hair, -1, cv2.LINE_AA)
    cv2.ellipse(image, point(0.5, 0.52), size(who.width, 0.36), 0, 0, 360, who.skin, -1, cv2.LINE_AA)
    for x in (0.38, 0.62):
        cv2.ellipse(image, point(x, 0.44), size(0.05, 0.03), 0, 0, 360, (250, 250, 250), -1, cv2.LINE_AA)
        cv2.circle(image, point(x, 0.44), size(0.022, 0)[0], (40, 30, 20), -1, cv2.LINE_AA)
    cv2.line(image, point(0.5, 0.47), point(0.5, 0.57), tuple(int(c * 0.8) for c in who.skin), 2, cv2.LINE_AA)
    cv2.ellipse(image, point(0.5, 0.69), size(0.11, 0.02 + 0.07 * opening), 0, 0, 360, (150, 60, 60), -1, cv2.LINE_AA)
    cv2.ellipse(image, point(0.5, 0.69), size(0.09, 0.06 * opening), 0, 0, 360, (40, 10, 10), -1, cv2.LINE_AA)
    landmarks = np.array([[0.38, 0.44], [0.62, 0.44], [0.5, 0.56], [0.39, 0.69], [0.61, 0.69]]) + np.array(at)
    return image, (landmarks * side).astype(np.float32)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def wav(samples: np.ndarray, rate_hz: int = 16_000) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def mp4(frames: list[np.ndarray], rate_hz: int = FPS) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate_hz, options={"g": "25", "crf": "18", "preset": "veryfast"})
        stream.width = stream.height = frames[0].shape[0]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


@cache
def members(who: int, n_frames: int, seed: int, split: str, key: str, contiguous: bool) -> dict[str, bytes]:
    """One clip's members, as the pipeline writes them; made once for all tests."""
    samples, opening = speech(n_frames, seed)
    rng = np.random.default_rng([13, seed])
    phase = rng.uniform(0, 6, 2)
    drawn = []
    for i in range(n_frames):
        sway = 0.03 * np.sin(2 * np.pi * 0.2 * i / FPS + phase)
        drawn.append(draw(person(who), float(opening[i]), (float(sway[0]), float(sway[1]))))
    landmarks = np.stack([points for _, points in drawn])
    box = np.concatenate([landmarks.min(1) - 20, landmarks.max(1) + 20, np.full((n_frames, 1), 0.9)], 1)
    about = {
        "schema": 1,
        "video_id": f"video{who}",
        "clip_no": seed,
        "fps": FPS,
        "n_frames": n_frames,
        "split": split,
        "language": "en",
        "contiguous_with_prev": contiguous,
        "speaker_id": f"p{who}",
    }
    face = rng.standard_normal(16).astype(np.float32)
    return {
        "mp4": mp4([image for image, _ in drawn]),
        "wav": wav(samples),
        "json": json.dumps(about).encode(),
        "box.npy": npy(box.astype(np.float32)),
        "lmk.npy": npy(landmarks),
        "pose.npy": npy(np.zeros((n_frames, 3), np.float32)),
        "id.npy": npy(face / np.linalg.norm(face)),
    }


def write_shards(folder: Path, *, people: int = 3, clips: int = 1, n_frames: int = 60, index: bool = True) -> Path:
    """`folder/shards` with one shard per split: all people but the last train, the last is the test split."""
    rows = []
    (folder / "shards").mkdir(parents=True)
    for split, chosen in (("train", range(people - 1)), ("test", [people - 1])):
        contents, made = [], []
        for who in chosen:
            for n in range(clips):
                key = f"video{who}-{n:04d}"
                made.append((key, members(who, n_frames, who * 10 + n, split, key, n > 0)))
                contents.append((key, who, n))
        name = shard_name(split, 0, [key for key, _, _ in contents])
        samples = write_tar(folder / "shards" / name, made)
        for (key, who, n), sample in zip(contents, samples, strict=True):
            rows.append(
                Row(
                    key=key,
                    shard=name,
                    split=split,
                    video=f"video{who}",
                    person=f"p{who}",
                    language="en",
                    n_frames=n_frames,
                    contiguous_with_prev=n > 0,
                    content=key,
                    sample=sample,
                )
            )
    if index:
        write_index(Store(str(folder)), ShardIndex(tuple(rows)))
    return folder / "shards"
