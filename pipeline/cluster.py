"""Run stages on Ray, on this machine or on a cluster. The only file here that imports ray.

Every stage is an actor pool of its own and all run at once: Ray moves tickets, the store holds facts. Tickets weigh
nothing, so Ray's byte-based back-pressure does not hold a fast stage back; that is harmless, since what runs ahead lies
in the store and scratch never outlives a call.
"""

import contextlib
import logging
import os
import re
import socket
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any

from manifests.codec import to_plain
from manifests.records import Video
from manifests.store import Store, UnreachableError
from manifests.urls import is_web
from pipeline.disk import disk_fault
from pipeline.plan import Due, plan, queue, waves
from pipeline.shares import Node, Pool, divide
from pipeline.stage import Resources, Stage, Work, WorkerSpoiledError
from pipeline.step import Notify, Step, Ticket, left_behind
from pipeline.tally import Report, Tally
from stages.cuda import gpu_memory_gb, has_gpu

WAVE = 20_000
"""Videos per Ray Data flow: beyond about 100,000 blocks one flow strains the driver."""

OBJECT_STORE_BYTES = 300 << 20
"""Tickets are small; Ray's default would take 30 % of the machine's memory."""

_DEVICES = Path("/dev")
_SPOILED_EXIT = 86
_STARTS = 3
_KNOCK_S = 20.0

_LONGEST_FOLDER_BYTES = 39
"""Of the folder that Ray makes its own in, as sockets have names of 107 at most, of which its take 68."""


@dataclass(frozen=True)
class Cluster:
    """Where to run: join `address` if given (or `RAY_ADDRESS`), else start Ray on this machine."""

    address: str | None = None
    cpus: int | None = None  # of this machine; None: all

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", self.address or os.environ.get("RAY_ADDRESS"))


class _Worker(Step):
    """A `Step` in a Ray actor, on no other GPU than Ray gave it.

    Ends its process when spoiled, so that Ray makes a fresh one and tries again. `mark` is an object that the driver
    put into its store, "" for none: who does not find it sees another store.
    """

    def __init__(self, *given: Any, mark: str = "") -> None:
        super().__init__(*given)
        self._mark = mark
        if isinstance(self.notify, Report):
            self.notify.listen()

    def __call__(self, ticket: Ticket) -> list[Ticket]:
        try:
            return super().__call__(ticket)
        except WorkerSpoiledError:
            logging.getLogger(__name__).exception("%s: this worker is spoiled and ends", self.stage.name)
            os._exit(_SPOILED_EXIT)
        except OSError as error:  # of the store, outside the call that is measured
            if fault := disk_fault(error):
                raise self._broken(fault, by_request=True) from error
            raise

    def open(self) -> Work[Any]:
        """Open the stage. Raises `ValueError` if Ray counts on a GPU that this process does not see, and
        `UnreachableError` if what the driver calls its store is another folder here."""
        import ray

        if self._mark and not self.store.exists(self._mark):
            raise UnreachableError(
                f"the store {self.store.url} is not the folder here that it is for the command: on a cluster give "
                "--store a bucket, or the full path of a folder on a disk that all nodes share"
            )
        if not ray.get_gpu_ids():
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray itself hides none from workers that ask for none
        elif not has_gpu():
            raise ValueError(
                f"{self.stage.name}: Ray announces a GPU, but CUDA finds none: mend the driver or the container "
                "(ImageId in ray_cluster.yaml), or set CUDA_VISIBLE_DEVICES= to do without"
            )
        return super().open()

    def node(self) -> str:
        """The node that Ray put this worker on."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def is_lost(self, node: str) -> bool:
        """Whether a node is alive no more: a spot machine was taken away."""
        import ray

        return not any(one["NodeID"] == node and one["Alive"] for one in ray.nodes())


def run_on_ray(
    stages: Sequence[Stage[Any]],
    videos: Sequence[Video],
    store: Store,
    run: str,
    notify: Notify | None = None,
    cluster: Cluster | None = None,
    due: Sequence[Due] | None = None,
) -> int:
    """Carry videos through the stages on Ray; returns how many passed them all in this run. `due`: their plan, if there
    is one; it holds to the end, since to list a ledger of a million videos takes minutes, in which idle nodes go.

    Raises `StageBrokenError` if a stage fails on everything, with the cause of the last failure.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    cluster = cluster or Cluster()
    due = plan(stages, videos, store) if due is None else due
    with connected(cluster):
        _tell_of_no_gpu(stages, cluster)
        # Here: Ray would put it anywhere, and it would go with a node that is taken away.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        tally = ray.remote(num_cpus=0, scheduling_strategy=here)(Tally).remote()
        with _listening(tally, notify):
            try:
                with _marked(store, run) as mark:
                    return sum(_wave(stages, wave, store, run, tally, mark) for wave in waves(due, videos, WAVE))
            except ray.exceptions.RayError as error:
                raise left_behind(store, run, error) from error


