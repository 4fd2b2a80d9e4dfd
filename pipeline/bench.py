"""The work bench of one stage call: a scratch folder that dies with the call, and the way to blobs in the store."""

import shutil
import tempfile
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from manifests.records import Ref
from manifests.scratch import prefix
from manifests.store import Store, ref_of

_THREADS = 3
"""That fetch ahead, or keep behind: a clip has three files."""


class Bench:
    """Use as a context manager: `scratch`, an empty folder of the call's own, lives inside it.

    `fetch` turns a `Ref` into a readable file; `keep` turns a file into a `Ref`. Blobs are named by stage key, video
    and name, so doing a call again overwrites what the first try left. What was kept is in the store when the block
    has ended without an error, not before.
    """

    def __init__(self, store: Store, key: str, video: str) -> None:
        self.store = store
        self._prefix = f"blobs/{key}/{video[:2]}/{video}"
        self.scratch = Path(tempfile.mkdtemp(prefix=prefix("bench")))
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="bench")  # none starts before it is needed
        self._keeping: deque[Future[None]] = deque()

    def fetch(self, ref: Ref) -> Path:
        """A readable file with the blob's bytes (read-only by contract); raises `FileNotFoundError`, which says the way
        out: no run makes again by itself what the ledger has as made."""
        try:
            return self.store.get_file(ref.path, self.scratch)
        except FileNotFoundError as error:
            key, name = ref.path.partition("/")[2].partition("/")[0], ref.path.rpartition("/")[2]
            way = f"a run makes it anew once ledger/{key} is deleted"
            raise FileNotFoundError(f"{name} is gone from blobs: {way}") from error

    def ahead(self, groups: Iterable[Sequence[Ref]]) -> Iterator[list[Path]]:
        """`fetch` groups of blobs, each while the one before it is in use; in a local store, in turn and in no thread.

        Raises as `fetch` does, where the group that it could not have is asked for.
        """
        each: Callable[..., Iterator[Path]] = self._threads.map if self.store.local is None else map
        coming: deque[Iterator[Path]] = deque()
        for group in groups:
            coming.append(each(self.fetch, group))
            if len(coming) > 1:
                yield list(coming.popleft())
        yield from map(list, coming)

    def keep(self, path: Path, name: str) -> Ref:
        """Put a file into the store under this call's prefix, whole, and return its reference.

        A file of the scratch folder is moved: never on the disk twice. Into an object store it goes while the work goes
        on, a few files behind; raises `OSError` for one before it that the store did not take.
        """
        at = f"{self._prefix}/{name}"
        if self.store.local is not None or not path.is_relative_to(self.scratch):
            return self.store.put_file(path, at, move=path.is_relative_to(self.scratch))
        ref = ref_of(path, at)
        waiting = path.rename(path.with_name(f".{uuid.uuid4().hex}-{path.name}"))  # the work may use the name again
        self._keeping.append(self._threads.submit(self.store.take, waiting, at, move=True))
        self._settle(_THREADS)
        return ref

    def drop(self, *refs: Ref) -> None:
        """Remove what was kept, of a call that comes to nothing after all."""
        self._settle()
        for ref in refs:
            self.store.delete(ref.path)

    def _settle(self, at_most: int = 0) -> None:
        """Wait until no more files than these are on their way into the store."""
        while len(self._keeping) > at_most:
            self._keeping.popleft().result()

    def __enter__(self) -> "Bench":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._settle()
        finally:
            self._threads.shutdown(cancel_futures=True)  # what is on its way arrives first: it lies in the folder
            shutil.rmtree(self.scratch, ignore_errors=True)
