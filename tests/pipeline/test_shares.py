"""How cores, GPUs and memory are divided among the workers of stages."""

import itertools

import pytest

from pipeline.recipes import build
from pipeline.shares import Node, Pool, divide
from pipeline.stage import Resources

CARD_GB = 24.0
NAMES = [stage.name for stage in build("own").stages()]


def pools(*nodes: Node, name: str = "own", videos: int = 1000, card_gb: float | None = None) -> dict[str, Pool]:
    stages = build(name).stages()
    found = divide([(stage.resources, videos) for stage in stages], nodes, card_gb)
    return {stage.name: pool for stage, pool in zip(stages, found, strict=True)}


def held(found: dict[str, Pool]) -> float:
    return sum(pool.workers * pool.cpus for pool in found.values())


@pytest.mark.parametrize(
    ("cores", "gpus", "watch", "clip"),
    [
        *((2, 0, 1, 1), (8, 0, 1, 1), (32, 0, 1, 1), (64, 0, 1, 1)),  # where sync and speech cost most, Ray divides
        *((2, 1, 1, 1), (4, 1, 1, 1), (8, 1, 2, 1), (16, 1, 5, 5), (32, 1, 13, 11)),
    ],
)
def test_the_cores_that_one_worker_of_each_stage_leaves_go_to_watching_and_cutting(cores, gpus, watch, clip):
    found = pools(Node(cores, gpus, 4.0 * cores), card_gb=CARD_GB)
    assert {name: pool.workers for name, pool in found.items()} == {
        **dict.fromkeys(NAMES, 1),
        "watch": watch,
        "clip": clip,
    }
    assert held(found) <= 0.9 * cores + 1e-9
    assert sum(pool.workers * pool.gpus for pool in found.values()) <= gpus


@pytest.mark.parametrize("name", ["own", "sample"])
def test_on_two_cores_each_stage_has_one_worker_which_holds_as_much_less_as_all_others(name):
    stages = build(name).stages()
    share = 0.9 * 2 / sum(stage.resources.cpus for stage in stages)
    found = pools(Node(2, memory_gb=16.0), name=name)
    for stage in stages:
        assert found[stage.name].workers == 1
        assert found[stage.name].cpus == pytest.approx(stage.resources.cpus * share)


def test_beside_a_gpu_sync_and_speech_hold_the_one_core_that_they_compute_on():
    assert {pools(Node(16, 1), card_gb=CARD_GB)[name].cpus for name in ("sync", "speech")} == {1.0}
    assert {pools(Node(16))[name].cpus for name in ("sync", "speech")} == {2.0}


def test_no_more_workers_start_at_once_than_videos_come_and_none_where_none_comes():
    assert {name: pool.workers for name, pool in pools(Node(32, 1), videos=3).items()} == {
        **dict.fromkeys(NAMES, 1),
        "watch": 3,
        "clip": 3,
    }
    asked = [(Resources(weight=1.0), 0), (Resources(weight=1.0, workers=(1, 2)), 9)]
    assert [pool.workers for pool in divide(asked, [Node(8)])] == [0, 2]


def test_a_cluster_that_grows_is_asked_for_what_the_recipe_says():
    asked = build("own").speech.resources
    (alone,) = divide([(asked, 9)], None)
    assert alone == Pool(workers=1, cpus=1.0, gpus=asked.gpus)


def test_a_head_that_does_no_stage_work_counts_for_nothing():
    assert pools(Node(0, memory_gb=64.0), Node(16, memory_gb=8.0)) == pools(Node(16, memory_gb=8.0))


def test_those_that_watch_leave_the_few_nodes_with_a_gpu_to_others_that_need_one_too():
    found = pools(Node(0, memory_gb=16.0), Node(16, 1, 64.0), *[Node(16, 0, 32.0)] * 4, card_gb=CARD_GB)
    on_gpu = sum(pool.workers * pool.cpus for pool in found.values() if pool.gpus)
    assert found["watch"].workers == 11 and on_gpu <= 0.9 * 16
    assert found["clip"].workers == 10, "as many as keep up with them"


