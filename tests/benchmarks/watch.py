"""How much the one look costs: ours, a plain decode of the same files, and the usual tools one after the other."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from manifests.records import RATE_HZ, Seen, Source, Video
from manifests.store import Store
from pipeline.bench import Bench
from pipeline.stage import Facts, Work
from stages.faces import Faces
from stages.judge import Measured
from stages.voice import Voice
from stages.watch import Watch
from tests.benchmarks.agreement import Face, our_tracks, overlaps
from tests.benchmarks.material import face_pack, head_video_1080p, stored, talking_clips
from tests.benchmarks.record import Findings
from tests.benchmarks.turns import in_turns, spread

MADE_S = 6.0
REAL_S = 9.0

Looked = Sequence[tuple[float, Sequence[float]]]
"""When a picture is shown, in seconds, and the box (4,) of the largest face that the detector finds in it."""


def measure(folder: Path, repeats: int) -> Findings:
    """Processor seconds per second of 1080p footage, and whether the boxes are those of the usual tools."""
    pack, said = face_pack()
    voice = Voice(min_s=0.0)  # the hum of a made video is no voice
    whole = Watch(look_px=360, faces=Faces(pack=pack, per_sheet=1), voice=voice)
    ways = {"ours": Watch(faces=Faces(pack=pack), voice=voice).open(), "ours, whole input": whole.open()}
    app = _usual_app(pack)
    sets = {
        "made": [head_video_1080p(folder / "head.mp4", MADE_S)],
        "real": talking_clips(REAL_S, least_height_px=1080),
    }
    found = Findings()
    for name, paths in sets.items():
        if paths:
            _measure(name, paths, Store(str(folder / name)), ways, app, repeats, found)
    notes = (
        f"faces: {said}",
        "decode: PyAV, one thread, no conversion; usual: scenedetect's command line, then FaceAnalysis.get per frame",
        "made: a rendered head at 1080p30 with noise; real: talking clips of 1080 rows, 24 to 30 fps",
        "ours: two pictures share the detector's input, as by default; whole input: one has all of it, as in the usual "
        "tools. agreement: our tracks against the largest face of the picture shown at each of our frames",
    )
    return Findings(found.ratios, found.numbers, notes)


def _measure(
    name: str,
    paths: list[Path],
    store: Store,
    ways: Mapping[str, Work[Seen]],
    app: Any,
    repeats: int,
    found: Findings,
) -> None:
    known = [stored(store, path) for path in paths]
    turns = in_turns(
        {
            **{way: partial(_all_of, way, work, store, known) for way, work in ways.items()},
            "decode": lambda: sum(_decode(path) for path in paths),
            "usual": lambda: [_usual(app, path) for path in paths],
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
            f"{name}: usual tools / ours, whole input, cpu": turns.cpu_ratio("usual", "ours, whole input"),
            f"{name}: usual tools / ours, whole input, wall": turns.wall_ratio("usual", "ours, whole input"),
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
            **{f"{name}: {way}": _agreement(known, turns.made[way], turns.made["usual"], store) for way in ways},
        }
    )


def _agreement(
    known: Sequence[tuple[Video, Source]], seen: Sequence[Seen], usual: Sequence[Looked], store: Store
) -> dict[str, Any]:
    """How far boxes overlap, at the frames at which the usual tools find a face."""
    theirs = {}
    for (video, _), one, looked in zip(known, seen, usual, strict=True):
        times_s = np.array([at_s for at_s, _ in looked])
        shown = np.abs(times_s[None] - np.arange(one.n_frames)[:, None] / RATE_HZ).argmin(axis=1)
        with_face = [frame for frame, at in enumerate(shown) if len(looked[at][1])]
        boxes = np.array([looked[shown[frame]][1] for frame in with_face], np.float64).reshape(-1, 4)
        theirs[video.url] = [Face(np.array(with_face, np.int64), boxes)]
    mine = our_tracks([Measured(video, seen=one) for (video, _), one in zip(known, seen, strict=True)], store)
    return {what: share for what, share in overlaps(mine, theirs).items() if "IoU" in what}


def _all_of(way: str, work: Work[Seen], store: Store, known: Sequence[tuple[Video, Source]]) -> list[Seen]:
    return [_ours(way, work, store, *one) for one in known]


def _ours(way: str, work: Work[Seen], store: Store, video: Video, source: Source) -> Seen:
    with Bench(store, f"watch, {way}", video.id) as bench:
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


def _usual(app: Any, path: Path) -> Looked:
    scenedetect: Sequence[str] = (sys.executable, "-m", "scenedetect", "-q", "-i", str(path), "detect-content")
    subprocess.run(scenedetect, check=True, capture_output=True)
    found, ours = [], cv2.getNumThreads()
    cv2.setNumThreads(-1)  # ours asks for one
    capture = cv2.VideoCapture(str(path))
    while (read := capture.read())[0]:
        at_s, boxes = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, [face.bbox for face in app.get(read[1])]
        found.append((at_s, max(boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]), default=())))
    capture.release()
    cv2.setNumThreads(ours)
    return found
