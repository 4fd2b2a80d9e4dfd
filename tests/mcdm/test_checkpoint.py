"""What is written of a training state, by whom, how often, and what is left of a write that was broken off."""

import os
import subprocess
import time
from pathlib import Path

import torch

from manifests.scratch import machine
from mcdm import checkpoint
from mcdm.config import paper, tiny
from mcdm.course import Options
from mcdm.ema import Ema
from mcdm.objectives import LearnMotion
from tests.mcdm.nano import nano


def contents(**given):
    model = LearnMotion(nano()).model
    return checkpoint.contents(nano(), 0, 3, model, Ema(model, 0.9), torch.optim.AdamW(model.parameters()), **given)


def test_only_who_writes_copies_the_averages():
    assert "updates" in contents()["ema"] and not contents(writes=False)["ema"]


def test_what_a_killed_writer_left_goes_with_the_next_write_and_another_s_stays(tmp_path):
    folder = tmp_path / "stage0"
    folder.mkdir()
    with subprocess.Popen(["true"]) as ended:
        pass
    left = folder / f"step-00000002.{machine()}-{ended.pid}.tmp"
    alive = folder / f"step-00000002.{machine()}-{os.getppid()}.tmp"
    elsewhere, long_ago = folder / "step-00000002.other.net-1-7.tmp", folder / "step-00000001.99.tmp"
    for path in (left, alive, elsewhere, long_ago):
        path.write_bytes(b"half")
    os.utime(long_ago, (time.time() - 7200,) * 2)
    written = checkpoint.write(tmp_path, contents())
    assert sorted(folder.iterdir()) == sorted([alive, elsewhere, written])


def test_of_what_a_stage_learned_nothing_is_read_before_it_is_looked_at(tmp_path):
    path = checkpoint.write(tmp_path, contents())
    weights = checkpoint.learned(tmp_path, 0, nano())
    assert weights and str(path) in Path("/proc/self/maps").read_text()


def test_long_plans_are_saved_twenty_times_unless_it_is_said_how_often():
    options = Options(shards="", run=Path())
    assert options.steps_between_saves(paper().plans[1]) == 1500
    assert options.steps_between_saves(tiny().plans[0]) == 200
    assert Options(shards="", run=Path(), save_every=7).steps_between_saves(paper().plans[1]) == 7
