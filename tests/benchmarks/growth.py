"""How cost grows with the hours of footage: the whole sample recipe, by the command, on Ray."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.media import probe
from tests.benchmarks.counts import size_bytes
from tests.benchmarks.material import ROOT, corpus_videos
from tests.benchmarks.record import Findings
from tests.benchmarks.turns import Stopwatch

HOURS = (0.02, 0.1)


def measure(folder: Path, repeats: int, hours: Sequence[float] = HOURS) -> Findings:
    """Seconds and megabytes per video-hour; one turn."""
    numbers: dict[str, Any] = {}
    for taken in hours:
        numbers |= _grown(folder / f"grown{taken}", taken)
    return Findings(
        numbers=numbers,
        notes=(
            "videos of the sample corpus, again and again under other names where it is too short, through `python -m "
            "pipeline run` with the recipe sample; on the clock, all cores; start of Ray, shards and report in it",
        ),
        once=True,
    )


def _grown(folder: Path, hours: float) -> dict[str, Any]:
    """The whole sample recipe over so much footage."""
    sources, store = folder / "videos", folder / "out"
    sources.mkdir(parents=True)
    seconds, around = 0.0, 0
    while seconds < 3600 * hours:
        for path in corpus_videos(3600 * hours - seconds):
            (sources / f"{around:03d}-{path.name}").symlink_to(path)
            seconds += probe(path).duration_s
        around += 1
    command = [sys.executable, "-m", "pipeline", "run", "sample", "--manifest", str(sources), "--store", str(store)]
    watch = Stopwatch()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    spent = watch.read()
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr)[-2000:])
    taken = seconds / 3600
    kinds = {name: size_bytes(store / name) / taken / 1e6 for name in ("blobs", "ledger", "shards")}
    return {
        f"{hours} h of footage: s per video-hour": spent.wall_s / taken,
        f"{hours} h of footage: s of the whole command": spent.wall_s,
        **{f"{hours} h of footage: MB of {name} per video-hour": mb for name, mb in kinds.items()},
    }
