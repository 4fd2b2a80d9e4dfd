"""Clips that lie in the shards while their videos wait to be measured as the job in force has it.

They wait after the version of a stage was raised, weights were replaced, or a run under other settings or with a
corrected list was broken off. Shards written then would be without them. Who may write such:

`judge`, `shard`, `report` and `score` may not. They measure nothing and can be typed again after a run. `forget` takes
out what it is told, and leaves the rest as it was.

A `run` that came to its end may. What still waits then, waits for a host, a disk, memory or its next try, maybe for
ever: one such video must not hold back the results of all others. It says how many clips left, those of videos among
them that were given up, or that cannot be fetched any more as they once were. But where they are most of the shards and
fewer clips would take their place, as when a host closes at the first of a thousand videos, the set of before is left.
Who wants the results all the same deletes `shards/index.parquet`: nothing holds them back then.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from manifests.store import Store
from pipeline.plan import MAY_PASS
from stages.judge import STAGES, Measured
from stages.shard_index import read_index


@dataclass(frozen=True)
class Waiting:
    """How many clips of the shards those are, of how many, and the stages that their videos wait for."""

    clips: int
    shipped: int
    stages: tuple[str, ...]
    given_up: int = 0  # clips among them whose videos no run tries again by itself

    @classmethod
    def of(cls, store: Store, known: Sequence[Measured], *, or_given_up: bool = False) -> "Waiting | None":
        """None where there are no such clips. Reads the index where any video waits. Raises `ValueError` if that is no
        index. `or_given_up`: those of videos too that were given up, or could not be fetched."""
        lost = {one.video.id: _given_up_at(one) for one in known} if or_given_up else {}
        at = {one.video.id: _waits_for(one) or lost.get(one.video.id, "") for one in known}
        if not any(at.values()) or (index := read_index(store)) is None:
            return None
        videos = [row.video for row in index.rows if at.get(row.video)]
        stages = {at[video] for video in videos}
        n_lost = sum(bool(lost.get(video)) for video in videos)
        return cls(len(videos), len(index.rows), tuple(s for s in STAGES if s in stages), n_lost) if videos else None

    def outweigh(self, n_kept: int) -> bool:
        """Whether they are more than half of what is in the shards, and fewer clips than that would be kept now."""
        return 2 * self.clips > self.shipped > n_kept

    @property
    def share(self) -> str:
        """As words: "3 of 7 clips"."""
        return f"{self.clips:,} of {self.shipped:,} clips"

    @property
    def where(self) -> str:
        """The stages, as words."""
        return f"(stages: {', '.join(self.stages)})"

    @property
    def why(self) -> str:
        """Why they leave the shards, as words."""
        return f"their videos wait{', were given up or could not be fetched' if self.given_up else ''} {self.where}"

    @property
    def line(self) -> str:
        """What is the matter, and the way out."""
        lost = f" (with `--retry` perhaps the {self.given_up:,} given up or not fetched)" if self.given_up else ""
        return (
            f"{self.share} in the shards are of videos that are not measured with the settings and versions in force "
            f"{self.where}: a `python -m pipeline run` with these measures them{lost}, one with the settings of before "
            "has them at once"
        )

    def refuse(self) -> ValueError:
        """For a command that would lose them."""
        return ValueError(f"{self.line}; nothing was changed")


def _waits_for(one: Measured) -> str:
    """The stage that a video waits for, "" where it is settled: measured to its end, rejected or given up."""
    if one.rejected:
        return ""
    if one.failed:
        stage, status, _ = one.failed
        return stage if status == "failed" else ""
    return one.lacks


def _given_up_at(one: Measured) -> str:
    """The stage at which a video was given up, or `fetch` where it could not be had, for a reason that says nothing of
    what was measured on it before; else ""."""
    if one.rejected:
        stage, reason, _ = one.rejected
        return stage if stage == "fetch" and reason in {*MAY_PASS, "gone"} else ""
    return one.failed[0] if one.failed and one.failed[1] == "quarantined" else ""
