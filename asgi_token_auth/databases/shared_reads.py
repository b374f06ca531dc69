"""Reads that many requests share without any of them getting an answer older than itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final

from asgi_token_auth.databases.protocol import Row
from asgi_token_auth.errors import StorageError

#: Seconds from a question to its answer or its failure.
PATIENCE: Final = 1.0

#: Reads the rows of these ids before a time of the event loop, or raises StorageError.
Read = Callable[[Collection[int], float], Awaitable[Mapping[int, Row]]]


class SharedReads:
    """One read at a time, for one event loop.

    Whoever asks joins the read that starts next, never one that is under way: that one may have seen the database
    as it was before the question.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._waiting: list[tuple[int, asyncio.Future[Row | None]]] = []
        self._oldest = 0.0
        self._task: asyncio.Task[None] | None = None

    async def ask(self, row_id: int) -> Row | None:
        """The row as some read found it that began after this call.

        Raises:
            StorageError: no answer came in time, or the database cannot answer.
        """
        loop = asyncio.get_running_loop()
        if not self._waiting:
            self._oldest = loop.time()
        future: asyncio.Future[Row | None] = loop.create_future()
        self._waiting.append((row_id, future))
        if self._task is None:
            self._task = loop.create_task(self._run())
        return await future

    async def close(self) -> None:
        """Wait until everybody has an answer, which takes no longer than a read may take."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        batch: list[tuple[int, asyncio.Future[Row | None]]] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    rows = await self._read({row_id for row_id, _ in batch}, self._oldest + PATIENCE)
                except StorageError as error:
                    _fail(batch, error)
                    continue
                for row_id, future in batch:
                    # It is done if its request has gone away meanwhile.
                    if not future.done():
                        future.set_result(rows.get(row_id))
        except BaseException as error:
            waiting, self._waiting = self._waiting, []
            _fail([*batch, *waiting], error)
            raise
        finally:
            self._task = None


def _fail(batch: list[tuple[int, asyncio.Future[Row | None]]], error: BaseException) -> None:
    for _, future in batch:
        if not future.done():
            # An exception of its own for each: raising one adds to its traceback.
            failure = StorageError(
                str(error) if isinstance(error, StorageError) else f"The read was stopped: {type(error).__name__}."
            )
            failure.__cause__ = error
            future.set_exception(failure)
