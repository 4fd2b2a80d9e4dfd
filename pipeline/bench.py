"""The work bench of one stage call: a scratch folder that dies with the call, and the way to blobs in the store."""

import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from manifests.records import Ref
from manifests.scratch import prefix
from manifests.store import Store

_FETCHERS = 3
"""Threads that fetch ahead: a clip has three files."""


class Bench:
    """Use as a context manager: `scratch` lives inside it.

    `fetch` turns a `Ref` into a readable file; `keep` turns a file into a `Ref`. Blobs are named by stage key, video
    and name, so doing a call again overwrites what the first try left.
    """

    def __init__(self, store: Store, key: str, video: str) -> None:
        self.store = store
        self._prefix = f"blobs/{key}/{video[:2]}/{video}"
        self._folder = Path(tempfile.mkdtemp(prefix=prefix("bench")))
        self._fetchers = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="fetch")  # none starts before it is needed

    @property
    def scratch(self) -> Path:
        """An empty folder of this call's own."""
        return self._folder

    def fetch(self, ref: Ref) -> Path:
        """A readable file with the blob's bytes (read-only by contract); raises `FileNotFoundError`."""
        return self.store.get_file(ref.path, self._folder)

    def ahead(self, groups: Iterable[Sequence[Ref]]) -> Iterator[list[Path]]:
        """`fetch` groups of blobs, each while the one before it is in use; in a local store, in turn and in no thread.

        Raises as `fetch` does, where the group that it could not have is asked for.
        """
        each: Callable[..., Iterator[Path]] = self._fetchers.map if self.store.local is None else map
        coming: deque[Iterator[Path]] = deque()
        for group in groups:
            coming.append(each(self.fetch, group))
            if len(coming) > 1:
                yield list(coming.popleft())
        yield from map(list, coming)

    def keep(self, path: Path, name: str) -> Ref:
        """Put a file into the store under this call's prefix, whole, and return its reference.

        A file of the scratch folder is moved: never on the disk twice.
        """
        return self.store.put_file(path, f"{self._prefix}/{name}", move=path.is_relative_to(self._folder))

    def drop(self, *refs: Ref) -> None:
        """Remove what was kept, of a call that comes to nothing after all."""
        for ref in refs:
            self.store.delete(ref.path)

    def __enter__(self) -> "Bench":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._fetchers.shutdown(cancel_futures=True)  # what is on its way arrives first: it writes into the folder
        shutil.rmtree(self._folder, ignore_errors=True)
