"""Faults that last: one loud line when one begins, counts while it goes on, and a line when it is over."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

#: Seconds between two counts. After as long without a fault it is over.
INTERVAL: Final = 60.0
#: Causes that get a line of their own in one outage; what comes after them is counted.
MOST_CAUSES: Final = 8


class OutageLog:
    """Writes about one thing that may fail at every request. A success costs nothing, because it is not noted.

    Args:
        logger: where the lines go, at ERROR; the last one at WARNING.
        what: what fails, as a clause: ``"a token could not be checked"``.
        interval: seconds between two counts.
        clock: seconds of any beginning, for tests.
    """

    def __init__(
        self,
        logger: logging.Logger,
        what: str,
        *,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._what = what
        self._interval = interval
        self._clock = clock
        self._causes: set[str] = set()
        self._total = 0
        self._more = 0
        self._recent = 0
        self._due = 0.0
        # A timer of a loop that has ended never rings, and one of a former outage must not end this one.
        self._timer = 0

    def note(self, cause: str, *, exc_info: bool = False) -> None:
        """It has failed once more, because of ``cause``. With ``exc_info`` a first line has the traceback."""
        now = self._clock()
        if self._total and now >= self._due:
            self._count(now)
        began = not self._total
        self._total += 1
        self._recent += not began
        if cause not in self._causes and len(self._causes) < MOST_CAUSES:
            self._causes.add(cause)
            self._logger.error("%s: %s", self._what, cause, exc_info=exc_info)
        else:
            self._more += 1
        if began:
            self._wait(now)

    def _wait(self, now: float) -> None:
        self._due = now + self._interval
        self._timer += 1
        try:
            asyncio.get_running_loop().call_later(self._interval, self._ring, self._timer)
        except RuntimeError:
            # Not in an event loop: the next note counts.
            return

    def _ring(self, timer: int) -> None:
        if timer == self._timer and self._total:
            self._count(self._clock())

    def _count(self, now: float) -> None:
        recent, self._recent = self._recent, 0
        if recent:
            # A cause that was new has had a line of its own.
            if self._more:
                self._logger.error("%s: it goes on, %d times more, %d in all", self._what, self._more, self._total)
            self._more = 0
            self._wait(now)
            return
        self._logger.warning(
            "%s: it has ended, not once in %g seconds; %d in all", self._what, self._interval, self._total
        )
        self._causes.clear()
        self._total = 0
