"""The classic script: ffmpeg to 25 fps and 16 kHz, scenedetect, syncnet-python's pipeline, whisperx, files between."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manifests.records import RATE_HZ
from stages.media import probe
from tests.benchmarks.counts import Counts, ffmpeg_on_path, size_bytes
from tests.benchmarks.tools import classic_pipeline, ffmpeg, scenedetect, whisperx
from tests.benchmarks.turns import Stopwatch

CROPS = "cropped"
"""Folder of syncnet-python's crops of faces, below that of each video."""


@dataclass
class Classic:
    """What the script leaves: tracks with readings per video, texts per track; and what it took."""

    folder: Path
    tracks: dict[str, list[tuple[dict[str, Any], tuple[int, float, float]]]] = field(default_factory=dict)
    steps_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    counts: Counts = field(default_factory=Counts)
    scenes_of: Counter[str] = field(default_factory=Counter)  # pictures decoded to find cuts, by file
    left_bytes: Counter[str] = field(default_factory=Counter)  # files of each video when it was done

    @property
    def full_size_decodes(self) -> int:
        """Pictures decoded at the size of the source, from video or JPEG."""
        full = sum(n for path, n in self.counts.decoded.items() if CROPS not in Path(path).parts)
        return full + self.scenes_of.total()


def run(paths: Sequence[Path], syncnet: Path, pack: str, whisper: Path, folder: Path, threads: int) -> Classic:
    """All videos, one after the other; whisperx once for all tracks."""
    made = Classic(folder)
    watch = Stopwatch()
    pipeline = classic_pipeline(syncnet, pack)
    made.steps_s["load"] = round(watch.read().wall_s, 2)
    with ffmpeg_on_path(folder / "bin") as made.counts:
        for path in paths:
            _video(path, pipeline, made)
        watch = Stopwatch()
        wavs = sorted(folder.glob(f"*/syncnet/{CROPS}/*.wav"))
        named = [wav.rename(wav.with_name(f"{wav.parents[2].name}-{wav.stem}.wav")) for wav in wavs]
        whisperx(named, whisper, folder / "texts", threads)
        made.steps_s["whisperx"] = round(watch.read().wall_s, 2)
    return made


def _video(path: Path, pipeline: Any, made: Classic) -> None:
    work = made.folder / path.stem
    work.mkdir()
    even, sound = work / "even.mp4", work / "sound.wav"

    watch = Stopwatch()
    ffmpeg("-i", path, "-r", str(RATE_HZ), "-c:v", "libx264", "-crf", "18", "-preset", "veryfast", "-an", even)
    ffmpeg("-i", path, "-vn", "-ac", "1", "-ar", "16000", sound)
    made.steps_s["25 fps and 16 kHz"] += watch.read().wall_s

    watch = Stopwatch()
    scenedetect(even, work)
    made.steps_s["scenedetect"] += watch.read().wall_s

    watch = Stopwatch()
    made.tracks[str(path)] = pipeline.scored(even, sound, work / "syncnet")
    made.steps_s["syncnet-python"] += watch.read().wall_s

    for seen in (even, work / "syncnet" / "video.avi"):
        made.scenes_of[str(seen)] = probe(seen).n_packets
    made.left_bytes[str(path)] = size_bytes(work)