def _tell_of_no_gpu(stages: Sequence[Stage[Any]], cluster: Cluster) -> None:
    """Say what a Ray without a GPU will do: a joined one, since what will come of its own no program can see, and one
    of this machine that does not count the GPU which is there, as Ray does where NVML does not answer."""
    asking = ", ".join(stage.name for stage in stages if stage.resources.gpus)
    address = cluster.address
    passed_over = os.environ.get("CUDA_VISIBLE_DEVICES") != "" and any(_DEVICES.glob("nvidia[0-9]*"))
    if asking and (address or passed_over) and not grows() and not gpus():
        where = f"the Ray at {address}"
        way_out = "if nodes with one come when they are asked for, set TFW_AUTOSCALES=1 for this command"
        if not address:
            where = "the Ray of this machine, though it has one"
            way_out = "mend what `nvidia-smi` says; a container needs NVIDIA_DRIVER_CAPABILITIES=compute,utility"
        logging.getLogger(__name__).warning("no GPU in %s: %s will work on the processor; %s", where, asking, way_out)


@contextlib.contextmanager
def _marked(store: Store, run: str) -> Iterator[str]:
    """An object in a store on a disk, for workers to look for: each node may have a folder of its own of that name."""
    mark = f"driver-{run}" if store.local is not None else ""
    if mark:
        store.create(mark, b"")
    try:
        yield mark
    finally:
        if mark:
            store.delete(mark)


def _wave(
    stages: Sequence[Stage[Any]], wave: Sequence[Sequence[Video]], store: Store, run: str, tally: Any, mark: str
) -> int:
    import ray
    from pyarrow import Table

    asking = list(zip((stage.resources for stage in stages), accumulate(map(len, wave)), strict=True))
    flow: Any = None
    for i, (stage, entering, pool) in enumerate(zip(stages, wave, divide(asking, _nodes(), _card_gb()), strict=True)):
        if entering:
            groups = queue(entering, together=i == 0)  # only the first stage asks the source
            blocks = [Table.from_pylist([to_plain(video) for video in group]) for group in groups]
            arrivals = ray.data.from_blocks(blocks)
            flow = arrivals if flow is None else flow.union(arrivals)
        if flow is not None:
            asked = stage.resources
            flow = flow.flat_map(
                _Worker,
                fn_constructor_args=(stage, tuple(stages[:i]), store, run, Report(tally)),
                fn_constructor_kwargs={"mark": mark},
                compute=_pool(asked, pool),
                num_cpus=pool.cpus,
                num_gpus=pool.gpus or None,
                memory=int(pool.memory_gb * 1e9) or None,
                resources=_custom(asked),
            )
    return 0 if flow is None else sum(1 for _ in flow.iter_rows())


def _pool(asked: Resources, pool: Pool) -> Any:
    import ray

    low, high = asked.workers
    low = max(low, pool.workers)  # Ray would take back what goes beyond an equal part for every stage
    # Ray adds one worker per decision by default: those of a pool fill a fixed cluster at once.
    return ray.data.ActorPoolStrategy(
        min_size=low, max_size=high, initial_size=pool.workers, max_tasks_in_flight_per_actor=2
    )


def gpus() -> int:
    """GPUs of the cluster that this process is connected to."""
    import ray

    return int(ray.cluster_resources().get("GPU", 0))


def _nodes() -> list[Node] | None:
    """The machines of the cluster, None where more come when they are asked for."""
    import ray

    if grows():
        return None
    all_have = [one["Resources"] for one in ray.nodes() if one["Alive"]]
    return [Node(has.get("CPU", 0.0), has.get("GPU", 0.0), has.get("memory", 0.0) / 1e9) for has in all_have]


def _card_gb() -> float | None:
    """The memory of a GPU of the cluster, of one for all; None where none is there, or is to be had soon to tell it."""
    import ray

    if not gpus():
        return None
    asked = ray.remote(num_cpus=0, num_gpus=0.001)(gpu_memory_gb).remote()
    if not ray.wait([asked], timeout=_KNOCK_S)[0]:
        ray.cancel(asked)
        return None
    told: float | None = ray.get(asked)
    return told


