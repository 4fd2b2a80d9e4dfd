"""What a store holds: which recipe made it, and which videos were asked for. Written before work starts."""

import logging
import re
import shlex
import uuid
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from manifests.codec import from_json, to_json
from manifests.records import MISSING, Video
from manifests.store import Store, results
from pipeline.barred import Barred
from pipeline.ledger import forgotten
from pipeline.recipes import TalkingFaces, build, in_force

_JOB = "job.json"
_VIDEOS = "videos.jsonl"  # the whole list, as stores had it once: only read
_ADDED = "wanted"  # an object for what each run added to it, so that of two at once neither loses the other's rows

_ACCESS = re.compile(r"fetch\.(access|pace_url)\b")
_SECRET = re.compile(r"(fetch(?:\.access[\w.]*)?=)(?![\d.]+$).+", re.DOTALL)  # all that is no number
_LOGIN = re.compile(r"//[^/?#\s]*@")
_ASKED = re.compile(r"(://[^?#\s]*[?#])((?<=/watch\?)v=[\w-]{11}(?![^&#]))?.*", re.DOTALL)  # which video, is no secret

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """The recipe of a store in a form that outlives the process: its name and what was changed on the command line.

    Without how sites are reached: that is of who asks, may hold passwords, and names files that others do not have.
    Nor do passwords and signatures stay in the command, which the report shows and nobody runs.
    """

    recipe: str
    policy: str | None = None
    overrides: tuple[str, ...] = ()
    cascade: tuple[str | None, tuple[str, ...]] | None = None  # policy and overrides of the run, if others are in force
    command: str = ""
    versions: dict[str, str] | None = None
    stages: dict[str, str] | None = None  # keys of those that a run had, by name

    def __post_init__(self) -> None:
        object.__setattr__(self, "overrides", in_force(_without_access(self.overrides)))
        if self.cascade is not None:
            object.__setattr__(self, "cascade", (self.cascade[0], _without_access(self.cascade[1])))
        object.__setattr__(self, "command", shlex.join(map(masked, shlex.split(self.command))))

    def build(self) -> TalkingFaces:
        """The recipe itself, its stages those of the run: what was spared there is not known under another policy."""
        recipe = build(self.recipe, self.policy, self.overrides)
        if self.cascade is None or not recipe.cascade:
            return recipe
        run = build(self.recipe, *self.cascade)
        return replace(recipe, cascade_policy=run.cascade_policy or run.policy)

    def is_of(self, names: Mapping[str, str]) -> bool:
        """Whether it was run with what has these keys by stage now; a job of before they were written down may be."""
        return all(names.get(stage) == key for stage, key in (self.stages or {}).items())

    def unlike(self, before: "Job") -> tuple[str, ...]:
        """What of the policy and of the shards' size is set otherwise than by another job of the same recipe."""
        now, then = self._sets(), before._sets()
        differing = (name for name in {**then, **now} if now.get(name) != then.get(name))
        return tuple(f"{name}={now.get(name, 'default')} (was {then.get(name, 'default')})" for name in differing)

    def _sets(self) -> dict[str, str]:
        """The assignments that cost no measurement, by name; the policy under its own."""
        sets = dict(one.split("=", 1) for one in self.overrides)
        policy = self.policy or build(self.recipe).policy.name
        return {"policy": policy} | {n: v for n, v in sets.items() if n.split(".")[0] in ("policy", "shard_bytes")}

    def changed(self, policy: str | None, overrides: Iterable[str]) -> "Job":
        """The same job with another policy, or further assignments on top. Raises `ValueError` if it builds nothing."""
        run = (self.cascade or (self.policy, self.overrides)) if self.build().cascade else None
        added = tuple(overrides)
        names = {one.partition("=")[0] for one in added}
        kept = (one for one in self.overrides if policy is None or not one.startswith("policy."))
        others = (one for one in kept if one.partition("=")[0] not in names)
        made = replace(self, overrides=(*others, *added), cascade=run)
        if policy is not None:
            made = replace(made, policy=policy)
        made.build()
        return made


def masked(word: str) -> str:
    """A word of a command without what may be secret: how a site is reached, who logs in at a URL, and what is asked of
    it, which may be signed."""
    word = _LOGIN.sub("//***@", _SECRET.sub(r"\1***", word))
    return _ASKED.sub(lambda found: found[1] + (found[2] or "***"), word)


def _without_access(overrides: Iterable[str]) -> tuple[str, ...]:
    return tuple(one for one in overrides if not _ACCESS.match(one))


def read_job(store: Store) -> Job | None:
    """The job of a store, None where nothing has been run yet, or a power cut left it empty."""
    text = store.get_some([_JOB]).get(_JOB)
    if not text:
        return None
    job = from_json(text, Job, store.at(_JOB))
    if b'"cascade":' in text:
        return job
    return replace(job, overrides=("cascade=false", *job.overrides))  # written before there were any


