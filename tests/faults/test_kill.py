"""kill -9 of the whole run at any moment: nothing is lost, nothing is done twice, the shards are the same bytes."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.command import ROOT, pipeline
from tests.pipeline.test_sample_run import digests

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LANGS = ("--langs", "2")


def start(store: Path) -> subprocess.Popen[bytes]:
    """A run in a process group of its own, so that all of it can be killed at once, Ray's processes included."""
    command = [sys.executable, "-m", "pipeline", "run", *LANGS, "--store", str(store)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def kill(run: subprocess.Popen[bytes]) -> None:
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    time.sleep(1)


def settled(store: Path) -> Counter[str]:
    return Counter(path.parents[2].name for path in (store / "ledger").glob("*/ok/*/*.json"))


def attempts(store: Path) -> dict[str, float]:
    """When each outcome was written: an outcome that is written twice changes its time."""
    return {str(p): p.stat().st_mtime for s in ("ok", "rejected") for p in (store / "ledger").glob(f"*/{s}/*/*.json")}


def test_a_run_killed_again_and_again_ends_as_one_that_was_left_alone(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert pipeline("run", *LANGS, "--store", whole).code == 0
    target = settled(whole)
    seen: dict[str, float] = {}
    for calls in (2, 8, 14):
        run = start(killed)
        while run.poll() is None and sum(settled(killed).values()) < calls:
            time.sleep(0.2)
        kill(run)
        now = attempts(killed)
        assert all(now.get(path) == at for path, at in seen.items()), "a settled call was made again"
        seen = now
    assert pipeline("run", *LANGS, "--store", killed).code == 0
    assert settled(killed) == target
    assert digests(killed) == digests(whole)
    assert not list(killed.rglob(".partial-*")), "what a killed worker left half written is still there"
