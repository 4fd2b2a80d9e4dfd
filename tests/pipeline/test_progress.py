"""What a run says of itself while it goes on."""

import io
import time

import pytest
from rich.console import Console

from manifests.store import Store
from pipeline.plan import plan
from pipeline.progress import Progress
from tests.pipeline.toy import Get, Rate, videos


@pytest.fixture
def clock(monkeypatch):
    """What the time is, in a list: to be set."""
    now = [1000.0]
    monkeypatch.setattr("pipeline.progress.time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def log():
    return Console(file=io.StringIO(), width=120)


def test_a_line_in_a_log_tells_what_went_wrong_and_how_fast_it_goes(clock, log, tmp_path):
    progress = Progress(plan([Get(), Rate()], videos(100), Store(str(tmp_path))), log)
    for status, count in {"ok": 4, "rejected": 1, "failed": 2, "quarantined": 1, "postponed": 2}.items():
        for _ in range(count):
            progress("get", status, 0.0)
    clock[0] += 120
    assert progress.line() == "0:02:00  get 10/100 (1 rejected, 3 failed, 2 postponed, 5.0/min)  rate 0/40"


def test_a_log_has_a_line_now_and_then_and_a_table_every_hour(clock, log, tmp_path):
    progress = Progress(plan([Get(), Rate()], videos(100), Store(str(tmp_path))), log)
    for _ in range(3 * 60):
        clock[0] += 61
        progress("get", "ok", 1.0)
    said = log.file.getvalue()
    assert said.count("/min") == 3 * 60 and said.count("time left") == 3


def test_a_log_has_a_line_though_no_call_ends_for_long(log, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.progress._SILENT_S", 0.05)
    with Progress(plan([Get(), Rate()], videos(100), Store(str(tmp_path))), log):
        until = time.monotonic() + 10
        while log.file.getvalue().count("get 0/100  rate 0/100\n") < 2 and time.monotonic() < until:
            time.sleep(0.05)
    assert log.file.getvalue().count("get 0/100  rate 0/100\n") >= 2
