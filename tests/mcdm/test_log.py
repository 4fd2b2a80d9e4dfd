"""What training says of itself: numbers that can be checked by hand."""

import json
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

from mcdm import checkpoint, log
from mcdm.course import Data, divide
from mcdm.data import collate
from mcdm.distributed import World
from mcdm.ema import Ema
from mcdm.objectives import LearnArchive, Loss
from mcdm.shards import Shards
from mcdm.train import Loop, LoopOptions, gradient_norm
from tests.mcdm.nano import nano
from tests.mcdm.shards import write_shards

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)


def logged(folder, losses, **given):
    """A log of one step with these micro-batches, and its record."""
    made = log.TrainingLog(
        folder,
        1,
        **{"every": 1, "steps": 1, "flops": 6e9, "world": ALONE, **given},
    )
    for loss in losses:
        made.micro(loss, 0.0, 2, [])
    made.step(1, 1e-3, 0.5, {"archive": 0.25})
    made.close()
    return json.loads((folder / "log.jsonl").read_text()) if (folder / "log.jsonl").exists() else None


def clock(monkeypatch):
    """A clock that stands still until somebody moves it."""
    now = [0.0]
    monkeypatch.setattr(log.time, "perf_counter", lambda: now[0])
    return now


def takes(monkeypatch, now, seconds, owner, name):
    """Let a function take that long by the clock."""
    work = getattr(owner, name)

    def slow(*given, **named):
        now[0] += seconds
        return work(*given, **named)

    monkeypatch.setattr(owner, name, slow)


def small_loop(folder, show=lambda step: {}, **options):
    """Four steps of stage 1 with a clip each, on one process."""
    shards = Shards(str(write_shards(folder, people=2, clips=1, n_frames=40)))
    data, objective = Data(shards, divide(shards, folder), None), LearnArchive(nano())
    windows = data.windows(objective, data.division.train, 0)
    return Loop(objective, windows, collate([windows[0]]), LoopOptions(run=folder, **options), ALONE, show)


def loss(*rows_and_t):
    rows, t = (torch.tensor(values) for values in zip(*rows_and_t, strict=True))
    return Loss(rows.mean(), {"noise": rows.mean()}, rows, t)


def test_losses_are_means_by_fifths_of_the_timesteps(tmp_path):
    record = logged(tmp_path, [loss((1.0, 0), (3.0, 199)), loss((5.0, 200), (8.0, 999))])
    assert record["loss_by_timestep"] == {"0-200": 2.0, "200-400": 5.0, "800-1000": 8.0}
    assert record["loss"] == pytest.approx(4.25) and record["gradient_norms"] == {"archive": 0.25}


def test_mfu_is_the_flops_of_the_steps_over_time_and_peak(tmp_path, monkeypatch):
    times = iter((10.0, 12.0, 12.0))  # the log begins; the step is written; the next count begins
    monkeypatch.setattr(log.time, "perf_counter", lambda: next(times))
    monkeypatch.setattr(log, "peak_flops", lambda device: 1e9)
    for name in ("total", "gather", "gather_names"):
        monkeypatch.setattr(log.distributed, name, lambda value, world: value)
    record = logged(tmp_path, [loss((1.0, 0))], world=World(0, 2, CPU))
    assert record["mfu"] == pytest.approx(6e9 / 2.0 / (1e9 * 2)) and record["samples_per_s"] == pytest.approx(
        2 * 2 / 2.0
    )


def test_what_is_done_in_a_pause_is_not_the_steps_time(tmp_path, monkeypatch):
    now = clock(monkeypatch)
    sizes = {"every": 2, "steps": 4, "flops": 6e9, "world": ALONE}
    made = log.TrainingLog(tmp_path, 1, **sizes)
    for step in range(5):
        with made.pause():  # at first what comes before the first step
            now[0] += 100.0
        if step < 4:
            now[0] += 2.0
            made.micro(loss((1.0, 0)), 0.5, 8, [])
            made.step(step + 1, 1e-3, 0.5, {})
    made.close()
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 4]
    assert {(record["samples_per_s"], record["data_wait_share"]) for record in records} == {(4.0, 0.25)}


def test_a_step_is_not_slower_for_what_is_restored_validated_saved_and_shown_beside_it(tmp_path, monkeypatch):
    now, shown = clock(monkeypatch), []
    loop = small_loop(tmp_path, shown.append, log_every=1, validate_every=1, save_every=1, samples_every=1)
    for owner, name in ((loop, "_resume"), (loop, "validate"), (loop, "show"), (checkpoint, "write")):
        takes(monkeypatch, now, 9, owner, name)
    takes(monkeypatch, now, 2, loop, "_accumulate")
    loop.run()
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [one["samples_per_s"] for one in records if "loss" in one] == [1.0] * 4 and shown == [1, 2, 3, 4]
    assert now[0] == 9 + 4 * (2 + 3 * 9)


def test_a_step_is_taken_at_the_rate_that_is_told_on_a_gradient_no_longer_than_the_recipe_says(tmp_path, monkeypatch):
    loop, lengths = small_loop(tmp_path), []
    before = {name: value.clone() for name, value in loop.objective.model.state_dict().items()}
    loop.recipe = replace(loop.recipe, optimizer=replace(loop.recipe.optimizer, clip_norm=1e-3))
    loop.optimizer.register_step_pre_hook(lambda *_: lengths.append(gradient_norm(loop.learning)))
    monkeypatch.setattr("mcdm.train.rate_at", lambda plan, step: 0.0)
    loop.run()
    assert all(torch.equal(value, before[name]) for name, value in loop.objective.model.state_dict().items())
    assert lengths == pytest.approx([1e-3] * 4, rel=1e-2)


def test_what_is_held_out_is_measured_with_the_averaged_weights_and_the_others_are_put_back(tmp_path):
    loop = small_loop(tmp_path)
    begun = loop.validate()
    for shadow in loop.ema.shadow.values():
        shadow.zero_()
    before = {name: value.clone() for name, value in loop.objective.model.state_dict().items()}
    measured = loop.validate()
    assert all(torch.equal(value, before[name]) for name, value in loop.objective.model.state_dict().items())
    with torch.no_grad():
        for parameter in loop.learning:
            parameter.zero_()
    assert loop.validate() == measured != begun


def test_averages_follow_quickly_at_first():
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    ema, kept = Ema(model, 0.2), 1.0
    torch.nn.init.ones_(model.weight)
    for decay in (2 / 11, 0.2, 0.2):
        ema.update(model)
        kept *= decay
        assert float(ema.shadow["weight"]) == pytest.approx(1 - kept)


def test_only_the_first_process_writes(tmp_path):
    assert logged(tmp_path, [loss((1.0, 0))], world=World(1, 1, CPU)) is None and list(tmp_path.iterdir()) == []


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="TensorBoard is not installed")
def test_tensorboard_gets_every_number_of_the_record(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logged(tmp_path, [loss((1.0, 0), (3.0, 999))])
    read = EventAccumulator(str(tmp_path / "tensorboard" / "stage1"))
    read.Reload()
    names = set(read.Tags()["scalars"])
    assert {"loss", "loss_by_timestep/0-200", "gradient_norms/archive", "samples_per_s", "data_wait_share"} <= names
    assert read.Scalars("loss_by_timestep/800-1000")[0].value == pytest.approx(3.0)
