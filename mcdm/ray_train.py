"""Training on Ray: the same `course.train` in every worker of a Ray Train group. Only this file imports Ray."""

import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from manifests.store import mendable
from mcdm.config import Recipe
from mcdm.course import Options, train
from pipeline.cluster import gpus, grows, knock


def connect() -> int:
    """Join the cluster at `RAY_ADDRESS` or one that runs here, else start Ray; returns how many GPUs it has.

    Raises `ValueError` if none answers at the address.
    """
    if address := os.environ.get("RAY_ADDRESS"):
        knock(address)
    if not ray.is_initialized():
        ray.init()
    return gpus()


def train_on_ray(recipe: Recipe, options: Options, *, workers: int, gpu: bool) -> None:
    """Train with so many workers on the cluster that this process is connected to, or on a new local one.

    Workers share `options.run` and a local `options.shards` by path: on several machines both must lie on a shared
    disk. Raises `ValueError` for more workers than the cluster holds (Ray would wait for them for ever), and with the
    worker's own line for what the user can mend.
    """
    kind = "GPU" if gpu else "CPU"
    there_are = int(ray.cluster_resources().get(kind, 0))
    if workers > there_are and not grows():
        raise ValueError(f"{workers} workers on Ray want a {kind} each: the cluster has {there_are}")
    there = options if "://" in options.shards else replace(options, shards=str(Path(options.shards).absolute()))
    there = replace(there, run=options.run.absolute())
    storage = there.run / "ray"
    storage.mkdir(parents=True, exist_ok=True)
    trainer = TorchTrainer(
        _work,
        train_loop_config={"recipe": recipe, "options": there, "folder": str(Path.cwd())},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
        run_config=RunConfig(name="mcdm", storage_path=str(storage)),
    )
    try:
        trainer.fit()
    except WorkerGroupError as error:
        causes = [getattr(failure, "_base_exc", failure) for failure in error.worker_failures.values()]
        for cause in causes:
            if isinstance(cause, mendable()):
                raise ValueError(str(cause)) from None
        raise
    except TrainingFailedError as error:  # of Ray's own: no room, no such resources
        raise ValueError(" ".join(str(error).split())) from None


def uses_gpu(device: str, gpus: int) -> bool:
    """Whether workers ask Ray for a GPU each: where one is there, or a growing cluster will bring it."""
    return device == "cuda" or (device == "auto" and (gpus > 0 or grows()))


def _work(given: dict[str, Any]) -> None:
    options: Options = given["options"]
    if not options.run.is_dir():  # made by the process that started Ray's
        raise ValueError(
            f"{options.run} is not seen by {socket.gethostname()}: it must lie on a disk that all machines share"
        )
    os.chdir(given["folder"])
    train(given["recipe"], options)