def grows() -> bool:
    """Whether nodes come when asked for, as `ray_cluster.yaml` says: then what is not there yet may be asked for."""
    return os.environ.get("TFW_AUTOSCALES") == "1"


def _custom(asked: Resources) -> dict[str, float] | None:
    """Custom resources, where the cluster knows them: a laptop has none, and would wait for them for ever."""
    import ray

    known = ray.cluster_resources()
    return {name: amount for name, amount in asked.custom.items() if grows() or name in known} or None


@contextlib.contextmanager
def connected(cluster: Cluster) -> Iterator[None]:
    """A Ray to work on; one that was running before stays. Raises `ValueError` if none answers at the address."""
    address = cluster.address
    if address:
        knock(address)
    else:  # a Ray of our own listens on loopback only; a joined one states its mode itself
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # stages overlap: a thread that spins takes another's core
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # workers that end with their pool are no errors
    import ray
    import ray.data

    started = not ray.is_initialized()
    if started:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if address:
                _join(address)
            else:
                start_local(num_cpus=cluster.cpus, object_store_memory=OBJECT_STORE_BYTES)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = False
    context.target_max_block_size = 1  # a ticket goes on at once, not when all tickets that came with it are done
    context.execution_no_progress_timeout_s = (
        -1
    )  # a long download or a long video is not a stall; stages have deadlines
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        if started:
            ray.shutdown()


def start_local(**options: Any) -> None:
    """Start a Ray of our own, quiet and without a dashboard. Tried three times: Ray gives an agent of its node 15 s, a
    number fixed inside it, and the first start on a busy machine reads its programs from the disk. Raises `ValueError`.

    Its sockets, logs and little else go to /tmp where TMPDIR, which scratch needs, is too long for them.
    """
    import ray

    own, scratch = os.environ.get("RAY_TMPDIR", ""), os.environ.get("TMPDIR", "")
    if len(os.fsencode(own)) > _LONGEST_FOLDER_BYTES:
        raise ValueError(f"RAY_TMPDIR {own}: longer than the {_LONGEST_FOLDER_BYTES} bytes that Ray's sockets leave it")
    if not own and len(os.fsencode(scratch)) > _LONGEST_FOLDER_BYTES:
        options.setdefault("_temp_dir", str(Path("/tmp", "ray")))
    for _ in range(_STARTS):
        with _Late() as late:
            # without "local" Ray would join any head started on this machine, even one that is gone
            ray.init("local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **options)
        if not late.came:
            return
        ray.shutdown()
    raise ValueError(f"Ray did not start, {_STARTS} times: the machine is too busy; try again when it is not")


class _Late:
    """Catches what Ray says, with a bare `Exception`, when its start took too long."""

    came = False

    def __enter__(self) -> "_Late":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        self.came = kind is Exception and "timed out during startup" in str(error)
        return self.came


def _join(address: str) -> None:
    import ray

    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:  # none runs where one is looked for ("auto"), or more than one
        said = str(error).partition("\n")[0]
        raise ValueError(f"no Ray to join at {address} (--address or RAY_ADDRESS): {said}") from None


def knock(address: str) -> None:
    """Raise `ValueError` if nobody listens at a Ray address, which Ray itself would ask for minutes, or it is none."""
    place = re.fullmatch(r"(?:ray://)?\[?([^/\]]+)\]?:(\d+)", address)
    if place is None and (is_web(address) or ("://" not in address and address not in ("auto", "local"))):
        raise ValueError(f"--address {address} (or RAY_ADDRESS): expected HOST:PORT, ray://HOST:PORT or auto")
    if place is None:  # a Ray that Ray itself looks for, or another client of it
        return
    try:
        socket.create_connection((place[1], int(place[2])), timeout=_KNOCK_S).close()
    except (OSError, OverflowError) as error:
        way_out = "leave out --address and RAY_ADDRESS to start one here"
        raise ValueError(f"no Ray answers at {address} ({error}); {way_out}") from None


@contextlib.contextmanager
def _listening(tally: Any, notify: Notify | None) -> Iterator[None]:
    import ray

    done = threading.Event()

    def drain() -> None:
        calls, words = ray.get(tally.take.remote())
        for word in words:
            logging.getLogger(__name__).warning(word)
        for call in calls:
            if notify is not None:
                notify(*call)

    def listen() -> None:
        while not done.wait(0.5):
            drain()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(ray.exceptions.RayError):
            drain()