def job_at(url: str) -> tuple[Store, Job]:
    """The store that a command is told, and its job. Raises `ValueError` where it holds no results or can hold none."""
    store = results(url)
    job = read_job(store)
    if job is None:
        make = f"python -m pipeline run --store {shlex.quote(url)}"
        raise ValueError(f"{url} holds no results; make some: {make}")
    return store, job


def refuse_other(store: Store, job: Job) -> None:
    """Raise `ValueError` if the store belongs to another recipe: their clips must not mix."""
    before = read_job(store)
    if before is not None and before.recipe != job.recipe:
        raise ValueError(
            f"{store.url} holds the results of recipe {before.recipe!r}; give {job.recipe!r} a --store of its own"
        )


def write_job(store: Store, job: Job) -> None:
    """Remember the job. Raises `ValueError` as `refuse_other`."""
    refuse_other(store, job)
    store.put(_JOB, to_json(job))


def read_videos(store: Store) -> tuple[Video, ...]:
    """Every video that any run on this store asked for, the newest word on each, sorted by id."""
    newest = {video.id: video for path in _lists(store) for video in _rows(store, path)}
    return tuple(newest[id] for id in sorted(newest))


def add_videos(store: Store, videos: Collection[Video], *, lost: Collection[str] = ()) -> tuple[Video, ...]:
    """Add to the store's list what is new, and new words on what is not; returns the whole list, sorted by id.

    What was forgotten is left out, and taken off where it stands in the list all the same; so is what is new and
    `barred`, with a word in the log. Of those `lost` (ids) the list takes the word that the file is missing (see
    `is_back`).
    """
    gone = forgotten(store)
    before = {video.id: video for video in read_videos(store)}
    if back := gone & before.keys():
        drop_videos(store, back)
    wanted = unbarred(store, videos, {*before, *gone})
    words = {video.id: reread(before.get(video.id), video) for video in wanted}
    words |= {id: _missed(words[id]) for id in words.keys() & set(lost)}
    after = {id: video for id, video in sorted((before | words).items()) if id not in gone}
    if new := [video for id, video in after.items() if before.get(id) != video]:
        _, *added = _lists(store)
        number = 1 + (int(PurePosixPath(added[-1]).name.partition("-")[0]) if added else 0)
        # By number, that the newest word wins; and by chance, that two runs which count alike do not meet.
        _write_rows(store, f"{_ADDED}/{number:06d}-{uuid.uuid4().hex[:8]}.jsonl", new)
    return tuple(after.values())


def unbarred(store: Store, videos: Collection[Video], known: Collection[str]) -> tuple[Video, ...]:
    """Those of the videos that are `known` (ids) or not `pipeline.barred`; how many others is logged in one line."""
    barred = Barred.of(store)
    left = tuple(video for video in videos if video.id in known or not barred.holds(video))
    if n_out := len(videos) - len(left):
        log.warning("videos left out, as their channel or some of what they are part of was forgotten: %d", n_out)
    return left


def reread(known: Video | None, word: Video) -> Video:
    """A row as it is to be remembered: where its file is missing now, with the stamp of the one that was there."""
    return word if known is None or word.stamp not in ("", MISSING) else replace(word, stamp=known.stamp)


def _missed(row: Video) -> Video:
    """A row as it is to be remembered where nothing could be fetched of it: with the stamp of what was there before."""
    return row if row.stamp.startswith(MISSING) else replace(row, stamp=f"{MISSING}:{row.stamp}")


def is_back(known: Video, word: Video) -> bool:
    """Whether a file that a run has missed is there as it was: what was measured on it before, or by another machine
    which saw it all the time, holds."""
    return not word.stamp.startswith(MISSING) and known.stamp in (f"{MISSING}:", f"{MISSING}:{word.stamp}")


def drop_videos(store: Store, ids: Iterable[str]) -> None:
    """Take videos off the store's list."""
    gone = set(ids)
    for path in _lists(store):
        before = _rows(store, path)
        after = [video for video in before if video.id not in gone]
        if len(after) < len(before):
            _write_rows(store, path, after)


def _lists(store: Store) -> list[str]:
    """The objects that hold the list, the oldest first."""
    return [_VIDEOS, *store.list(_ADDED)]


def _rows(store: Store, path: str) -> list[Video]:
    try:
        return [from_json(line, Video, store.at(path)) for line in store.get(path).splitlines()]
    except FileNotFoundError:
        return []


def _write_rows(store: Store, path: str, videos: Iterable[Video]) -> None:
    store.put(path, b"\n".join(to_json(video) for video in videos))
