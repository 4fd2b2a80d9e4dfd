"""Carry videos through stages in this process: for tests, and for looking closely."""

from collections.abc import Iterable, Sequence
from typing import Any

from manifests.codec import to_plain
from manifests.records import Video
from manifests.store import Store
from pipeline.stage import Stage
from pipeline.step import Notify, Step


def run_here(
    stages: Sequence[Stage[Any]], videos: Iterable[Video], store: Store, run: str, notify: Notify | None = None
) -> int:
    """Stage after stage, video after video; returns how many videos passed them all."""
    tickets = [to_plain(video) for video in videos]
    for i, stage in enumerate(stages):
        step = Step(stage, stages[:i], store, run, notify)
        tickets = [out for ticket in tickets for out in step(ticket)]
    return len(tickets)
