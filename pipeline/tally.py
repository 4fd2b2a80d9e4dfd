"""What workers, wherever they are, tell the driver: one row per call, and what the user should hear at once."""

import logging
from typing import Any

Call = tuple[str, str, float]
"""What `Notify` is told: stage name, status, seconds."""

_MOST_WORDS = 20
"""Different ones that a run passes on."""


class Tally:
    """Collects it for the driver; an actor, since workers live anywhere."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._words: dict[str, bool] = {}  # whether it was taken

    def add(self, stage: str, status: str, seconds: float) -> None:
        """Count a call."""
        self._calls.append((stage, status, seconds))

    def say(self, word: str) -> None:
        """Have the user told, once however many workers say it."""
        if len(self._words) < _MOST_WORDS:
            self._words.setdefault(word, False)

    def take(self) -> tuple[list[Call], list[str]]:
        """The calls and the words since it was asked last."""
        calls, self._calls = self._calls, []
        words = [word for word, is_taken in self._words.items() if not is_taken]
        self._words = dict.fromkeys(self._words, True)
        return calls, words


class Report:
    """What workers call: sends one small message to the tally and waits for nothing."""

    def __init__(self, tally: Any) -> None:
        self.tally = tally

    def __call__(self, stage: str, status: str, seconds: float) -> None:
        self.tally.add.remote(stage, status, seconds)

    def listen(self) -> None:
        """Pass on what stages log as an error, since nobody sees the stderr of a worker."""
        logging.getLogger("stages").addHandler(_Voice(self.tally))


class _Voice(logging.Handler):
    def __init__(self, tally: Any) -> None:
        super().__init__(logging.ERROR)
        self._tally = tally

    def emit(self, record: logging.LogRecord) -> None:
        self._tally.say.remote(record.getMessage())
