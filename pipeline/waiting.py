"""Clips that lie in the shards while their videos wait to be measured as the job in force has it.

They wait after the version of a stage was raised, weights were replaced, or a run under other settings or with a
corrected list was broken off. Shards written then would be without them. Who may write such:

`judge`, `shard` and `report` may not. They measure nothing and can be typed again after a run. `forget` takes out what
it is told, and leaves the rest as it was.

A `run` that came to its end may. What still waits then, waits for a host, a disk, memory or its next try, maybe for
ever: one such video must not hold back the results of all others. It says how many clips left. But where they are most
of the shards, as when a host closes at the first of a thousand videos, the set of before is worth more than what would
take its place, and it is left. Who wants the results all the same deletes `shards/`: nothing holds them back then.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from manifests.store import Store
from stages.judge import STAGES, Measured
from stages.shard_index import read_index


@dataclass(frozen=True)
class Waiting:
    """How many clips of the shards those are, of how many, and the stages that their videos wait for."""

    clips: int
    shipped: int
    stages: tuple[str, ...]

    @classmethod
    def of(cls, store: Store, known: Iterable[Measured]) -> "Waiting | None":
        """None where there are no such clips. Reads the index where any video waits. Raises `ValueError` if that is no
        index."""
        at = {one.video.id: stage for one in known if (stage := _waits_for(one))}
        index = read_index(store) if at else None
        if index is None:
            return None
        found = [at[row.video] for row in index.rows if row.video in at]
        return cls(len(found), len(index.rows), tuple(one for one in STAGES if one in found)) if found else None

    @property
    def are_most(self) -> bool:
        """Whether they are more than half of what is in the shards."""
        return 2 * self.clips > self.shipped

    @property
    def share(self) -> str:
        """As words: "3 of 7 clips"."""
        return f"{self.clips:,} of {self.shipped:,} clips"

    @property
    def where(self) -> str:
        """The stages, as words."""
        return f"(stages: {', '.join(self.stages)})"

    @property
    def line(self) -> str:
        """What is the matter, and the way out."""
        return (
            f"{self.share} in the shards are of videos that are not measured with the settings and versions in force "
            f"{self.where}: a `python -m pipeline run` with these measures them, one with the settings of before has "
            "them at once"
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
