"""A database that fails when it is told to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asgi_token_auth.databases.protocol import Database, Dialect, Found, Lookup, Parameters, Result, Row, Steps


class Failing:
    """A database whose ``fails_at``-th call raises ``error`` instead of being made."""

    def __init__(self, inner: Database, fails_at: int, error: BaseException) -> None:
        self.inner = inner
        self.fails_at = fails_at
        self.error = error
        self.calls = 0
        self.name = inner.name
        self.dialect: Dialect = inner.dialect

    def count(self) -> None:
        self.calls += 1
        if self.calls == self.fails_at:
            raise self.error

    async def open(self) -> None:
        self.count()
        await self.inner.open()

    async def close(self) -> None:
        await self.inner.close()

    async def query(self, sql: str, parameters: Parameters, *, timeout: float = 5.0) -> Result:
        self.count()
        return await self.inner.query(sql, parameters, timeout=timeout)

    async def columns(self, sql: str, parameters: Parameters, *, timeout: float = 5.0) -> tuple[str, ...]:
        self.count()
        return await self.inner.columns(sql, parameters, timeout=timeout)

    async def transaction(self, steps: Steps[Any]) -> Any:
        self.count()
        return await self.inner.transaction(self._counted(steps))

    def _counted(self, steps: Steps[Any]) -> Steps[Any]:
        rows: list[Row] | None = None
        try:
            while True:
                try:
                    statement = steps.send(rows) if rows is not None else next(steps)
                except StopIteration as end:
                    return end.value
                self.count()
                rows = yield statement
        finally:
            steps.close()

    async def run_many(self, sql: str, parameters: Sequence[Parameters]) -> None:
        self.count()
        await self.inner.run_many(sql, parameters)

    def qualified(self, table: str) -> str:
        return self.inner.qualified(table)

    def lookup(self, table: str, columns: str) -> Lookup:
        return FailingLookup(self, self.inner.lookup(table, columns))


class FailingLookup:
    def __init__(self, database: Failing, inner: Lookup) -> None:
        self.database = database
        self.inner = inner

    def version(self) -> object | None:
        self.database.count()
        return self.inner.version()

    def fetch_now(self, row_id: int) -> Found | None:
        self.database.count()
        return self.inner.fetch_now(row_id)

    async def fetch(self, row_id: int) -> Found:
        self.database.count()
        return await self.inner.fetch(row_id)
