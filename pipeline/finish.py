"""After the stages: judge, split, shards, catalogue, score and report of the whole store."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from manifests.codec import to_json
from manifests.records import Verdict, Video
from manifests.store import Store
from pipeline.facts import listed, marks, measured
from pipeline.figures import Figures
from pipeline.job import Job, masked
from pipeline.ledger import Ledger, Listed, forgotten
from pipeline.plan import plan, with_followers
from pipeline.recipes import TalkingFaces
from pipeline.report import REPORT, write_report
from pipeline.stage import keys, semantic
from stages import weights
from stages.card import Maker
from stages.catalogue import CLIPS, VIDEOS, read_verdicts, write_catalogue
from stages.judge import JUDGING, Measured, candidates, judge
from stages.policies import Policy
from stages.shard import ChangedBlobsError, Sharded, shard
from stages.shard_index import INDEX, tars
from stages.shard_json import SCHEMA
from stages.split import LEAST_GROUPS

_FINISHED = "finished.json"


@dataclass(frozen=True)
class Finished:
    """The data set as it stands."""

    known: list[Measured]
    verdicts: tuple[Verdict, ...]
    sharded: Sharded
    figures: Figures
    notes: tuple[str, ...]
    policy: str  # its name


@dataclass(frozen=True)
class Snapshot:
    """What was known at one time."""

    videos: Sequence[Video]
    settled: Sequence[Any]
    """What the ledger listed before any fact was read: what a run adds meanwhile is not vouched for."""
    known: list[Measured]
    marks: Mapping[str, int] = field(default_factory=dict, repr=False, compare=False)
    """Of each video what tells whether what is known of it still holds (`facts.marks`); none if not asked for."""
    _verdicts: dict[Policy, tuple[Verdict, ...]] = field(default_factory=dict, repr=False, compare=False)

    def verdicts(self, policy: Policy) -> tuple[Verdict, ...]:
        """What a policy makes of it, judged once."""
        if policy not in self._verdicts:
            self._verdicts[policy] = judge(self.known, policy)
        return self._verdicts[policy]


def snapshot(
    recipe: TalkingFaces,
    videos: Sequence[Video],
    store: Store,
    before: Snapshot | None = None,
    *,
    is_marked: bool = False,
) -> Snapshot:
    """Read all that is known of the videos; nothing anew that was known `before`, if listings are as they were, or by
    its marks where `before` is marked. Marks cost what stamps do (`Ledger.listed`)."""
    stages = recipe.stages()
    is_marked = is_marked or bool(before and before.marks)
    found = listed(stages, store, stamped=is_marked)
    settled = _settled(recipe, videos, store, found)
    if before is not None and (before.videos, before.settled) == (videos, settled):
        return before
    now = marks(found, videos) if is_marked else {}
    known = _still_known(before, videos, now) if before and is_marked else {}
    return Snapshot(videos, settled, measured(stages, videos, store, found, known), now)


def _still_known(before: Snapshot, videos: Iterable[Video], now: Mapping[str, int]) -> dict[str, Measured]:
    """What was known of those videos whose rows and outcomes are as they were: no object is read for it.

    Not of those that were postponed: why, is no outcome.
    """
    rows = {video.id: video for video in videos}

    def holds(one: Measured) -> bool:
        id = one.video.id
        return rows.get(id) == one.video and before.marks.get(id) == now[id] and not one.postponed

    return {one.video.id: one for one in before.known if holds(one)}


def is_finished(store: Store, recipe: TalkingFaces, videos: Sequence[Video], *, or_postponed: bool = False) -> bool:
    """Whether the results in the store are those of what is known now, and still there. By listings alone.

    Not where videos were postponed, unless `or_postponed`: else a run that is sent away again ends without a word.
    """
    results = (_FINISHED, INDEX, REPORT, CLIPS, VIDEOS)
    if not all(store.exists(path) for path in results):
        return False
    found, digest, shards = store.get(_FINISHED), _digest(recipe, videos, _settled(recipe, videos, store)), tars(store)
    return any(found == _mark(digest, shards, is_postponed=one) for one in {False, or_postponed})


def doubt(store: Store) -> None:
    """Have the next run write the results anew, though listings may count the same: what is rejected once more may be
    so for another reason."""
    store.delete(_FINISHED)


def _mark(digest: str, shards: Sequence[str], *, is_postponed: bool) -> bytes:
    """What finished results are known by: of two commands that end at once, one may remove the other's shards."""
    return to_json({"digest": digest, "shards": sorted(shards)} | ({"postponed": True} if is_postponed else {}))


def _settled(recipe: TalkingFaces, videos: Sequence[Video], store: Store, found: Listed | None = None) -> Sequence[Any]:
    due = plan(recipe.stages(), videos, store, found=found)
    return [(d.key, d.ok, d.rejected, d.quarantined, d.failed, d.enter) for d in due]


def _digest(recipe: TalkingFaces, videos: Sequence[Video], settled: Sequence[Any]) -> str:
    """Of all that the results depend on: equal digests, equal results."""
    content: list[Any] = [SCHEMA, JUDGING, settled, semantic(recipe.policy), recipe.shard_bytes, videos]
    return hashlib.sha256(to_json(content)).hexdigest()


def judged(recipe: TalkingFaces, videos: Sequence[Video], store: Store) -> tuple[list[Measured], tuple[Verdict, ...]]:
    """What is known, and the verdicts on it. Writes nothing."""
    known = measured(recipe.stages(), videos, store)
    return known, judge(known, recipe.policy)


