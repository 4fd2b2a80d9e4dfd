"""The whole chain: ours in a plain loop and on Ray, and the classic script of public tools with files between."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from manifests.records import RATE_HZ, Video
from manifests.store import Store
from pipeline.facts import measured
from pipeline.here import run_here
from pipeline.recipes import TalkingFaces, own
from pipeline.stage import Resources, keys
from stages.judge import Measured
from stages.media import probe
from tests.benchmarks import classic
from tests.benchmarks.agreement import agreement
from tests.benchmarks.counts import Counts, counted, images
from tests.benchmarks.material import ROOT, corpus_videos, face_pack, random_syncnet, talking_clips, whisper
from tests.benchmarks.record import Findings
from tests.benchmarks.tools import empty
from tests.benchmarks.turns import Turns, in_turns

MINUTES = 5.0
"""Of footage: half from the sample maker's corpus, half of real clips, where they are at hand."""

THREADS = 2


@dataclass(frozen=True)
class Weights:
    """The same for both ways."""

    pack: str
    sync: Path
    whisper: Path


@dataclass(frozen=True)
class Here:
    """What a run in this process made."""

    store: Store
    counts: Counts


def measure(folder: Path, repeats: int, minutes: float = MINUTES) -> Findings:
    """Seconds for the same files, with the same weights."""
    pack, faces = face_pack()
    model, spoken = whisper(folder)
    use = Weights(pack, random_syncnet(folder), model)
    made, real = corpus_videos(30 * minutes), talking_clips(30 * minutes)
    paths = [*made, *real]
    if not paths:
        raise FileNotFoundError("neither the sample corpus nor ../shared/clips is here: nothing to take through")
    turns = in_turns(
        {
            "ours": lambda: _here(use, paths, empty(folder / "here")),
            "ours on Ray": lambda: _on_ray(use, paths, empty(folder / "ray")),
            "classic": lambda: classic.run(paths, use.sync, pack, model, empty(folder / "classic"), THREADS),
        },
        repeats,
    )
    here: Here = turns.made["ours"]
    script: classic.Classic = turns.made["classic"]
    known = measured(_recipe(use).stages(), [Video.of(str(path)) for path in paths], here.store)
    return Findings(
        ratios={
            "classic / ours, wall": turns.wall_ratio("classic", "ours"),
            "classic / ours, cpu": turns.cpu_ratio("classic", "ours"),
            "classic / ours on Ray, wall, start of Ray and report included": turns.wall_ratio("classic", "ours on Ray"),
        },
        numbers={
            "videos": {"made": len(made), "real": len(real)},
            **_times(turns, use, here, script, paths),
            **_work(known, here.counts, script, paths),
            **agreement(known, script.tracks, script.folder),
        },
        notes=(
            f"faces: {faces}; SyncNet: random weights, published sizes, whose readings mean nothing; Whisper: {spoken}",
            "classic: ffmpeg to 25 fps and 16 kHz, scenedetect's command line, syncnet-python's own pipeline with an "
            "insightface detector on every frame in place of S3FD, whisperx's command line once for all tracks",
            "pictures: counted in this process, in ffmpeg's reports and in calls of imread; a search for cuts decodes "
            "its file once",
            "ours also ships 512 px clips, identifies languages, embeds faces and takes fingerprints; classic does not",
        ),
    )


def _times(turns: Turns, use: Weights, here: Here, script: classic.Classic, paths: Sequence[Path]) -> dict[str, Any]:
    """Seconds of the ways, and of the last turn's stages and steps."""
    stages = _recipe(use).stages()
    seconds = sum(probe(path).duration_s for path in paths)
    steps_s = {name: round(value, 2) for name, value in script.steps_s.items()}
    again_s = steps_s["25 fps and 16 kHz"] + steps_s["scenedetect"]
    return {
        "footage_s": seconds,
        "ours: wall s": turns.wall_s("ours"),
        "ours: cpu s": turns.cpu_s("ours"),
        "ours: cpu s per second of footage": turns.cpu_s("ours").median / seconds,
        "ours on Ray: wall s": turns.wall_s("ours on Ray"),
        "classic: wall s": turns.wall_s("classic"),
        "classic: cpu s": turns.cpu_s("classic"),
        "classic without what syncnet-python does again: wall s": turns.spent["classic"][-1].wall_s - again_s,
        "ours: seconds by stage, loading included": _by_stage(here.store, keys(stages, Video)),
        "classic: seconds by step": steps_s,
    }


