"""When something was last used: noted in memory, written later in batches, never on a request's path."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from asgi_token_auth.errors import ValueRefused, for_the_log

logger: Final = logging.getLogger("asgi_token_auth")

#: Seconds from the first note to the write, rows in one transaction, and how much may wait when writing fails.
FLUSH_INTERVAL: Final = 5.0
BATCH: Final = 500
MOST_WAITING: Final = 100_000
#: Seconds that the end of an event loop may be held up for the last batch.
LAST_CHANCE: Final = 1.0

#: An id, when it was used (seconds since the epoch), and by whom or from where if that is recorded.
Use = tuple[int, int, str | None]


class UsageLog:
    """Collects uses and hands them to ``write``, at most :data:`BATCH` at a time.

    Args:
        interval: seconds from the first note to the write.
        at_end: what closes the database that ``write`` opens, for an event loop that ends without ``close()``.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Use]], Awaitable[None]],
        *,
        interval: float = FLUSH_INTERVAL,
        at_end: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._write = write
        self._at_end = at_end
        self._closing = self._writing = False
        self._interval = interval
        self._waiting: dict[int, tuple[int, str | None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def note(self, row_id: int, when: int, by: str | None = None) -> None:
        """Remember a use. Costs a dictionary entry; what is older than the last note of the same id is dropped."""
        if len(self._waiting) >= MOST_WAITING and row_id not in self._waiting:
            return
        known = self._waiting.get(row_id)
        if known is None or when >= known[0]:
            self._waiting[row_id] = (when, by)
        # A task of another event loop writes for this one too, unless that loop has ended and will never finish it.
        # With a task for each turn, threads that take turns would leave hundreds of writes to the end of their loops.
        if self._task is None or self._task.done() or not self._task.get_loop().is_running():
            self._task = asyncio.get_running_loop().create_task(self._later())

    async def flush(self) -> None:
        """Write everything that waits. A failure is logged and what was not written is kept for the next time.

        What the database cannot hold is dropped, so that it keeps nothing else from being written.
        """
        suspected = 0
        while self._waiting:
            size = 1 if suspected else BATCH
            batch = [(row_id, when, by) for row_id, (when, by) in list(self._waiting.items())[:size]]
            suspected = max(0, suspected - 1)
            try:
                await self._write(batch)
            except ValueRefused as error:
                if len(batch) > 1:
                    # One by one, because it is not known which of them is to blame.
                    suspected = len(batch)
                    continue
                logger.warning("one last used time cannot be written and is dropped: %s", for_the_log(error))
            except Exception as error:
                # Whatever it is: nobody's request, and no other part of a shutdown, may fail because of it.
                if not self._failing:
                    logger.warning("last used times cannot be written for now: %s", for_the_log(error))
                self._failing = True
                return
            self._failing = False
            for row_id, when, by in batch:
                if self._waiting.get(row_id) == (when, by):
                    self._waiting.pop(row_id, None)

    async def close(self) -> None:
        """Stop waiting and write what there is."""
        task, self._task = self._task, None
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            # Cancelling does not stop a write in its thread, and the same would be written twice.
            writing = self._writing
            self._closing = True
            try:
                if not writing:
                    task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            finally:
                self._closing = False
            if writing and self._failing:
                return
        await self.flush()

    async def _later(self) -> None:
        try:
            while self._waiting and not self._closing:
                await asyncio.sleep(self._interval)
                self._writing = True
                try:
                    await self.flush()
                finally:
                    self._writing = False
        except asyncio.CancelledError:
            if self._closing:
                raise
            # The loop is ending, and without a lifespan nobody calls close(). An exit must not wait for long.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_CHANCE):
                    await self.flush()
                    if self._at_end is not None:
                        await self._at_end()
            raise
