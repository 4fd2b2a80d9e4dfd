"""Make a sample corpus: `python -m stages.sample.make_corpus --seed 1 --out DIR [--minutes N] [--hard]`.

Writes the videos, the manifest `videos.csv` and `truth.json`. Deterministic in its options; on another kind of
processor some pixels differ by a level, and so do the bytes of the videos. Needs espeak-ng.
"""

import argparse
import csv
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from manifests.sample.truth import Truth, VideoTruth, write_truth
from stages.sample.film import encode_again, film
from stages.sample.script import HARD, Hardness, Script, scripts

_LICENCE = "CC0-1.0"

Box = tuple[float, float, float, float]


def make(out: Path, seed: int, *, minutes: float | None = None, hard: bool = False, workers: int = 2) -> Truth:
    """Make a corpus in `out`; about 45 ms of CPU a frame."""
    out.mkdir(parents=True, exist_ok=True)
    hardness = HARD if hard else Hardness()
    wanted = scripts(seed, minutes=minutes, hardness=hardness)
    originals = [s for s in wanted if not s.copy_of]
    with ProcessPoolExecutor(workers, mp_context=get_context("fork"), initializer=_one_thread) as pool:
        truths = pool.map(partial(film, folder=out, hardness=hardness), originals)
        made = {s.name: t for s, t in zip(originals, truths, strict=True)}
    for script in wanted:
        if script.copy_of:
            made[script.name] = _copy(out, script, made[script.copy_of], hardness)
    truth = Truth(seed=seed, hard=hard, videos=tuple(made[s.name] for s in wanted))
    write_truth(out / "truth.json", truth)
    with (out / "videos.csv").open("w", newline="", encoding="utf-8") as f:
        table = csv.writer(f, lineterminator="\n")
        table.writerow(("url", "language", "title", "channel", "licence"))
        for s in wanted:
            table.writerow((f"{s.name}.mp4", s.language, s.title, s.channel, _LICENCE))
    return truth


def _one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)


def _copy(out: Path, script: Script, original: VideoTruth, hardness: Hardness) -> VideoTruth:
    """The same video again, smaller and re-encoded, as a re-upload would be."""
    size = (script.width * 9 // 10 // 2 * 2, script.height * 9 // 10 // 2 * 2)
    path = out / f"{script.name}.mp4"
    encode_again(out / original.path, path, size, script.rate_hz, replace(hardness, crf=hardness.crf + 3))
    factor = size[0] / script.width
    segments = tuple(
        replace(s, box=_scaled(s.box, factor), flaw="duplicate", should_keep=None) for s in original.segments
    )
    return replace(
        original,
        path=path.name,
        width_px=size[0],
        height_px=size[1],
        segments=segments,
        flaw="duplicate",
        copy_of=original.path,
    )


def _scaled(box: Box, factor: float) -> Box:
    return box[0] * factor, box[1] * factor, box[2] * factor, box[3] * factor


def main(arguments: list[str] | None = None) -> int:
    """Command line; 2 for a request that cannot be met."""
    parser = argparse.ArgumentParser(prog="python -m stages.sample.make_corpus", description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, help="at least so many minutes (default: one round of the script, 10)")
    parser.add_argument("--hard", action="store_true", help="noise, music, side poses, re-encodes, variable frame rate")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    try:
        make(options.out, options.seed, minutes=options.minutes, hard=options.hard, workers=options.workers)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"make_corpus: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
