"""`python -m pipeline run --train`: the trainer on the shards that a run wrote, on the same Ray."""

import contextlib
import json
import shlex
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress

from manifests.store import Store
from pipeline.cluster import Cluster, connected, gpus
from pipeline.override import override

if TYPE_CHECKING:
    from mcdm.config import Recipe

_MARK = "train."


def trainer_settings(sets: Sequence[str]) -> tuple[list[str], list[str]]:
    """Assignments of `--set` for the pipeline's recipe, and those for the trainer's, without their `train.`."""
    own = [one for one in sets if not one.startswith(_MARK)]
    return own, [one.removeprefix(_MARK) for one in sets if one.startswith(_MARK)]


def trainer_recipe(name: str, assignments: list[str]) -> "Recipe":
    """A recipe of the trainer; raises `ValueError` for an unknown name or setting."""
    from mcdm.config import RECIPES

    if name not in RECIPES:
        raise ValueError(f"--train {name}: no such recipe; there are {', '.join(RECIPES)}")
    return override(RECIPES[name](), *assignments)


def train_on(store: Store, recipe: "Recipe", cluster: Cluster, console: Console) -> Path:
    """Train all stages on the store's shards, a worker on each GPU that their batches divide among, or one on a CPU;
    returns the run's folder.

    The run lies beside the shards in a local store, else below `runs/`, which workers of several machines must share.
    A run that was broken off goes on. Raises `ValueError` for what the user can mend.
    """
    run = (store.local or Path()) / "runs" / recipe.name
    console.print(f"training recipe {recipe.name}, stages 0-3, into {run}", soft_wrap=True)
    with connected(cluster), _showing(run / "log.jsonl", recipe, console):
        from mcdm.config import STAGES
        from mcdm.course import Options, largest_world
        from mcdm.ray_train import train_on_ray, uses_gpu

        there = gpus()
        workers = largest_world(recipe, there)
        if workers < there:
            console.print(f"training on {workers} of {there} GPUs: the batches of {recipe.name} divide into no more")
        options = Options(shards=store.at("shards"), run=run, stages=STAGES)
        train_on_ray(recipe, options, workers=workers, gpu=uses_gpu(options.device, there))
    console.print("next:")
    command = shlex.join(["python", "-m", "mcdm", "evaluate", "--run", str(run), "--shards", store.at("shards")])
    console.print(f"  {command}", soft_wrap=True)
    return run


@contextlib.contextmanager
def _showing(log: Path, recipe: "Recipe", console: Console) -> Iterator[None]:
    """Bars that follow the trainer's log: its workers are other processes, maybe on other machines."""
    done = threading.Event()
    with Progress(console=console, transient=True) as progress:
        bars = [progress.add_task(f"stage {n}", total=plan.steps) for n, plan in enumerate(recipe.plans)]

        def follow() -> None:
            read = log.stat().st_size if log.exists() else 0
            while not done.wait(1.0):
                if not log.exists():
                    continue
                with log.open() as file:
                    file.seek(read)
                    lines = file.readlines()
                whole = [line for line in lines if line.endswith("\n")]
                read += sum(len(line.encode()) for line in whole)
                for record in map(json.loads, whole):
                    if "loss" in record:
                        said = f"stage {record['stage']}  loss {record['loss']:.3f}"
                        progress.update(bars[record["stage"]], completed=record["step"], description=said)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
