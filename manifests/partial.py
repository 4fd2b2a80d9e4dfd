"""Files that are not yet whole: what they are called until they are renamed, and when nobody writes them any more."""

import contextlib
import os
import time
import uuid
from pathlib import Path

from manifests.scratch import is_alive, machine

_PARTIAL = ".partial-"

_ABANDONED_S = 24 * 3600.0
"""What was not touched for so long, nobody writes: a worker of a spot node did that is gone, say."""


def partial_name() -> str:
    """A name for a file that this process begins."""
    return f"{_PARTIAL}{machine()}-{os.getpid()}-{uuid.uuid4().hex}"


def is_partial(path: str) -> bool:
    """Whether a path is that of such a file."""
    return path.rpartition("/")[2].startswith(_PARTIAL)


def is_abandoned(path: str) -> bool:
    """Whether nobody writes it: the process is of this machine and gone, or the file is old, since the number of a
    process says nothing elsewhere. The time of its change counts too: a move keeps that of writing."""
    name = path.rpartition("/")[2]
    if name.startswith(f"{_PARTIAL}{machine()}-") and not is_alive(int(name.rsplit("-", 2)[1])):
        return True
    with contextlib.suppress(OSError):  # it became whole, or another run has taken it away
        about = Path(path).stat()
        return time.time() - max(about.st_mtime, about.st_ctime) > _ABANDONED_S
    return False
