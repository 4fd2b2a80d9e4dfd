"""The course of training: stages in order, what each stands on, and the data they share."""

import logging
import math
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch

from mcdm import checkpoint, distributed
from mcdm.alike import check_alike, check_told, spelled
from mcdm.checkpoint import check_needs, learned, load_learned
from mcdm.config import Recipe, StagePlan
from mcdm.data import RandomWindows, Source, collate, made_in_training
from mcdm.distributed import World
from mcdm.encode import Encoded, encode
from mcdm.held_out import Division, divide, write_division
from mcdm.import_weights import check_pretrained, load_pretrained
from mcdm.local_weights import ENCODERS, check_paths, encoders_of
from mcdm.motion import Motion
from mcdm.objectives import LearnArchive, LearnMotion, LearnPresent, LearnPrior, Objective
from mcdm.precision import Precision, takes_bf16
from mcdm.samples import make_samples
from mcdm.shards import Clip, Shards
from mcdm.sigterm import told_to_end
from mcdm.train import Loop, LoopOptions

log = logging.getLogger("mcdm")

_SAVE_SHARE = 0.05
"""Of the time, for checkpoints: one of `small` is 2.3 GB, and 200 of its steps may take half a minute."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to train here; nothing of it changes what is learned, but for `seed`."""

    shards: str
    run: Path
    stages: tuple[int, ...] = (0, 1, 2, 3)
    seed: int = 0
    device: str = "auto"
    precision: Precision = "auto"
    micro_batch: int = 0  # per process at once; 0: the process's whole share
    workers: int | None = None  # reading processes, and clips encoded at once; None: see `readers`
    compiled: bool = False
    sharded: bool = False
    cache: str = "auto"  # auto: encode beside the shards first; off: read the clips themselves; or a URL
    save_every: int = 0  # 0: twenty times a stage, no oftener than every 200 steps, and for `_SAVE_SHARE` of the time
    log_every: int = 20
    validate_every: int = 100
    held_out: int = 32  # samples that are measured on
    samples_every: int | None = None  # steps of stage 3, at the next checkpoint; None: a fifth of them; 0: never
    stop_after: int = 0  # steps of a stage, and the call ends with it; 0: to the end of all plans

    def steps_between_saves(self, plan: StagePlan) -> int:
        """As asked for, or by the length of the plan: a checkpoint of `paper` is 14 GB."""
        return self.save_every or max(200, plan.steps // 20)

    def steps_between_samples(self, stage: int, plan: StagePlan) -> int:
        """As asked for, or a fifth of stage 3; 0: never, as in all other stages."""
        if stage != 3:
            return 0
        return math.ceil(plan.steps / 5) if self.samples_every is None else self.samples_every


def train(recipe: Recipe, options: Options) -> None:
    """Train the stages in order. Raises `ValueError` with one line for whatever the user can mend."""
    world = distributed.start(options.device, options.precision)
    check_told(recipe, options, world)
    starts = 1 in to_come(recipe, options) and checkpoint.newest(options.run, 1) is None
    check_paths(recipe, parts=encoders_read(recipe, options), starts=starts)
    if starts:
        check_pretrained(recipe)  # now, and not after days of stage 0
    check_cache(recipe, options)
    if world.rank == 0:
        checkpoint.write_recipe(options.run, recipe)
    distributed.barrier(world)
    check_shared(options.run, world)
    shards = Shards(options.shards)
    division = divide(shards, options.run)
    if world.rank == 0:
        write_division(options.run, division)
        counts = (len(division.train), len(division.held_out), division.by)
        log.info("%d clips to train on, %d held out by %s", *counts)
        log.info("on %s", distributed.described(world.device, options.precision))
    check_batches(recipe, options, world)
    data = Data(shards, division, prepare(shards, recipe, options, world))
    with told_to_end() as told:
        _in_order(recipe, data, options, world, told)


def _in_order(recipe: Recipe, data: "Data", options: Options, world: World, told: Callable[[], bool]) -> None:
    """The stages that are asked for, until one stops before its end or a process was `told` to end."""
    for stage in options.stages:
        check_needs(options.run, stage, recipe)
        if checkpoint.finished(options.run, stage, recipe):
            log.info("stage %d is finished", stage)
            continue
        try:
            fit(make_objective(stage, recipe, options.run, options.seed), data, options, world, told)
        except torch.OutOfMemoryError as error:
            raise ValueError(_too_large(recipe, stage, options, world)) from error
        ends = distributed.anywhere(told, world)
        if ends or not checkpoint.finished(options.run, stage, recipe):
            path = checkpoint.newest(options.run, stage)
            if world.rank == 0 and path is not None:
                why = ", told to by SIGTERM" if ends else ""
                said = "stage %d stops after %d steps%s; the next run goes on from there"
                log.info(said, stage, checkpoint.step_of(path), why)
            return


def largest_world(recipe: Recipe, most: int) -> int:
    """The largest number of processes, `most` at the most and 1 at least, into which every stage's batch divides."""
    together = math.gcd(*(plan.batch for plan in recipe.plans))
    return next(size for size in range(max(most, 1), 0, -1) if together % size == 0)


def readers(device: torch.device) -> int:
    """Reading processes unless said otherwise: one; beside a GPU, which takes clips faster, four, or this process's
    part of the cores."""
    if device.type == "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(4, cores))


def to_come(recipe: Recipe, options: Options) -> list[int]:
    """The stages that are asked for and not finished."""
    return [stage for stage in options.stages if not checkpoint.finished(options.run, stage, recipe)]


def encoders_read(recipe: Recipe, options: Options) -> set[str]:
    """The parts of the recipe whose encoders are read: all of them for a cache, and for the samples of stage 3; without
    these what the stages to come learn from."""
    coming = to_come(recipe, options)
    samples = 3 in coming and options.steps_between_samples(3, recipe.plans[3]) and not options.sharded
    if options.cache != "off" or samples:
        return set(ENCODERS)
    return set[str]().union(*map(encoders_of, coming))


def check_batches(recipe: Recipe, options: Options, world: World) -> None:
    """Raise `ValueError`, before hours of other stages, for a stage still to come whose batch does not divide."""
    for stage in to_come(recipe, options):
        batch = recipe.plans[stage].batch
        if batch % world.size:
            fitting = largest_world(recipe, world.size)
            raise ValueError(
                f"stage {stage} of {recipe.name} takes {batch} clips a step, which do not divide into {world.size} "
                f"processes: start {fitting}, or --set plans.{stage}.batch"
            )
        share = batch // world.size
        if options.micro_batch and share % options.micro_batch:
            raise ValueError(
                f"--micro-batch {options.micro_batch}: does not divide the {share} clips that a process takes of a "
                f"step of stage {stage}"
            )


def check_cache(recipe: Recipe, options: Options) -> None:
    """Raise `ValueError`, before days of other stages, where stage 2 would have no features to read."""
    if options.cache == "off" and 2 in to_come(recipe, options) and not made_in_training(recipe):
        raise ValueError("--cache off: stage 2 reads wav2vec 2.0 and CLIP features, which are not made in training")


def _too_large(recipe: Recipe, stage: int, options: Options, world: World) -> str:
    shares = {number: recipe.plans[number].batch // world.size for number in (stage, *to_come(recipe, options))}
    now, together = options.micro_batch or shares[stage], math.gcd(*shares.values())
    less = next((size for size in range(now - 1, 0, -1) if together % size == 0), 0)  # taken by all that is to come
    way = f"--micro-batch {less} (now {now}) needs less and learns the same" if less else "--fsdp shares it"
    return f"stage {stage}: the memory of the GPU is too small: {way}"


def check_shared(run: Path, world: World) -> None:
    """Raise `ValueError`, in all processes, where one does not see the run's folder: it would not know where to go on,
    and the others would wait for it."""
    blind = [] if checkpoint.has_recipe(run) else [f"{world.rank} on {socket.gethostname()}"]
    if blind := distributed.gather_names(blind, world):
        raise ValueError(f"{run} is not seen by process {blind[0]}: it must lie on a disk that all machines share")


@dataclass(frozen=True)
class Data:
    """The shards, what of them is trained on and what held out, and where their encodings lie."""

    shards: Shards
    division: Division
    encoded: Encoded | None

    @cached_property
    def _usable(self) -> set[str]:
        """Keys of the clips that could be encoded: one listing serves all stages."""
        clips = self.shards.clips
        return {clip.key for clip in (clips if self.encoded is None else self.encoded.whole(clips))}

    def usable(self, clips: list[Clip]) -> list[Clip]:
        """The clips that could be encoded, or all where nothing is cached."""
        return [clip for clip in clips if clip.key in self._usable]

    def windows(self, objective: Objective, clips: list[Clip], seed: int, stage: int | None = None) -> RandomWindows:
        """Windows of those clips that could be encoded, drawn for a stage or for none; raises `ValueError` where no
        clip is left."""
        source = Source(self.shards, objective.recipe, self.encoded, objective.needs, objective.clips)
        kept = self.usable(clips)
        if clips and not kept:
            raise ValueError(
                f"none of {len(clips)} clips could be encoded, {clips[0].key} for one: see the lines above"
            )
        return RandomWindows(source, kept, seed, stage)


def check_sight(stage: int, data: Data, options: Options, world: World) -> None:
    """`check_alike` for what the processes see of the disks as a stage begins."""
    if world.size == 1:
        return
    begun = checkpoint.newest(options.run, stage)
    seen = {
        "stage": stage,
        "checkpoint": begun.name if begun else "none",
        "encodings": data.encoded.url.rsplit("/", 1)[-1] if data.encoded else "none",
        "clips to train on": spelled(data.usable(data.division.train)),
        "clips held out": spelled(data.usable(data.division.held_out)),
    }
    check_alike(seen, world)


def fit(
    objective: Objective,
    data: Data,
    options: Options,
    world: World,
    told: Callable[[], bool] = lambda: False,
) -> None:
    """Train one stage from its newest checkpoint, or from the start, to the end of its plan, or to the end of the step
    in which a process was `told` to end."""
    check_sight(objective.stage, data, options, world)
    windows = data.windows(objective, data.division.train, options.seed, objective.stage)
    n_clips = len(data.usable(data.division.train))
    if world.rank == 0 and len(windows.clips) < n_clips:
        said = "stage %d: %d of %d clips are shorter than the %d frames that it takes, and are not trained on"
        log.info(said, objective.stage, n_clips - len(windows.clips), n_clips, windows.least)
    held_out = data.windows(objective, data.division.held_out, options.seed)
    fixed = collate([held_out[number] for number in range(options.held_out)])
    stage, plan, device = objective.stage, objective.recipe.plans[objective.stage], world.device
    bf16, samples_every = takes_bf16(options.precision, device), options.steps_between_samples(stage, plan)
    if samples_every and options.sharded:
        samples_every = 0
        if world.rank == 0:
            log.info("stage %d: no samples with --fsdp, for a model that may fit no single device", stage)
    loop_options = LoopOptions(
        run=options.run,
        bf16=bf16,
        micro_batch=options.micro_batch,
        workers=readers(device) if options.workers is None else options.workers,
        compiled=options.compiled,
        sharded=options.sharded,
        save_every=options.steps_between_saves(plan),
        save_share=0.0 if options.save_every else _SAVE_SHARE,
        log_every=options.log_every,
        validate_every=options.validate_every,
        samples_every=samples_every,
        stop_after=options.stop_after,
    )
    show = partial(make_samples, options.run, data.shards, device, bf16=bf16)
    Loop(objective, windows, fixed, loop_options, world, show, told).run()


def prepare(shards: Shards, recipe: Recipe, options: Options, world: World) -> Encoded | None:
    """Encode what is not encoded yet; None where the cache is off."""
    if options.cache == "off":
        return None
    workers = None if options.workers is None else max(2, options.workers)
    return encode_together(shards, recipe, cache_url(shards, options.cache), world, workers=workers)


def encode_together(
    shards: Shards,
    recipe: Recipe,
    url: str,
    world: World,
    *,
    workers: int | None = None,
    tick: Callable[[Clip], None] = lambda _: None,
) -> Encoded:
    """Encode what is not encoded yet, every process its share on its own device, `workers` clips at a time (None: two
    or `readers`), and wait for all."""
    check_paths(recipe)
    workers = workers or max(2, readers(world.device))
    began, encoded = time.perf_counter(), Encoded(url, recipe.encoding)
    with distributed.together(world):
        share = shards.clips[world.rank :: world.size]
        encode(shards, recipe, url, device=world.device, clips=share, workers=workers, tick=tick)
    if world.rank == 0:
        n_bad = len(shards.clips) - len(encoded.whole(shards.clips))
        log.info("encoded below %s in %.0f s; %d clips cannot be used", url, time.perf_counter() - began, n_bad)
    return encoded


def cache_url(shards: Shards, cache: str) -> str:
    """Where encoded clips lie."""
    return f"{shards.url}/encoded" if cache == "auto" else cache


def make_objective(stage: int, recipe: Recipe, run: Path, seed: int = 0) -> Objective:
    """The objective of a stage, on top of what the stages before it learned. The seed decides what it starts from."""
    torch.manual_seed(1000 * (seed + 1) + stage)
    if stage == 0:
        return LearnMotion(recipe)
    if stage == 1:
        objective = LearnArchive(recipe)
        if checkpoint.newest(run, 1) is None:  # else all weights are in there: 3.4 GB less to read for `paper`
            load_pretrained(objective.denoiser, recipe)
        return objective
    motion = Motion(recipe.motion)
    load_learned(motion, run, 0, recipe)
    if stage == 2:
        return LearnPrior(recipe, motion)
    return LearnPresent(recipe, motion, learned(run, 1, recipe), str(checkpoint.newest(run, 1)))
