"""Each network on the GPU and on a processor; how busy cached clips keep the GPU; steps of the trainer.

Every part is measured in a process of its own (`tests.benchmarks.gpu_parts`): one that cannot be measured says why in
the record, and the others are measured all the same. Each says what it found as soon as it has it, so that a sitting
that is broken off is not lost.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.gpu_parts import PARTS
from tests.benchmarks.record import Findings
from tests.benchmarks.turns import Spread
from tests.command import ROOT

LONGEST_S = 200.0
"""A part that takes longer is given up: all of them together are to fit into half an hour of a lent machine."""

_SPREAD = {"least", "median", "most"}


def measure(
    folder: Path, repeats: int, parts: Sequence[str] | None = None, *, device: str = "cuda", tiny: bool = False
) -> Findings:
    """Every part, or some; `device` against the processor. `tiny`: of a size to see that it works, on any machine."""
    ratios: dict[str, Spread] = {}
    numbers: dict[str, Any] = {}
    for part in parts or PARTS:
        found, why = _alone(part, repeats, device, folder, tiny=tiny)
        sys.stdout.write(f"{part}: {json.dumps(found or why, ensure_ascii=False)}\n")
        sys.stdout.flush()
        if found is None:
            numbers[f"{part}: not measured"] = why
            continue
        ratios |= {f"{part}: {label}": _plain(one) for label, one in found["ratios"].items()}
        numbers |= {f"{part}: {label}": _plain(one) for label, one in found["numbers"].items()}
    return Findings(
        ratios=ratios,
        numbers=numbers,
        notes=(
            "SyncNet: random weights of the published sizes; faces and Whisper: as each part says",
            "sync-alone: inputs lie on the device, of one clip; sync-stage: from files in the page cache, decode "
            "included, one worker and one thread",
            "fed-*: so many workers, one core each, over the same few clips again and again, timed from when all have "
            "their models; utilisation: share of the time in which a kernel ran, as nvidia-smi says over and over",
            "train-*: the trainer's own loop over random numbers of its batch's shapes, a checkpoint at the end left "
            "out; samples per s and MFU are medians of its log's records but the first two",
        ),
    )


def _alone(part: str, repeats: int, device: str, folder: Path, *, tiny: bool) -> tuple[dict[str, Any] | None, str]:
    """What a part found; or None and the last line that it said."""
    out = folder / f"{part}.json"
    command = [sys.executable, "-c", "from tests.benchmarks.gpu_parts import main; main()", part, str(out)]
    command += ["--device", device, "--repeats", str(repeats), *(["--tiny"] if tiny else [])]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        try:
            # a group of its own, so that workers of a part that is given up end with it
            with subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said, start_new_session=True) as running:
                try:
                    code = running.wait(LONGEST_S)
                finally:
                    if running.poll() is None:
                        os.killpg(running.pid, 9)
        except subprocess.TimeoutExpired:
            return None, f"took more than {LONGEST_S:g} s"
        if code == 0:
            found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
            return found, ""
        said.seek(0)
        lines = [line.strip() for line in said if line.strip()]
    return None, lines[-1][:500] if lines else f"exit {code}, without a word"


def _plain(value: Any) -> Any:
    """A `Spread` that went through JSON is one again."""
    return Spread(**value) if isinstance(value, dict) and value.keys() == _SPREAD else value
