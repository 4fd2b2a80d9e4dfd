"""One stage bound to a ledger: measures a video once and remembers the outcome. Holds the only broad `except`."""

import contextlib
import logging
import math
import re
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from manifests.codec import from_json, from_plain, to_json, to_plain
from manifests.records import Video
from manifests.scratch import sweep
from manifests.store import Store
from pipeline.bench import Bench
from pipeline.disk import disk_fault
from pipeline.ledger import SETTLED, Ledger, Outcome, Tries, is_forgotten
from pipeline.stage import (
    Facts,
    MemoryFullError,
    PostponedError,
    Rejection,
    Stage,
    Work,
    WorkerSpoiledError,
    deadline,
    keys,
)
from stages.cuda import full

MAX_TRIES = 3

MAX_FAILURES_IN_A_ROW = 20
"""Of first attempts: a video that failed before says nothing of the stage, and a second run may have no others."""

MAX_DEATHS_IN_A_ROW = 5
"""Videos given up since workers of a stage on one machine died of them, with none done in between: it is the machine,
which would go through the whole queue."""

_CLEARED_EVERY_S = 60.0
"""A worker that gets on clears the count of deaths on its machine so often: a request a minute."""

Ticket = dict[str, Any]
"""A video as plain builtins: all that moves between processes."""

Notify = Callable[[str, str, float], None]
"""Told (stage name, status, seconds) after every call; status is also "known" (passed before), "postponed" or
"forgotten"."""

_SAID = re.compile(r"\bStageBrokenError: (.+)")

log = logging.getLogger(__name__)


class StageBrokenError(Exception):
    """The stage or the machine is at fault, not the videos: the run stops.

    Lies in the store under `broken/{run}.json` as well: exceptions do not cross process borders whole.
    """

    def __init__(self, message: str, trace: str = "", *, by_request: bool = False) -> None:
        super().__init__(message)
        self.trace = trace
        self.by_request = by_request  # a fault of the user's request, such as weights that are not there


def left_behind(store: Store, run: str, error: BaseException) -> StageBrokenError:
    """What the step that stopped the run left in the store, or else what came of it over Ray; `error`: Ray's own."""
    try:
        message, trace, by_request = from_json(store.get(f"broken/{run}.json"), tuple[str, str, bool])
    except (FileNotFoundError, msgspec.DecodeError):
        if fault := disk_fault(error):  # the store had no room for the word, or not for all of it
            said = _SAID.search(str(error))
            return StageBrokenError(said[1] if said else fault, by_request=True)
        return StageBrokenError(str(error).strip().splitlines()[-1], str(error))
    return StageBrokenError(message, trace, by_request=by_request)


class _ForgottenError(Exception):
    """`forget` took the video out after this run had queued it."""


