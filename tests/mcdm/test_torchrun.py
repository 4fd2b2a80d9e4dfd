"""The command line under torchrun: one group of processes, one run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mcdm.cli import main
from tests.mcdm.shards import write_shards

ROOT = Path(__file__).parents[2]


def test_torchrun_trains_one_run_with_two_processes(tmp_path):
    shards = write_shards(tmp_path, people=3, clips=1, n_frames=40)
    asked = ["train", "--shards", str(shards), "--recipe", "tiny", "--stages", "0", "--stop-after", "2"]
    asked += ["--out", str(tmp_path / "run"), "--device", "cpu", "--workers", "0", "--log-every", "1"]
    asked += ["--cache", "off", "--held-out", "2", "--set", "plans.0.batch=2"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "mcdm", *asked], cwd=ROOT, capture_output=True, text=True, timeout=1100, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if "loss" in record] == [1, 2], "one process writes, once"
    assert [path.name for path in (tmp_path / "run" / "stage0").iterdir()] == ["step-00000002.pt"]


@pytest.mark.parametrize("command", ["evaluate --shards x", "generate --reference x.png --audio x.wav --out x.mp4"])
def test_what_one_process_does_is_refused_to_several(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([*command.split(), "--run", str(tmp_path), "--device", "cpu"]) == 2
    said, name = capsys.readouterr().err, command.split()[0]
    assert said == f"mcdm {name}: {name} is the work of one process, and torchrun started 2: start it without\n"
