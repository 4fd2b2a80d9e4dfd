"""`python -m pipeline run`: from videos to shards, catalogue and report."""

import contextlib
import math
import shlex
import sys
import time
import uuid
from argparse import Namespace
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

from rich.console import Console
from rich.table import Table

from manifests.records import MISSING, Video
from manifests.scratch import sweep
from manifests.store import Store, results
from pipeline.again import done_again
from pipeline.changed import Changes
from pipeline.cluster import Cluster, knock, run_on_ray
from pipeline.figures import collect
from pipeline.finish import Snapshot, doubt, finish, is_finished, snapshot
from pipeline.forget import objects, remove
from pipeline.job import Job, add_videos, read_job, read_videos, refuse_other, unbarred, write_job
from pipeline.ledger import forgotten
from pipeline.plan import Due, plan, release
from pipeline.progress import Progress
from pipeline.recipes import TalkingFaces, build
from pipeline.sources import (
    Hours,
    Wild,
    as_seen,
    missing_files,
    of_languages,
    out_of_sight,
    own_videos,
    sample_videos,
)
from pipeline.stage import Stage, keys
from pipeline.step import StageBrokenError
from pipeline.train import train_on, trainer_recipe, trainer_settings
from pipeline.waiting import Waiting
from stages import weights
from stages.language import same, stated, subtag
from stages.speech import Transcribe
from stages.whisper import named

_PACKAGES = ("yt-dlp", "ray", "torch", "insightface", "whisperx", "syncnet-python", "scenedetect", "av")


@dataclass(frozen=True)
class _Run:
    """What stays the same during one command."""

    options: Namespace
    console: Console
    store: Store
    job: Job
    recipe: TalkingFaces
    id: str

    @property
    def is_corpus(self) -> bool:
        """Whether its videos are those of the corpus that comes with the project."""
        return self.job.recipe == "sample" and not self.options.manifest

    @property
    def cluster(self) -> Cluster:
        """Where its stages run, and the training after them."""
        return Cluster(self.options.address, self.options.cpus)

    @property
    def stages(self) -> tuple[Stage[Any], ...]:
        stages = self.recipe.stages()
        until = self.options.until
        if until is None:
            return stages
        names = [stage.name for stage in stages]
        if until not in names:
            raise ValueError(f"--until {until}: no such stage; there are {', '.join(names)}")
        return stages[: names.index(until) + 1]


def run(options: Namespace, console: Console) -> int:
    """The command. Raises `ValueError` for what the user asked wrongly."""
    name = options.recipe or ("own" if options.manifest else "sample")
    _refuse_contradictions(name, options)
    sets, trainer_sets = trainer_settings(options.sets)
    if trainer_sets and not options.train:
        raise ValueError(f"--set train.{trainer_sets[0]}: belongs to --train, which is not asked for")
    trainer = trainer_recipe(options.train, trainer_sets) if options.train else None
    command = shlex.join(["python", "-m", "pipeline", *sys.argv[1:]])
    versions = {package: metadata.version(package) for package in _PACKAGES}
    job = Job(recipe=name, policy=options.policy, overrides=tuple(sets), command=command, versions=versions)
    recipe = build(name, options.policy, sets)  # of which the job does not know how sites are reached
    this = _Run(options, console, results(options.store), job, recipe, uuid.uuid4().hex[:12])
    recipe.fetch.check()
    stages = this.stages
    wild, rows = _wanted(this)
    videos = of_languages(rows, options.langs, options.manifest) if options.manifest else rows
    refuse_other(this.store, job)
    if not options.dry:
        this.store.sweep()  # what a power cut left empty in the ledger is planned for as an outcome else
    before = read_videos(this.store)
    if wild is None:
        videos = unbarred(this.store, videos, {video.id for video in before} | forgotten(this.store))
    else:
        videos = wild.ruled_otherwise(before)
    changes = Changes.of(before, videos, this.recipe.stages(), this.store)
    every = (*before, *videos)
    due = plan(stages, every, this.store, retry=options.retry, again=changes.again, if_rejected=changes.rejected)
    due, unseen = _in_sight(due, before, videos)
    lost = {video.id for video in videos if video.stamp == MISSING}.intersection(due[0].enter)
    missing = missing_files(videos, lost, options.manifest) if options.manifest else ()
    left = f"videos that this run does not ask for, whose files are not there, left for later: {len(unseen)}"
    outlook = () if wild is None else (wild.outlook(),)
    notices = (*([left] if unseen else ()), *_notices(this, rows, before), *_unnamed(stages, videos))
    for line in (*missing, *changes.lines, *done_again(due, this.store, changes.again), *notices, *outlook):
        console.print(line, markup=False, soft_wrap=True)
    if options.dry:
        console.print(_due_table(due))
        return 0
    if this.cluster.address:
        knock(this.cluster.address)
    # Hours of search and download are worth nothing where the models are out of reach.
    entering = {id for d in due for id in d.enter}
    expected = {video.language for video in every if video.id in entering}
    if wild is None:
        _prepare([d.stage for d in _reached(due)], expected)
    else:
        _prepare(stages, expected.union(language.tag for language in wild.languages))
    _remember(this)
    sweep()
    if options.retry and release(due, this.store):
        doubt(this.store)
    started = time.monotonic()
    changes.take_back(this.store)
    everything = add_videos(this.store, videos, lost=lost)
    _carry(this, as_seen(everything, lost, unseen), due)
    code = _end(this, started, None if wild is None else _search(this, wild, everything))
    if trainer is not None and not code:
        train_on(this.store, trainer, this.cluster, console)
    return code


