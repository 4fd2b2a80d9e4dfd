"""The three makers of weights, from nothing: a seed gives the same bytes, another seed gives others."""

import ctypes.util
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(ctypes.util.find_library("espeak-ng") is None, reason="libespeak-ng is not installed"),
]

# Few people and few steps: what could differ between two runs (order of files, of processes, of sums) is all there.
MAKERS = {
    "faces": ("train_faces", "--people", "12", "--steps", "12", "--out", "{to}"),
    "sync": ("train_sync", "--takes", "16", "--steps", "12", "--folder", "{to}/takes", "--to", "{to}/sample.model"),
    "whisper": ("train_whisper", "--steps", "6", "--out", "{to}/whisper"),
}


def made(maker: str, to: Path, seed: int) -> dict[str, bytes]:
    """Every file of weights that a maker writes, by name."""
    to.mkdir()
    module, *options = (word.format(to=to) for word in MAKERS[maker])
    command = [sys.executable, "-m", f"stages.sample.{module}", "--seed", str(seed), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = (path for path in to.rglob("*") if path.is_file() and "takes" not in path.parts)
    return {str(path.relative_to(to)): path.read_bytes() for path in files}


@pytest.mark.parametrize("maker", MAKERS)
def test_a_seed_gives_the_same_bytes_twice_and_another_seed_gives_others(maker, tmp_path):
    first = made(maker, tmp_path / "first", 0)
    assert first
    assert made(maker, tmp_path / "again", 0) == first
    assert made(maker, tmp_path / "other", 1) != first
