"""Checkpoints: one file per saved step, written whole and then named, refused where they do not belong.

`<run>/stage<k>/step-00000400.pt` holds recipe, stage, step, seed, model, averaged weights and optimizer, which
checkpoints of other stages it stands on, and which published weights it learned with. There is no loader or random
state in it: batches and noise are functions of (seed, stage, step). A stage is finished when its newest checkpoint is
at the last step of its plan. Files are the same whatever the number of processes, and whether DDP or FSDP wrote them.
"""

import dataclasses
import hashlib
import json
import logging
import os
import pickle
import time
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from manifests.scratch import is_alive, machine, write_whole
from mcdm.alike import settings
from mcdm.config import NEEDS, STAGES, Recipe
from mcdm.ema import Ema
from mcdm.local_weights import differing

log = logging.getLogger("mcdm")

_RECIPE = "recipe.json"
_SETTINGS = ("betas", "weight_decay")
"""Of the optimizer, which may be changed from one run to the next."""

_STANDS_ON: dict[int, tuple[int, ...]] = {0: (), 1: (), 2: (0,), 3: (0, 1)}
"""Whose weights a stage learns on top of: fewer than it needs to start."""

_FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)


def folder_of(run: Path, stage: int) -> Path:
    """Where a stage's checkpoints lie."""
    return run / f"stage{stage}"


def newest(run: Path, stage: int) -> Path | None:
    """The newest whole checkpoint of a stage, or None."""
    return max(folder_of(run, stage).glob("step-*.pt"), default=None)


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    return int(path.stem.removeprefix("step-"))


def contents(
    recipe: Recipe, stage: int, step: int, model: nn.Module, ema: Ema, optimizer: Optimizer, *, writes: bool = True
) -> dict[str, Any]:
    """All of a training state, on the CPU. Every rank must call this; one that `writes` gets the averages too."""
    averaged: dict[str, Tensor | int] = {}
    for name, value in ema.state_dict().items():
        whole = gathered(value) if isinstance(value, Tensor) else value
        if writes:
            averaged[name] = whole.detach().to("cpu", copy=True) if isinstance(whole, Tensor) else whole
    return {
        "recipe": recipe.name,
        "digest": recipe.digest,
        "stage": stage,
        "step": step,
        "model": get_model_state_dict(model, options=_FULL),
        "ema": averaged,
        "optimizer": get_optimizer_state_dict(model, optimizer, options=_FULL),
    }


def restore(saved: dict[str, Any], model: nn.Module, ema: Ema, optimizer: Optimizer) -> int:
    """Put a training state back; returns the step."""
    options = StateDictOptions(full_state_dict=True)
    set_model_state_dict(model, saved["model"], options=options)
    asked = [{name: group[name] for name in _SETTINGS} for group in optimizer.param_groups]
    set_optimizer_state_dict(model, optimizer, saved["optimizer"], options=options)
    for group, own in zip(optimizer.param_groups, asked, strict=True):
        group |= own  # torch restores those of old
    for state in optimizer.state.values():  # on a processor these are the file's own pages, which others may remove
        state |= {name: value.clone() for name, value in state.items() if value.device.type == "cpu"}
    ema.load_state_dict(saved["ema"])
    step: int = saved["step"]
    return step


