"""What a store holds: which recipe made it, and which videos were asked for. Written before work starts."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from manifests.codec import from_json, to_json
from manifests.records import Video
from manifests.store import Store
from pipeline.recipes import TalkingFaces, build

_JOB = "job.json"
_VIDEOS = "videos.jsonl"


@dataclass(frozen=True, kw_only=True)
class Job:
    """The recipe of a store in a form that outlives the process: its name and what was changed on the command line."""

    recipe: str
    policy: str | None = None
    overrides: tuple[str, ...] = ()
    cascade: tuple[str | None, tuple[str, ...]] | None = None  # policy and overrides of the run, if others are in force
    command: str = ""
    versions: dict[str, str] | None = None

    @property
    def policy_name(self) -> str:
        """The name of the policy in force."""
        return self.build().policy.name

    def build(self) -> TalkingFaces:
        """The recipe itself, its stages those of the run: what was spared there is not known under another policy."""
        recipe = build(self.recipe, self.policy, self.overrides)
        if self.cascade is None or not recipe.cascade:
            return recipe
        run = build(self.recipe, *self.cascade)
        return replace(recipe, cascade_policy=run.cascade_policy or run.policy)

    def changed(self, policy: str | None, overrides: Iterable[str]) -> "Job":
        """The same job with another policy, or further assignments on top."""
        run = (self.cascade or (self.policy, self.overrides)) if self.build().cascade else None
        if policy is None:
            return replace(self, overrides=(*self.overrides, *overrides), cascade=run)
        kept = (one for one in self.overrides if not one.startswith("policy."))
        return replace(self, policy=policy, overrides=(*kept, *overrides), cascade=run)


def read_job(store: Store) -> Job | None:
    """The job of a store, None where nothing has been run yet."""
    try:
        text = store.get(_JOB)
    except FileNotFoundError:
        return None
    job = from_json(text, Job)
    if b'"cascade":' in text:
        return job
    return replace(job, overrides=("cascade=false", *job.overrides))  # written before there were any


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
    """Every video that any run on this store asked for."""
    try:
        lines = store.get(_VIDEOS).splitlines()
    except FileNotFoundError:
        return ()
    return tuple(from_json(line, Video) for line in lines)


def add_videos(store: Store, videos: Iterable[Video]) -> tuple[Video, ...]:
    """Add to the store's list, the newest word on a video winning; returns the whole list, sorted by id."""
    before = read_videos(store)
    merged = {video.id: video for video in (*before, *videos)}
    after = tuple(merged[id] for id in sorted(merged))
    if after != before:
        store.put(_VIDEOS, b"\n".join(to_json(video) for video in after))
    return after


def drop_videos(store: Store, ids: Iterable[str]) -> None:
    """Take videos off the store's list."""
    gone = set(ids)
    before = read_videos(store)
    after = [video for video in before if video.id not in gone]
    if len(after) < len(before):
        store.put(_VIDEOS, b"\n".join(to_json(video) for video in after))
