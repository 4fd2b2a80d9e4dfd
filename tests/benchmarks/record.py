"""What a benchmark found, and the dated record of it."""

import dataclasses
import json
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.benchmarks.turns import Spread

RECORDS = Path(__file__).parent / "records"


@dataclass(frozen=True)
class Findings:
    """Ratios with their spread, other numbers by name, and what must be known to read them."""

    ratios: dict[str, Spread] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    once: bool = False  # however many turns were asked for


def machine() -> dict[str, Any]:
    """Processor, cores, memory and load, and the GPU where one is visible; nothing that names the machine."""
    import torch

    about: dict[str, Any] = {
        "cpu": _cpu_model(),
        "vectors": torch.backends.cpu.get_cpu_capability(),  # AVX2 or AVX512: twice the arithmetic
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
    }
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        about["gpu"] = {"name": gpu.name, "memory_gib": round(gpu.total_memory / 2**30, 1)}
    return about


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def write_record(name: str, made: dict[str, str], turns: int, on: dict[str, Any], findings: Findings) -> Path:
    """Write `records/{name}.json`; `made` as `made_by` said at the start. A spread of one turn is none."""
    record = {
        "name": name,
        **made,
        "turns": 1 if findings.once else turns,
        "machine": on | {"load_after": [round(load, 2) for load in os.getloadavg()]},
        "ratios": {label: dataclasses.asdict(found) for label, found in findings.ratios.items()},
        "numbers": {label: _plain(value) for label, value in findings.numbers.items()},
        "notes": findings.notes,
    }
    return save(RECORDS / f"{name}.json", record)


def made_by(command: str, *below: str) -> dict[str, str]:
    """Date, command and commit; "+" after it: tracked files (`below` some folders, if given) differ from it."""
    changed = _git("status", "--porcelain", "-uno", *below)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command,
        "commit": (_git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else ""),
    }


def save(path: Path, record: dict[str, Any]) -> Path:
    """Write a record as JSON, a value per line."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _plain(value: Any) -> Any:
    if isinstance(value, Spread):
        return dataclasses.asdict(value)
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def _git(*arguments: str) -> str:
    """What git says; nothing where the files are here without it."""
    if shutil.which("git") is None:
        return ""
    done = subprocess.run(["git", *arguments], cwd=RECORDS.parents[2], capture_output=True, text=True, check=False)
    return done.stdout.strip()
