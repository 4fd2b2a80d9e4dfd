"""How busy stages keep a GPU that is fed from cached clips, and how many hours of clips an hour of it takes in."""

import contextlib
import json
import os
import pickle
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from manifests.records import Clips, Video
from manifests.store import Store
from pipeline.bench import Bench
from pipeline.recipes import own
from pipeline.stage import Facts, Resources, Stage
from tests.benchmarks.clips import make_clips
from tests.benchmarks.gpu_parts import Given, gpus
from tests.benchmarks.material import face_pack, random_syncnet, whisper
from tests.benchmarks.record import Findings
from tests.benchmarks.resident import Sampler
from tests.command import ROOT

_MARK = "gpu-fed "
"""Begins a worker's own lines: libraries print to the same place."""

_SMI = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-i")

_PARTS = {"sync": 10, "speech": 4, "identity": 2}
"""Of 16 cores, where all three run beside one another."""


@dataclass(frozen=True)
class Feed:
    """What a worker gets: its stage, the clips and where they lie."""

    stage: Stage[Any]
    store: str
    clips: Clips
    seconds: float


class Utilisation(Sampler):
    """`samples` are per cents of time in which a kernel ran, of what a command prints each time that it is asked; none
    where there is no such command."""

    def __init__(self, command: Sequence[str], interval_s: float = 0.2) -> None:
        super().__init__(interval_s)
        self.samples: list[int] = []
        self._command = command

    def sample(self) -> None:
        if shutil.which(self._command[0]):
            said = subprocess.run(self._command, capture_output=True, text=True, check=False).stdout.strip()
            self.samples += [int(said)] if said.isdigit() else []  # a part of a GPU (MIG) has none


def fed(given: Given, names: tuple[str, ...]) -> Findings:
    """One worker and all cores for a stage alone; all cores shared for several."""
    store = Store(str(given.folder / "store"))
    clips = make_clips(store, given.empty("made"), given.size.clips_s)
    stages, said = _stages(given, names)
    cores = len(os.sched_getaffinity(0))
    if len(names) > 1:
        whole = sum(_PARTS[name] for name in names)
        layouts = [{name: max(1, cores * _PARTS[name] // whole) for name in names}]
    else:
        layouts = [dict.fromkeys(names, n) for n in sorted({1, max(1, cores // 4), cores})]
    numbers: dict[str, Any] = {"networks": said}
    for layout in layouts:
        label = ", ".join(f"{n} of {name}" for name, n in layout.items())
        feeds = [Feed(stages[name], store.url, clips, given.size.fed_s) for name, n in layout.items() for _ in range(n)]
        numbers |= {f"{label}: {what}": value for what, value in run(feeds, given.folder, given.device).items()}
    return Findings(numbers=numbers)


def _stages(given: Given, names: Sequence[str]) -> tuple[dict[str, Stage[Any]], str]:
    """The stages of `own` with networks that are at hand, one core each; and what to call these."""
    recipe, asked, device = own(), Resources(gpus=gpus(given.device)), given.device
    stages: dict[str, Stage[Any]] = {}
    said = []
    if "sync" in names:
        stages["sync"] = replace(recipe.sync, model=str(random_syncnet(given.folder)), device=device, resources=asked)
        said.append("SyncNet of random weights")
    if "speech" in names:
        model, name = whisper(given.folder)
        stages["speech"] = replace(recipe.speech, model=str(model), align=False, device=device, resources=asked)
        said.append(name)
    if "identity" in names:
        pack, name = face_pack()
        stages["identity"] = replace(recipe.identity, pack=pack, resources=asked)
        said.append(name)
    return stages, "; ".join(said)


def run(feeds: Sequence[Feed], folder: Path, device: str) -> dict[str, Any]:
    """Start a worker for each, and when all are ready let them work; raises `RuntimeError` with what one died of."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0] or "0"
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(_started(feed, folder / f"worker{n}")) for n, feed in enumerate(feeds)]
        for worker in workers:
            worker.hear()
        with Utilisation([*_SMI, visible] if device != "cpu" else ["no-such-command"]) as used:
            for worker in workers:
                worker.go()
            told = [worker.hear() for worker in workers]
    return {**_rates(feeds, told), **busy(used.samples)}


def _rates(feeds: Sequence[Feed], told: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Hours of clips an hour takes in, by stage."""
    rates: dict[str, float] = {}
    for feed, one in zip(feeds, told, strict=True):
        rates[feed.stage.name] = rates.get(feed.stage.name, 0.0) + one["clip_s"] / one["wall_s"]
    hours = {f"{name}: hours of clips an hour": rate for name, rate in rates.items()}
    return {**hours, "processor s per s on the clock": sum(one["cpu_s"] / one["wall_s"] for one in told)}


def busy(samples: Sequence[int]) -> dict[str, float]:
    """Of utilisation in per cent; nothing of no samples."""
    if not samples:
        return {}
    return {
        "samples of utilisation": float(len(samples)),
        "share of samples above 0": sum(one > 0 for one in samples) / len(samples),
        "mean utilisation": statistics.mean(samples) / 100,
    }


class _Worker:
    """A process that says when it is ready and what it did; see `_work`."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self._process, self._log = process, log

    def hear(self) -> dict[str, float]:
        """Its next line; raises `RuntimeError` with its last words where none comes."""
        assert self._process.stdout is not None
        line = next((one for one in self._process.stdout if one.startswith(_MARK)), None)
        if line is None:
            words = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise RuntimeError(words[-1] if words else "a worker ended without a word")
        found: dict[str, float] = json.loads(line.removeprefix(_MARK))
        return found

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()


@contextlib.contextmanager
def _started(feed: Feed, place: Path) -> Iterator[_Worker]:
    given, log = place.with_suffix(".pickle"), place.with_suffix(".log")
    given.write_bytes(pickle.dumps(feed))
    command = [sys.executable, "-c", "from tests.benchmarks.gpu_fed import work; work()", str(given)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        try:
            yield _Worker(process, log)
        finally:
            process.kill()
            process.communicate()


def work() -> None:
    """A worker: its stage over its clips, again and again, for its seconds after a line comes."""
    feed: Feed = pickle.loads(Path(sys.argv[1]).read_bytes())
    store, stage, facts = Store(feed.store), feed.stage.open(), Facts([Video.of("made"), feed.clips])

    def once() -> None:
        with Bench(store, feed.stage.name, "made") as bench:
            stage(facts, bench)

    once()
    _say({})
    sys.stdin.readline()
    _say(_worked(once, feed))


def _worked(once: Callable[[], None], feed: Feed) -> dict[str, float]:
    began, cpu, calls = time.perf_counter(), time.process_time(), 0
    while (spent := time.perf_counter() - began) < feed.seconds:
        once()
        calls += 1
    clip_s = sum(clip.end_s - clip.start_s for clip in feed.clips.items)
    return {"clip_s": calls * clip_s, "wall_s": spent, "cpu_s": time.process_time() - cpu}


def _say(what: dict[str, float]) -> None:
    sys.stdout.write(f"{_MARK}{json.dumps(what)}\n")
    sys.stdout.flush()
