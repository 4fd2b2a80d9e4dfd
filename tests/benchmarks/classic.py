"""The classic script: ffmpeg to 25 fps and 16 kHz, scenedetect, syncnet-python's pipeline, whisperx, files between."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from manifests.records import RATE_HZ
from stages.container import opened, picture_stream, zero_s
from stages.media import probe
from tests.benchmarks.agreement import Tracks
from tests.benchmarks.counts import Counts, ffmpeg_on_path, size_bytes
from tests.benchmarks.tools import TwoDetectors, classic_pipeline, ffmpeg, scenedetect, whisperx
from tests.benchmarks.turns import Spent, Stopwatch

QUALITY = 18
"""Of x264, for the script's files at 25 fps: a rate factor."""

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
    spent: Spent = field(default_factory=Spent)  # without S3FD, as it was run here
    s3fd: Spent = field(default_factory=Spent)  # what S3FD would take on all pictures, by those it was timed on
    s3fd_in_a_row: float | None = None  # cpu of a picture after another over that of the first of two
    insightface: Spent = field(default_factory=Spent)  # what its stand-in took on them

    @property
    def published(self) -> Spent:
        """The script with the detector that it is published with."""
        return self.spent - self.insightface + self.s3fd

    @property
    def full_size_decodes(self) -> int:
        """Pictures decoded at the size of the source, from video or JPEG."""
        full = sum(n for path, n in self.counts.decoded.items() if CROPS not in Path(path).parts)
        return full + self.scenes_of.total()


def run(
    paths: Sequence[Path],
    syncnet: Path | None,
    pack: str,
    whisper: Path | None,
    folder: Path,
    threads: int,
    crf: int = QUALITY,
) -> Classic:
    """All videos, one after the other; whisperx once for all tracks, where there is a model. Without a SyncNet nothing
    is scored, see `classic_pipeline`: for what is found, not for time."""
    made = Classic(folder)
    cv2.setNumThreads(-1)  # a stage that was opened in this process has set it to one
    whole = watch = Stopwatch()
    pipeline = classic_pipeline(syncnet, pack)
    made.steps_s["load"] = round(watch.read().wall_s, 2)
    with ffmpeg_on_path(folder / "bin") as made.counts:
        for path in paths:
            _video(path, pipeline, made, crf)
        watch = Stopwatch()
        wavs = sorted(folder.glob(f"*/syncnet/{CROPS}/*.wav"))
        named = [wav.rename(wav.with_name(f"{wav.parents[2].name}-{wav.stem}.wav")) for wav in wavs]
        if whisper is not None:
            whisperx(named, whisper, folder / "texts", threads)
        made.steps_s["whisperx"] = round(watch.read().wall_s, 2)
    detectors: TwoDetectors = pipeline.s3fd
    timed = detectors.s3fd
    made.spent = whole.read() - timed.spent
    made.insightface = detectors.insightface.spent
    made.s3fd_in_a_row = detectors.in_a_row()
    usual = detectors.s3fd_after_another if detectors.s3fd_after_another.calls else timed
    made.s3fd = usual.spent * (detectors.insightface.calls / max(usual.calls, 1))
    for path in paths:  # when nothing is timed any more
        late = late_frames(path)
        made.tracks[str(path)] = [(later(track, late), read) for track, read in made.tracks[str(path)]]
    return made


def _video(path: Path, pipeline: Any, made: Classic, crf: int) -> None:
    work = made.folder / path.stem
    work.mkdir()
    even, sound = work / "even.mp4", work / "sound.wav"

    watch = Stopwatch()
    even_rate(path, even, crf)
    ffmpeg("-i", path, "-vn", "-ac", "1", "-ar", "16000", sound)
    made.steps_s["25 fps and 16 kHz"] += watch.read().wall_s

    watch = Stopwatch()
    scenedetect(even, work)
    made.steps_s["scenedetect"] += watch.read().wall_s

    watch = Stopwatch()
    blind = pipeline.s3fd.s3fd.spent
    made.tracks[str(path)] = pipeline.scored(even, sound, work / "syncnet")
    made.steps_s["syncnet-python"] += watch.read().wall_s - (pipeline.s3fd.s3fd.spent - blind).wall_s

    for seen in (even, work / "syncnet" / "video.avi"):
        made.scenes_of[str(seen)] = probe(seen).n_packets
    made.left_bytes[str(path)] = size_bytes(work)


def even_rate(path: Path, out: Path, crf: int = QUALITY) -> None:
    """25 fps, from the earliest stream on. By the filter: `-r 25` shows 30 fps 47 to 73 ms too late."""
    rate = f"fps={RATE_HZ}:start_time=0"
    ffmpeg("-i", path, "-vf", rate, "-c:v", "libx264", "-crf", str(crf), "-preset", "veryfast", "-an", out)


def late_frames(path: Path) -> int:
    """How many standing pictures `even_rate` puts before the first one of a file."""
    with opened(path) as container:
        starts = [zero_s(stream) for stream in (*container.streams.video, *container.streams.audio)]
        return round((zero_s(picture_stream(container)) - min(starts)) * RATE_HZ)


def later(track: dict[str, Any], frames: int) -> dict[str, Any]:
    """A track numbered from so many frames later on, without those before."""
    number = np.asarray(track["frame"]) - frames
    return track | {"frame": number[number >= 0], "bbox": np.asarray(track["bbox"])[number >= 0]}


def read_again(script: Classic, model: str) -> dict[str, Tracks]:
    """The script's tracks with the readings of another SyncNet over its crops, every window, its sign of offsets."""
    import torch

    from stages import weights
    from stages.nets.syncnet import load
    from stages.sync import offset_distances, read_wav, reading, state_file

    network = load(state_file(weights.path(model)))
    found: dict[str, Tracks] = {}
    for url, tracks in script.tracks.items():
        folder = script.folder / Path(url).stem / "syncnet" / CROPS
        again = []
        for number, (track, _) in enumerate(tracks):
            samples = read_wav(folder / f"{Path(url).stem}-{number:05d}.wav")
            pictures = [_pictures(folder / f"{number:05d}.avi")]
            matrix = offset_distances(network, pictures, samples, reach=15, batch=32, device=torch.device("cpu"))
            mine = reading(f"{number}", matrix, window_s=3.0, hop_s=1.0)
            again.append((track, (-mine.offset_frames, mine.confidence, mine.distance)))
        found[url] = again
    return found


def _pictures(path: Path) -> NDArray[np.uint8]:
    """All of a small video, (n, h, w, 3) BGR."""
    video, found = cv2.VideoCapture(str(path)), []
    while (read := video.read())[0]:
        found.append(read[1])
    video.release()
    return np.stack(found).astype(np.uint8)
