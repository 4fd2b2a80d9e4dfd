"""What killed processes leave behind is removed by the next run, and nothing else."""

import os

from manifests.scratch import machine, prefix, sweep
from manifests.store import Store
from tests.pipeline.toy import dead_pid


def test_half_written_objects_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path):
    store = Store(str(tmp_path))
    store.put("a/x.json", b"1")
    names = [
        f".partial-{host}-{pid}-0"
        for host, pid in (
            (machine(), dead_pid()),
            (machine(), os.getpid()),
            ("elsewhere-0", dead_pid()),
        )
    ]
    for name in names:
        (tmp_path / "a" / name).write_bytes(b"half")
    assert store.sweep() == 1
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted([*names[1:], "x.json"])
    assert store.list("a") == ["a/x.json"]


def test_scratch_of_dead_processes_goes_and_that_of_other_machines_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("bench", "site", "shard"):
        (tmp_path / f"tfw-{name}-{machine()}-{dead_pid()}-abc").mkdir()
    elsewhere = f"tfw-site-{machine()}0-{dead_pid()}-abc"  # a disk that others share, or a container's own numbers
    stays = (f"{prefix('bench')}abc", "tfw-of-somebody-else", elsewhere)
    for name in stays:
        (tmp_path / name).mkdir()
    assert sweep() == 3 and {path.name for path in tmp_path.iterdir()} == set(stays)
