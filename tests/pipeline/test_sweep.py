"""What killed processes leave behind is removed by the next run, and nothing else."""

import os

from manifests.records import Video
from manifests.scratch import machine, prefix, sweep
from manifests.store import Store
from pipeline import run as running
from pipeline.cli import main
from pipeline.job import Job, add_videos
from pipeline.ledger import Ledger, Outcome
from pipeline.stage import keys
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


def test_what_a_power_cut_left_empty_in_the_ledger_goes_and_is_due_again(tmp_path, monkeypatch):
    store, (whole, lost) = Store(str(tmp_path)), map(Video.of, ("http://x.invalid/a", "http://x.invalid/b"))
    job = Job(recipe="own")
    ledger, (fetch, *_) = Ledger(store), keys(job.build().stages(), Video).values()
    for video in add_videos(store, [whole, lost]):
        ledger.begin(fetch, video.id, "run")
        ledger.write(fetch, video.id, Outcome(status="rejected", body={"reason": "gone", "measured": {}}))
    for folder in ("rejected", "tries"):
        (path,) = (path for path in store.list(f"ledger/{fetch}/{folder}") if lost.id in path)
        (tmp_path / path).write_bytes(b"")
    half = tmp_path / "ledger" / ".partial-elsewhere-0-1-0"  # another machine begins to write
    half.touch()
    store.create("pace/turn-1", b"")
    (tmp_path / "list.txt").write_text(f"{whole.url}\n{lost.url}\n")
    carried = []
    monkeypatch.setattr(running, "_carry", lambda this, videos, due: carried.extend(due[0].enter))
    assert main(["run", "--manifest", str(tmp_path / "list.txt"), "--until", "fetch", "--store", store.url]) == 0
    assert carried == [lost.id] and ledger.read(fetch, lost.id) is None
    assert half.exists() and store.exists("pace/turn-1") and ledger.videos(fetch, "tries") == {whole.id}


def test_the_ledger_is_looked_through_once_after_each_start_of_the_machine_as_a_power_cut_is_one(tmp_path, monkeypatch):
    store = Store(str(tmp_path))
    store.put("ledger/fetch/ok/ab/whole.json", b"1")
    for start, found in (b"1", 0), (b"1", 0), (b"2", 1), (b"", 1), (b"", 1):
        monkeypatch.setattr("manifests.store._start_of_machine", lambda start=start: start)
        assert store.sweep() == found, "b'': it does not say"
        (tmp_path / "ledger/fetch/ok/ab/empty.json").touch()
    monkeypatch.setattr("manifests.store._start_of_machine", lambda: b"3")
    assert (store.sweep("shards"), store.sweep(), store.sweep()) == (0, 1, 0)


def test_scratch_of_dead_processes_goes_and_that_of_other_machines_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("bench", "site", "shard"):
        (tmp_path / f"tfw-{name}-{machine()}-{dead_pid()}-abc").mkdir()
    elsewhere = f"tfw-site-{machine()}0-{dead_pid()}-abc"  # a disk that others share, or a container's own numbers
    stays = (f"{prefix('bench')}abc", "tfw-of-somebody-else", elsewhere)
    for name in stays:
        (tmp_path / name).mkdir()
    assert sweep() == 3 and {path.name for path in tmp_path.iterdir()} == set(stays)
