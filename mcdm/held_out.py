"""Which clips training never sees: those of splits val and test, or where the shards have none, whole groups of clips.

A group is what hangs together by video or person. The choice is written into the run, so that an evaluation measures
on what this run has not seen, whatever becomes of the shards.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from manifests.scratch import write_whole
from mcdm.shards import Clip, Shards

SHARE = 1 / 8
"""Of all frames, where groups are held out."""

_FILE = "held_out.json"


@dataclass(frozen=True)
class Division:
    """Clips to train on and clips held out; `by`: "split", "group", or "video" where all people hang together."""

    train: list[Clip]
    held_out: list[Clip]
    by: str


def divide(shards: Shards, run: Path) -> Division:
    """The run's division if it has one, else a new one, which is a function of the shards. Raises `ValueError`.

    Clips that came later are trained on unless they share a video or a person with those held out; where the shards
    have splits, with those of them that lie in train by now, for the splits keep the others apart.
    """
    path = run / _FILE
    if not path.exists():
        return choose(shards)
    known = _read(path)
    keys = set(known.clips)
    held_out = [clip for clip in shards.clips if clip.key in keys]
    if not held_out:
        raise ValueError(f"{shards.url} has none of the {len(keys)} clips that {path} holds out")
    if known.by == "split":
        moved = [clip for clip in held_out if clip.split == "train"]  # their group grew together with others
        train = _apart(shards.split("train"), moved, people=True)
    else:
        train = _apart(shards.clips, held_out, people=known.by == "group")
    return Division(train, held_out, known.by)


def _apart(clips: Sequence[Clip], held_out: Sequence[Clip], *, people: bool) -> list[Clip]:
    """The clips to train on beside those held out by whole groups: of other videos, and with `people` of others too."""
    near = {name for clip in held_out for name in _names(clip, people=people)}
    return [one for one in clips if one.split not in ("val", "test") and near.isdisjoint(_names(one, people=people))]


def _names(clip: Clip, *, people: bool) -> set[str]:
    """What ties a clip to others: its video, and its person where one was told apart."""
    return {f"video {clip.video}", *([f"person {clip.person}"] if people and clip.person else [])}


@dataclass(frozen=True)
class _Known:
    by: str
    clips: list[str]


def _read(path: Path) -> _Known:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Known)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path}: {error}") from error


def write_division(run: Path, division: Division) -> None:
    """Remember what is held out, if the run does not know yet."""
    path = run / _FILE
    if path.exists():
        return
    known = {"by": division.by, "clips": [clip.key for clip in division.held_out]}
    write_whole(path, json.dumps(known, indent=1))


def choose(shards: Shards) -> Division:
    """Splits where there are, else groups by the hash of their names up to `SHARE`, the smallest at the least."""
    held_out = shards.split("val", "test")
    if held_out:
        return Division(shards.split("train"), held_out, "split")
    by, names = "group", _groups(shards.clips)
    if len(set(names)) < 2:
        by, names = "video", [clip.video for clip in shards.clips]
    if len(set(names)) < 2:
        raise ValueError(f"{shards.url}: a single video, and no clips of splits val or test: nothing to hold out")
    chosen = _pick(shards.clips, names)
    pairs = list(zip(shards.clips, names, strict=True))
    return Division(
        [clip for clip, name in pairs if name not in chosen], [clip for clip, name in pairs if name in chosen], by
    )


def _pick(clips: Sequence[Clip], names: Sequence[str]) -> set[str]:
    """Groups, in the order of their hashes, that fit into `SHARE` of all frames together."""
    frames: dict[str, int] = {}
    for clip, name in zip(clips, names, strict=True):
        frames[name] = frames.get(name, 0) + clip.n_frames
    room = SHARE * sum(frames.values())
    chosen = set()
    for name in sorted(frames, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if frames[name] <= room:
            chosen.add(name)
            room -= frames[name]
    return chosen or {min(frames, key=lambda name: (frames[name], name))}


def _groups(clips: Sequence[Clip]) -> list[str]:
    """For every clip its group's name: the largest video id of all that hang together by video or person."""
    from scipy.cluster.hierarchy import DisjointSet

    together = DisjointSet(name for clip in clips for name in _names(clip, people=True))
    for clip in clips:
        for name in _names(clip, people=True):
            together.merge(f"video {clip.video}", name)
    largest = {together[name]: name for name in sorted(together)}  # "video ..." comes after "person ..."
    return [largest[together[f"video {clip.video}"]] for clip in clips]