def test_many_small_nodes_keep_room_for_a_worker_that_holds_two_cores():
    two, many = divide([(Resources(cpus=2.0), 99), (Resources(weight=1.0), 99)], [Node(4)] * 8)
    assert two.workers == 1 and many.workers == 8 * 4 - 7 * 2 - 2


def test_small_networks_that_ask_for_no_gpu_have_their_weights_on_any_machine():
    assert [pools(Node(32, memory_gb=64.0), name="sample")[name].workers for name in NAMES] == [1, 10, 15, 1, 1, 1]


@pytest.mark.parametrize(("memory_gb", "hear"), [(1.0, 1), (4.0, 1), (12.0, 1), (28.0, 3), (120.0, 13)])
def test_without_a_gpu_no_more_that_hear_fit_than_memory_holds_and_one_does_on_any_machine(memory_gb, hear):
    found = pools(Node(32, memory_gb=memory_gb))
    assert sum(pool.workers * pool.memory_gb for pool in found.values()) <= memory_gb
    assert min(pool.memory_gb for name, pool in found.items() if name != "fetch") > 0
    assert memory_gb // found["speech"].memory_gb == hear


def test_a_worker_never_asks_for_more_memory_than_one_node_has():
    assert pools(*[Node(16, memory_gb=4.0)] * 8)["speech"].memory_gb < 4.0
    assert pools(Node(16))["speech"].memory_gb == 0.0, "where no node tells its memory"


def test_beside_a_gpu_the_machine_s_memory_keeps_nobody_out():
    found = pools(Node(16, 1, 4.0), card_gb=CARD_GB)
    assert {name for name, pool in found.items() if pool.memory_gb} == {"clip"}


@pytest.mark.parametrize(("card_gb", "hear"), [(None, 3), (80.0, 3), (24.0, 3), (16.0, 2), (12.0, 1)])
def test_shares_of_a_gpu_let_no_more_hear_than_its_memory_holds(card_gb, hear):
    found = pools(Node(16, 1, 64.0), card_gb=card_gb)
    assert 1.0 // found["speech"].gpus == hear
    assert sum(pool.workers * pool.gpus for pool in found.values()) <= 1.0


def test_on_a_gpu_too_small_for_all_one_worker_of_each_still_starts():
    assert sum(round(pool.gpus, 4) for pool in pools(Node(16, 1), card_gb=6.0).values()) <= 1.0


def finds_no_room(held: list[float], pieces: list[float]) -> list[float]:
    """Workers that find no node with as much left, where all others were placed somehow."""
    return [
        amount
        for n, amount in enumerate(held)
        for places in itertools.product(range(len(pieces)), repeat=len(held) - 1)
        if min(left := left_by(held[:n] + held[n + 1 :], places, pieces)) >= 0 and max(left) < amount
    ]


def left_by(held: list[float], places: tuple[int, ...], pieces: list[float]) -> list[float]:
    return [piece - sum(one for one, at in zip(held, places, strict=True) if at == n) for n, piece in enumerate(pieces)]


@pytest.mark.parametrize("memory_gb", [5.6, 10.2, 64.0])
@pytest.mark.parametrize("cores", [(2, 2), (2, 2, 2), (4, 4), (8, 8), (1, 1, 1), (2, 8)])
def test_on_a_few_small_nodes_every_worker_finds_one_wherever_the_others_are(cores, memory_gb):
    found = pools(*(Node(n, memory_gb=memory_gb) for n in cores))
    workers = [pool for pool in found.values() for _ in range(pool.workers)]
    assert finds_no_room([round(one.cpus, 4) - 1e-4 for one in workers], list(cores)) == []
    assert finds_no_room([one.memory_gb - 1e-6 for one in workers], [memory_gb] * len(cores)) == []


def test_those_that_ask_for_a_gpu_find_cores_beside_it_however_many_are_elsewhere():
    found = pools(Node(2, 1, 8.0), Node(64, 0, 64.0), card_gb=CARD_GB)
    assert sum(pool.workers * pool.cpus for pool in found.values() if pool.gpus) <= 2
