"""`python -m pipeline score`: a store against the truth of the corpus that it was run on."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from manifests.records import Verdict
from manifests.sample.serve import CORPUS
from manifests.sample.truth import read_truth
from manifests.store import Store
from pipeline.finish import judged
from pipeline.job import read_videos
from pipeline.recipes import TalkingFaces
from pipeline.waiting import Waiting
from stages.judge import Measured
from stages.score import Score, score
from stages.score_table import crop_windows, tables

SCORE = "score.json"
_SHOWN_MISSES = 20


def score_store(store: Store, recipe: TalkingFaces, truth_file: str | None) -> Score:
    """Judge what is known, compare and write `score.json`. Raises `FileNotFoundError`, and `ValueError`, also where
    clips in the shards wait to be measured anew: the score would be of a set without them."""
    known, verdicts = judged(recipe, read_videos(store), store)
    if waiting := Waiting.of(store, known):
        raise waiting.refuse()
    return score_known(store, known, verdicts, Path(truth_file) if truth_file else CORPUS / "truth.json")


def score_known(store: Store, known: Sequence[Measured], verdicts: Sequence[Verdict], truth_file: Path) -> Score:
    """Compare the videos that were run with their truth; those of other languages are not held against the run."""
    truth = read_truth(truth_file)
    ran = {one.video.url.rsplit("/", 1)[-1] for one in known}
    mine = replace(truth, videos=tuple(video for video in truth.videos if video.path.rsplit("/", 1)[-1] in ran))
    if not mine.videos:
        said = f"{truth_file} knows none of the {len(known)} videos of {store.url}"
        raise ValueError(f"{said}; `score --truth FILE` compares with the truth of another corpus")
    found = score(mine, known, verdicts, crop_windows(store, known))
    store.put(SCORE, found.to_json())
    return found


def print_score(console: Console, found: Score) -> None:
    """The tables, then the misses by name."""
    for table in tables(found):
        console.print(table)
    for miss in found.misses[:_SHOWN_MISSES]:
        console.print(Text.assemble(("  missed: ", "dim"), miss), soft_wrap=True)
    if len(found.misses) > _SHOWN_MISSES:
        console.print(f"  ... and {len(found.misses) - _SHOWN_MISSES} more, all in {SCORE}")
