"""Start a script in several processes with the environment that torchrun gives."""

import multiprocessing
import os
import runpy
import socket
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")  # to start Python and torch for each takes longer than most scripts
_FORKS.set_forkserver_preload(["mcdm.course", "tests.mcdm.nano"])


def _run(script: str, arguments: list[str], environment: dict[str, str]) -> None:
    os.setsid()
    os.environ.update(environment)
    multiprocessing.set_start_method("fork", force=True)  # for the readers, as it is in a new Python
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


def start_processes(script: Path, *arguments: object, size: int) -> list[BaseProcess]:
    """One for each rank, each in a session of its own, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running: list[BaseProcess] = []
    for rank in range(size):
        environment = {
            **os.environ,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(size),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
        }
        process = _FORKS.Process(target=_run, args=(str(script), [str(one) for one in arguments], environment))
        process.start()
        running.append(process)
    return running


def end_processes(running: list[BaseProcess]) -> None:
    """Wait until they end by themselves; raises if one fails."""
    for process in running:
        process.join(1100)
    codes = [process.exitcode for process in running]
    for process in running:  # one waits for another that is gone
        process.kill()
    assert codes == [0] * len(running)


def run_processes(script: Path, *arguments: object, size: int) -> None:
    """Run to the end; raises if a process fails."""
    end_processes(start_processes(script, *arguments, size=size))
