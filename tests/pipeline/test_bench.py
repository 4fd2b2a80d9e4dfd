"""Blobs fetched ahead: in an object store the next while one is in use, and whatever goes wrong says so and ends."""

import hashlib
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


def test_a_blob_that_is_gone_is_told_with_the_way_to_have_it_anew(tmp_path):
    gone = Ref("blobs/fetch-0123456789/ab/abcd/source.mp4", 1, "")
    way = "^source.mp4 is gone from blobs: a run makes it anew once ledger/fetch-0123456789 is deleted$"
    with pytest.raises(FileNotFoundError, match=way), Bench(Store(str(tmp_path)), "watch-0", "abcd") as bench:
        bench.fetch(gone)


@pytest.fixture
def remote(tmp_path) -> Watched:
    return Watched(f"memory://{tmp_path.name}-bench")


def fetchers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("bench")]


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


class Slow(Store):
    """Takes files one after another, each only when it is let in."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.let_in = threading.Semaphore(0)

    def take(self, source: Path, path: str, *, move: bool = False) -> None:
        assert self.let_in.acquire(timeout=PATIENCE_S)
        if path.endswith("bad"):
            raise ConnectionError("it does not answer")
        super().take(source, path, move=move)


@pytest.fixture
def slow(tmp_path) -> Slow:
    return Slow(f"memory://{tmp_path.name}-slow")


def make(bench: Bench, text: str, name: str = "made") -> Path:
    path = bench.scratch / name
    path.write_text(text)
    return path


def test_the_work_goes_on_while_what_it_made_is_on_its_way_into_an_object_store_and_ends_when_all_is_there(slow):
    with Bench(slow, "key", "video") as bench:
        refs = [bench.keep(make(bench, f"text {n}"), f"{n}") for n in range(3)]  # under one name in scratch
        assert not (bench.scratch / "made").exists() and not slow.list("blobs")
        slow.let_in.release(3)
    assert [slow.get(ref.path).decode() for ref in refs] == ["text 0", "text 1", "text 2"]
    assert [(ref.size_bytes, ref.sha256) for ref in refs] == [
        (6, hashlib.sha256(f"text {n}".encode()).hexdigest()) for n in range(3)
    ]


def test_no_more_files_wait_in_scratch_for_an_object_store_than_are_under_way(slow):
    threading.Timer(0.2, slow.let_in.release, (20,)).start()
    with Bench(slow, "key", "video") as bench:
        for n in range(8):
            bench.keep(make(bench, "text"), f"{n}")
            assert len(list(bench.scratch.iterdir())) <= 3
    assert len(slow.list("blobs")) == 8


def test_a_file_that_an_object_store_does_not_take_ends_the_call_in_its_words(slow):
    slow.let_in.release(20)
    with pytest.raises(ConnectionError, match="it does not answer"), Bench(slow, "key", "video") as bench:
        bench.keep(make(bench, "text"), "bad")
    assert not fetchers() and not bench.scratch.exists()


def test_what_is_dropped_while_it_is_on_its_way_is_not_there_afterwards(slow):
    with Bench(slow, "key", "video") as bench:
        ref = bench.keep(make(bench, "text"), "x")
        threading.Timer(0.2, slow.let_in.release).start()
        bench.drop(ref)
    assert not slow.list("blobs")
