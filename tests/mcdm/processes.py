"""Start a script in several processes with the environment that torchrun gives."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def start_processes(script: Path, *arguments: object, size: int) -> list[subprocess.Popen[bytes]]:
    """One for each rank, each in a session of its own, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = []
    for rank in range(size):
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path.cwd()),
            "OMP_NUM_THREADS": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(size),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
        }
        command = [sys.executable, str(script), *map(str, arguments)]
        running.append(subprocess.Popen(command, env=environment, start_new_session=True))
    return running


def end_processes(running: list[subprocess.Popen[bytes]]) -> None:
    """Wait until they end by themselves; raises if one fails."""
    try:
        codes = [process.wait(timeout=1100) for process in running]
    finally:
        for process in running:  # one waits for another that is gone
            process.kill()
    assert codes == [0] * len(running)


def run_processes(script: Path, *arguments: object, size: int) -> None:
    """Run to the end; raises if a process fails."""
    end_processes(start_processes(script, *arguments, size=size))