def write(run: Path, saved: dict[str, Any], *, keep: int = 2) -> Path:
    """Write whole: a temporary name, flushed to the disk, then renamed. Only the newest `keep` stay. Raises `OSError`,
    by path, where the disk does not take it."""
    folder = folder_of(run, saved["stage"])
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    path = folder / f"step-{saved['step']:08d}.pt"
    temporary = path.with_suffix(f".{machine()}-{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(saved, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        why = error if isinstance(error, OSError) else error.__context__  # torch ends such a file with one of its own
        if not isinstance(why, OSError):
            raise
        raise OSError(f"{path} cannot be written: {why}") from error
    finally:
        temporary.unlink(missing_ok=True)  # a full disk is not to be filled with half a checkpoint
    for old in sorted(folder.glob("step-*.pt"))[:-keep]:
        old.unlink(missing_ok=True)  # another run on the same folder may have been quicker
    return path


def _sweep(folder: Path) -> None:
    """Remove what killed writers left: on this machine at once, on another one an hour after the last byte."""
    for path in folder.glob("step-*.tmp"):
        place, _, pid = path.name.split(".", 1)[1].removesuffix(".tmp").rpartition("-")
        alive = is_alive(int(pid)) if place == machine() else time.time() - path.stat().st_mtime < 3600
        if not alive:
            path.unlink(missing_ok=True)


def read(path: Path, recipe: Recipe, stage: int, *, mapped: bool = False) -> dict[str, Any]:
    """A checkpoint's contents; raises `ValueError` if it is damaged, of another recipe or stage, or learned with other
    published weights than the recipe names. `mapped`: weights are read from the disk where they are looked at."""
    if path.exists() and not zipfile.is_zipfile(path):  # torch would try it as a bare pickle, and stumble anyhow
        raise ValueError(f"{path} cannot be read: cut short, or no checkpoint")
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(saved, dict):
        raise ValueError(f"{path} is no checkpoint of `mcdm train`")
    for key in ("digest", "stage", "step", "model", "ema", "optimizer"):
        if key not in saved:
            raise ValueError(f"{path} is no whole checkpoint of `mcdm train`: it has no {key}")
    if saved["digest"] != recipe.digest:
        raise ValueError(
            f"{path} is of recipe {saved.get('recipe')} ({saved.get('digest')}), not {recipe.name} ({recipe.digest})"
        )
    if saved["stage"] != stage:
        raise ValueError(f"{path} is of stage {saved['stage']}, not {stage}")
    if other := differing(recipe, saved.get("published", {})):
        raise ValueError(f"{path} learned with other weights than {other} names: give the same, or begin anew")
    return saved


def check_seed(path: Path, saved: dict[str, Any], seed: int) -> None:
    """Raise `ValueError` where a stage would go on with another seed. Checkpoints without one go on with any."""
    if saved.get("seed", seed) != seed:
        raise ValueError(f"{path} was trained with --seed {saved['seed']}: it cannot go on with --seed {seed}")


def check_idle(path: Path, saved: dict[str, Any], *, idle: bool) -> None:
    """Raise `ValueError` where a stage would go on with its memory path left out, or no more: one that began before
    the output layers of `motion_weights` were left at zero."""
    if saved.get("idle", idle) != idle:
        raise ValueError(f"{path} was trained with memory from motion_weights, which begins at zero now: begin anew")


def finished(run: Path, stage: int, recipe: Recipe) -> bool:
    """Whether the stage has come to the end of its plan."""
    path = newest(run, stage)
    return path is not None and step_of(path) >= recipe.plans[stage].steps


def check_needs(run: Path, stage: int, recipe: Recipe) -> None:
    """Raise `ValueError`, by name, for what an earlier stage left missing, or for one that was trained on since."""
    for need in NEEDS[stage]:
        if finished(run, need, recipe):
            continue
        path = newest(run, need)
        state = f"ends at step {step_of(path)} of {recipe.plans[need].steps}" if path else "has no checkpoint"
        raise ValueError(f"stage {stage} needs stage {need}, which {state} in {folder_of(run, need)}")
    own = newest(run, stage)
    if own is not None and _STANDS_ON[stage]:
        check_ground(run, recipe, read(own, recipe, stage, mapped=True))


def ground(run: Path, stage: int, recipe: Recipe) -> dict[int, tuple[int, str]]:
    """What a stage stands on, as far as it is there: by stage the step and a digest of the weights.

    The first numbers of every weight are enough for it, as a step of training moves them all.
    """
    found = {}
    for need in _STANDS_ON[stage]:
        path = newest(run, need)
        if path is None:
            continue
        saved, digest = read(path, recipe, need, mapped=True), hashlib.sha256()
        for part in ("model", "ema"):
            for name, value in sorted(saved[part].items()):
                if isinstance(value, Tensor):
                    digest.update(name.encode() + value.flatten()[:16].float().numpy().tobytes())
        found[need] = (saved["step"], digest.hexdigest()[:12])
    return found


def check_ground(run: Path, recipe: Recipe, saved: dict[str, Any]) -> None:
    """Raise `ValueError` where a stage that a checkpoint stands on has changed since. One that says nothing of it, and
    stages that are not there any more, pass."""
    stage, then = saved["stage"], saved.get("ground", {})
    for need, (step, digest) in ground(run, stage, recipe).items():
        if need in then and then[need][1] != digest:
            now = f"now at step {step}" if step != then[need][0] else "another one now"
            raise ValueError(
                f"stage {stage} was trained on stage {need} at step {then[need][0]}, which is {now}:"
                f" remove {folder_of(run, stage)} to train it anew"
            )


def learned(run: Path, stage: int, recipe: Recipe) -> dict[str, Tensor]:
    """A finished stage's model: its weights, averaged where they were learned, still on the disk until they are looked
    at. Raises `ValueError`, also where a stage that it stands on has changed since."""
    path = newest(run, stage)
    if path is None:
        raise ValueError(f"stage {stage} has no checkpoint in {folder_of(run, stage)}: train it first")
    saved = read(path, recipe, stage, mapped=True)  # the optimizer's half is never looked at
    check_ground(run, recipe, saved)
    model: dict[str, Tensor] = saved["model"]
    averaged = {name: value for name, value in saved["ema"].items() if name != "updates"}
    missing = set(averaged) - set(model)
    if missing:
        raise ValueError(f"{path}: averaged weights without a model's: {sorted(missing)[0]}")
    return {**model, **averaged}


def load_learned(model: nn.Module, run: Path, stage: int, recipe: Recipe) -> None:
    """Put what a stage learned into its model; raises `ValueError` by path and name for a weight that does not fit."""
    load_weights(model, learned(run, stage, recipe), str(newest(run, stage)))


def load_weights(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Put weights into a model; raises `ValueError` by source and name for one that does not fit."""
    check_weights(model, weights, source)
    model.load_state_dict(weights)


def check_weights(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Raise `ValueError` for the first weight that is missing, too many, or of another shape."""
    own = model.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        if name not in weights:
            raise ValueError(f"{source} lacks the weight {name}")
        if name not in own or own[name].shape != weights[name].shape:
            raise ValueError(f"{source} has a weight {name} that does not fit the recipe's models")


def check_resumable(path: Path, saved: dict[str, Any], model: nn.Module, ema: Ema) -> None:
    """Raise `ValueError` where a checkpoint's weights, or which of them learn, are not those of this training."""
    check_weights(model, saved["model"], str(path))
    different = sorted(saved["ema"].keys() ^ ema.state_dict().keys())
    if different:
        where = "here, not there" if different[0] in ema.shadow else "there, not here"
        raise ValueError(
            f"{path}: {different[0]} learns {where} ({len(different)} differ); go on with the same settings,"
            " such as unet.train_spatial and unet.tune_spatial"
        )


def write_recipe(run: Path, recipe: Recipe) -> None:
    """Put the recipe beside the checkpoints; raises `ValueError` if these are of another, or learned with other
    published weights. Other settings that differ are told by name, and noted in `log.jsonl`."""
    path = run / _RECIPE
    begun = {stage: saved for stage in STAGES if (saved := newest(run, stage))}
    old = read_recipe(run) if path.exists() and begun else recipe
    if old.digest != recipe.digest:
        raise ValueError(f"{run} is a run of recipe {old.name} ({old.digest}), not {recipe.name} ({recipe.digest})")
    for stage, saved in begun.items():
        read(saved, recipe, stage, mapped=True)
    run.mkdir(parents=True, exist_ok=True)
    before, now = settings(old), settings(recipe)
    if changed := {name: (before[name], value) for name, value in now.items() if value != before[name]}:
        _note(run, changed, stage=max(begun), step=step_of(begun[max(begun)]))
    write_whole(path, json.dumps(dataclasses.asdict(recipe), indent=1))


def _note(run: Path, changed: dict[str, tuple[Any, Any]], *, stage: int, step: int) -> None:
    """Say which settings are others, before and now, from this step of the newest stage on."""
    for name, (before, now) in changed.items():
        log.info("%s %s, until now %s", name, now, before)
    record = {"stage": stage, "step": step, "changed": changed}
    with (run / "log.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")


def has_recipe(run: Path) -> bool:
    """Whether a run was begun in this folder."""
    return (run / _RECIPE).exists()


def read_recipe(run: Path) -> Recipe:
    """The recipe that a run was made with; raises `ValueError`."""
    import msgspec

    path = run / _RECIPE
    if not path.exists():
        raise ValueError(f"{run}: no recipe.json; is it a folder that `mcdm train` made?")
    try:
        return msgspec.json.decode(path.read_bytes(), type=Recipe)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise ValueError(f"{path}: {error}") from error


def gathered(value: Tensor) -> Tensor:
    """A tensor, gathered if it is sharded over processes."""
    gather = getattr(value, "full_tensor", None)
    whole: Tensor = gather() if gather is not None else value
    return whole
