"""How much the one look costs: ours, a plain decode of the same files, and the usual tools one after the other."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import cv2

from manifests.records import Seen, Source, Video
from manifests.store import Store
from pipeline.bench import Bench
from pipeline.stage import Facts, Work
from stages.faces import Faces
from stages.voice import Voice
from stages.watch import Watch
from tests.benchmarks.material import face_pack, head_video_1080p, stored, talking_clips
from tests.benchmarks.record import Findings
from tests.benchmarks.turns import in_turns, spread

MADE_S = 6.0
REAL_S = 9.0


def measure(folder: Path, repeats: int) -> Findings:
    """Processor seconds per second of 1080p footage."""
    pack, said = face_pack()
    # the hum of a made video is no voice
    work, app = Watch(faces=Faces(pack=pack), voice=Voice(min_s=0.0)).open(), _usual_app(pack)
    sets = {
        "made": [head_video_1080p(folder / "head.mp4", MADE_S)],
        "real": talking_clips(REAL_S, least_height_px=1080),
    }
    found = Findings()
    for name, paths in sets.items():
        if paths:
            _measure(name, paths, Store(str(folder / name)), work, app, repeats, found)
    notes = (
        f"faces: {said}",
        "decode: PyAV, one thread, no conversion; usual: scenedetect's command line, then FaceAnalysis.get per frame",
        "made: a rendered head at 1080p30 with noise; real: talking clips of 1080 rows, 24 to 30 fps",
    )
    return Findings(found.ratios, found.numbers, notes)


def _measure(
    name: str, paths: list[Path], store: Store, work: Work[Seen], app: Any, repeats: int, found: Findings
) -> None:
    known = [stored(store, path) for path in paths]
    turns = in_turns(
        {
            "ours": lambda: [_ours(work, store, *one) for one in known],
            "decode": lambda: sum(_decode(path) for path in paths),
            "usual": lambda: sum(_usual(app, path) for path in paths),
        },
        repeats,
        warm=True,
    )
    seconds = sum(source.duration_s for _, source in known)
    seen: list[Seen] = turns.made["ours"]
    n_frames: int = turns.made["decode"]
    tracked = sum(t.end_frame - t.start_frame for one in seen for t in one.tracks)
    found.ratios.update(
        {
            f"{name}: ours / plain decode, cpu": turns.cpu_ratio("ours", "decode"),
            f"{name}: usual tools / ours, cpu": turns.cpu_ratio("usual", "ours"),
            f"{name}: usual tools / ours, wall": turns.wall_ratio("usual", "ours"),
        }
    )
    for way, label in (("ours", "ours"), ("decode", "plain decode")):
        speeds = [seconds / one.cpu_s for one in turns.spent[way]]
        found.numbers[f"{name}: {label}, times real time per core"] = spread(speeds)
    found.numbers.update(
        {
            f"{name}: ours, cpu_ms per source frame": spread([1000 * o.cpu_s / n_frames for o in turns.spent["ours"]]),
            f"{name}: footage_s": seconds,
            f"{name}: frames of the source": n_frames,
            f"{name}: tracks": sum(len(one.tracks) for one in seen),
            f"{name}: share of frames tracked": tracked / sum(one.n_frames for one in seen),
        }
    )


def _ours(work: Work[Seen], store: Store, video: Video, source: Source) -> Seen:
    with Bench(store, "watch", video.id) as bench:
        seen = work(Facts([video, source]), bench)
    assert isinstance(seen, Seen)
    return seen


def _decode(path: Path) -> int:
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return sum(1 for _ in container.decode(video=0))


def _usual_app(pack: str) -> Any:
    from insightface.app import FaceAnalysis

    from stages import weights

    app = FaceAnalysis(name=str(weights.path(pack)), allowed_modules=["detection"], providers=["CPUExecutionProvider"])
    app.prepare(ctx_id=-1, det_size=(640, 640))
    return app


def _usual(app: Any, path: Path) -> int:
    scenedetect: Sequence[str] = (sys.executable, "-m", "scenedetect", "-q", "-i", str(path), "detect-content")
    subprocess.run(scenedetect, check=True, capture_output=True)
    found, ours = 0, cv2.getNumThreads()
    cv2.setNumThreads(-1)  # ours asks for one
    capture = cv2.VideoCapture(str(path))
    while (read := capture.read())[0]:
        found += len(app.get(read[1]))
    capture.release()
    cv2.setNumThreads(ours)
    return found
