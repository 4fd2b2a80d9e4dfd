"""`python -m pipeline show ID`: everything known about one video."""

import json
from argparse import Namespace
from typing import Any

from rich.console import Console
from rich.text import Text

from manifests.codec import to_plain
from manifests.records import Verdict, Video
from pipeline.facts import outcomes
from pipeline.finish import verdicts_on
from pipeline.job import job_at, read_videos
from pipeline.ledger import Ledger, forgotten
from pipeline.stage import keys
from stages.catalogue import text

_SHORT = 400
"""Characters of one value: curves and embeddings would bury the rest."""


def show(options: Namespace, console: Console) -> int:
    """Facts, verdicts with receipts, rejections, tracebacks. Raises `ValueError` for an id that fits not one video."""
    store, job = job_at(options.store)
    gone = forgotten(store)
    videos = tuple(video for video in read_videos(store) if video.id not in gone)
    video = _one(options.id, videos, gone)
    recipe = job.build()
    console.rule(Text(f"{video.id}  {video.url}"))
    _print(console, to_plain(video))
    found = outcomes(recipe.stages(), video.id, store)
    for name, outcome in found.items():
        console.rule(f"{name}: {outcome.status}, attempt {outcome.attempt}, {outcome.seconds:.1f} s", align="left")
        if "error" in outcome.body:
            console.print(str(outcome.body["error"]), markup=False, soft_wrap=True)
        else:
            _print(console, outcome.body)
    names = keys(recipe.stages(), Video)
    waits = next((name for name in names if name not in found), "")
    if waits and all(outcome.status == "ok" for outcome in found.values()):
        _, tries = Ledger(store).look(names[waits], video.id)
        if tries.postponed:
            console.rule(f"{waits}: postponed", align="left")
            console.print(tries.postponed, soft_wrap=True)
    for verdict in verdicts_on(recipe, video.id, videos, store):
        _verdict(console, verdict)
    return 0


def _one(given: str, videos: tuple[Video, ...], gone: set[str]) -> Video:
    wanted = given.split("-")[0]
    found = [video for video in videos if video.id.startswith(wanted) or video.url == given]
    if len(found) == 1:
        return found[0]
    if not found and (past := sorted(id for id in gone if id.startswith(wanted))):
        raise ValueError(f"video {', '.join(past[:5])} was forgotten: nothing is kept, no run takes it in again")
    if not found:
        raise ValueError(f"no video {given!r} among {len(videos)}; ids stand in videos.parquet and in report.html")
    raise ValueError(f"{given!r} begins {len(found)} ids: {', '.join(video.id for video in found[:5])}")


def _verdict(console: Console, verdict: Verdict) -> None:
    word = f"kept, {verdict.split}, person {verdict.person}" if verdict.kept else "dropped"
    console.rule(f"{verdict.key}: {word} (policy {verdict.policy})", align="left")
    for receipt in verdict.receipts:
        value, limit = text(receipt.value), text(receipt.limit)
        console.print(f"  {receipt.rule}: {value}, limit {limit}, margin {receipt.margin:.3g}", markup=False)


def _print(console: Console, record: dict[str, Any]) -> None:
    for name, value in record.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            for item in value:
                console.print(f"  {name}:", markup=False)
                for inner, content in item.items():
                    console.print(f"    {inner}: {_short(content)}", markup=False, soft_wrap=True)
        else:
            console.print(f"  {name}: {_short(value)}", markup=False, soft_wrap=True)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHORT else f"{text[:_SHORT]} ... ({len(text)} characters)"
