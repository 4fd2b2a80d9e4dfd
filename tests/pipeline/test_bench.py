"""Blobs fetched ahead: in an object store the next while one is in use, and whatever goes wrong says so and ends."""

import threading
from pathlib import Path

import pytest

from manifests.records import Ref
from manifests.store import Store
from pipeline.bench import Bench

PATIENCE_S = 20.0


class Watched(Store):
    """Says what is asked for; may hold an answer back."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.asked: dict[str, threading.Event] = {f"in/{n}{of}": threading.Event() for n in range(4) for of in "ab"}
        self.held = threading.Event()
        self.held.set()

    def get_file(self, path: str, scratch: Path) -> Path:
        self.asked[path].set()
        assert self.held.wait(PATIENCE_S)
        return super().get_file(path, scratch)


def groups(store: Store, n: int = 4) -> list[list[Ref]]:
    for k in range(n):
        for of in "ab":
            store.put(f"in/{k}{of}", f"{k}{of}".encode())
    return [[Ref(f"in/{k}{of}", 2, "") for of in "ab"] for k in range(n)]


@pytest.fixture
def remote(tmp_path) -> Watched:
    return Watched(f"memory://{tmp_path.name}-bench")


def fetchers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fetch")]


def read(paths: list[Path]) -> list[str]:
    return [path.read_text() for path in paths]


def test_the_next_blobs_of_an_object_store_are_on_their_way_while_one_group_is_in_use(remote):
    with Bench(remote, "key", "video") as bench:
        coming = bench.ahead(groups(remote))
        assert read(next(coming)) == ["0a", "0b"]
        assert remote.asked["in/1a"].wait(PATIENCE_S) and remote.asked["in/1b"].wait(PATIENCE_S)
        assert not remote.asked["in/2a"].is_set(), "one group ahead, or scratch would fill"
        assert [read(paths) for paths in coming] == [["1a", "1b"], ["2a", "2b"], ["3a", "3b"]]
    assert not fetchers() and not bench.scratch.exists()


def test_in_a_local_store_a_blob_is_looked_for_when_it_is_its_turn_and_in_no_thread(tmp_path):
    store = Watched(str(tmp_path))
    with Bench(store, "key", "video") as bench:
        coming = bench.ahead(groups(store))
        assert read(next(coming)) == ["0a", "0b"]
        assert not store.asked["in/1a"].is_set() and not fetchers()
        assert [read(paths) for paths in coming] == [["1a", "1b"], ["2a", "2b"], ["3a", "3b"]]


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_a_blob_that_is_not_there_is_missed_in_its_turn_and_those_before_it_are_had(tmp_path, kind):
    store = Store(str(tmp_path) if kind == "disk" else f"memory://{tmp_path.name}-bench")
    asked = groups(store)
    store.delete("in/2b")
    had: list[list[str]] = []
    with pytest.raises(FileNotFoundError), Bench(store, "key", "video") as bench:
        for paths in bench.ahead(asked):
            had.append(read(paths))
    assert had == [["0a", "0b"], ["1a", "1b"]]
    assert not fetchers() and not bench.scratch.exists()


def test_work_that_fails_waits_for_what_is_on_its_way_and_leaves_no_thread_and_no_file(remote):
    with pytest.raises(ZeroDivisionError), Bench(remote, "key", "video") as bench:
        for _ in bench.ahead(groups(remote)):
            remote.held.clear()  # from here on what is under way does not arrive ...
            threading.Timer(0.2, remote.held.set).start()  # ... until after the failure
            raise ZeroDivisionError
    assert not fetchers() and not bench.scratch.exists()


def test_of_no_blobs_nothing_is_fetched(remote):
    with Bench(remote, "key", "video") as bench:
        assert list(bench.ahead([])) == [] and not fetchers()
