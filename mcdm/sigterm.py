"""Told to end: SIGTERM, which a spot machine gets minutes before it goes, is answered after the step of a training, and
by everything else at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def told_to_end() -> Iterator[Callable[[], bool]]:
    """Inside, SIGTERM ends nothing; what is given says whether it came. Beside the main thread, where Ray Train works,
    signals stay as they are, and it never says so."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came: list[int] = []
    with _answered(lambda number, _: came.append(number)):
        yield lambda: bool(came)


@contextmanager
def untold() -> Iterator[None]:
    """Processes that are forked inside never get SIGTERM: torchrun sends it to readers too, and without them the step
    would not come to its end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def as_interrupt() -> Iterator[None]:
    """Inside, SIGTERM is what Ctrl-C is, for what leaves nothing half made behind on its way out."""
    with _answered(signal.default_int_handler):
        yield


@contextmanager
def _answered(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
