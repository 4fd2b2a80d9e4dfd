"""How cores, GPUs and memory of a cluster are divided among the workers of the stages: nothing but arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.stage import Resources

_PART = 0.9
"""What workers may hold of cores and memory; Ray's own tasks would otherwise wait for ever behind the actors."""


@dataclass(frozen=True)
class Node:
    """What a machine has for workers; `memory_gb` is 0 where it is not told."""

    cpus: float
    gpus: float = 0.0
    memory_gb: float = 0.0


@dataclass(frozen=True)
class Pool:
    """The workers of a stage that are started at once, and what each of them holds."""

    workers: int
    cpus: float
    gpus: float = 0.0
    memory_gb: float = 0.0


def divide(
    asked: Sequence[tuple[Resources, int]], nodes: Sequence[Node] | None, card_gb: float | None = None
) -> list[Pool]:
    """A pool for each stage, from what it asks for and how many videos may come to it, if none holding nothing.

    Where one worker of each is more than all nodes have together, all get less (on a laptop all stages overlap), and so
    on a few small nodes, where one might find no node with room for it, however much all have together. The cores that
    are left then go to stages with a `weight` as workers that are started at once: Ray Data itself reserves an equal
    part of them for every stage that is not done, and of sixteen cores of a GPU node three would watch. Not so where a
    stage goes without the GPU that it asks for: weights are reckoned beside it, and on the processor that stage costs
    most.

    `nodes`: None for a cluster that grows, which makes room for what is asked; `card_gb`: the memory of a GPU, None
    where it is not known.
    """
    nodes = None if nodes is None else [node for node in nodes if node.cpus]  # not a head that does no stage work
    pools = [_first(one, videos, nodes, card_gb) for one, videos in asked]
    if nodes is None:
        return pools
    shrunk = _shrunk(pools, nodes)
    as_reckoned = all(pool.gpus or not one.gpus for (one, _), pool in zip(asked, pools, strict=True))
    return _more(asked, pools, nodes) if shrunk == pools and as_reckoned else shrunk


def _first(asked: Resources, videos: int, nodes: Sequence[Node] | None, card_gb: float | None) -> Pool:
    workers = asked.workers[0] if videos else 0
    if asked.gpus and (nodes is None or any(node.gpus for node in nodes)):
        cpus = asked.cpus if asked.cpus_beside_gpu is None else asked.cpus_beside_gpu
        return Pool(workers, cpus, gpus=max(asked.gpus, min(1.0, asked.gpu_memory_gb / card_gb if card_gb else 0.0)))
    told = nodes is not None and all(node.memory_gb for node in nodes)
    return Pool(workers, asked.cpus, memory_gb=asked.memory_gb if told else 0.0)


def _shrunk(pools: Sequence[Pool], nodes: Sequence[Node]) -> list[Pool]:
    on_gpu = [pool for pool in pools if pool.gpus]
    cpus = min(
        _factor([(pool.workers, pool.cpus) for pool in pools], [node.cpus for node in nodes] or [1.0], _PART),
        _factor([(pool.workers, pool.cpus) for pool in on_gpu], [node.cpus for node in nodes if node.gpus], _PART),
    )
    gpus = _factor([(pool.workers, pool.gpus) for pool in pools], [sum(node.gpus for node in nodes)], 1.0)
    gpus *= 1.0 if gpus == 1.0 else 0.99  # Ray counts in steps of 0.0001, and there is no part left over
    has_gb = [node.memory_gb for node in nodes]
    memory = _factor([(pool.workers, pool.memory_gb) for pool in pools], [sum(has_gb)], _PART)
    held_gb = [min(pool.memory_gb * memory, _PART * max(has_gb, default=0.0)) for pool in pools]
    memory = _factor([(pool.workers, gb) for pool, gb in zip(pools, held_gb, strict=True)], has_gb, 1.0)
    return [
        Pool(pool.workers, pool.cpus * cpus, pool.gpus * gpus, gb * memory)
        for pool, gb in zip(pools, held_gb, strict=True)
    ]


def _factor(held: Sequence[tuple[int, float]], pieces: Sequence[float], part: float) -> float:
    """By how much less all must hold, so that they fit into a part of all pieces, however they are placed: `_fits`."""
    wanted, total = sum(workers * amount for workers, amount in held), sum(pieces)
    largest = max((amount for workers, amount in held if workers), default=0.0)
    return min(1.0, part * total / wanted, total / (wanted + (len(pieces) - 1) * largest)) if wanted else 1.0


def _more(asked: Sequence[tuple[Resources, int]], pools: list[Pool], nodes: Sequence[Node]) -> list[Pool]:
    """One more worker after the other for the stage that has the fewest for its weight, until that one does not fit:
    more of the others would wait for it."""

    def wants(i: int) -> bool:
        one, videos = asked[i]
        return one.weight > 0 and pools[i].workers < min(videos, one.workers[1] or videos)

    while wanting := [i for i in range(len(pools)) if wants(i)]:
        i = min(wanting, key=lambda i: pools[i].workers / asked[i][0].weight)
        larger = [*pools[:i], replace(pools[i], workers=pools[i].workers + 1), *pools[i + 1 :]]
        if not _fit(larger, nodes):
            break
        pools = larger
    return pools


def _fit(pools: Sequence[Pool], nodes: Sequence[Node]) -> bool:
    """Whether all find room however Ray places them; those that ask for a GPU, on the nodes that have one."""
    with_gpu = [node for node in nodes if node.gpus]
    on_gpu = [pool for pool in pools if pool.gpus]
    cards = [1.0] * int(sum(node.gpus for node in nodes))
    return (
        _fits([(pool.workers, pool.cpus) for pool in pools], [node.cpus for node in nodes], _PART)
        and _fits([(pool.workers, pool.cpus) for pool in on_gpu], [node.cpus for node in with_gpu], _PART)
        and _fits([(pool.workers, pool.gpus) for pool in on_gpu], cards, 1.0)
        and _fits([(pool.workers, pool.memory_gb) for pool in pools], [node.memory_gb for node in nodes], _PART)
    )


def _fits(held: Sequence[tuple[int, float]], pieces: Sequence[float], part: float) -> bool:
    """A worker lies in one piece: while each but one could still take the largest, no scattering keeps any out."""
    total, largest = sum(pieces), max((amount for _, amount in held), default=0.0)
    return sum(workers * amount for workers, amount in held) <= min(part * total, total - (len(pieces) - 1) * largest)