class Step:
    """Call with a ticket; returns the ticket if the video goes on, else nothing.

    `upstream` are the stages before this one, which name the facts that this one needs.
    """

    def __init__(
        self, stage: Stage[Any], upstream: Sequence[Stage[Any]], store: Store, run: str, notify: Notify | None = None
    ) -> None:
        self.stage, self.store, self.run = stage, store, run
        self.names = keys([*upstream, stage], Video)
        self.key = self.names[stage.name]
        self.givers = {s.gives: s.name for s in upstream}
        self.ledger = Ledger(store)
        self.notify = notify or (lambda stage, status, seconds: None)
        self.failures_in_a_row = 0
        # In the store: a worker that dies takes its own count with it.
        self._deaths = f"died/{run}/{stage.name}/{socket.gethostname()}.json"
        self._cleared_s = -math.inf  # when this process last cleared them, by `time.monotonic`
        self._work: Work[Any] | None = None

    def __call__(self, ticket: Ticket) -> list[Ticket]:
        outcome, tries = self.ledger.look(self.key, ticket["id"])
        # What failed in this run waits for the next, though a wave of a search or a worker that died brings it again.
        if outcome is not None and (outcome.status in SETTLED or outcome.run == self.run):
            self.notify(self.stage.name, "known" if outcome.status == "ok" else outcome.status, 0.0)
        else:
            outcome = self._attempt(ticket, 0 if outcome is None else outcome.attempt, tries)
        return [ticket] if outcome is not None and outcome.status == "ok" else []

    def open(self) -> Work[Any]:
        """Open the stage, in the process that does its work."""
        return self.stage.open()

    def node(self) -> str:
        """The node of a cluster that this process runs on, "" where there is none to lose."""
        return ""

    def is_lost(self, node: str) -> bool:
        """Whether a node was taken away, with all that ran there."""
        return False

    def _attempt(self, ticket: Ticket, failed_before: int, before: Tries) -> Outcome | None:
        started = time.monotonic()
        tries = self.ledger.begin(self.key, ticket["id"], self.run, self.node(), self.is_lost, before)
        if tries > MAX_TRIES:
            died = f"its worker died {MAX_TRIES} times (killed, it may be, for want of memory), or passed its deadline"
            last = self.ledger.last_words(self.key, ticket["id"])
            outcome = Outcome(status="quarantined", body={"error": f"{died}; one said: {last}" if last else died})
        else:
            try:
                outcome = self._measure(ticket, failed_before + 1)
            except PostponedError as why:
                log.warning("%s %s: postponed: %s", self.stage.name, ticket["id"], why)
                self.ledger.put_off(self.key, ticket["id"], self.run, tries, str(why))
                self.notify(self.stage.name, "postponed", time.monotonic() - started)
                return None
            except _ForgottenError:
                self.ledger.forget(self.key, ticket["id"])  # the attempt that was begun
                self.notify(self.stage.name, "forgotten", time.monotonic() - started)
                return None
        self.ledger.write(self.key, ticket["id"], outcome)
        self.notify(self.stage.name, outcome.status, time.monotonic() - started)
        if tries > MAX_TRIES:
            self._count_death(last)
        elif outcome.status in ("ok", "rejected") and time.monotonic() - self._cleared_s > _CLEARED_EVERY_S:
            self.store.delete(self._deaths)
            self._cleared_s = time.monotonic()
        return outcome

    def _measure(self, ticket: Ticket, attempt: int) -> Outcome:
        started = time.monotonic()

        def outcome(status: Any, body: dict[str, Any]) -> Outcome:
            seconds = round(time.monotonic() - started, 3)
            return Outcome(
                status=status, body=body, attempt=attempt, seconds=seconds, worker=socket.gethostname(), run=self.run
            )

        if self._work is None:
            sweep()  # a worker takes the place of a dead one: nobody else cleans up on this machine
        try:
            self._work = self._work or self.open()
            with deadline(self.stage.deadline_s), Bench(self.store, self.key, ticket["id"]) as bench:
                result = self._work(self._facts(ticket), bench)
            body = to_plain(result)  # here, that what is no fact fails as the call that gave it
        except MemoryFullError as error:
            self._count_failure(error)
            raise
        except (PostponedError, _ForgottenError):
            raise
        except WorkerSpoiledError:
            self.ledger.complain(self.key, ticket["id"], traceback.format_exc())
            raise
        except Exception as error:
            if fault := disk_fault(error):
                raise self._broken(fault, by_request=True) from error
            if self._work is None and full(error):  # where it opens as where it works: what others hold comes free
                lack = MemoryFullError(str(error).splitlines()[0])
                self._count_failure(lack)
                raise lack from error
            if self._work is None:  # not a fact about the video
                request = isinstance(error, ValueError)
                message = str(error) if request else f"{self.stage.name} cannot start: {error!r}"
                raise self._broken(message, by_request=request) from error
            if attempt == 1:
                self._count_failure(error)
            log.warning("%s %s failed: %r", self.stage.name, ticket["id"], error)
            body = {"error": traceback.format_exc()}
            return outcome("failed" if attempt < MAX_TRIES else "quarantined", body)
        self.failures_in_a_row = 0
        return outcome("rejected" if isinstance(result, Rejection) else "ok", body)

    def _count_failure(self, error: Exception) -> None:
        """Raise `StageBrokenError` if it is one too many in a row."""
        self.failures_in_a_row += 1
        if self.failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
            rows = f"{self.failures_in_a_row} videos in a row"
            raise self._broken(
                f"{rows} failed at {self.stage.name}, the last with {error!r}",
                by_request=isinstance(error, MemoryFullError),
            ) from error

    def _count_death(self, last: str) -> None:
        """Raise `StageBrokenError` if workers here died of too many in a row; `last`: what one of them said of it."""
        self._cleared_s = -math.inf
        before = self.store.get_some([self._deaths]).get(self._deaths)
        count = 1 + (from_json(before, int) if before else 0)
        self.store.put(self._deaths, to_json(count))
        if count >= MAX_DEATHS_IN_A_ROW:
            said = f"; one said: {last.strip().splitlines()[-1]}" if last.strip() else ""
            raise self._broken(
                f"workers of {self.stage.name} died of {count} videos in a row, killed, it may be, for want of memory, "
                f"or past their deadline{said}; mend that machine and run again, with --retry for those videos too",
                by_request=True,
            )

    def _broken(self, message: str, *, by_request: bool = False) -> StageBrokenError:
        if self.node():
            message = f"{socket.gethostname()}: {message}"  # the driver sits elsewhere
        trace = traceback.format_exc()
        # Rows that were already on their way to this worker fail too: the first cause stands.
        with contextlib.suppress(OSError):  # a full disk of the store; the driver reads the message
            self.store.create(f"broken/{self.run}.json", to_json([message, trace, by_request]))
        return StageBrokenError(message, trace, by_request=by_request)

    def _facts(self, ticket: Ticket) -> Facts:
        """Raises `_ForgottenError`: looked for before the first stage downloads, and where a fact is gone, since a look
        before every call costs a request each. And `PostponedError` where another run has taken a fact back, for the
        corrected row of a list: only the next plan has the video enter there."""
        facts: list[object] = [from_plain(ticket, Video)]
        wanted = {kind: self.names[self.givers[kind]] for kind in self.stage.inputs() if kind is not Video}
        known = self.ledger.passed(list(wanted.values()), ticket["id"])
        if (not self.givers or len(known) < len(wanted)) and is_forgotten(self.store, ticket["id"]):
            raise _ForgottenError
        for kind, key in wanted.items():
            if key not in known:
                raise PostponedError(f"another run has taken its {kind.__name__} back")
            facts.append(from_plain(known[key].body, kind))
        return Facts(facts)
