"""The work bench of one stage call: a scratch folder that dies with the call, and the way to blobs in the store."""

import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from manifests.records import Ref
from manifests.scratch import prefix
from manifests.store import Store


class Bench:
    """Use as a context manager: `scratch` lives inside it.

    `fetch` turns a `Ref` into a readable file; `keep` turns a file into a `Ref`. Blobs are named by stage key, video
    and name, so doing a call again overwrites what the first try left.
    """

    def __init__(self, store: Store, key: str, video: str) -> None:
        self.store = store
        self._prefix = f"blobs/{key}/{video[:2]}/{video}"
        self._folder = Path(tempfile.mkdtemp(prefix=prefix("bench")))

    @property
    def scratch(self) -> Path:
        """An empty folder of this call's own."""
        return self._folder

    def fetch(self, ref: Ref) -> Path:
        """A readable file with the blob's bytes (read-only by contract); raises `FileNotFoundError`."""
        return self.store.get_file(ref.path, self._folder)

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
        shutil.rmtree(self._folder, ignore_errors=True)
