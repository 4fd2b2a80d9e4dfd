"""Make the locked environment on first use, from nothing but Python and a package registry. Standard library only.

`ensure()` stands first in the `__main__` of every package: where the packages that it wants are found it does
nothing; else it builds `.venv` beside `requirements.txt` (once; 8.5 GB on the disk) and starts the same command again
inside it. Of an `.venv` that it made it brings the packages up to a lock that has changed since.
"""

import ast
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.txt"
_UV = "uv==0.13.9"
_TRIES = 3  # 4.6 GB come over lines that break; what has come is kept
_UV_NAMES = {  # of what pip calls so: uv's variable, and others that say the same
    "index-url": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "extra-index-url": ("UV_INDEX", "UV_EXTRA_INDEX_URL"),
    "find-links": ("UV_FIND_LINKS",),
    "cert": ("SSL_CERT_FILE", "SSL_CERT_DIR", "UV_SYSTEM_CERTS"),
}
_WITNESSES = ("ray", "torch", "whisperx", "insightface", "webdataset")


def ensure(*wanted: str) -> None:
    """Return where `wanted` (modules; by default those of every command) are found; otherwise make the environment and
    replace this process. Exits with 2 where it cannot."""
    environment = ROOT / ".venv"
    is_inside = Path(sys.prefix).resolve() == environment.resolve()
    is_fit = all(importlib.util.find_spec(name) for name in wanted or _WITNESSES)
    if not LOCK.exists() or (is_fit and not is_inside):
        return
    python, stamp = environment / "bin" / "python", environment / "locked"
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if is_inside and (_says(stamp, digest) or not stamp.exists()):  # one without a stamp is of the user's own making
        if is_fit:
            return
        _stop(f"{environment} lacks packages of requirements.txt; remove that folder and run the command again")
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
    system = f"{platform.system()} {platform.machine()}"
    if system != "Linux x86_64":  # onnxruntime-gpu and the CUDA packages of the lock have no wheels for others
        _stop(f"Linux on x86-64 is needed, this is {system}; a container or another machine may have it")
    if not (3, 11) <= sys.version_info[:2] < (3, 13):
        _stop(f"Python 3.11 or 3.12 is needed, this is {sys.version.split()[0]}")
    asking = [str(python), "-c", "import pip"]  # fails where the making was broken off
    is_new = not python.exists() or subprocess.run(asking, stderr=subprocess.DEVNULL, check=False).returncode != 0
    if is_new and importlib.util.find_spec("ensurepip") is None:  # as Debian and Ubuntu ship it
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        _stop(f"this Python makes no environments: it comes without pip; type: sudo apt install {package}")
    has_changed = not is_new and (environment / "locked").exists()
    why = "requirements.txt has changed: what differs" if has_changed else "First run: the locked environment (8.5 GB)"
    sys.stderr.write(f"{why} is installed into {environment.name}/, once ...\n")
    if is_new:
        _run([sys.executable, "-m", "venv", "--clear", str(environment)])
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", _UV], tries=_TRIES)
    # --python, or UV_SYSTEM_PYTHON and UV_PYTHON send all of it elsewhere
    install = [str(environment / "bin" / "uv"), "pip", "install", "--python", str(python), "--quiet", "--no-deps"]
    inside = {"UV_HTTP_TIMEOUT": "300", **_as_pip_is_told(python), **os.environ, "VIRTUAL_ENV": str(environment)}
    way = "; where packages come from an index of your own, UV_DEFAULT_INDEX=URL names it"
    _run([*install, "--require-hashes", "-r", str(LOCK)], inside, tries=_TRIES, way=way)
    _run([*install, "-e", str(ROOT)], inside, tries=_TRIES, way=way)


def _as_pip_is_told(python: Path) -> dict[str, str]:
    """Where pip is told to find packages, in variables of uv, which heeds nothing of pip's; none of what uv is told."""
    asking, aloud = [str(python), "-m", "pip", "config", "list"], {**os.environ, "PIP_QUIET": "0"}
    said = subprocess.run(asking, env=aloud, capture_output=True, text=True, check=False).stdout
    told: dict[str, str] = {}
    for section in ("global.", "install.", ":env:."):  # one outweighs those before it
        for line in said.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(section):
                told[name.removeprefix(section)] = ast.literal_eval(value)
    links = (one for one in told.get("find-links", "").split() if "://" in one or Path(one).exists())  # pip goes on too
    told["find-links"] = ",".join(links)
    found: dict[str, str] = {}
    for name, same in _UV_NAMES.items():
        if told.get(name) and not any(variable in os.environ for variable in same):
            found[same[0]] = " ".join(told[name].split())  # a list in a file has a line for each
    if "UV_INDEX" in found:
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # as pip: by itself uv asks no index after one with the name
    return found


def _run(command: list[str], environment: dict[str, str] | None = None, *, tries: int = 1, way: str = "") -> None:
    for _ in range(tries):
        done = subprocess.run(command, env=environment, check=False)
        if not done.returncode:
            return
    _stop(f"setting up failed (exit {done.returncode}): {' '.join(command)}{way}")


def _stop(why: str) -> None:
    sys.stderr.write(f"error: {why}\n")
    raise SystemExit(2)
