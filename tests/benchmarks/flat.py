"""Memory over many videos: one process takes 1,000 of them through every stage."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

from manifests.codec import to_plain
from manifests.records import Video
from manifests.store import Store
from pipeline.recipes import sample
from pipeline.step import Step
from stages.voice import Voice
from tests.benchmarks.material import rendered_head, to_and_fro
from tests.benchmarks.record import Findings
from tests.benchmarks.resident import held_mb
from tests.media import Sound, hum, times_at, write_video

VIDEOS, AFTER = 1_000, (30, 100, 250, 500, 750, 1_000)
"""How many, and after how many the memory is read."""

LENGTH_S = 2.2


def measure(folder: Path, repeats: int) -> Findings:
    """Megabytes held; one turn."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        held = pool.submit(_one_after_the_other, folder).result()
    early, late = AFTER[1], AFTER[-1]
    return Findings(
        numbers={
            **{f"MB held after {n} videos": held[n - 1] for n in AFTER},
            "MB held at most": max(held),
            f"MB more per 1,000 videos, from {early} to {late}": 1000
            * (held[late - 1] - held[early - 1])
            / (late - early),
        },
        notes=(
            f"one rendered head of {LENGTH_S:g} s under {VIDEOS} names, recipe sample, every stage in one process: "
            "what would grow with the number of videos grows here",
        ),
        once=True,
    )


def _one_after_the_other(folder: Path) -> list[float]:
    """Megabytes held after each video."""
    head = rendered_head(25)
    shown = zip(times_at(Fraction(25), LENGTH_S), to_and_fro(head, round(25 * LENGTH_S)), strict=True)
    source = write_video(folder / "short.mp4", shown, sound=Sound(samples=hum(LENGTH_S)))
    recipe, store = sample(), Store(str(folder / "flat"))
    stages = replace(recipe, watch=replace(recipe.watch, voice=Voice(min_s=0.0))).stages()  # a hum is no voice
    steps = [Step(stage, stages[:i], store, "flat") for i, stage in enumerate(stages)]
    held = []
    for number in range(VIDEOS):
        name = folder / f"short{number}.mp4"
        name.symlink_to(source)
        tickets = [to_plain(Video.of(str(name), language="de"))]
        for step in steps:
            tickets = [out for ticket in tickets for out in step(ticket)]
        assert tickets, "a rendered head did not pass"
        held.append(held_mb())
    return held
