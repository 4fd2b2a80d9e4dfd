"""What is written of a training state, by whom, how often, and what is left of a write that was broken off."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
import torch

from manifests.scratch import machine
from mcdm import checkpoint, course, distributed
from mcdm.config import paper, tiny
from mcdm.course import Options
from mcdm.ema import Ema
from mcdm.objectives import LearnMotion
from pipeline.override import override
from tests.mcdm.nano import nano
from tests.mcdm.shards import write_shards
from tests.mcdm.test_log import clock, small_loop, takes


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


def test_only_the_two_newest_checkpoints_of_a_stage_stay(tmp_path):
    for stage, step in ((1, 1), (0, 9), (0, 10), (0, 100)):
        checkpoint.write(tmp_path, {"stage": stage, "step": step})
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.pt")}
    assert left == {"stage1/step-00000001.pt", "stage0/step-00000010.pt", "stage0/step-00000100.pt"}
    assert checkpoint.step_of(checkpoint.newest(tmp_path, 0)) == 100


def test_settings_that_are_others_than_before_are_told_and_noted_once(tmp_path, caplog):
    caplog.set_level("INFO", "mcdm")
    checkpoint.write_recipe(tmp_path, override(nano(), "plans.0.batch=4"))
    checkpoint.write_recipe(tmp_path, nano())
    assert not caplog.text and not (tmp_path / "log.jsonl").exists(), "nothing has been learned yet"
    checkpoint.write(tmp_path, contents())
    for _ in range(2):
        checkpoint.write_recipe(tmp_path, override(nano(), "plans.1.rate=1e-5", "unet.mouth_weight=10"))
    assert caplog.messages == ["unet.mouth_weight 10.0, until now 0.0", "plans.1.rate 1e-05, until now 0.001"]
    (record,) = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    changed = {"unet.mouth_weight": [0.0, 10.0], "plans.1.rate": [1e-3, 1e-5]}
    assert record == {"stage": 0, "step": 3, "changed": changed}


def test_of_what_a_stage_learned_nothing_is_read_before_it_is_looked_at(tmp_path):
    path = checkpoint.write(tmp_path, contents())
    weights = checkpoint.learned(tmp_path, 0, nano())
    assert weights and str(path) in Path("/proc/self/maps").read_text()


def test_a_resume_maps_its_checkpoint_for_all_processes_of_a_machine_and_lets_go_of_it(tmp_path, monkeypatch):
    loop = small_loop(tmp_path, stop_after=1)
    loop.run()
    path, seen, restore = str(checkpoint.newest(tmp_path, 1)), [], checkpoint.restore

    def mapped():
        return path in Path("/proc/self/maps").read_text()

    monkeypatch.setattr(checkpoint, "restore", lambda *given: seen.append(mapped()) or restore(*given))
    assert loop._resume() == 1 and seen == [True]
    assert not mapped(), "other runs and processes may remove it"


def test_a_stage_that_drew_as_all_others_did_says_that_it_goes_on_with_draws_of_its_own(tmp_path, caplog):
    caplog.set_level("INFO", "mcdm")
    loop = small_loop(tmp_path, stop_after=1)
    loop.run()
    loop._resume()
    assert "clips and noise" not in caplog.text
    path = checkpoint.newest(tmp_path, 1)
    saved = torch.load(path, weights_only=True)
    assert saved.pop("draws") == 2
    torch.save(saved, path)
    assert loop._resume() == 1
    assert caplog.messages[-1] == "stage 1 drew clips and noise as all others did until now, from here on its own"


def test_long_plans_are_saved_twenty_times_unless_it_is_said_how_often():
    options = Options(shards="", run=Path())
    assert options.steps_between_saves(paper().plans[1]) == 1500
    assert options.steps_between_saves(tiny().plans[0]) == 200
    assert Options(shards="", run=Path(), save_every=7).steps_between_saves(paper().plans[1]) == 7


@pytest.mark.parametrize(("share", "elsewhere", "at"), [(0.0, 1, [1, 2, 3, 4]), (0.5, 0, [1, 3, 4]), (0.5, 1, [4])])
def test_a_checkpoint_waits_until_those_before_it_have_taken_no_more_than_their_share(
    tmp_path, monkeypatch, share, elsewhere, at
):
    now, saved = clock(monkeypatch), []
    now[0] = 100.0
    loop = small_loop(tmp_path, save_every=1, save_share=share)
    monkeypatch.setattr(checkpoint, "write", lambda run, state: saved.append(state["step"]))
    monkeypatch.setattr(distributed, "total", lambda value, world: value + elsewhere)  # of others that have to wait
    takes(monkeypatch, now, 2, loop, "_accumulate")
    takes(monkeypatch, now, 2, checkpoint, "write")
    loop.run()
    assert saved == at


def test_stages_train_on_windows_of_their_own_and_are_measured_on_the_same(tmp_path, monkeypatch):
    shards, seen = str(write_shards(tmp_path, people=3, clips=1, n_frames=40)), []
    monkeypatch.setattr(course.Loop, "run", lambda loop: seen.append(loop))
    for stage in (0, 1):
        given = {"shards": shards, "run": tmp_path, "device": "cpu", "cache": "off", "held_out": 2}
        course.train(nano(), Options(stages=(stage,), **given))
    first, second = ([loop.windows.window(number) for number in range(8)] for loop in seen)
    assert first != second
    assert torch.equal(*(loop.held_out.tensors["seed"] for loop in seen))


@pytest.mark.parametrize(("asked", "share"), [(0, 0.05), (7, 0.0)])
def test_only_where_it_is_not_said_how_often_do_checkpoints_wait(tmp_path, monkeypatch, asked, share):
    found = []
    monkeypatch.setattr(course.Loop, "run", lambda loop: found.append(loop.options.save_share))
    shards = str(write_shards(tmp_path, people=2, clips=1, n_frames=40))
    options = Options(shards=shards, run=tmp_path, stages=(0,), device="cpu", cache="off", held_out=1, save_every=asked)
    course.train(nano(), options)
    assert found == [share]
