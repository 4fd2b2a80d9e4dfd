"""Time ours against a reference in turns, print ratios, write dated records."""

import argparse
import importlib
import os
import shlex
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from stages.cuda import has_gpu
from tests.benchmarks.gpu_parts import PARTS
from tests.benchmarks.record import RECORDS, Findings, machine, made_by, write_record
from tests.benchmarks.turns import Spread

ABOUT = {
    "budget": "multiply-adds and bytes per frame, what a core can do of them, and what it does",
    "watch": "one look at a 1080p video, against a plain decode and against a detector on every frame",
    "sync": "SyncNet over clips, against syncnet-python with its files between",
    "speech": "transcription of clips in batches, against whisperx clip by clip",
    "shards": "writing and reading WebDataset tars, against webdataset's own writer",
    "scale": "what the ledger and the driver cost per call, and one core against two",
    "driver": "100,000 videos through stages that only sleep, on Ray",
    "growth": "seconds and bytes per video-hour as the hours grow, by the command on Ray",
    "command": "the command on one core and on two, and where it has nothing to do",
    "cascade": "what it spares to measure no further what the policy drops anyway",
    "flat": "memory of a process over 1,000 videos",
    "memory": "two hours of 1080p through every stage, each in its own process; a whole run on Ray",
    "chain": "from files to scored clips, against the classic script of public tools with files between",
    "equal": "whether both ways of chain find the same, with networks that have learned; no times",
    "gpu": "each network, the fed stages and the trainer's steps on a GPU, against a processor",
}

_OF = {
    "minutes": {"chain", "equal"},
    "hours": {"growth"},
    "folder": {"growth"},
    "videos": {"driver"},
    "parts": {"gpu"},
}
"""Options that belong to some benchmarks alone; each passes them to its `measure` by name."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="+", choices=("list", *ABOUT), metavar="NAME", help=", ".join(("list", *ABOUT)))
    parser.add_argument("--repeats", type=int, default=3, help="turns of each way (default: 3)")
    parser.add_argument("--minutes", type=float, help="footage for chain or equal (default: 5)")
    parser.add_argument("--hours", type=float, nargs="+", help="footage for growth (default: 0.02 0.1)")
    parser.add_argument("--folder", type=Path, help="where growth keeps its stores: a run broken off goes on there")
    parser.add_argument("--videos", type=int, help="how many for driver (default: 100000)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, metavar="PART", help=f"of gpu: {', '.join(PARTS)}")
    options = parser.parse_args()
    for name, of in _OF.items():
        if getattr(options, name) is not None and not of.issuperset(options.names):
            parser.error(f"--{name} goes with {' and '.join(sorted(of))} alone")
    console = Console(highlight=False)
    if "list" in options.names:
        for name, about in ABOUT.items():
            console.print(f"{name:8s} {about}")
        return 0
    if "gpu" not in options.names:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # records are of the processor, whatever the machine has besides
    elif options.names != ["gpu"]:
        parser.error("gpu is measured alone: all others are of the processor")
    elif not has_gpu():
        sys.stderr.write("gpu: no GPU is visible here\n")
        return 2
    command = shlex.join(["python", "-m", "tests.benchmarks", *sys.argv[1:]])
    for name in options.names:
        measure = importlib.import_module(f"tests.benchmarks.{name}").measure
        on, made = machine(), made_by(command)
        with tempfile.TemporaryDirectory() as folder:
            more = {option: value for option in _OF if (value := getattr(options, option)) is not None}
            findings: Findings = measure(Path(folder), options.repeats, **more)
        _show(name, findings, console)
        console.print(
            f"written: {write_record(name, made, options.repeats, on, findings).relative_to(RECORDS.parents[2])}"
        )
    return 0


def _show(name: str, findings: Findings, console: Console) -> None:
    table = Table(name, "least", "median", "most", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    numbers = findings.numbers.items()
    rows = [*findings.ratios.items(), *((label, value) for label, value in numbers if isinstance(value, Spread))]
    for label, value in rows:
        table.add_row(label, *(f"{one:.3g}" for one in (value.least, value.median, value.most)))
    console.print(table)
    for label, value in numbers:
        if not isinstance(value, Spread):
            console.print(f"{label}: {value:.4g}" if isinstance(value, float) else f"{label}: {value}")
    for note in findings.notes:
        console.print(note, style="dim")
