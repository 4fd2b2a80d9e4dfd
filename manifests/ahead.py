"""`map` with its next results on their way, for what waits rather than computes."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
R = TypeVar("R")


def map_ahead(call: Callable[[A], R], items: Iterable[A], *, n: int) -> Generator[R]:
    """Results in order, those of the next `n` items made in as many threads while one is in use; 0: `map`.

    Raises what a call raised where its result would have come. Closing it waits for the calls that are under way.
    """
    if not n:
        yield from map(call, items)
        return
    pool = ThreadPoolExecutor(n, thread_name_prefix="ahead")
    coming: deque[Future[R]] = deque()
    try:
        for item in items:
            coming.append(pool.submit(call, item))
            if len(coming) > n:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
