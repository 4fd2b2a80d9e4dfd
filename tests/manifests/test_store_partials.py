"""What is half written: no listing names it, and it goes with those who wrote it, whichever machine they were of."""

import os
import time

import pytest

from manifests.scratch import machine
from manifests.store import Store
from tests.pipeline.toy import dead_pid

DAY_S = 24 * 3600


@pytest.fixture
def half(tmp_path):
    """A store with an object and what a spot node, in the middle of a source, left beside it."""
    store = Store(str(tmp_path))
    store.put("blobs/fetch-1/ab/abc/whole.mp4", b"whole")
    (tmp_path / "blobs/fetch-1/ab/abc/.partial-spot-4026531836-77-0").write_bytes(b"half a source")
    return store


def left(store):
    return sorted(path.name for path in (store.local / "blobs/fetch-1/ab/abc").iterdir())


@pytest.mark.parametrize(("age_s", "n_swept"), [(DAY_S - 600, 0), (DAY_S + 600, 1)])
def test_what_another_machine_has_not_touched_for_a_day_goes(half, monkeypatch, age_s, n_swept):
    now_s = time.time()
    monkeypatch.setattr("time.time", lambda: now_s + age_s)
    assert half.sweep() == n_swept
    assert left(half) == [".partial-spot-4026531836-77-0"] * (1 - n_swept) + ["whole.mp4"]


def test_what_is_moved_in_with_the_old_time_of_its_source_is_young_all_the_same(half, monkeypatch):
    """A move keeps the time that a file was last written at: of a download, that which the site gave it."""
    path = half.local / "blobs/fetch-1/ab/abc/.partial-spot-4026531836-77-0"
    os.utime(path, (0, 0))
    assert half.sweep() == 0 and path.exists()


def test_what_a_process_of_this_machine_left_goes_at_once(half, tmp_path):
    (tmp_path / f"blobs/fetch-1/ab/abc/.partial-{machine()}-{dead_pid()}-0").write_bytes(b"half")
    assert half.sweep() == 1


def test_half_written_files_are_found_by_those_who_ask_for_them_alone(half):
    assert half.list("blobs") == ["blobs/fetch-1/ab/abc/whole.mp4"]
    assert half.partials("blobs/fetch-1/ab") == ["blobs/fetch-1/ab/abc/.partial-spot-4026531836-77-0"]
    assert half.partials("blobs/fetch-1/cd") == []


def test_in_an_object_store_nothing_is_half_written(tmp_path):
    store = Store(f"memory://{tmp_path.name}-half")
    store.put("blobs/a/.partial-of-somebody-else", b"x")
    assert not store.partials("blobs") and store.sweep() == 0
