"""What the benchmarks are fed: real footage and weights where they are at hand, else made here from seeds."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from manifests.records import RATE_HZ, Ref, Source, Video
from manifests.store import Store
from tests.media import Look, Sound, hum, times_at, write_video

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
SAMPLE = ROOT / "stages" / "sample"
CORPUS = ROOT / "manifests" / "sample" / "corpus"


def face_pack() -> tuple[str, str]:
    """A pack for `Faces.pack`, and what to call it in a record: real weights if they are at hand, else the sample's."""
    real = SHARED / "models" / "insightface_root" / "models" / "mini_pack"
    if real.is_dir():
        return str(real), "SCRFD-500M and MobileFaceNet of insightface"
    return "sample/faces", "sample/faces, trained on rendered faces"


def random_syncnet(folder: Path) -> Path:
    """A state dict of the published layout and sizes with seeded random weights: for timing, its readings are noise."""
    import torch

    from stages.nets.syncnet import PUBLISHED, SyncNet
    from tests.stages.test_sync import seeded

    path = folder / "random.model"
    torch.save(seeded(SyncNet(PUBLISHED)), path)
    return path


def whisper(folder: Path) -> tuple[Path, str]:
    """A CTranslate2 Whisper, and what to call it: the sample's if it is there, else one of random weights."""
    sample = SAMPLE / "whisper"
    if (sample / "model.bin").is_file():
        return sample, "sample/whisper"
    from tests.stages.tiny_whisper import make

    return make(folder / "whisper"), "one layer of random weights: its texts are noise"


def talking_clips(seconds: float, *, least_height_px: int = 0) -> list[Path]:
    """Real clips of one talking person, shortest first, until they last `seconds` together; none without footage."""
    wanted = [one for one in _footage() if one["label"] == "talking" and one["h"] >= least_height_px and one["audio"]]
    return _until(seconds, wanted)


def other_clips(seconds: float) -> list[Path]:
    """Real clips that a set should mostly not hold, with sound and at most 20 s long: dubbed, silent, music, several
    faces and so on. One of every label in turn, shortest first, until they last `seconds` together."""
    turns: dict[str, int] = Counter()
    wanted = []
    for one in _footage():
        if one["label"].startswith(("multi_", "neg_")) and one.get("audio") and one["dur"] <= 20:
            wanted.append((turns[one["label"]], one))
            turns[one["label"]] += 1
    return _until(seconds, [one for _, one in sorted(wanted, key=lambda pair: (pair[0], pair[1]["label"]))])


def _footage() -> list[dict[str, Any]]:
    """What the index says of real footage, shortest first; nothing without it."""
    index = SHARED / "clips" / "INDEX.json"
    if not index.is_file():
        return []
    return sorted(json.loads(index.read_text(encoding="utf-8")), key=lambda one: (one.get("dur") or 0.0, one["file"]))


def _until(seconds: float, wanted: Iterable[dict[str, Any]]) -> list[Path]:
    chosen: list[Path] = []
    total_s = 0.0
    for one in wanted:
        if total_s >= seconds:
            break
        chosen.append(SHARED / "clips" / one["file"])
        total_s += one["dur"]
    return chosen


def corpus_videos(seconds: float) -> list[Path]:
    """Videos of the sample corpus until they last `seconds` together; none if it is not there."""
    from stages.media import MediaError, probe

    chosen: list[Path] = []
    total_s = 0.0
    for path in sorted(CORPUS.glob("*.mp4")):
        if total_s >= seconds:
            break
        try:
            found = probe(path)
        except MediaError:
            continue
        if found.audio is not None and found.duration_s >= 0.8 * found.declared_s:
            chosen.append(path)
            total_s += found.duration_s
    return chosen


def rendered_head(n_frames: int, *, width_px: int = 640, height_px: int = 360) -> list[np.ndarray]:
    """Frames (h, w, 3) BGR of a rendered person who talks; 30 to 80 ms each to make."""
    from manifests.sample.motion import talk
    from manifests.sample.person import person
    from manifests.sample.render import render, seat
    from manifests.sample.scene import scene

    where = scene(7, width_px, height_px)
    sounds = tuple((name, i * 0.1, i * 0.1 + 0.1) for i, name in enumerate("hɛloʊwɜldaɪæmtɔːkɪŋ" * 20))
    motion = talk(sounds, n_frames, 7, rate_hz=RATE_HZ)
    return [np.ascontiguousarray(frame[:, :, ::-1]) for frame, _ in render([seat(person(7), motion, where)], where)]


def to_and_fro(frames: list[np.ndarray], n: int) -> Iterator[np.ndarray]:
    """`n` frames that run through `frames` forwards, backwards and so on: endless, without a cut."""
    period = 2 * (len(frames) - 1)
    for i in range(n):
        at = i % period
        yield frames[at if at < len(frames) else period - at]


def head_video_1080p(path: Path, duration_s: float) -> Path:
    """A rendered talking head at 1920 x 1080, 30 fps, with camera noise, H.264 and AAC, 4 to 6 Mbit/s."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 3, (1080 + 64, 1920 + 64, 1)).astype(np.float32).repeat(3, axis=2)
    large = [cv2.resize(f, (1920, 1080), interpolation=cv2.INTER_CUBIC) for f in rendered_head(50)]
    times = times_at(Fraction(30), duration_s)

    def grainy() -> Iterator[tuple[Fraction, np.ndarray]]:
        for time, frame in zip(times, to_and_fro(large, len(times)), strict=True):
            y, x = rng.integers(0, 64, 2)
            yield time, cv2.add(frame, noise[y : y + 1080, x : x + 1920], dtype=cv2.CV_8U)

    look = Look(gop=60, crf=27)
    return write_video(path, grainy(), look=look, sound=Sound(samples=hum(duration_s)))


def stored(store: Store, path: Path) -> tuple[Video, Source]:
    """A file in the store as `fetch` would leave it, linked instead of copied."""
    from stages.media import probe

    found = probe(path)
    assert store.local is not None and found.video is not None and found.audio is not None
    link = store.local / "sources" / path.name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(path.resolve())
    file = Ref(f"sources/{path.name}", path.stat().st_size, "")
    return Video.of(path.name), Source(file=file, duration_s=found.duration_s, video=found.video, audio=found.audio)
