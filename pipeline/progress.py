"""Live progress of a run: one row per stage on a terminal, a line now and then elsewhere."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.table import Table

from pipeline.plan import Due

_LINE_EVERY_S = 15.0
_SILENT_S = 60.0  # at most, though no call ends: a film of hours is no hang
_TABLE_EVERY_S = 3600.0


@dataclass
class _Row:
    entering: int
    counts: Counter[str] = field(default_factory=Counter)
    first: float | None = None

    @property
    def done(self) -> int:
        return sum(self.counts.values())

    @property
    def kept(self) -> int:
        return self.counts["ok"] + self.counts["known"]

    @property
    def failed(self) -> int:
        return self.counts["failed"] + self.counts["quarantined"]


class Progress:
    """Call it with what `Notify` tells; use as a context manager around the run."""

    def __init__(self, due: Sequence[Due], console: Console) -> None:
        self._rows = {d.stage.name: _Row(len(d.enter)) for d in due}
        self._console = console
        self._lock = threading.Lock()
        self._live = Live(get_renderable=self.table, console=console, refresh_per_second=2)
        self._ended = threading.Event()
        self._said = self._tabled = time.monotonic()
        self.started = time.monotonic()

    def __call__(self, stage: str, status: str, seconds: float) -> None:
        with self._lock:
            row = self._rows[stage]
            row.first = row.first or time.monotonic() - seconds
            row.counts[status] += 1
        self._tell(_LINE_EVERY_S)

    def _tell(self, after_s: float) -> None:
        """A line in a log, where the last one is so old."""
        now = time.monotonic()
        if not self._console.is_terminal and now - self._said > after_s:
            self._said = now
            self._console.print(self.line(), soft_wrap=True)
            if now - self._tabled > _TABLE_EVERY_S:
                self._tabled = now
                self._console.print(self.table())

    def _beat(self) -> None:
        while not self._ended.wait(_SILENT_S):
            self._tell(_SILENT_S / 2)

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._live.start()
        else:
            threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._console.is_terminal:
            self._live.stop()
        else:
            self._console.print(self.table())

    def _expected(self) -> dict[str, float]:
        """How many videos each stage will have seen at the end, if stages go on keeping what they kept so far."""
        expected, arriving = {}, 0.0
        for name, row in self._rows.items():
            expected[name] = max(arriving + row.entering, row.done)
            share = row.kept / row.done if row.done else 1.0
            arriving = expected[name] * share
        return expected

    def table(self) -> Table:
        """One row per stage: done of expected, how they ended, calls per minute, time left."""
        table = Table("stage", "done", "kept", "rejected", "failed", "postponed", "per min", "time left", box=None)
        for column in table.columns[1:]:
            column.justify = "right"
        with self._lock:
            expected = self._expected()
            for name, row in self._rows.items():
                rate = self._rate(row)
                left = (expected[name] - row.done) / rate if rate else None
                counts = (row.kept, row.counts["rejected"], row.failed)
                table.add_row(
                    name,
                    f"{row.done}/{expected[name]:.0f}",
                    *(str(n) for n in counts),
                    str(row.counts["postponed"]),
                    f"{60 * rate:.1f}" if rate else "",
                    "" if left is None else "done" if left < 1 else clock(left),
                )
        return table

    def line(self) -> str:
        """The same in one line, for logs; of what is kept and of what there is none, nothing."""
        with self._lock:
            expected = self._expected()
            parts = [f"{name} {row.done}/{expected[name]:.0f}{self._details(row)}" for name, row in self._rows.items()]
        return f"{clock(time.monotonic() - self.started)}  " + "  ".join(parts)

    def _details(self, row: _Row) -> str:
        counts = {"rejected": row.counts["rejected"], "failed": row.failed, "postponed": row.counts["postponed"]}
        told = [f"{count} {how}" for how, count in counts.items() if count]
        if rate := self._rate(row):
            told.append(f"{60 * rate:.1f}/min")
        return f" ({', '.join(told)})" if told else ""

    def _rate(self, row: _Row) -> float:
        if row.first is None or not row.done:
            return 0.0
        return row.done / max(1e-3, time.monotonic() - row.first)


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
