"""The trainer's command line: train, encode, generate, evaluate. Heavy imports wait until a command needs them."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests.store import mendable
from mcdm.config import RECIPES, STAGES, Recipe
from mcdm.sigterm import as_interrupt
from pipeline.override import override
from pipeline.parser import Parser

if TYPE_CHECKING:
    from mcdm.course import Options


LARGEST_SEED = 2**31 - 1
"""Torch takes 64 bits of its thousandfold."""

_PACK: Any = {
    "default": "sample/faces",
    "metavar": "NAME|FOLDER|none",
    "type": lambda name: "" if name == "none" else name,
}

_PRECISION: Any = {
    "choices": ["auto", "bf16", "fp32"],
    "default": "auto",
    "help": "of the computation; auto: bf16 on a GPU that has it",
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = Parser(prog="python -m mcdm", description="Train MCDM on talking-face shards and use it.")
    commands = top.add_subparsers(dest="command", required=True)
    _add_train(commands.add_parser("train", help="train the stages of a recipe, in order"))
    encode = commands.add_parser("encode", help="write latents and features beside the clips")
    _add_recipe(encode)
    encode.add_argument("--shards", required=True, help="folder or URL of the shards")
    encode.add_argument("--cache", default="auto", metavar="URL", help="where to write; default: <shards>/encoded")
    encode.add_argument("--device", default="auto")
    encode.add_argument("--workers", type=int, help="clips at once per process (default 2; on a GPU 4)")
    generate = commands.add_parser("generate", help="make a talking-face video of one picture and a voice")
    generate.add_argument("--run", type=Path, default=Path("runs/tiny"), help="what `train` wrote (default runs/tiny)")
    generate.add_argument("--reference", type=Path, required=True, help="picture of one face")
    generate.add_argument("--audio", type=Path, required=True, help="sound file, or video with sound; made 16 kHz mono")
    generate.add_argument("--driving", type=Path, metavar="VIDEO", help="video of a face whose head to move like")
    generate.add_argument("--seconds", type=float, help="length; default: the sound's; longer repeats it")
    generate.add_argument("--out", type=Path, required=True, help="mp4 to write")
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument("--steps", type=int, default=0, help="denoising steps; default: the recipe's")
    generate.add_argument("--face-pack", **_PACK, help="insightface pack that finds the face (default: sample/faces)")
    generate.add_argument("--device", default="auto")
    generate.add_argument("--precision", **_PRECISION)
    _add_settings(generate)
    evaluate = commands.add_parser("evaluate", help="measure a run on held-out clips: eval.json and eval.html")
    evaluate.add_argument("--run", type=Path, default=Path("runs/tiny"))
    evaluate.add_argument("--shards", required=True)
    evaluate.add_argument("--splits", default="", metavar="val,test", help="default: what the run held out")
    evaluate.add_argument("--clips", type=int, default=8, help="how many held-out videos at most (default 8)")
    evaluate.add_argument("--frames", type=int, default=1800, help="longest roll-out (default 1800)")
    evaluate.add_argument("--lanes", type=int, default=16, help="videos made side by side (default 16)")
    evaluate.add_argument("--seed", type=int, default=0)
    evaluate.add_argument("--steps", type=int, default=0, help="denoising steps; default: the recipe's")
    evaluate.add_argument("--face-pack", **_PACK, help="insightface pack for identity (default: sample/faces)")
    evaluate.add_argument("--sync", metavar="WEIGHTS", default="", help="SyncNet weights for Sync-C and Sync-D")
    evaluate.add_argument("--fid", type=Path, help="TorchScript picture network for FID")
    evaluate.add_argument("--fvd", type=Path, help="TorchScript video network for FVD")
    evaluate.add_argument("--no-archive", action="store_true", help="ablation: the archive is always the reference")
    evaluate.add_argument("--no-memory", action="store_true", help="ablation: memory is never carried between clips")
    evaluate.add_argument("--shuffle-sound", action="store_true", help="control: every video hears another's sound")
    evaluate.add_argument("--name", default="eval", help="of the files written into the run (default eval)")
    evaluate.add_argument("--device", default="auto")
    evaluate.add_argument("--precision", **_PRECISION)
    _add_settings(evaluate)
    return top


def _add_recipe(command: argparse.ArgumentParser) -> None:
    command.add_argument("--recipe", choices=sorted(RECIPES), default="tiny")
    _add_settings(command)


def _add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="assignments")


def _add_train(train: argparse.ArgumentParser) -> None:
    _add_recipe(train)
    train.add_argument("--shards", required=True, help="folder or URL of the shards that the pipeline wrote")
    train.add_argument("--stages", default="0-3", help="such as 0-3, 1 or 0,2 (default 0-3)")
    train.add_argument("--out", type=Path, required=True, help="folder of the run")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--device", default="auto", help="auto, cpu or cuda")
    train.add_argument("--precision", **_PRECISION)
    train.add_argument("--micro-batch", type=int, default=0, help="clips at once per process; default: its whole share")
    train.add_argument(
        "--workers",
        type=int,
        help="reading processes per rank (default 1; on a GPU 4), and clips it encodes at once (2 at least)",
    )
    train.add_argument("--compile", action="store_true", help="torch.compile the blocks")
    train.add_argument("--fsdp", action="store_true", help="shard weights and optimizer over the processes (FSDP2)")
    train.add_argument("--cache", default="auto", metavar="URL|off", help="where encoded clips lie; off: none")
    train.add_argument(
        "--save-every",
        type=int,
        metavar="STEPS",
        help="default: twenty times a stage, every 200 steps at the most, less often where writing takes long",
    )
    train.add_argument("--log-every", type=int, default=20, metavar="STEPS")
    train.add_argument("--validate-every", type=int, default=100, metavar="STEPS")
    train.add_argument(
        "--samples-every",
        type=int,
        metavar="STEPS",
        help="in stage 3, at a checkpoint, a few seconds of held-out video; 0: never (default: a fifth of the stage)",
    )
    train.add_argument("--held-out", type=int, default=32, metavar="SAMPLES", help="to validate on (default 32)")
    train.add_argument(
        "--stop-after",
        type=int,
        default=0,
        metavar="STEPS",
        help="end after so many steps of a stage; the next run goes on",
    )
    train.add_argument("--ray", action="store_true", help="train on Ray, on the pipeline's cluster")
    train.add_argument("--ray-workers", type=int, help="with --ray: how many processes (default 1)")


def stages_of(text: str) -> tuple[int, ...]:
    """`0-3`, `1`, `0,2` as stage numbers; raises `ValueError`."""
    try:
        ranges = [part.split("-") for part in text.split(",")]
        numbers = tuple(n for ends in ranges for n in range(int(ends[0]), int(ends[-1]) + 1))
    except ValueError:
        numbers = ()
    if not numbers or not set(numbers) <= set(STAGES):
        raise ValueError(f"--stages {text}: expected some of 0-3, such as 0-3, 1 or 0,2")
    return numbers


def _recipe(given: argparse.Namespace) -> Recipe:
    return override(RECIPES[given.recipe](), *given.assignments)


def _train(given: argparse.Namespace) -> None:
    recipe, options = _recipe(given), _options(given)
    if given.ray:
        from mcdm.ray_train import connect, train_on_ray, uses_gpu

        gpus = connect()  # the cluster's: this machine may have none
        train_on_ray(recipe, options, workers=given.ray_workers or 1, gpu=uses_gpu(given.device, gpus))
        return
    from mcdm.course import train

    train(recipe, options)


def _at_least(given: argparse.Namespace, least: int, *names: str) -> None:
    for name in names:
        value = getattr(given, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} {value}: expected at least {least}")


def _check_seed(given: argparse.Namespace) -> None:
    if not 0 <= given.seed <= LARGEST_SEED:
        raise ValueError(f"--seed {given.seed}: expected 0 to {LARGEST_SEED}")


def _options(given: argparse.Namespace) -> "Options":
    stages = stages_of(given.stages)
    if given.ray_workers is not None and not given.ray:
        raise ValueError(f"--ray-workers {given.ray_workers}: goes with --ray, which is not asked for")
    if given.fsdp and not given.ray and "RANK" not in os.environ:
        raise ValueError("--fsdp: shares a model over processes, which torchrun starts, or --ray")
    _at_least(given, 1, "save_every", "ray_workers", "log_every", "validate_every", "held_out")
    _at_least(given, 0, "samples_every", "micro_batch", "workers", "stop_after")
    _check_seed(given)
    from mcdm.course import Options

    return Options(
        shards=given.shards,
        run=given.out,
        stages=stages,
        seed=given.seed,
        device=given.device,
        precision=given.precision,
        micro_batch=given.micro_batch,
        workers=given.workers,
        compiled=given.compile,
        sharded=given.fsdp,
        cache=given.cache,
        save_every=given.save_every or 0,
        log_every=given.log_every,
        validate_every=given.validate_every,
        held_out=given.held_out,
        samples_every=given.samples_every,
        stop_after=given.stop_after,
    )


def _encode(given: argparse.Namespace) -> None:
    recipe = _recipe(given)
    _at_least(given, 1, "workers")
    if given.cache == "off":
        raise ValueError("--cache off: expected where to write encoded clips; off is for train")
    from rich.progress import Progress

    from mcdm import distributed
    from mcdm.course import cache_url, encode_together
    from mcdm.shards import Shards

    shards, world = Shards(given.shards), distributed.start(given.device)
    with Progress(transient=True, disable=world.rank > 0) as progress:
        task = progress.add_task("encoding", total=len(shards.clips))
        encode_together(
            shards,
            recipe,
            cache_url(shards, given.cache),
            world,
            workers=given.workers,
            tick=lambda _: progress.advance(task, world.size),
        )


@as_interrupt()
def _generate(given: argparse.Namespace) -> None:
    _at_least(given, 0, "steps")
    _check_seed(given)
    from mcdm.generate import generate_file

    generate_file(
        run=given.run,
        reference=given.reference,
        audio=given.audio,
        driving=given.driving,
        out=given.out,
        seconds=given.seconds,
        seed=given.seed,
        steps=given.steps,
        face_pack=given.face_pack,
        device=given.device,
        precision=given.precision,
        settings=given.assignments,
    )


@as_interrupt()
def _evaluate(given: argparse.Namespace) -> None:
    _at_least(given, 1, "clips", "frames", "lanes")
    _at_least(given, 0, "steps")
    _check_seed(given)
    from mcdm.evaluate import EvaluateOptions, evaluate

    names = ("run", "shards", "frames", "lanes", "seed", "steps", "face_pack", "sync", "fid", "fvd", "device", "name")
    options = EvaluateOptions(
        splits=tuple(name for name in given.splits.split(",") if name),
        n_videos=given.clips,
        use_archive=not given.no_archive,
        carry_memory=not given.no_memory,
        shuffle_sound=given.shuffle_sound,
        settings=tuple(given.assignments),
        precision=given.precision,
        **{name: getattr(given, name) for name in names},
    )
    evaluate(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command: 0, or 2 with one line on standard error for what the user can mend; 130 if it was interrupted."""
    given = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    try:
        {"train": _train, "encode": _encode, "generate": _generate, "evaluate": _evaluate}[given.command](given)
    except mendable() as error:
        sys.stderr.write(f"mcdm {given.command}: {' '.join(str(error).split())}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"mcdm {given.command}: interrupted; run the same command again\n")
        return 130
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which is imported by the commands that need it
            raise
        way = f": --lanes {given.lanes // 2} (now {given.lanes}) needs less" if "lanes" in given else ""
        sys.stderr.write(f"mcdm {given.command}: the memory of the GPU is too small{way}\n")
        return 2
    return 0
