"""Memory of processes, as Linux counts it."""

import os
import subprocess
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self


def megabytes(kib: float) -> float:
    """Of 1e6 bytes each, from what Linux calls kB and means 1,024 bytes by, in /proc as in `getrusage`."""
    return kib * 1024 / 1e6


def peak_mb() -> float:
    """The most that this process held at once since its start (VmHWM: unlike `getrusage`, not the parent's too)."""
    return _status_mb("VmHWM")


def held_mb() -> float:
    """What this process holds now (VmRSS)."""
    return _status_mb("VmRSS")


def _status_mb(name: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return megabytes(int(line.split()[1]))
    raise OSError(f"/proc/self/status has no {name}")


def family(pid: int) -> set[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found, new = {pid}, [pid]
    while new:
        new = [child for parent in new for child in children.get(parent, []) if child not in found]
        found |= set(new)
    return found


def proportional_mb(pids: set[int]) -> float:
    """What processes hold together, pages that they share counted once (Pss)."""
    total_kib = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        total_kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return megabytes(total_kib)


class Sampler(ABC):
    """As a context manager: takes a sample again and again, in a thread, until it is left."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    @abstractmethod
    def sample(self) -> None:
        """Look once."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(self._interval_s):
            self.sample()


class FamilyPeak(Sampler):
    """Around a `Popen`: `peak_mb` is the most that it and its descendants held together."""

    def __init__(self, process: "subprocess.Popen[bytes]", interval_s: float = 1.0) -> None:
        super().__init__(interval_s)
        self._pid = process.pid
        self.peak_mb = 0.0
        self.processes = 0  # at the peak

    def sample(self) -> None:
        pids = family(self._pid) - {os.getpid()}
        held = proportional_mb(pids)
        if held > self.peak_mb:
            self.peak_mb, self.processes = held, len(pids)
