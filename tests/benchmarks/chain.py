"""The whole chain: ours in a plain loop and on Ray, and the classic script of public tools with files between."""

import csv
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from manifests.records import RATE_HZ, Video
from manifests.store import Store
from pipeline.facts import measured
from pipeline.here import run_here
from pipeline.recipes import TalkingFaces, own
from pipeline.stage import Resources
from stages.media import probe
from tests.benchmarks.agreement import agreement
from tests.benchmarks.material import ROOT, corpus_videos, face_pack, random_syncnet, talking_clips, whisper
from tests.benchmarks.record import Findings
from tests.benchmarks.tools import classic_pipeline, empty, ffmpeg, ffmpeg_on_path, scenedetect, size_bytes, whisperx
from tests.benchmarks.turns import Stopwatch, in_turns

HALF_S = 30.0
"""Seconds of footage from the sample maker's corpus, and as many of real clips, where they are at hand."""

THREADS = 2


@dataclass(frozen=True)
class Weights:
    """The same for both ways."""

    pack: str
    sync: Path
    whisper: Path


@dataclass(frozen=True)
class Classic:
    """What the classic script leaves: tracks with readings per video, texts per track, seconds per step."""

    tracks: dict[str, list[tuple[dict[str, Any], tuple[int, float, float]]]]
    folder: Path
    steps_s: dict[str, float]


def measure(folder: Path, repeats: int) -> Findings:
    """Seconds for the same files, with the same weights."""
    pack, faces = face_pack()
    model, spoken = whisper(folder)
    with_weights = Weights(pack, random_syncnet(folder), model)
    made, real = corpus_videos(HALF_S), talking_clips(HALF_S)
    paths = [*made, *real]
    if not paths:
        raise FileNotFoundError("neither the sample corpus nor ../shared/clips is here: nothing to take through")
    seconds = sum(probe(path).duration_s for path in paths)
    turns = in_turns(
        {
            "ours": lambda: _here(with_weights, paths, empty(folder / "here")),
            "ours on Ray": lambda: _on_ray(with_weights, paths, empty(folder / "ray")),
            "classic": lambda: _classic(with_weights, paths, empty(folder / "classic")),
        },
        repeats,
    )
    classic: Classic = turns.made["classic"]
    known = measured(_recipe(with_weights).stages(), [Video.of(str(path)) for path in paths], Store(turns.made["ours"]))
    written = {name: size_bytes(folder / name) for name in ("here", "classic")}
    source = sum(path.stat().st_size for path in paths)
    doubled_s = classic.steps_s["25 fps and 16 kHz"] + classic.steps_s["scenedetect"]
    last = turns.spent["classic"][-1].wall_s
    decoded_s = sum(one.seen.decoded_s for one in known if one.seen) + sum(_cut_s(one) for one in known)
    return Findings(
        ratios={
            "classic / ours, wall": turns.wall_ratio("classic", "ours"),
            "classic / ours, cpu": turns.cpu_ratio("classic", "ours"),
            "classic / ours on Ray, wall, start of Ray and report included": turns.wall_ratio("classic", "ours on Ray"),
        },
        numbers={
            "footage_s": seconds,
            "videos": {"made": len(made), "real": len(real)},
            "ours: wall s": turns.wall_s("ours"),
            "ours on Ray: wall s": turns.wall_s("ours on Ray"),
            "classic: wall s": turns.wall_s("classic"),
            "classic without what syncnet-python does again: wall s": last - doubled_s,
            "classic: seconds by step": classic.steps_s,
            "ours: full-size decodes per second of footage": decoded_s / seconds,
            "ours: frames encoded per clip frame": 1.0,
            "classic: full-size decodes per second of footage": 7.0,
            "ours: bytes written / source (source copy, clips, facts)": written["here"] / source,
            "classic: bytes written / source": written["classic"] / source,
            "ours: images written": sum(1 for p in (folder / "here").rglob("*") if p.suffix in (".jpg", ".png")),
            "classic: images written": sum(1 for _ in (folder / "classic").rglob("*.jpg")),
            **agreement(known, classic.tracks, classic.folder),
        },
        notes=(
            f"faces: {faces}; SyncNet: random weights, published sizes, whose readings mean nothing; Whisper: {spoken}",
            "classic: ffmpeg to 25 fps and 16 kHz, scenedetect's command line, syncnet-python's own pipeline with an "
            "insightface detector on every frame in place of S3FD, whisperx's command line once for all tracks",
            "classic's 7 decodes: normalise, scenedetect, AVI, JPEG out, JPEG in twice, scenes again",
            "ours also ships 512 px clips, identifies languages, embeds faces and takes fingerprints; classic does not",
        ),
    )


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


def _here(use: Weights, paths: Sequence[Path], folder: Path) -> str:
    run_here(_recipe(use).stages(), [Video.of(str(path)) for path in paths], Store(str(folder)), "a")
    return str(folder)


def _on_ray(use: Weights, paths: Sequence[Path], folder: Path) -> str:
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
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr)[-2000:])
    return str(folder / "out")


def _classic(use: Weights, paths: Sequence[Path], folder: Path) -> Classic:
    steps_s = dict.fromkeys(("load", "25 fps and 16 kHz", "scenedetect", "syncnet-python", "whisperx"), 0.0)
    watch = Stopwatch()
    pipeline = classic_pipeline(use.sync, use.pack)
    steps_s["load"] = watch.read().wall_s
    tracks = {}
    with ffmpeg_on_path(folder / "bin"):
        for path in paths:
            work = folder / path.stem
            work.mkdir()
            even = work / "even.mp4"
            watch = Stopwatch()
            ffmpeg("-i", path, "-r", str(RATE_HZ), "-c:v", "libx264", "-crf", "18", "-preset", "veryfast", "-an", even)
            ffmpeg("-i", path, "-vn", "-ac", "1", "-ar", "16000", work / "sound.wav")
            steps_s["25 fps and 16 kHz"] += watch.read().wall_s
            watch = Stopwatch()
            scenedetect(even, work)
            steps_s["scenedetect"] += watch.read().wall_s
            watch = Stopwatch()
            tracks[str(path)] = pipeline.scored(even, work / "sound.wav", work / "syncnet")
            steps_s["syncnet-python"] += watch.read().wall_s
    watch = Stopwatch()
    wavs = sorted(folder.glob("*/syncnet/cropped/*.wav"))
    named = []
    for wav in wavs:
        named.append(wav.with_name(f"{wav.parents[2].name}-{wav.stem}.wav"))
        wav.rename(named[-1])
    whisperx(named, use.whisper, folder / "texts", THREADS)
    steps_s["whisperx"] = watch.read().wall_s
    return Classic(tracks, folder, {name: round(value, 2) for name, value in steps_s.items()})


def _cut_s(one: Any) -> float:
    """Seconds of source under the clips of a video: each is decoded once more to be cut."""
    if one.clips is None:
        return 0.0
    covered = np.zeros(round(max(clip.end_s for clip in one.clips.items) * RATE_HZ) + 1, bool)
    for clip in one.clips.items:
        covered[round(clip.start_s * RATE_HZ) : round(clip.end_s * RATE_HZ)] = True
    return float(covered.sum()) / RATE_HZ
