"""Pictures decoded and encoded and bytes of scratch, counted where they happen: in this process, or by ffmpeg."""

import contextlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import imageio_ffmpeg

from manifests.records import Ref
from manifests.store import Store
from pipeline.bench import Bench
from stages import container
from stages.encode import ClipWriter

_INPUT = re.compile(r"Input #0, .*, from '(.*)':")
_DECODED = re.compile(r"Input stream #\d+:\d+ \(video\): .*?(\d+) frames decoded")
_ENCODED = re.compile(r"Output stream #\d+:\d+ \(video\): (\d+) frames encoded")
_VERBOSE = 40  # ffmpeg's level at which it says how many frames it decoded and encoded


@dataclass
class Counts:
    """What was done: pictures decoded, by file (JPEGs by folder); encoded, by the file they were made of, or "clips";
    the most bytes of scratch of a stage and video at a time, by the folder of its blobs: looked at whenever a file
    leaves it and at the end; what is left of them then, which goes nowhere; images among that."""

    decoded: Counter[str] = field(default_factory=Counter)
    encoded: Counter[str] = field(default_factory=Counter)
    scratch: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    images: int = 0


@contextlib.contextmanager
def counted() -> Iterator[Counts]:
    """Counts what our stages do in this process, inside the block."""
    counts = Counts()
    decode, write, keep, leave = container._decoded_packets, ClipWriter.write, Bench.keep, Bench.__exit__

    def decoding(opened: Any, *rest: Any) -> Iterator[list[Any]]:
        for pictures in decode(opened, *rest):
            counts.decoded[str(opened.name)] += len(pictures)
            yield pictures

    def writing(writer: ClipWriter, image: Any) -> None:
        counts.encoded["clips"] += 1
        write(writer, image)

    def look(bench: Bench) -> None:
        counts.scratch[bench._prefix] = max(counts.scratch[bench._prefix], size_bytes(bench.scratch))

    def keeping(bench: Bench, path: Path, name: str) -> Ref:
        look(bench)
        return keep(bench, path, name)

    def leaving(bench: Bench, *why: Any) -> None:
        look(bench)
        counts.left[bench._prefix] = size_bytes(bench.scratch)
        counts.images += images(bench.scratch)
        leave(bench, *why)

    with (
        patch.object(container, "_decoded_packets", decoding),
        patch.object(ClipWriter, "write", writing),
        patch.object(Bench, "keep", keeping),
        patch.object(Bench, "__exit__", leaving),
    ):
        yield counts


@contextlib.contextmanager
def ffmpeg_on_path(folder: Path) -> Iterator[Counts]:
    """An `ffmpeg` on the PATH whose calls report what they did, and OpenCV's `imread` counted; filled at the end."""
    reports, counts = folder / "reports", Counts()
    reports.mkdir(parents=True)
    tool = folder / "ffmpeg"
    real = imageio_ffmpeg.get_ffmpeg_exe()
    tool.write_text(f'#!/bin/sh\nFFREPORT="file={reports}/$$.log:level={_VERBOSE}" exec "{real}" "$@"\n')
    tool.chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{folder}{os.pathsep}{before}"
    try:
        with patch.object(cv2, "imread", _counting(cv2.imread, counts)):
            yield counts
    finally:
        os.environ["PATH"] = before
        for report in reports.iterdir():
            said = report.read_text(encoding="utf-8", errors="replace")
            source = _INPUT.search(said)
            if source is None:  # tools ask for its version
                continue
            counts.decoded[source[1]] += sum(int(n) for n in _DECODED.findall(said))
            counts.encoded[source[1]] += sum(int(n) for n in _ENCODED.findall(said))


def _counting(imread: Callable[..., Any], counts: Counts) -> Callable[..., Any]:
    def counting(path: str, *rest: Any) -> Any:
        counts.decoded[str(Path(path).parent)] += 1
        return imread(path, *rest)

    return counting


def call_seconds(store: Store, names: Mapping[str, str]) -> dict[str, float]:
    """Seconds of all calls of stages, their loading included, by the stage's name; `names` maps it to its key."""
    return {
        name: round(sum(json.loads(store.get(path))["seconds"] for path in settled(store, key)), 2)
        for name, key in names.items()
    }


def settled(store: Store, key: str) -> list[str]:
    """The outcomes of a stage that will not change."""
    return [path for status in ("ok", "rejected") for path in store.list(f"ledger/{key}/{status}")]


def stages_in(store: Store) -> dict[str, str]:
    """Name and key of every stage that has outcomes, where each has one key."""
    return {path.split("-")[0]: path for path in sorted({path.split("/")[1] for path in store.list("ledger")})}


def passed_at(store: Store, key: str) -> list[float]:
    """When videos passed a stage, in order, by the times of their files: for a store on a local disk."""
    assert store.local is not None
    return sorted(path.stat().st_mtime for path in (store.local / "ledger" / key / "ok").rglob("*.json"))


def size_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def images(folder: Path) -> int:
    """JPEGs and PNGs below a folder."""
    return sum(1 for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))
