"""The measuring itself: turns alternate, spreads are those of ratios, memory that is held is seen."""

import os
import resource
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from manifests.store import Store
from tests.benchmarks import cli, gpu, gpu_fed, gpu_sync
from tests.benchmarks.agreement import overlaps, readings, texts
from tests.benchmarks.classic import Classic
from tests.benchmarks.clips import make_clips
from tests.benchmarks.material import random_syncnet
from tests.benchmarks.record import RECORDS, Findings
from tests.benchmarks.resident import FamilyPeak, family, held_mb, megabytes, peak_mb
from tests.benchmarks.tools import _blind_s3fd
from tests.benchmarks.turns import Spent, Spread, Turns, in_turns


def test_ways_alternate_and_the_last_result_of_each_is_kept() -> None:
    told: list[str] = []

    def way(name: str) -> int:
        told.append(name)
        return len(told)

    turns = in_turns({name: partial(way, name) for name in "ab"}, 3)
    assert told == list("ababab")
    assert turns.made == {"a": 5, "b": 6}
    assert [len(spent) for spent in turns.spent.values()] == [3, 3]


def test_a_warm_turn_is_not_timed() -> None:
    told: list[int] = []
    turns = in_turns({"a": lambda: told.append(1)}, 2, warm=True)
    assert len(told) == 3 and len(turns.spent["a"]) == 2


def test_a_ratio_is_taken_turn_by_turn() -> None:
    turns = Turns({"a": [Spent(2, 1), Spent(9, 1), Spent(4, 1)], "b": [Spent(1, 2), Spent(3, 2), Spent(1, 4)]}, {})
    assert turns.wall_ratio("a", "b") == Spread(2.0, 3.0, 4.0)
    assert turns.cpu_ratio("a", "b") == Spread(0.25, 0.5, 0.5)


def test_a_megabyte_has_a_million_bytes() -> None:
    assert megabytes(kib=1_000_000) == 1024
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    assert held_mb() == pytest.approx(pages * resource.getpagesize() / 1e6, rel=0.02)


def test_the_peak_of_this_process_rises_with_what_it_holds() -> None:
    before = peak_mb()
    held = np.ones(round((before + 50) * 1e6 / 8))
    assert peak_mb() >= before + 40 and held[0] == 1


def test_a_family_holds_what_its_grandchild_holds() -> None:
    grandchild = "import time; x = bytearray(b'1') * (200 << 20); print(1, flush=True); time.sleep(1.5)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.DEVNULL)
    with FamilyPeak(process, interval_s=0.1) as held:
        assert process.pid in family(process.pid)
        process.wait()
    assert 200 <= held.peak_mb < 400
    assert held.processes == 2


def test_nothing_in_common_agrees_in_nothing() -> None:
    found = overlaps({}, {}) | readings({}, {}) | texts({}, {})
    assert found["agreement: tracks of the classic way"] == 0
    for share in ("frames with IoU >= 0.9", "them with |offset difference| <= 1", "equal texts"):
        assert found[f"agreement: share of {share}"] == pytest.approx(0.0)
    assert found["agreement: correlation of confidences"] is None


def test_the_published_script_pays_for_its_own_detector_and_not_for_the_stand_in(tmp_path: Path) -> None:
    script = Classic(tmp_path, spent=Spent(100, 180), s3fd=Spent(60, 90), insightface=Spent(20, 30))
    assert script.published == Spent(140, 240)


def test_the_blind_detector_looks_and_finds_nothing() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    assert len(_blind_s3fd().detect_faces(picture, conf_th=0.9, scales=[0.25])) == 0


def _called(monkeypatch: pytest.MonkeyPatch, *names: str) -> int:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *names])
    return cli.main()


def test_without_a_gpu_its_benchmark_says_so_in_a_line_and_writes_nothing(monkeypatch, capsys) -> None:
    monkeypatch.setattr(cli, "has_gpu", lambda: False)
    monkeypatch.setattr(cli, "write_record", lambda *_: pytest.fail("a record"))
    assert _called(monkeypatch, "gpu") == 2
    assert capsys.readouterr() == ("", "gpu: no GPU is visible here\n")


def test_all_other_benchmarks_see_no_gpu_and_are_not_measured_beside_its_own(monkeypatch, tmp_path) -> None:
    def measure(folder: Path, repeats: int) -> Findings:
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        return Findings()

    seen: list[str] = []
    monkeypatch.setattr(cli, "has_gpu", lambda: True)
    monkeypatch.setattr(cli, "write_record", lambda *_: RECORDS / "none.json")
    monkeypatch.setattr("tests.benchmarks.shards.measure", measure)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert _called(monkeypatch, "shards") == 0 and seen == [""]
    with pytest.raises(SystemExit):
        _called(monkeypatch, "gpu", "shards")


def test_a_part_that_cannot_be_measured_says_why_in_the_record_and_at_once(tmp_path: Path, capsys) -> None:
    found = gpu.measure(tmp_path, 1, ["lost"])
    assert (
        list(found.numbers) == ["lost: not measured"]
        and "invalid choice: 'lost'" in found.numbers["lost: not measured"]
    )
    assert capsys.readouterr().out.startswith("lost: ")


def test_two_workers_of_the_same_device_read_the_same(tmp_path: Path) -> None:
    store, state = Store(str(tmp_path / "store")), random_syncnet(tmp_path)
    (tmp_path / "made").mkdir()
    clips = make_clips(store, tmp_path / "made", (0.32,))
    one, other = (gpu_sync.read(state, clips, store, "cpu")() for _ in range(2))
    found = gpu_sync.agreement(one, other)
    assert len(one.items[0].distances) == 31
    assert found["clips"] == found["clips with the same offset"] == 1
    assert found["largest relative difference of a distance"] == 0 == found["largest difference of confidence"]


def test_utilisation_is_what_a_command_says_again_and_again(tmp_path: Path) -> None:
    with gpu_fed.Utilisation(["echo", "40"], interval_s=0.01) as used:
        time.sleep(0.5)
    assert len(used.samples) > 2 and set(used.samples) == {40}
    for command in (["echo", "[N/A]"], ["no-such-command"]):
        with gpu_fed.Utilisation(command, interval_s=0.01) as none:
            time.sleep(0.1)
        assert none.samples == []
    assert gpu_fed.busy([]) == {}
    assert gpu_fed.busy([0, 40, 80, 0]) == {
        "samples of utilisation": 4,
        "share of samples above 0": 0.5,
        "mean utilisation": 0.3,
    }
