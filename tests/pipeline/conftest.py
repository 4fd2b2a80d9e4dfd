"""A store, and a film of one's own."""

from pathlib import Path

import pytest

from manifests.store import Store


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path / "out"))


@pytest.fixture
def film(tmp_path) -> Path:
    path = tmp_path / "films" / "a.mp4"
    path.parent.mkdir()
    path.write_bytes(b"first")
    return path
