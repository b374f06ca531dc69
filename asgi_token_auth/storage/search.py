"""Searches for a part of a text, with the database's index where that is complete and by reading the rows elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from asgi_token_auth.databases.protocol import Database, Parameters, ReadingSteps, Row, Search, Steps, T
from asgi_token_auth.databases.steps import drive
from asgi_token_auth.errors import StorageError

logger: Final = logging.getLogger("asgi_token_auth")


class TextSearch:
    """The searches of one table.

    Args:
        columns: those that may hold the text.
    """

    def __init__(self, database: Database, table: str, columns: Sequence[str]) -> None:
        self._database = database
        self._index = database.dialect.text_index
        self._table = table
        self._columns = columns
        self._usable = False

    def make(self) -> Steps[None]:
        """Make the index."""
        if self._index is not None:
            yield from self._index.make(self._table, self._columns)

    async def prepare(self) -> None:
        """Check whether the index can be relied on, and rebuild it where it cannot. It fails at nothing."""
        self._usable = await self._is_complete()
        if self._index is None or self._usable:
            return
        try:
            await self._database.transaction(self.make())
        except StorageError as error:
            logger.warning("searches read every row, because their index cannot be made: %s", error)
        self._usable = await self._is_complete()

    async def rows(
        self, select: str, where: Sequence[str], parameters: Parameters, text: str, limit: int, before: int | None
    ) -> Sequence[Row]:
        """The newest rows with ``text`` for which ``where`` is true.

        Args:
            where: the first of them is served by an index.
            before: the id that ``where`` keeps all rows below, if it does.

        Raises:
            StorageError: the database cannot answer.
        """
        search = Search(select, self._table, self._columns, text, where, parameters, limit, before)
        if self._index is not None and self._usable:
            try:
                return await self._read(self._index.find(search))
            except StorageError as error:
                logger.warning("a search read every row, because the index failed: %s", error)
                self._usable = await self._is_complete()
        sql, bound = search.statement(self._database.dialect.like)
        return (await self._database.query(sql, bound)).rows

    async def _is_complete(self) -> bool:
        if self._index is None:
            return False
        try:
            return await self._read(self._index.is_complete(self._table, self._columns))
        except StorageError:
            return False

    async def _read(self, steps: ReadingSteps[T]) -> T:
        return await drive(steps, self._rows)

    async def _rows(self, sql: str, parameters: Parameters) -> list[Row]:
        return (await self._database.query(sql, parameters)).rows
