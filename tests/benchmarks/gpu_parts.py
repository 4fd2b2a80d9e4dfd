"""The parts of `gpu`, and how one is measured in a process of its own."""

import argparse
import dataclasses
import importlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.record import Findings

PARTS: dict[str, tuple[str, str, Any]] = {
    "sync-alone": ("gpu_sync", "alone", None),
    "sync-stage": ("gpu_sync", "stage", None),
    "fed-sync": ("gpu_fed", "fed", ("sync",)),
    "losses": ("gpu_train", "compared", None),
    **{f"train-{stage}": ("gpu_train", "steps", stage) for stage in range(4)},
    "detector": ("gpu_networks", "detector", None),
    "embedder": ("gpu_networks", "embedder", None),
    "whisper": ("gpu_networks", "hearing", None),
    "fed-speech": ("gpu_fed", "fed", ("speech",)),
    "fed-identity": ("gpu_fed", "fed", ("identity",)),
    "fed-together": ("gpu_fed", "fed", ("sync", "speech", "identity")),
}
"""Module, function, and what it is given more. What is asked first comes first, and needs least: up to `train-3`
nothing but torch, PyAV, msgspec and python_speech_features; the others the whole environment."""

_GPUS = 0.1


@dataclass(frozen=True)
class Size:
    """How much is measured: as it counts, or so little that a processor shows in seconds that it works."""

    clips_s: tuple[float, ...] = (8.0, 4.0)
    alone_s: float = 24.0
    pictures: int = 64
    spoken_s: float = 60.0
    fed_s: float = 15.0
    recipe: str = "small"
    steps: int = 100  # of the trainer, whose log has a record of the first and of every tenth


TINY = Size(clips_s=(0.6,), alone_s=0.4, pictures=2, spoken_s=3.0, fed_s=1.0, recipe="nano", steps=20)


@dataclass(frozen=True)
class Given:
    """What a part gets: the device to hold against the processor, a folder, turns, and how much."""

    device: str
    folder: Path
    repeats: int
    size: Size

    def empty(self, name: str) -> Path:
        """A new folder."""
        place = self.folder / name
        place.mkdir()
        return place


def gpus(device: str) -> float:
    """What a stage asks for so as to work on `device`."""
    return 0.0 if device == "cpu" else _GPUS


def main() -> None:
    """Measure one part and write what it found as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="so little that a processor does it in seconds")
    options = parser.parse_args()
    module, function, more = PARTS[options.part]
    measure = getattr(importlib.import_module(f"tests.benchmarks.{module}"), function)
    with tempfile.TemporaryDirectory(dir=options.out.parent) as folder:
        given = Given(options.device, Path(folder), options.repeats, TINY if options.tiny else Size())
        found: Findings = measure(given) if more is None else measure(given, more)
    options.out.write_text(json.dumps(dataclasses.asdict(found), ensure_ascii=False), encoding="utf-8")
