"""Run the project's commands as a person does: another process, its words, its exit code."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Said:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str


def run(*arguments: str | Path, timeout_s: float = 900, cwd: Path = ROOT) -> Said:
    """`python *arguments` from the project's root, its output captured."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    return Said(done.returncode, done.stdout, done.stderr)


def pipeline(*arguments: str | Path, timeout_s: float = 900) -> Said:
    """`python -m pipeline *arguments`."""
    return run("-m", "pipeline", *arguments, timeout_s=timeout_s)
