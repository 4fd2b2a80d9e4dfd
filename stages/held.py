"""What a worker fetched last, held for the other parts of the same source: one download, however many ranges."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from manifests.scratch import prefix, sweep
from pipeline.stage import PostponedError, Rejection
from stages.outcomes import NetworkError
from stages.site import Downloaded

Found = Downloaded | Rejection


class Held:
    """At most one source, by whatever name tells it from others.

    A run hands the parts of a source to one worker, one after another (`pipeline.plan.queue`), so the last one is the
    only one worth its disk; where that fails (a worker that died in between), a part is fetched anew.
    """

    def __init__(self) -> None:
        self._name = ""
        self._found: Found | None = None
        self._trouble = ""
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def holds(self, name: str) -> bool:
        """Whether this source was the last one."""
        return name == self._name

    def get(self, name: str, fetch: Callable[[Path], Found], *, about_part: frozenset[str]) -> Found:
        """The source, or why it cannot be had, by `fetch` into a folder if it is not held.

        A rejection with one of the reasons `about_part` is not the source's, and not remembered. Raises what `fetch`
        raises; after a `NetworkError` the other parts are postponed: their host has been asked often enough for one.
        """
        if not self.holds(name):
            self._drop()
            sweep()  # what a killed worker held is as large as a source
            self._folder = tempfile.TemporaryDirectory(prefix=prefix("held"), ignore_cleanup_errors=True)
            try:
                found = fetch(Path(self._folder.name))
            except NetworkError as trouble:
                self._name, self._trouble = name, str(trouble)
                raise
            if isinstance(found, Rejection) and found.reason in about_part:
                return found
            self._name, self._found = name, found
        if self._found is None:
            raise PostponedError(f"another part of this source met trouble: {self._trouble}")
        return self._found

    def _drop(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()
        self._name, self._found, self._folder = "", None, None
