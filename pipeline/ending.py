"""What a person sees when a run is over: the tables, where everything lies, and what to type next."""

import shlex
from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from manifests.store import Store
from pipeline.cli import store_option
from pipeline.finish import Finished
from pipeline.job import Job
from pipeline.progress import clock
from pipeline.report import REPORT, print_tables
from pipeline.waiting import Waiting
from stages.catalogue import CLIPS, VIDEOS
from stages.shard_index import INDEX, tars

PLACES = (
    ("shards", "shards/", f"WebDataset tars and {INDEX.removeprefix('shards/')}"),
    ("clips", CLIPS, "every clip, kept and dropped, with its measurements"),
    ("videos", VIDEOS, "every video"),
    ("report", REPORT, "the page to look at"),
)


def print_end(
    finished: Finished, console: Console, seconds: float | None = None, waiting: Waiting | None = None
) -> None:
    """The funnel, the languages, the reasons; how many shards were written, and how many clips left them `waiting`."""
    print_tables(console, finished.figures, notes=finished.notes)
    index = finished.sharded.index
    took = f" in {clock(seconds)}" if seconds is not None else ""
    console.print(
        f"\n{len(index.rows)} clips in {len(index.shards)} shards "
        f"({len(finished.sharded.written)} written, {len(finished.sharded.found)} unchanged), "
        f"policy {finished.policy}{took}",
        soft_wrap=True,
    )
    if waiting is not None:
        said = f"{waiting.share} left the shards, as {waiting.why}"
        console.print(f"{said}: the next run that measures them puts them back", style="yellow", soft_wrap=True)


def print_left(waiting: Waiting, outlook: Iterable[str], store: Store, console: Console) -> None:
    """Why a run has left the results as they were, and the ways on."""
    why = f"{waiting.line}. They are most of the set, so that shards, tables and report are left as they were"
    ways = f"the same command again goes on; to have the results without these clips, delete {store.at(INDEX)} first"
    for line in (*outlook, why, ways):
        console.print(line, style="yellow", soft_wrap=True)


def print_paths(store: Store, job: Job, console: Console) -> None:
    """Where the results are, and the next commands."""
    for name, path, about in PLACES:
        console.print(Text.assemble(f"  {name:8} {store.at(path)}  ", (about, "dim")), soft_wrap=True)
    place = store_option(store.url)
    if tars(store):
        shards = shlex.quote(store.at("shards"))
        # of the sample world, which is drawn small, `strict` keeps nothing
        other = "--set policy.min_confidence=2.5" if job.recipe == "sample" else "--policy strict"
        commands = [
            f"python -m mcdm train --shards {shards} --recipe tiny --stages 0-3 --out runs/tiny",
            f"python -m pipeline judge {other}{place}    # other thresholds, in seconds",
        ]
    else:
        commands = [f"python -m pipeline report{place}    # no clip was kept: how far the videos came, and why"]
    console.print("next:")
    if job.recipe == "sample":
        commands.append("python -m pipeline run wild --langs 10 --hours 0.5 --store wild    # the real thing")
    for command in commands:
        console.print(f"  {command}", soft_wrap=True)
