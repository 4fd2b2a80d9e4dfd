"""What killed processes leave behind is removed by the next run, and nothing else."""

import os
import socket

from manifests.scratch import prefix, sweep
from manifests.store import Store
from tests.pipeline.toy import dead_pid


def test_half_written_objects_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path):
    store = Store(str(tmp_path))
    store.put("a/x.json", b"1")
    names = [
        f".partial-{host}-{pid}-0"
        for host, pid in (
            (socket.gethostname(), dead_pid()),
            (socket.gethostname(), os.getpid()),
            ("elsewhere", dead_pid()),
        )
    ]
    for name in names:
        (tmp_path / "a" / name).write_bytes(b"half")
    assert store.sweep() == 1
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted([*names[1:], "x.json"])
    assert store.list("a") == ["a/x.json"]


def test_scratch_of_dead_processes_goes(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("bench", "site", "shard"):
        (tmp_path / f"tfw-{name}-{dead_pid()}-abc").mkdir()
    stays = (f"{prefix('bench')}abc", "tfw-of-somebody-else", f"tfw-x{dead_pid()}")
    for name in stays:
        (tmp_path / name).mkdir()
    assert sweep() == 3 and {path.name for path in tmp_path.iterdir()} == set(stays)
