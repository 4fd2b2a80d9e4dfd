"""Scratch folders of this machine, named after their process, so that those of killed ones are found and removed."""

import os
import re
import shutil
import tempfile
from pathlib import Path

_NAME = re.compile(r"tfw-[a-z]+-(\d+)-.*")


def prefix(what: str) -> str:
    """How a temporary folder of this process begins, for `tempfile`; `what`: one word of small letters."""
    return f"tfw-{what}-{os.getpid()}-"


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
    """Remove the scratch of processes that are gone; returns how many folders."""
    named = ((path, _NAME.fullmatch(path.name)) for path in Path(tempfile.gettempdir()).glob("tfw-*"))
    left = [path for path, name in named if name is not None and not is_alive(int(name[1]))]
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    return len(left)
