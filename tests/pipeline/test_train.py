"""`run --train`: the trainer on the shards that a run wrote, on the same Ray."""

import io
import json

import pytest
from rich.console import Console

from manifests.store import Store
from mcdm import checkpoint
from pipeline.cluster import Cluster
from pipeline.train import train_on, trainer_recipe, trainer_settings
from tests.mcdm.nano import nano
from tests.mcdm.shards import write_shards

pytestmark = pytest.mark.usefixtures("ray_here")


def said(console):
    return console.file.getvalue()


def test_all_stages_are_trained_on_the_store_s_shards_and_a_second_run_does_nothing(tmp_path):
    write_shards(tmp_path, people=3, clips=1, n_frames=40)
    console = Console(file=io.StringIO(), width=200)
    run = train_on(Store(str(tmp_path)), nano(), Cluster(), console)
    assert run == tmp_path / "runs" / "nano"
    written = {stage: checkpoint.newest(run, stage) for stage in range(4)}
    assert [checkpoint.step_of(path) for path in written.values()] == [4, 4, 4, 4]
    assert f"python -m mcdm evaluate --run {run} --shards {tmp_path}/shards" in said(console)
    changed = {path: path.stat().st_mtime_ns for path in written.values()}
    records = (run / "log.jsonl").read_text().splitlines()
    assert {json.loads(line)["stage"] for line in records} == {0, 1, 2, 3}
    train_on(Store(str(tmp_path)), nano(), Cluster(), console)
    assert changed == {path: path.stat().st_mtime_ns for path in written.values()}
    assert records == (run / "log.jsonl").read_text().splitlines()


def test_what_a_worker_cannot_use_is_told_in_its_own_line(tmp_path):
    write_shards(tmp_path, people=3, clips=1, n_frames=10)
    with pytest.raises(ValueError, match="none of 2 clips has the 13 frames that recipe nano needs"):
        train_on(Store(str(tmp_path)), nano(), Cluster(), Console(file=io.StringIO()))


def test_settings_of_the_trainer_are_told_from_those_of_the_pipeline():
    own, mine = trainer_settings(["sync.reach=12", "train.plans.1.steps=7"])
    assert own == ["sync.reach=12"] and trainer_recipe("tiny", mine).plans[1].steps == 7
