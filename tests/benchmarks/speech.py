"""Transcription of clips: ours in batches over all of them, and whisperx's own `transcribe` clip by clip."""

import difflib
import json
from pathlib import Path
from typing import Any

import numpy as np

from manifests.records import Clip, Speeches, Video
from manifests.store import Store
from pipeline.bench import Bench
from pipeline.stage import Facts, Resources
from stages.speech import Transcribe
from stages.sync import read_wav
from tests.benchmarks.clips import make_clips
from tests.benchmarks.material import SHARED, whisper
from tests.benchmarks.record import Findings
from tests.benchmarks.tools import empty, ffmpeg
from tests.benchmarks.turns import in_turns, spread

CLIPS = 6
THREADS = 2


def measure(folder: Path, repeats: int) -> Findings:
    """Seconds per second of clip, with equal weights, voice activity detector and threads."""
    model, said = whisper(folder)
    store = Store(str(folder / "store"))
    sounds, source = _sounds(folder)
    lengths_s = [min(len(sound) / 16_000, 12.0) for sound in sounds]
    clips = make_clips(store, empty(folder / "made"), lengths_s, sounds)
    stage = Transcribe(model=str(model), vad="pyannote", align=False, resources=Resources(cpus=THREADS))
    work, pipeline = stage.open(), _whisperx(model)

    def ours() -> Speeches:
        with Bench(store, "speech", "made") as bench:
            found = work(Facts([Video.of("made"), clips]), bench)
        assert isinstance(found, Speeches)
        return found

    turns = in_turns(
        {"ours": ours, "whisperx": lambda: [_theirs(pipeline, store, c) for c in clips.items]}, repeats, warm=True
    )
    pairs = list(zip([one.text for one in turns.made["ours"].items], turns.made["whisperx"], strict=True))
    seconds = sum(clip.end_s for clip in clips.items)
    return Findings(
        ratios={
            "whisperx / ours, wall": turns.wall_ratio("whisperx", "ours"),
            "whisperx / ours, cpu": turns.cpu_ratio("whisperx", "ours"),
        },
        numbers={
            "ours, times real time": spread([seconds / one.wall_s for one in turns.spent["ours"]]),
            "whisperx, times real time": spread([seconds / one.wall_s for one in turns.spent["whisperx"]]),
            "footage_s": seconds,
            "clips": len(clips.items),
            "equal texts, share": float(np.mean([mine == other for mine, other in pairs])),
            "likeness of texts": [round(difflib.SequenceMatcher(None, *pair).ratio(), 3) for pair in pairs],
        },
        notes=(
            f"Whisper: {said}; voices: {source}; both with pyannote's detector, beam 5, {THREADS} threads, no aligner",
            "ours identifies the language of every window of 6 s, one to three here; whisperx that of the first 30 s",
            "ours cuts at 6 s windows and joins them to at most 30 s, so that texts may differ where voices pause",
        ),
    )


def _sounds(folder: Path) -> tuple[list[np.ndarray], str]:
    """Int16 at 16 kHz: real voices if they are at hand, else noise."""
    if not (SHARED / "clips").is_dir():
        from tests.benchmarks.clips import speech_like

        return [speech_like(16_000 * 8, seed) for seed in range(CLIPS)], "noise"
    known = json.loads((SHARED / "clips" / "INDEX.json").read_text(encoding="utf-8"))
    wanted = [one for one in known if one["label"] == "talking" and one["audio"]][:CLIPS]
    sounds = []
    for number, one in enumerate(wanted):
        ffmpeg("-i", SHARED / "clips" / one["file"], "-vn", "-ac", "1", "-ar", "16000", folder / f"{number}.wav")
        sounds.append(read_wav(folder / f"{number}.wav"))
    return sounds, "real clips"


def _whisperx(model: Path) -> Any:
    from whisperx.asr import load_model

    return load_model(str(model), "cpu", compute_type="float32", asr_options={"beam_size": 5}, threads=THREADS)


def _theirs(pipeline: Any, store: Store, clip: Clip) -> str:
    sound = read_wav(store.get_file(clip.audio.path, Path())).astype(np.float32) / 32768
    found = pipeline.transcribe(sound, batch_size=8)
    return " ".join(segment["text"].strip() for segment in found["segments"])
