"""Make the locked environment on first use, from nothing but Python and a package registry. Standard library only.

`ensure()` stands first in every `__main__`: where the project's packages are importable it does nothing; else it builds
`.venv` beside `requirements.txt` (once; 8.5 GB on the disk) and starts the same command again inside it.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.txt"
_UV = "uv==0.13.9"
_WITNESSES = ("ray", "torch", "whisperx", "insightface", "webdataset")


def ensure() -> None:
    """Return inside a fit environment; otherwise make it and replace this process. Exits with 2 where it cannot."""
    if all(importlib.util.find_spec(name) for name in _WITNESSES) or not LOCK.exists():
        return
    environment = ROOT / ".venv"
    python = environment / "bin" / "python"
    if Path(sys.prefix).resolve() == environment.resolve():
        _stop(f"{environment} lacks packages of requirements.txt; remove that folder and run the command again")
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    stamp = environment / "locked"
    if not stamp.exists() or stamp.read_text() != digest:
        _make(environment, python)
        stamp.write_text(digest)
    os.execv(python, [str(python), *sys.orig_argv[1:]])


def _make(environment: Path, python: Path) -> None:
    if not (3, 11) <= sys.version_info[:2] < (3, 13):
        _stop(f"Python 3.11 or 3.12 is needed, this is {sys.version.split()[0]}")
    sys.stderr.write(f"First run: installing the locked environment into {environment.name}/ (once, 8.5 GB) ...\n")
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(environment)])
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", _UV])
    uv = [str(environment / "bin" / "uv"), "pip"]
    inside = {**os.environ, "VIRTUAL_ENV": str(environment)}
    _run([*uv, "install", "--quiet", "--no-deps", "--require-hashes", "-r", str(LOCK)], inside)
    _run([*uv, "install", "--quiet", "--no-deps", "-e", str(ROOT)], inside)


def _run(command: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode:
        _stop(f"setting up failed (exit {done.returncode}): {' '.join(command)}")


def _stop(why: str) -> None:
    sys.stderr.write(f"error: {why}\n")
    raise SystemExit(2)
