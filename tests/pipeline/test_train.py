"""`run --train`: the trainer on the shards that a run wrote, on the same Ray."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from manifests.store import Store
from mcdm import checkpoint
from mcdm.course import Options, train
from mcdm.ray_train import train_on_ray, uses_gpu
from pipeline.cluster import Cluster
from pipeline.train import train_on, trainer_recipe, trainer_settings
from tests.mcdm.nano import nano
from tests.mcdm.shards import write_shards

pytestmark = pytest.mark.usefixtures("ray_here")


def said(console):
    return console.file.getvalue()


def test_all_stages_are_trained_on_the_store_s_shards_and_what_a_second_run_cannot_use_is_its_worker_s_own_line(
    tmp_path,
):
    """A run goes on by the same way: `course.train`, here called without Ray, which takes longer to start than it."""
    write_shards(tmp_path, people=3, clips=1, n_frames=20)
    store, console = Store(str(tmp_path)), Console(file=io.StringIO(), width=200)
    run = train_on(store, nano(), Cluster(), console)
    assert run == tmp_path / "runs" / "nano"
    written = {stage: checkpoint.newest(run, stage) for stage in range(4)}
    assert [checkpoint.step_of(path) for path in written.values()] == [4, 4, 4, 4]
    assert f"python -m mcdm evaluate --run {run} --shards {tmp_path}/shards" in said(console)
    changed = {path: path.stat().st_mtime_ns for path in written.values()}
    records = (run / "log.jsonl").read_text().splitlines()
    assert {json.loads(line)["stage"] for line in records} == {0, 1, 2, 3}
    with pytest.raises(ValueError, match=r"runs/nano is a run of recipe nano \(\w+\), not nano \(\w+\)$"):
        train_on(store, replace(nano(), frames=2), Cluster(), console)
    train(nano(), Options(shards=store.at("shards"), run=run, device="cpu"))
    assert changed == {path: path.stat().st_mtime_ns for path in written.values()}
    assert records == (run / "log.jsonl").read_text().splitlines()


def test_settings_of_the_trainer_are_told_from_those_of_the_pipeline():
    own, mine = trainer_settings(["sync.reach=12", "train.plans.1.steps=7"])
    assert own == ["sync.reach=12"] and trainer_recipe("tiny", mine).plans[1].steps == 7


def test_more_workers_than_the_cluster_holds_are_refused(tmp_path):
    write_shards(tmp_path, people=3, clips=1, n_frames=40)
    options = Options(shards=str(tmp_path), run=tmp_path / "run")
    with pytest.raises(ValueError, match="9 workers on Ray want a CPU each: the cluster has 4"):
        train_on_ray(nano(), options, workers=9, gpu=False)
    with pytest.raises(ValueError, match="1 workers on Ray want a GPU each: the cluster has 0"):
        train_on_ray(nano(), options, workers=1, gpu=True)


def test_workers_ask_for_a_gpu_where_one_is_or_will_be(monkeypatch):
    asked = {(device, gpus): uses_gpu(device, gpus) for device in ("auto", "cpu", "cuda") for gpus in (0, 2)}
    assert [key for key, yes in asked.items() if yes] == [("auto", 2), ("cuda", 0), ("cuda", 2)]
    monkeypatch.setenv("TFW_AUTOSCALES", "1")
    assert uses_gpu("auto", 0) and not uses_gpu("cpu", 0)
