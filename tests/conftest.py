"""Markers, one Ray for the session, a bucket, random states put back."""

import ast
import logging
import os
import random
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SHARED = Path(__file__).parents[2] / "shared"
"""Real footage and weights beside the checkout; the project does not need them."""

STARTS_RAY = {f"tests/pipeline/test_{name}.py" for name in ("cluster", "sample_run", "train")}

# Two cores are the least that the project promises to run on: tests must not oversubscribe them.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default: those of one worker's tests starve beside another's


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Whole files go to a worker, all that start a Ray to the same: two on two cores fail to start. (xdist's own
    `loadgroup` marks ids in a way that pytest 9 does not see.)"""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return "ray" if path in STARTS_RAY else path

    return ByFile(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test printed or logged goes to xdist's main process as UTF-8: lone surrogates, as names that are no UTF-8
    have them, end the whole run there."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, saying why, what this machine cannot run. What starts a Ray goes first: it takes longest."""
    items.sort(key=lambda item: item.nodeid.partition("::")[0] not in STARTS_RAY)
    for item in items:
        if item.get_closest_marker("real") and not (SHARED / "clips").is_dir():
            item.add_marker(pytest.mark.skip(reason="../shared with real footage and weights is not here"))
        if item.get_closest_marker("gpu"):
            import torch

            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture
def shared() -> Path:
    """The folder of real footage and weights, for tests marked `real`."""
    return SHARED


@pytest.fixture(autouse=True)
def _random_states() -> Iterator[None]:
    """Put the global random states back, so that no test depends on its neighbours."""
    python, numpy = random.getstate(), np.random.get_state()
    yield
    random.setstate(python)
    np.random.set_state(numpy)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Put the root logger back: a command called in this process sets its level and handlers, and a library that logs
    after it would write into a neighbour's stderr."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture
def fragile_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ast.parse` that always fails where CPython 3.11's sometimes does: called by two threads at once. numpy calls it
    for the header of every array it reads."""
    inside, parse = threading.Lock(), ast.parse

    def one_at_a_time(*args: Any, **options: Any) -> ast.AST:
        if not inside.acquire(blocking=False):
            raise SystemError("AST constructor recursion depth mismatch")
        try:
            time.sleep(0.02)
            return parse(*args, **options)
        finally:
            inside.release()

    monkeypatch.setattr(ast, "parse", one_at_a_time)


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """One Ray on this machine for all tests that need one, without the machine's GPU: the same everywhere."""
    import ray

    from pipeline.cluster import start_local

    start_local(num_cpus=4, num_gpus=0, object_store_memory=200 << 20)
    yield
    ray.shutdown()


@pytest.fixture
def bucket(monkeypatch) -> Iterator[str]:
    """An S3 bucket on the loopback, found by this process and by those it starts."""
    import boto3
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="set")
    S3FileSystem.clear_instance_cache()  # fsspec keeps one per place, with the credentials and the endpoint that it met
    yield "s3://set"
    S3FileSystem.clear_instance_cache()
    server.stop()
