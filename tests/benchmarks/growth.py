"""How cost grows with the hours of footage: the whole sample recipe, by the command, on Ray."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from manifests.store import Store
from stages.media import probe
from tests.benchmarks.counts import call_seconds, size_bytes, stages_in
from tests.benchmarks.material import ROOT, corpus_videos
from tests.benchmarks.record import Findings, made_by

HOURS = (0.02, 0.1)
_NOTE_S = 10.0
"""A sitting writes down how long it lasts so often: what is lost of its time where it is broken off."""


def measure(scratch: Path, repeats: int, hours: Sequence[float] = HOURS, folder: Path | None = None) -> Findings:
    """Seconds and megabytes per video-hour; one turn.

    In `folder` stores stay, and a run that was broken off goes on where it was: its seconds are those of all its
    sittings, the start of Ray and the loading of models in each. Raises `ValueError` for a folder of another commit.
    """
    if folder is not None:
        _of_this_commit(folder)
    numbers: dict[str, Any] = {}
    for taken in hours:
        numbers |= _grown((folder or scratch) / f"grown{taken}", taken)
    return Findings(
        numbers=numbers,
        notes=(
            "videos of the sample corpus, again and again under other names where it is too short, through `python -m "
            "pipeline run` with the recipe sample; on the clock, all cores; start of Ray, shards and report in it",
        ),
        once=True,
    )


def _of_this_commit(folder: Path) -> None:
    commit, known = made_by("", "manifests", "pipeline", "stages")["commit"], folder / "commit.txt"
    if known.exists() and known.read_text(encoding="utf-8") != commit:
        raise ValueError(f"--folder {folder}: was begun at {known.read_text(encoding='utf-8')}, this is {commit}")
    folder.mkdir(parents=True, exist_ok=True)
    known.write_text(commit, encoding="utf-8")


def _grown(folder: Path, hours: float) -> dict[str, Any]:
    """The whole sample recipe over so much footage."""
    store, said = folder / "out", folder / "sittings.json"
    links, seconds = sources(folder / "videos", 3600 * hours)
    command = [sys.executable, "-m", "pipeline", "run", "sample", "--manifest", str(links), "--store", str(store)]
    if not (store / "finished.json").exists():
        _sit(command, said)
    taken, sittings = seconds / 3600, json.loads(said.read_text(encoding="utf-8"))
    made = Store(str(store))
    calls_s = {name: round(spent / taken, 1) for name, spent in call_seconds(made, stages_in(made)).items()}
    kinds = {name: size_bytes(store / name) / taken / 1e6 for name in ("blobs", "ledger", "shards")}
    return {
        f"{hours} h of footage: s per video-hour": sum(sittings) / taken,
        f"{hours} h of footage: s of the whole command, by sitting": sittings,
        f"{hours} h of footage: s of calls per video-hour, by stage": calls_s,
        **{f"{hours} h of footage: MB of {name} per video-hour": mb for name, mb in kinds.items()},
    }


def sources(folder: Path, wanted_s: float) -> tuple[Path, float]:
    """A folder of links to videos that last so long, and their seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    seconds, around = 0.0, 0
    while seconds < wanted_s:
        for path in corpus_videos(wanted_s - seconds):
            link = folder / f"{around:03d}-{path.name}"
            if not link.is_symlink():
                link.symlink_to(path)
            seconds += probe(path).duration_s
        around += 1
    return folder, seconds


def _sit(command: list[str], said: Path) -> None:
    """Run the command to its end, or until it is broken off; its seconds are added to those of earlier sittings."""
    before = json.loads(said.read_text(encoding="utf-8")) if said.exists() else []
    log, started = said.with_name("log.txt"), time.perf_counter()
    with log.open("ab") as output, subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output) as running:
        while running.returncode is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(_NOTE_S)
            said.write_text(json.dumps([*before, round(time.perf_counter() - started, 1)]), encoding="utf-8")
    if running.returncode:
        raise RuntimeError(log.read_text(encoding="utf-8", errors="replace")[-2000:])