def verdicts_on(recipe: TalkingFaces, video: str, videos: Sequence[Video], store: Store) -> tuple[Verdict, ...]:
    """The verdicts on one of the videos. They depend on the whole data set (duplicates, identities): all of it is read
    and judged, unless the results in the store are those of what is known now."""
    if is_finished(store, recipe, videos):
        return read_verdicts(store, video)
    return tuple(verdict for verdict in judged(recipe, videos, store)[1] if verdict.video == video)


def finish(recipe: TalkingFaces, job: Job, seen: Snapshot, store: Store) -> Finished:
    """Write shards, catalogue and report. Each is written whole; doing it again changes nothing.

    Clips of videos that wait are in none of them: who calls sees to those in the shards first (`pipeline.waiting`).
    Without what was forgotten while they were written: then they are written again. Raises `ValueError` where clips are
    gone or not those that were scored; they are due again then, and the results as they were. Raises
    `FileNotFoundError` where all clips are gone, as those of a disk are that is away.
    """
    store.delete(_FINISHED)  # whoever is broken off from here on leaves results of two minds
    known, ids = seen.known, {video.id for video in seen.videos}
    verdicts = seen.verdicts(recipe.policy)
    try:
        sharded = shard(store, known, verdicts, size_bytes=recipe.shard_bytes, maker=maker(recipe, known, verdicts))
        write_catalogue(store, known, verdicts, recipe.policy)
        made, said = _provenance(recipe, job), notes(recipe, known, verdicts)
        figures = write_report(store, known, verdicts, recipe.policy, provenance=made, notes=said)
    except ChangedBlobsError as changed:
        if lost := changed.videos - forgotten(store):  # `forget` may remove a clip before it is copied
            _take_back_clips(recipe, lost, store)
            n = len(lost)
            raise ValueError(f"{changed}; the next run measures anew the {n} videos with such clips") from None
    except FileNotFoundError as away:  # or while it is
        if forgotten(store).isdisjoint(ids):
            if store.folders("blobs"):
                raise
            ways = f"bring it back, or delete {store.at('ledger')} and run again, which measures all anew"
            raise FileNotFoundError(f"{store.at('blobs')} is empty or away, with all clips: {ways}") from away
    if gone := forgotten(store) & ids:
        left = [video for video in seen.videos if video.id not in gone]
        return finish(recipe, job, snapshot(recipe, left, store), store)
    digest, is_postponed = _digest(recipe, seen.videos, seen.settled), any(one.postponed for one in known)
    store.put(_FINISHED, _mark(digest, sharded.index.shards, is_postponed=is_postponed))
    return Finished(known, verdicts, sharded, figures, said, recipe.policy.name)


def _take_back_clips(recipe: TalkingFaces, videos: Iterable[str], store: Store) -> None:
    """Forget how clips were cut, and what was measured on them: it holds for other bytes than those that are there."""
    names, ledger = keys(recipe.stages(), Video), Ledger(store)
    void = with_followers(recipe.clip.name, recipe.stages())
    # The clip stage last: broken off before, the next shards find the same clips changed.
    for stage in reversed([name for name in names if name in void]):
        for video in videos:
            ledger.forget(names[stage], video)


def notes(recipe: TalkingFaces, known: Iterable[Measured], verdicts: Iterable[Verdict]) -> tuple[str, ...]:
    """What a reader must know before believing the numbers."""
    small = sorted({name for stage in recipe.stages() for name in stage.models() if name.startswith("sample/")})
    found = []
    if small:
        made = ", ".join(small)
        found.append(f"Made with {made}: small networks for the rendered sample world, not for real footage.")
    if recipe.cascade:
        policy = (recipe.cascade_policy or recipe.policy).name
        found.append(
            f"A cascade by the policy {policy}: what its track rules out was not cut, what its sync rules out was not "
            "heard. What else is wrong with such a clip is not known, and it counts as lost to no rule alone."
        )
    return (*found, *_small_splits(recipe.policy, known, verdicts))


def maker(recipe: TalkingFaces, known: Iterable[Measured], verdicts: Iterable[Verdict]) -> Maker:
    """How their shards are made, for the card: what a cascade has spared is not among them."""
    pack = recipe.watch.faces.pack
    said = notes(replace(recipe, cascade=False), known, verdicts)
    return Maker(policy=recipe.policy, detector=f"{Path(pack).name} {weights.digest(pack)}", notes=said)


def _small_splits(policy: Policy, known: Iterable[Measured], verdicts: Iterable[Verdict]) -> list[str]:
    """A line where val or test has less than half of its share: a model is tested on little then, or on nothing."""
    frames = {one.clip.key: one.clip.n_frames for one in candidates(known)}
    splits: Counter[str] = Counter()
    groups: Counter[str] = Counter()
    for verdict in verdicts:
        if verdict.kept:
            splits[verdict.split] += frames[verdict.key]
            groups[verdict.group] += frames[verdict.key]
    total = groups.total()
    small = [
        f"{name} has {100 * splits[name] / total:.1f} % instead of {100 * share:.1f} %"
        for name, share in (("val", policy.val_share), ("test", policy.test_share))
        if len(groups) >= LEAST_GROUPS[name] and splits[name] < share * total / 2
    ]
    if not small:
        return []
    most = 100 * max(groups.values()) / total
    return [
        f"Of the kept frames {', '.join(small)}: clips that share a person, channel, file or copy stay in one split, "
        f"and the largest of {len(groups):,} such groups has {most:.1f} %."
    ]


def _provenance(recipe: TalkingFaces, job: Job) -> dict[str, Any]:
    return {
        "command": job.command,
        "recipe": job.recipe,
        "policy": recipe.policy.name,
        "changed": dict(masked(one).split("=", 1) for one in job.overrides),
        "versions": job.versions or {},
        "stages": keys(recipe.stages(), Video),
    }
