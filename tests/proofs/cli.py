"""What the trainer claims, shown on shards, as dated records in `records/`."""

import argparse
import importlib
import logging
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.record import machine, made_by, save

ROOT = Path(__file__).parents[2]
RECORDS = Path(__file__).parent / "records"

ABOUT = {
    "tiny": "the README's training command from nothing: time, memory, held-out losses; writes the run anew",
    "overfit": "each of the four stages drives the loss of one batch down",
    "learn": "held-out measures before and after training, stage by stage; with another's sound as the control",
    "ablations": "with against without archived clip and memory, three seeds each, over 30, 300 and 1,800 frames",
    "attention": "exact against FAVOR+ attention in time and memory as the history grows",
    "speed": "samples per second and data wait, cached latents against none; two processes against one",
    "sheet": "frames of a generated minute as one picture; memory of ten times as long a video",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.proofs", description=__doc__)
    parser.add_argument("names", nargs="+", choices=tuple(ABOUT), metavar="NAME", help=", ".join(ABOUT))
    parser.add_argument("--shards", help="shards of the sample world (python -m pipeline run --langs 10)")
    parser.add_argument("--run", type=Path, default=Path("runs/tiny"), help="a run trained on them (default runs/tiny)")
    parser.add_argument("--work", type=Path, default=Path("runs/proofs"), help="folder for what is trained on the way")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    command = shlex.join(["python", "-m", "tests.proofs", *sys.argv[1:]])
    for name in options.names:
        on, began = machine(), time.perf_counter()
        numbers = importlib.import_module(f"tests.proofs.{name}").show(options)
        path = write(name, command, on, numbers, time.perf_counter() - began)
        sys.stdout.write(f"{path.relative_to(ROOT)}\n{path.read_text()}")
    return 0


def write(name: str, command: str, on: dict[str, Any], numbers: dict[str, Any], seconds: float) -> Path:
    """Write `records/{name}.json`."""
    record = {
        "name": name,
        "about": ABOUT[name],
        **made_by(command, "mcdm"),
        "machine": on,
        "seconds": round(seconds, 1),
        "numbers": _rounded(numbers),
    }
    return save(RECORDS / f"{name}.json", record)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
