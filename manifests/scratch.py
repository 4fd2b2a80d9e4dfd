"""Scratch folders of this machine, named after their process, so that those of killed ones are found and removed."""

import os
import re
import shutil
import socket
import tempfile
from pathlib import Path

_NAME = re.compile(r"tfw-[a-z]+-(.+)-(\d+)-[^-]+")


def machine() -> str:
    """Where process numbers mean the same: the host's name, and the namespace that a container has of its own.

    Disks are shared more widely than that: a scratch folder by all nodes of a cluster, `/tmp` by containers of a node.
    """
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}-{namespace.stat().st_ino if namespace.exists() else 0}"


def prefix(what: str) -> str:
    """How a temporary folder of this process begins, for `tempfile`; `what`: one word of small letters."""
    return f"tfw-{what}-{machine()}-{os.getpid()}-"


def write_whole(path: Path, text: str) -> None:
    """Write a small file under a temporary name, then rename it: a full disk or a kill leaves the one before."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


def is_alive(pid: int) -> bool:
    """Whether a process of this machine is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def sweep() -> int:
    """Remove the scratch of processes of this machine that are gone; returns how many folders."""
    here = machine()
    named = ((path, _NAME.fullmatch(path.name)) for path in Path(tempfile.gettempdir()).glob("tfw-*"))
    left = [path for path, name in named if name and name[1] == here and not is_alive(int(name[2]))]
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    return len(left)
