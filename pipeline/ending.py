"""What a person sees when a run is over: the tables, where everything lies, and what to type next."""

from rich.console import Console

from manifests.store import Store
from pipeline.finish import Finished, notes
from pipeline.job import Job
from pipeline.progress import clock
from pipeline.report import print_tables

PLACES = (
    ("shards", "shards/", "WebDataset tars and index.parquet"),
    ("clips", "clips.parquet", "every clip, kept and dropped, with its measurements"),
    ("videos", "videos.parquet", "every video"),
    ("report", "report.html", "the page to look at"),
)


def print_end(job: Job, finished: Finished, console: Console, seconds: float | None = None) -> None:
    """The funnel, the languages, the reasons; where shards were written, how many."""
    print_tables(console, finished.figures, notes=notes(job.build()))
    index = finished.sharded.index
    took = f" in {clock(seconds)}" if seconds is not None else ""
    console.print(
        f"\n{len(index.rows)} clips in {len(index.shards)} shards "
        f"({len(finished.sharded.written)} written, {len(finished.sharded.found)} unchanged), "
        f"policy {job.policy_name}{took}"
    )


def print_paths(store: Store, job: Job, console: Console) -> None:
    """Where the results are, and the next commands."""
    for name, path, about in PLACES:
        console.print(f"  {name:8} {store.at(path)}  [dim]{about}[/]", soft_wrap=True)
    console.print("next:")
    place = "" if store.url == "out" else f" --store {store.url}"
    train = f"python -m mcdm train --shards {store.at('shards')} --recipe tiny --stages 0-3 --out runs/tiny"
    commands = [train, f"python -m pipeline judge --policy strict{place}    # other thresholds, in seconds"]
    if job.recipe == "sample":
        commands.append("python -m pipeline run wild --langs 10 --hours 0.5 --store wild    # the real thing")
    for command in commands:
        console.print(f"  {command}", soft_wrap=True)