def _by_stage(store: Store, names: dict[str, str]) -> dict[str, float]:
    found = {}
    for name, key in names.items():
        settled = [path for status in ("ok", "rejected") for path in store.list(f"ledger/{key}/{status}")]
        found[name] = round(sum(json.loads(store.get(path))["seconds"] for path in settled), 2)
    return found


def _work(known: Sequence[Measured], counts: Counts, script: classic.Classic, paths: Sequence[Path]) -> dict[str, Any]:
    """Pictures decoded and encoded and bytes written, by both ways, in their last turn."""
    frames = {str(path): probe(path).n_packets for path in paths}
    source = {str(path): path.stat().st_size for path in paths}
    clips = [clip for one in known if one.clips for clip in one.clips.items]
    copies = {one.source.file.path: one.video.url for one in known if one.source}
    full = dict.fromkeys(frames, 0)
    of_clips = 0
    for path, n in counts.decoded.items():
        url = path if path in full else next((url for copy, url in copies.items() if path.endswith(copy)), None)
        if url is None:
            of_clips += n
        else:
            full[url] += n
    cut = {one.video.url for one in known if one.clips}
    clip_frames = sum(clip.n_frames for clip in clips)
    scratch = max(_of_video(counts, one.video) / source[one.video.url] for one in known)
    return {
        "ours: full-size decodes per picture of the sources": sum(full.values()) / sum(frames.values()),
        "ours: the same, videos that gave clips": _share(full, frames, cut),
        "ours: the same, videos that gave none": _share(full, frames, set(frames) - cut),
        "classic: full-size decodes per picture of the sources": script.full_size_decodes / sum(frames.values()),
        "ours: clip seconds cut": clip_frames / RATE_HZ,
        "ours: decodes of a clip per picture of it": of_clips / max(clip_frames, 1),
        "ours: encodes per picture of a clip": counts.encoded.total() / max(clip_frames, 1),
        "classic: encodes by ffmpeg per picture of the sources": script.counts.encoded.total() / sum(frames.values()),
        "ours: largest scratch of a stage and video / source": scratch,
        "ours: bytes of clips / source": sum(c.video.size_bytes + c.audio.size_bytes for c in clips)
        / sum(source.values()),
        "classic: bytes of a video's files / source, the most": max(
            script.left_bytes[path] / source[path] for path in source
        ),
        "classic: bytes of all files / source": script.left_bytes.total() / sum(source.values()),
        "ours: images written": counts.images + images(script.folder.parent / "here"),
        "classic: images written": images(script.folder),
    }


def _of_video(counts: Counts, video: Video) -> int:
    return max(n for folder, n in counts.scratch.items() if folder.endswith(video.id))


def _share(of: dict[str, int], all_of: dict[str, int], videos: set[str]) -> float | None:
    """None where there is no such video."""
    return sum(of[one] for one in videos) / sum(all_of[one] for one in videos) if videos else None


def _recipe(use: Weights) -> TalkingFaces:
    full = own()
    cores = Resources(cpus=float(THREADS))
    return replace(
        full,
        watch=replace(full.watch, faces=replace(full.watch.faces, pack=use.pack)),
        sync=replace(full.sync, model=str(use.sync), resources=cores),
        speech=replace(full.speech, model=str(use.whisper), align=False, vad="pyannote", resources=cores),
        identity=replace(full.identity, pack=use.pack),
    )


def _here(use: Weights, paths: Sequence[Path], folder: Path) -> Here:
    store = Store(str(folder))
    with counted() as counts:
        run_here(_recipe(use).stages(), [Video.of(str(path)) for path in paths], store, "a")
    return Here(store, counts)


def _on_ray(use: Weights, paths: Sequence[Path], folder: Path) -> None:
    """The command as a person gives it, to its end: shards, catalogue and report as well."""
    manifest = folder / "few.csv"
    with manifest.open("w", newline="", encoding="utf-8") as f:
        csv.writer(f).writerows([("url",), *((str(path),) for path in paths)])
    sets = {
        "watch.faces.pack": use.pack,
        "identity.pack": use.pack,
        "sync.model": use.sync,
        "speech.model": use.whisper,
        "speech.align": "false",
        "speech.vad": "pyannote",
    }
    command = [sys.executable, "-m", "pipeline", "run", "--manifest", str(manifest), "--store", str(folder / "out")]
    command += [part for name, value in sets.items() for part in ("--set", f"{name}={value}")]
    # Ray gives its workers way to whatever else the machine does (15 by default); the other ways do not
    equal = os.environ | {"RAY_worker_niceness": "0"}
    done = subprocess.run(command, cwd=ROOT, env=equal, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr)[-2000:])
