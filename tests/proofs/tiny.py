"""The README's command for training, from nothing: how long it takes, what it holds, what it learns on the way."""

import json
import resource
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from tests.benchmarks.resident import megabytes

ROOT = Path(__file__).parents[2]


def show(options: Namespace) -> dict[str, Any]:
    """Seconds on the clock with encoding, peak memory of a process, steps and last held-out loss of each stage."""
    run, cache = options.run, options.work / "cache"
    for folder in (run, cache):
        shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "mcdm", "train", "--shards", options.shards, "--recipe", "tiny"]
    began = time.perf_counter()
    subprocess.run([*command, "--stages", "0-3", "--out", str(run), "--cache", str(cache)], cwd=ROOT, check=True)
    seconds = time.perf_counter() - began
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    stages = {}
    for stage in sorted({record["stage"] for record in records}):
        of_stage = [record for record in records if record["stage"] == stage]
        held_out = [record["held_out_loss"] for record in of_stage if "held_out_loss" in record]
        waits = [record["data_wait_share"] for record in of_stage if "data_wait_share" in record]
        stages[str(stage)] = {
            "steps": of_stage[-1]["step"],
            "held_out_loss": [held_out[0], held_out[-1]],
            "data_wait_share": sum(waits) / len(waits),
        }
    return {
        "seconds": seconds,
        "peak_gb_of_a_process": megabytes(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1e3,
        "stages": stages,
    }
