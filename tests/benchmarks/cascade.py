"""What a cascade spares: the sample recipe over the whole corpus with it and without, in this process."""

from functools import partial
from pathlib import Path
from typing import Any

from manifests.records import RATE_HZ, Verdict, Video
from manifests.store import Store
from pipeline.finish import judged
from pipeline.here import run_here
from pipeline.recipes import build
from tests.benchmarks.counts import counted
from tests.benchmarks.material import corpus_videos
from tests.benchmarks.record import Findings
from tests.benchmarks.tools import empty
from tests.benchmarks.turns import in_turns

WAYS = {"everything": (), "cascade": ("cascade=true",)}


def measure(folder: Path, repeats: int) -> Findings:
    """Processor seconds, and what is encoded, with the same clips kept. Raises `RuntimeError` where others are."""
    paths = corpus_videos(float("inf"))
    videos = [Video.of(str(path), language=path.name[:2]) for path in paths]
    for name, sets in WAYS.items():
        _taken(videos[:1], folder / name, sets)  # imports
    turns = in_turns({name: partial(_taken, videos, folder / name, sets) for name, sets in WAYS.items()}, repeats)
    kept = {name: {key for key, one in made["verdicts"].items() if one.kept} for name, made in turns.made.items()}
    if kept["everything"] != kept["cascade"]:
        raise RuntimeError(f"a cascade keeps others: {sorted(kept['everything'] ^ kept['cascade'])}")
    return Findings(
        ratios={"everything / cascade, cpu": turns.cpu_ratio("everything", "cascade")},
        numbers={
            "videos": len(videos),
            "clips kept, by both": len(kept["cascade"]),
            "clips dropped, by both": len(turns.made["cascade"]["verdicts"]) - len(kept["cascade"]),
            **{f"{name}: cpu s": turns.cpu_s(name) for name in WAYS},
            **{f"{name}: pictures encoded per picture kept": made["encoded"] for name, made in turns.made.items()},
            **{f"{name}: clips cut": made["cut"] for name, made in turns.made.items()},
            **{f"{name}: clips heard": made["heard"] for name, made in turns.made.items()},
        },
        notes=("recipe sample with its own policy over the sample corpus; loading of models in it",),
    )


def _taken(videos: list[Video], folder: Path, sets: tuple[str, ...]) -> dict[str, Any]:
    recipe, store = build("sample", overrides=sets), Store(str(empty(folder)))
    with counted() as counts:
        run_here(recipe.stages(), videos, store, "a")
    known, verdicts = judged(recipe, videos, store)
    by_key: dict[str, Verdict] = {one.key: one for one in verdicts}
    clips = [clip for one in known if one.clips for clip in one.clips.items]
    kept_s = sum(clip.n_frames for clip in clips if by_key[clip.key].kept) / RATE_HZ
    return {
        "verdicts": by_key,
        "encoded": counts.encoded.total() / RATE_HZ / kept_s,
        "cut": len(clips),
        "heard": sum(len(one.speeches.items) for one in known if one.speeches),
    }
