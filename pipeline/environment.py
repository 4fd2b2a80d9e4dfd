"""Make the locked environment on first use, from nothing but Python and a package registry. Standard library only.

`ensure()` stands first in every `__main__`: where the project's packages are importable it does nothing; else it builds
`.venv` beside `requirements.txt` (once; 8.5 GB on the disk) and starts the same command again inside it.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.txt"
_UV = "uv==0.13.9"
_TRIES = 3  # 4.6 GB come over lines that break; what has come is kept
_WITNESSES = ("ray", "torch", "whisperx", "insightface", "webdataset")


def ensure() -> None:
    """Return inside a fit environment; otherwise make it and replace this process. Exits with 2 where it cannot."""
    if all(importlib.util.find_spec(name) for name in _WITNESSES) or not LOCK.exists():
        return
    environment = ROOT / ".venv"
    python = environment / "bin" / "python"
    if Path(sys.prefix).resolve() == environment.resolve():
        _stop(f"{environment} lacks packages of requirements.txt; remove that folder and run the command again")
    digest, stamp = hashlib.sha256(LOCK.read_bytes()).hexdigest(), environment / "locked"
    # The interpreter may be gone since, with an upgrade of the system, or on another node that shares the checkout.
    if not (_says(stamp, digest) and python.exists()):
        with _alone():  # two commands at once: the second waits, and finds all done
            if not (_says(stamp, digest) and python.exists()):
                _make(environment, python)
                stamp.write_text(digest)
    os.execv(python, [str(python), *sys.orig_argv[1:]])


def _says(stamp: Path, digest: str) -> bool:
    return stamp.exists() and stamp.read_text() == digest


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hold a lock of this checkout, where its file system has any: NFS has them for files open for writing, if that."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            lock = held.enter_context((ROOT / ".venv.lock").open("ab"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(environment: Path, python: Path) -> None:
    if not (3, 11) <= sys.version_info[:2] < (3, 13):
        _stop(f"Python 3.11 or 3.12 is needed, this is {sys.version.split()[0]}")
    sys.stderr.write(f"First run: installing the locked environment into {environment.name}/ (once, 8.5 GB) ...\n")
    if not python.exists() or subprocess.run([str(python), "-c", "import pip"], stderr=subprocess.DEVNULL).returncode:
        _run([sys.executable, "-m", "venv", "--clear", str(environment)])  # none, or one whose making was broken off
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", _UV], tries=_TRIES)
    uv = [str(environment / "bin" / "uv"), "pip"]
    inside = {"UV_HTTP_TIMEOUT": "300", **os.environ, "VIRTUAL_ENV": str(environment)}
    _run([*uv, "install", "--quiet", "--no-deps", "--require-hashes", "-r", str(LOCK)], inside, tries=_TRIES)
    _run([*uv, "install", "--quiet", "--no-deps", "-e", str(ROOT)], inside, tries=_TRIES)


def _run(command: list[str], environment: dict[str, str] | None = None, *, tries: int = 1) -> None:
    for _ in range(tries):
        done = subprocess.run(command, env=environment, check=False)
        if not done.returncode:
            return
    _stop(f"setting up failed (exit {done.returncode}): {' '.join(command)}")


def _stop(why: str) -> None:
    sys.stderr.write(f"error: {why}\n")
    raise SystemExit(2)