def _refuse_contradictions(name: str, options: Namespace) -> None:
    if options.hours is not None and name != "wild":
        raise ValueError("--hours belongs to the recipe wild: python -m pipeline run wild --langs 10 --hours 0.5")
    if options.hours is not None and not 0 < options.hours < math.inf:
        raise ValueError(f"--hours {options.hours:g}: must be more than 0 and finite")
    if options.manifest == "":  # of a variable of the shell that is not set, say
        raise ValueError("--manifest '': names no list, folder, URL or file")
    if options.manifest and name == "wild":
        raise ValueError("--manifest and wild exclude each other: run --manifest alone for own material")
    if name == "own" and not options.manifest:
        raise ValueError(
            "recipe own needs --manifest: a CSV, JSONL or Parquet list, a folder, a list of URLs, or a URL"
        )
    if options.language is not None and not options.manifest:
        raise ValueError("--language goes with --manifest: it is the expected language of its videos")
    if options.train and (options.until or options.dry):
        raise ValueError("--train needs the shards, which --until and --dry do not write")
    if options.cpus is not None and Cluster(options.address).address:
        raise ValueError(
            "--cpus is for a Ray that is started here; the one at --address (or RAY_ADDRESS) has the cores that it has"
        )
    if options.cpus is not None and options.cpus < 1:
        raise ValueError(f"--cpus {options.cpus}: must be at least 1")


def _remember(this: _Run) -> None:
    """Write down the job with the keys of its stages; of those that it leaves out, as they were run before with the
    same settings, which alone tell another version from them."""
    before = read_job(this.store) if this.options.until else None
    is_same = before and (before.policy, before.overrides) == (this.job.policy, this.job.overrides)
    others = (before.stages or {}) if before and is_same else {}
    write_job(this.store, replace(this.job, stages={**others, **keys(this.stages, Video)}))


def _wanted(this: _Run) -> tuple[Wild | None, tuple[Video, ...]]:
    """The search of the recipe wild, or the videos of the manifest, in all languages, or of the sample."""
    options, recipe = this.options, this.recipe
    if this.job.recipe == "wild":
        return Wild(options.langs, options.hours, this.store, recipe.discover, recipe.fetch), ()
    if options.manifest:
        return None, own_videos(options.manifest, options.language)
    return None, sample_videos(options.langs)


def _notices(this: _Run, rows: Sequence[Video], before: Sequence[Video]) -> Iterator[str]:
    """What this run does otherwise than its command seems to say, a line each."""
    gone, ids = forgotten(this.store), {video.id for video in rows}
    if out := len(gone & ids):
        yield f"videos of the manifest left out, as they were forgotten: {out}"
    if this.options.manifest and (left := len({video.id for video in before} - ids - gone)):
        where = this.options.manifest
        ways = "`forget` takes them out, with --alone where times were corrected"
        yield f"videos of this store in no row of {where}, which stay in the set ({ways}): {left}"
    job = read_job(this.store)
    if job is not None and (differing := this.job.unlike(job)):
        yield f"other settings from here on than were in force in this store: {', '.join(differing)}"


def _unnamed(stages: Sequence[Stage[Any]], videos: Sequence[Video]) -> Iterator[str]:
    """A line on expected languages that the recogniser, where it is on this machine, cannot name."""
    expected = {subtag(stated(video.language)) for video in videos} - {""}
    for model in (stage.model for stage in stages if isinstance(stage, Transcribe)):
        known = named(weights.local(model))
        if known and (others := sorted(tag for tag in expected if not any(same(tag, one) for one in known))):
            yield f"languages that {model} cannot name, so that none of their clips can agree: {', '.join(others)}"


def _in_sight(due: Sequence[Due], known: Iterable[Video], rows: Iterable[Video]) -> tuple[tuple[Due, ...], set[str]]:
    """The plan without those that are `out_of_sight`, and their ids."""
    fetch, *others = due
    unseen = out_of_sight(known, rows, set(fetch.enter))
    return (replace(fetch, enter=tuple(id for id in fetch.enter if id not in unseen)), *others), unseen


def _reached(due: Sequence[Due]) -> Sequence[Due]:
    """From the first stage on that has anything to do; none where nothing is due."""
    first = next((i for i, d in enumerate(due) if d.enter), len(due))
    return due[first:]


