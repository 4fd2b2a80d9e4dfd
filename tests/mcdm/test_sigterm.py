"""SIGTERM: the step is finished, a checkpoint written, and the same command goes on."""

import json
import os
import signal
import threading
import time

import pytest

from mcdm import checkpoint, course
from mcdm.course import Options, train
from mcdm.sigterm import told_to_end
from tests.mcdm.nano import nano, nano_of
from tests.mcdm.processes import end_processes, start_processes
from tests.mcdm.shards import write_shards

LONG = """
import sys, torch
from pathlib import Path
torch.set_num_threads(1)
from mcdm.course import Options, train
from tests.mcdm.nano import nano_of
train(nano_of(100_000), Options(shards=sys.argv[1], run=Path(sys.argv[2]), stages=(0,), workers=1, device="cpu",
                                cache="off", held_out=2, log_every=1, save_every=100_000))
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return str(write_shards(tmp_path_factory.mktemp("world"), people=3, clips=1, n_frames=40))


@pytest.fixture
def ignored():
    """Until it is handled, so that these tests themselves do not end."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield signal.SIG_IGN
    signal.signal(signal.SIGTERM, before)


def steps(run):
    path = run / "log.jsonl"
    whole = (
        [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")] if path.exists() else []
    )
    return [record["step"] for record in map(json.loads, whole) if "loss" in record]


def test_a_process_told_to_end_takes_all_along_to_the_checkpoint_of_the_step_and_a_resume_goes_on(shards, tmp_path):
    run = tmp_path / "run"
    (tmp_path / "long.py").write_text(LONG)
    running = start_processes(tmp_path / "long.py", shards, run, size=2)
    while len(steps(run)) < 3 and all(process.is_alive() for process in running):
        time.sleep(0.05)
    os.killpg(running[1].pid, signal.SIGTERM)  # as torchrun does: its readers too
    end_processes(running)
    newest = checkpoint.newest(run, 0)
    assert checkpoint.step_of(newest) == steps(run)[-1] < 100_000 and steps(run)[:3] == [1, 2, 3]
    train(nano_of(100_000), Options(shards=shards, run=run, stages=(0,), cache="off", held_out=2, stop_after=1))
    assert checkpoint.step_of(checkpoint.newest(run, 0)) == checkpoint.step_of(newest) + 1


def test_told_between_two_stages_a_run_ends_after_a_step_of_the_next(shards, tmp_path, monkeypatch, caplog, ignored):
    caplog.set_level("INFO", "mcdm")
    make = course.make_objective

    def made(stage, *given):
        if stage == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return make(stage, *given)

    monkeypatch.setattr(course, "make_objective", made)
    train(nano(), Options(shards=shards, run=tmp_path, workers=0, device="cpu", cache="off", held_out=2))
    assert signal.getsignal(signal.SIGTERM) is ignored
    assert [checkpoint.newest(tmp_path, stage) is not None for stage in range(4)] == [True, True, False, False]
    assert checkpoint.step_of(checkpoint.newest(tmp_path, 1)) == 1
    assert caplog.messages[-1] == "stage 1 stops after 1 steps, told to by SIGTERM; the next run goes on from there"


def test_beside_the_main_thread_signals_stay_as_they_are():
    found = []

    def work():
        with told_to_end() as told:
            found.append((signal.getsignal(signal.SIGTERM), told()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(signal.getsignal(signal.SIGTERM), False)]
