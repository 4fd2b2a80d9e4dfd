"""Disks that are full or read-only, and stores that do not answer: errors that say nothing about a video, and nothing
about the program."""

import errno
import os
import re
import traceback

from manifests.store import UnreachableError

_SAID = re.compile(
    "("
    + "|".join(re.escape(os.strerror(code)) for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS))
    + "|No usable temporary directory"  # `tempfile`, where every disk for scratch is full
    + r")(?:: (?:'[^']+' -> )?'([^']+)')?"  # of two paths, what was written to
)

_AWAY = re.compile(rf"\b{UnreachableError.__name__}: (.+)")


def disk_fault(error: BaseException) -> str | None:
    """One line for the user if such a disk or store is behind an error, else None.

    Told by the words of the system: they come through where the errno does not, out of ffmpeg, yt-dlp and Ray.
    """
    said = "".join(traceback.format_exception(error))
    if away := _AWAY.search(said):
        return f"{away[1]}; run the same command again when it does" if "does not answer" in away[1] else away[1]
    found = _SAID.search(said)
    if found is None:
        return None
    place = found[2] or "the disk of the store or that of scratch (TMPDIR)"
    return f"{found[1]}: {place}; mend that and run the same command again"
