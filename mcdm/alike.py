"""What a process of a training goes by, and that all of them go by the same: told otherwise, one would learn other
weights unnoticed, or wait for the others in vain."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from mcdm import distributed
from mcdm.config import STAGES, Recipe
from mcdm.distributed import World
from mcdm.local_weights import digests
from mcdm.shards import Clip

if TYPE_CHECKING:
    from mcdm.course import Options

_OF_A_MACHINE = ("shards", "run", "device", "workers", "cache")
"""Options that may differ: where things lie, and what there is to compute with."""

_FLAGS = {"sharded": "fsdp", "compiled": "compile"}


def settings(recipe: Recipe) -> dict[str, Any]:
    """Every setting of a recipe by its name in `--set`."""
    return dict(_named(dataclasses.asdict(recipe)))


def _named(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, tuple) and any(isinstance(one, dict) for one in value):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        yield path.removeprefix("."), value
        return
    for name, one in value.items():
        yield from _named(one, f"{path}.{name}")


def check_told(recipe: Recipe, options: "Options", world: World) -> None:
    """`check_alike` for the recipe, published weights by what they are, and for the options."""
    if world.size == 1:
        return
    told = settings(recipe)
    for setting, digest in [pair for stage in STAGES for pair in digests(recipe, stage).items()]:
        told[setting] = digest  # not the path, which may be another one on another machine
    for name, value in dataclasses.asdict(options).items():
        if name not in _OF_A_MACHINE:
            told[f"--{_FLAGS.get(name, name).replace('_', '-')}"] = value
    told["--cache"] = "off" if options.cache == "off" else "on"
    check_alike(told, world)


def check_alike(told: dict[str, Any], world: World) -> None:
    """Raise `ValueError`, in all processes, for the first that goes by something else than process 0, and what."""
    first, *others = map(json.loads, distributed.gather_names([json.dumps(told)], world))
    for rank, other in enumerate(others, 1):
        apart = [name for name in {**first, **other} if first.get(name) != other.get(name)]
        if apart:
            name, more = apart[0], f" (and {len(apart) - 1} more)" if len(apart) > 1 else ""
            raise ValueError(
                f"process {rank} goes by {name} {other.get(name)}, process 0 by {first.get(name)}{more}: "
                "all must go by the same"
            )


def spelled(clips: Iterable[Clip]) -> str:
    """Names what windows are drawn from: keys and lengths of clips, in their order."""
    known = [f"{clip.key} {clip.n_frames}" for clip in clips]
    return f"{len(known)} ({hashlib.sha256(json.dumps(known).encode()).hexdigest()[:8]})"