def _carry(this: _Run, videos: Sequence[Video], due: Sequence[Due]) -> None:
    """Take all videos through the stages; starts nothing where nothing is due.

    Before them goes what a run that was killed has left of videos that were forgotten beside it.
    """
    if left := {id for d in due for id in d.left}:
        remove(this.store, objects(this.store, left))
    if not _reached(due):
        this.console.print(f"nothing to do: all {len(videos)} videos are settled at every stage")
        return
    this.console.print(_due_table(due))
    with _serving(this) as stages, Progress(due, this.console) as progress:
        try:
            run_on_ray(stages, videos, this.store, this.id, progress, this.cluster, due)
        except StageBrokenError as broken:
            if broken.by_request:
                raise ValueError(str(broken)) from None
            raise
    # What `forget` took out meanwhile, a worker may have measured once more.
    if gone := forgotten(this.store) & {id for d in due for id in d.enter}:
        remove(this.store, objects(this.store, gone))


def _prepare(stages: Sequence[Stage[Any]], languages: Collection[str | None]) -> None:
    """Have the weights of the stages that will run, before anything runs. Raises `WeightsMissingError`.

    `languages` are those that the videos are expected in.
    """
    for stage in stages:
        for name in (*stage.models(), *stage.models_for(languages)):
            weights.path(name)


@contextlib.contextmanager
def _serving(this: _Run) -> Iterator[tuple[Stage[Any], ...]]:
    """The stages to run; for the sample recipe with a server of its corpus on loopback, reached as a proxy.

    As a proxy, so that the corpus has addresses of its own (http://sample.invalid/...) that no port changes.
    """
    if not this.is_corpus:
        yield this.stages
        return
    from manifests.sample.serve import serve

    with serve() as proxy:
        first, *rest = this.stages
        fetch = replace(this.recipe.fetch, access=replace(this.recipe.fetch.access, proxy=proxy))
        assert first.name == fetch.name
        yield (fetch, *rest)


def _search(this: _Run, wild: Wild, videos: tuple[Video, ...]) -> Snapshot | None:
    """Wave after wave, until every language has its hours, no more is found, or what was found waits.

    One wave where the run ends before the last stage: no clip is kept there, and no number of hours ever reached.
    Returns what was known in the end, for what comes after: to read and judge it anew takes long in a large store.
    Of each wave only news is read.
    """
    seen: Snapshot | None = None
    while True:
        seen = snapshot(this.recipe, videos, this.store, seen, is_marked=True)
        hours = Hours.of(seen.known, seen.verdicts(this.recipe.policy), this.recipe.discover.unknown_duration_s)
        wave = wild.next_wave(hours, videos)
        for trouble in wild.troubles:
            this.console.print(str(trouble), style="yellow", markup=False)
        if not wave:
            for line in wild.short(hours):
                this.console.print(line, style="yellow", markup=False, soft_wrap=True)
            return seen
        this.console.print(f"found {len(wave)} more videos")
        videos = add_videos(this.store, wave)
        # Of a list of own files too: what is fetched while its disk is away would be gone for every later run.
        due, unseen = _in_sight(plan(this.stages, videos, this.store), videos, ())
        if left := unseen.intersection(video.id for video in wave):
            this.console.print(f"videos found whose files are not there, left for later: {len(left)}")
        _carry(this, as_seen(videos, (), unseen), due)
        if len(this.stages) < len(this.recipe.stages()):
            return None


def _end(this: _Run, started: float, last: Snapshot | None) -> int:
    """Write the results of what is known; exit code 1 where those of before are left for more clips (see `Waiting`)."""
    from manifests.sample.serve import CORPUS
    from pipeline.ending import print_end, print_left, print_paths
    from pipeline.scoring import print_score, score_known

    if this.options.until:
        return 0
    videos = read_videos(this.store)  # anew: another run on this store may have added some meanwhile
    if is_finished(this.store, this.recipe, videos):
        print_paths(this.store, this.job, this.console)
        return 0
    seen = snapshot(this.recipe, videos, this.store, last)
    waiting, verdicts = Waiting.of(this.store, seen.known, or_given_up=True), seen.verdicts(this.recipe.policy)
    if waiting and waiting.outweigh(sum(one.kept for one in verdicts)):
        outlook = collect(seen.known, verdicts, this.recipe.policy).outlook
        print_left(waiting, outlook, this.store, this.console)
        return 1
    _remember(this)  # again: a `judge` meanwhile has left its own policy
    finished = finish(this.recipe, this.job, seen, this.store)
    print_end(finished, this.console, time.monotonic() - started, waiting)
    if this.is_corpus:
        print_score(this.console, score_known(this.store, finished.known, finished.verdicts, CORPUS / "truth.json"))
    print_paths(this.store, this.job, this.console)
    return 0


def _due_table(due: Sequence[Due]) -> Table:
    table = Table("stage", "due", "settled", "kept", "rejected", "failed", "given up", box=None)
    table.add_column("key", no_wrap=True, overflow="fold")
    for column in table.columns[1:-1]:
        column.justify = "right"
    for d in due:
        settled = d.ok + d.rejected + d.quarantined
        numbers = (len(d.enter), settled, d.ok, d.rejected, d.failed, d.quarantined)
        table.add_row(d.stage.name, *(str(n) for n in numbers), d.key)
    return table
