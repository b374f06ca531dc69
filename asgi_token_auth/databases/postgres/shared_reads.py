"""Reads that many requests share without any of them getting an answer older than itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final, Generic, TypeAlias, TypeVar

from asgi_token_auth.errors import StorageError

T = TypeVar("T")

#: Seconds from a question to its answer or its failure.
TIMEOUT: Final = 1.0

_Batch: TypeAlias = list[tuple[int, asyncio.Future[T]]]


class SharedReads(Generic[T]):
    """One read at a time, for the event loop that runs when this is made.

    Whoever asks joins the read that starts next, never one that is under way: that one may have seen the database
    as it was before the question.

    Args:
        read: answers for these ids before a time of the event loop, or raises StorageError.
        absent: the answer for an id that ``read`` leaves out.
    """

    def __init__(self, read: Callable[[Collection[int], float], Awaitable[Mapping[int, T]]], absent: T) -> None:
        self._read = read
        self._absent = absent
        self._waiting: _Batch[T] = []
        self._oldest = 0.0
        # Asking which loop runs is a system call in Python 3.11.
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    def ask(self, row_id: int) -> Awaitable[T]:
        """The answer of a read that begins after this call. To be awaited.

        Raises:
            StorageError: no answer came in time, or the database cannot answer.
        """
        if not self._waiting:
            self._oldest = self._loop.time()
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append((row_id, future))
        if self._task is None:
            self._task = self._loop.create_task(self._run())
            self._task.add_done_callback(self._ended)
        return future

    async def close(self) -> None:
        """Wait until everybody has an answer, which takes no longer than a read may take."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        batch: _Batch[T] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    found = await self._read({row_id for row_id, _ in batch}, self._oldest + TIMEOUT)
                except StorageError as error:
                    _fail(batch, error)
                    continue
                for row_id, future in batch:
                    # It is done if its request has gone away meanwhile.
                    if not future.done():
                        future.set_result(found.get(row_id, self._absent))
        except BaseException as error:
            waiting, self._waiting = self._waiting, []
            _fail([*batch, *waiting], error)
            raise
        finally:
            self._task = None

    def _ended(self, task: asyncio.Task[None]) -> None:
        # One that is cancelled before its first step never comes to its own clean-up.
        if self._task is task:
            self._task = None
            waiting, self._waiting = self._waiting, []
            _fail(waiting, asyncio.CancelledError())


def _fail(batch: _Batch[T], error: BaseException) -> None:
    for _, future in batch:
        if not future.done():
            # An exception of its own for each: raising one adds to its traceback.
            failure = StorageError(
                str(error) if isinstance(error, StorageError) else f"The read was stopped: {type(error).__name__}."
            )
            failure.__cause__ = error
            future.set_exception(failure)
