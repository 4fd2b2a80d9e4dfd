"""What training says of itself: numbers that can be checked by hand."""

import json
from importlib.util import find_spec

import pytest
import torch

from mcdm import log
from mcdm.objectives import Loss


def logged(folder, losses, **given):
    """A log of one step with these micro-batches, and its record."""
    made = log.TrainingLog(
        folder,
        1,
        **{"every": 1, "steps": 1, "flops": 6e9, "device": torch.device("cpu"), "world": 1, "rank": 0, **given},
    )
    for loss in losses:
        made.micro(loss, 0.0, 2, [])
    made.step(1, 1e-3, 0.5, {"archive": 0.25})
    made.close()
    return json.loads((folder / "log.jsonl").read_text()) if (folder / "log.jsonl").exists() else None


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
    record = logged(tmp_path, [loss((1.0, 0))], world=2)
    assert record["mfu"] == pytest.approx(6e9 / 2.0 / (1e9 * 2)) and record["samples_per_s"] == pytest.approx(
        2 * 2 / 2.0
    )


def test_only_the_first_process_writes(tmp_path):
    assert logged(tmp_path, [loss((1.0, 0))], rank=1) is None and list(tmp_path.iterdir()) == []


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="TensorBoard is not installed")
def test_tensorboard_gets_every_number_of_the_record(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logged(tmp_path, [loss((1.0, 0), (3.0, 999))])
    read = EventAccumulator(str(tmp_path / "tensorboard" / "stage1"))
    read.Reload()
    names = set(read.Tags()["scalars"])
    assert {"loss", "loss_by_timestep/0-200", "gradient_norms/archive", "samples_per_s", "data_wait_share"} <= names
    assert read.Scalars("loss_by_timestep/800-1000")[0].value == pytest.approx(3.0)
