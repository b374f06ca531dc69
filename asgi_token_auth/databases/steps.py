"""Runs what :data:`~asgi_token_auth.databases.protocol.Steps` are, however a database runs a statement."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import TypeVar

from asgi_token_auth.databases.protocol import Row

T = TypeVar("T")
P = TypeVar("P")


async def drive(steps: Generator[tuple[str, P], list[Row], T], run: Callable[[str, P], Awaitable[list[Row]]]) -> T:
    """Run every statement of ``steps`` by ``run``, give it the rows, and return the result."""
    rows: list[Row] | None = None
    while True:
        try:
            sql, parameters = steps.send(rows) if rows is not None else next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        rows = await run(sql, parameters)


def drive_here(steps: Generator[tuple[str, P], list[Row], T], run: Callable[[str, P], list[Row]]) -> T:
    """The same in the calling thread."""
    rows: list[Row] | None = None
    while True:
        try:
            sql, parameters = steps.send(rows) if rows is not None else next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        rows = run(sql, parameters)
