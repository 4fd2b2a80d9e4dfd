"""What a stage is: a versioned measurement of one video, from facts to a fact or a `Rejection`."""

import contextlib
import dataclasses
import faulthandler
import hashlib
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from pipeline.bench import Bench

RUNTIME = {"semantic": False}
"""Field metadata: how the stage is run here, not what it computes. Not part of the stage's key."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one worker of a stage holds while it is alive, and how many workers there may be.

    A stage that asks for no GPU uses none; one that does works on the processor where there is none.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    cpus_beside_gpu: float | None = None  # instead of `cpus` where it gets a GPU
    memory_gb: float = 0.0  # of the machine, where it gets no GPU; 0: so little that it is not reckoned with
    gpu_memory_gb: float = 0.0  # its share of a GPU is no smaller than this, where the GPU's size is known
    workers: tuple[int, int | None] = (1, None)
    weight: float = 0.0  # its part in the cores that one worker of each stage leaves (see `pipeline.shares`)
    custom: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Rejection:
    """A fact about the video: it does not belong in the data set, why, and the numbers that say so."""

    reason: str
    measured: dict[str, float | str] = field(default_factory=dict)


class WorkerSpoiledError(Exception):
    """Raised by a stage when this worker can do no more work (a poisoned CUDA context): it ends and is replaced."""


class PostponedError(Exception):
    """Raised by a stage that could learn nothing now (a host wants to be left alone): the video stays due."""


class MemoryFullError(PostponedError):
    """The same for a GPU without free memory, which others hold at the moment: many in a row stop the run."""


T = TypeVar("T")
FactT = TypeVar("FactT")


class Facts:
    """What is known of one video so far, by the type of the fact."""

    def __init__(self, facts: Iterable[object]) -> None:
        self._by_type = {type(fact): fact for fact in facts}

    def __getitem__(self, kind: type[T]) -> T:
        fact = self._by_type[kind]
        assert isinstance(fact, kind)
        return fact


Work: TypeAlias = Callable[[Facts, Bench], FactT | Rejection]
"""What `Stage.open` returns: called once per video, on one thread, in the worker that opened it."""


@dataclass(frozen=True, kw_only=True)
class Stage(ABC, Generic[FactT]):
    """One step of the pipeline: from the facts it `needs` to the fact it `gives`.

    The instance is the configuration: frozen, small, picklable. What is heavy (weights, decoders, sessions) is made by
    `open`, once per worker, on the machine that does the work. `version` is raised by hand when the meaning of the
    output changes; parameters marked `RUNTIME` may change without recomputation, and a parameter that is added later
    declares `metadata={"absent": value}`, the value that reproduces what the stage did before it had the parameter.
    After `deadline_s` seconds without progress (see `put_off_deadline`) a call counts as hanging, and its worker ends.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    needs: ClassVar[tuple[type, ...]] = ()
    gives: ClassVar[type]

    resources: Resources = field(default=Resources(), metadata=RUNTIME)
    deadline_s: float | None = field(default=None, metadata=RUNTIME)

    @abstractmethod
    def open(self) -> Work[FactT]:
        """Load what is heavy and return the function from facts to this stage's fact or to a `Rejection`."""

    def inputs(self) -> tuple[type, ...]:
        """The facts that this configuration needs: `needs`, and what some configurations want besides."""
        return self.needs

    def models(self) -> tuple[str, ...]:
        """Names of the weights that `open` will want (see `stages.weights`), so that a run can have them beforehand."""
        return ()

    def models_for(self, languages: Iterable[str | None]) -> tuple[str, ...]:
        """Names of the weights that videos expected in these languages (tags; None: not stated) want besides."""
        return ()

    def weights(self) -> dict[str, str]:
        """Digests of the weights that this configuration uses, by role; part of the key. Cheap: no loading."""
        return {}

    def identity(self) -> dict[str, Any]:
        """Everything that can change this stage's output, as JSON."""
        return {"name": self.name, "version": self.version, **semantic(self), **self.weights()}


def semantic(config: Any) -> dict[str, Any]:
    """The fields of a (nested) dataclass that change results: not `RUNTIME`, not at their declared `absent` value."""
    chosen: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if not f.metadata.get("semantic", True) or ("absent" in f.metadata and value == f.metadata["absent"]):
            continue
        chosen[f.name] = semantic(value) if dataclasses.is_dataclass(value) else value
    return chosen


def keys(stages: Iterable[Stage[Any]], seed: type) -> dict[str, str]:
    """Name each stage by what made it: its own identity and that of everything upstream.

    Raises `ValueError` if a stage needs a fact that no earlier stage gives.
    """
    givers: dict[type, str] = {seed: seed.__name__}
    named: dict[str, str] = {}
    for stage in stages:
        for need in stage.inputs():
            if need not in givers:
                raise ValueError(f"stage {stage.name!r} needs {need.__name__}, which no earlier stage gives")
        content = [stage.identity(), [givers[need] for need in stage.inputs()]]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]
        named[stage.name] = givers[stage.gives] = f"{stage.name}-{digest}"
    return named


_deadlines_s: list[float] = []


@contextlib.contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """Turn a hang, even one inside native code, into a dead worker with a stack trace in its log."""
    if seconds is None:
        yield
        return
    _deadlines_s.append(seconds)
    put_off_deadline()
    try:
        yield
    finally:
        _deadlines_s.pop()
        faulthandler.cancel_dump_traceback_later()


def put_off_deadline() -> None:
    """Count the deadline of the call at work, if it has one, from now on: a sign of life of one that we make wait, or
    that gets on with a long video. 80 us: not for every picture.
    """
    for seconds in _deadlines_s:
        faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or sys.stderr)
