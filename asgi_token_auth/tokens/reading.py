"""What is asked of the table of managed tokens: one, a list, what happened to it, what decides about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

from asgi_token_auth.databases.protocol import Database, Lookup, Row
from asgi_token_auth.errors import InvalidInput, StorageError, TokenNotFound
from asgi_token_auth.storage.migrations import Migration
from asgi_token_auth.storage.search import TextSearch
from asgi_token_auth.storage.store import TableStore
from asgi_token_auth.storage.values import MAX_ID
from asgi_token_auth.tokens import copying
from asgi_token_auth.tokens.changes import TokenChanges
from asgi_token_auth.tokens.listing import TokenList, check_filters, cut_page
from asgi_token_auth.tokens.record import Owner, Page, Status, StoredEvent, TokenRecord, check_id
from asgi_token_auth.tokens.table import DECIDING, SHOWN, event_of, migrations, record_of

# A search looks for its text in these.
_SEARCHED: Final = ("description", "actor_id")


class TokenReader(TableStore):
    """Managed tokens as they are read.

    Args:
        database: where the rows are.
        table: the table's name.
        clock: seconds since the epoch.
    """

    def __init__(self, database: Database, *, table: str, clock: Callable[[], float]) -> None:
        super().__init__(database, table=table, clock=clock)
        self._changes = TokenChanges(self._table, database.dialect)
        self._search = TextSearch(database, self._table, _SEARCHED)
        self._list = TokenList(database, self._table, self._search)

    async def state(self) -> Literal["ready", "outdated", "absent"]:
        """Whether the tables are there, and as this release needs them. Opens and writes nothing.

        Raises:
            StorageError: the database cannot be read, a newer release has migrated it, or the table is another one.
        """
        found = await self.database.query(self.database.dialect.table_columns, {"table": self._table})
        columns = {name for (name,) in found.rows}
        if columns and (missing := [name for name in copying.OLDEST if name not in columns]):
            raise StorageError(
                f"{self.database.name}: its table {self.table} is not one of tokens, which would have a column "
                f"{missing[0]}; check which file it is."
            )
        return await super().state()

    async def get(self, token_id: int, *, owner: Owner) -> TokenRecord:
        """One token of ``owner``.

        Raises:
            InvalidInput: ``owner`` is no actor id.
            TokenNotFound: there is none.
        """
        where, parameters = self._changes.owned(owner)
        check_id(token_id)
        await self.ensure_ready()
        result = await self.database.query(
            f"select {SHOWN} from {self._table} where id = :id and {where}", {"id": token_id, **parameters}
        )
        if not result.rows:
            raise TokenNotFound(f"There is no token {token_id}.")
        return self._record_of(result.rows[0])

    async def list(
        self,
        *,
        owner: Owner,
        status: Status | str | None = None,
        search: str | None = None,
        used_before: int | None = None,
        used_after: int | None = None,
        cursor: int | None = None,
        limit: int = 30,
    ) -> Page:
        """Tokens of ``owner``, newest first.

        Args:
            status: only active, revoked or expired ones.
            search: text that the description or the actor id holds, in any case.
            used_before: last used before this time, in seconds since the epoch; never used counts as before.
            used_after: last used at this time or later.
            cursor: where the page before ended; tokens issued since then make no difference.
            limit: the most tokens of a page, 1 to 1,000. There are fewer where what they hold is long, so only
                ``next_cursor`` tells whether there are more.

        Raises:
            InvalidInput: an argument is unusable.
        """
        changes = self._changes
        family = changes.open_family("family") if status == "active" else changes.whole_family("family")
        owned, parameters = changes.owned(owner, family)
        check_filters(status, search, used_before=used_before, used_after=used_after, cursor=cursor, limit=limit)
        await self.ensure_ready()
        rows = await self._list.rows(
            owned,
            parameters,
            status=status,
            search=search,
            used_before=used_before,
            used_after=used_after,
            cursor=cursor,
            now=int(self.clock()),
            limit=limit + 1,
        )
        shown, more = cut_page(rows, limit)
        items = [self._record_of(row) for row in shown]
        return Page(items, items[-1].id if more else None)

    async def events(self, token_id: int, *, owner: Owner, latest: int | None = None) -> Sequence[StoredEvent]:
        """What happened to a token, oldest first.

        Args:
            latest: so many of the last ones. ``None``: all.

        Raises:
            InvalidInput: ``latest`` is no number of events.
            TokenNotFound: ``owner`` has no such token.
        """
        if latest is not None and (type(latest) is not int or not 1 <= latest <= MAX_ID):
            raise InvalidInput("latest must be a whole number, 1 or more.")
        await self.get(token_id, owner=owner)
        result = await self.database.query(
            f"select at_timestamp, event, by_actor_id, details from {self._table}_events where token_id = :id "
            "order by id desc limit :latest",
            {"id": token_id, "latest": latest or MAX_ID},
        )
        return [event_of(row) for row in reversed(result.rows)]

    def lookup(self) -> Lookup:
        """The rows that decide about tokens, by id, as they are when asked for."""
        return self.database.lookup(self._table, DECIDING)

    def _record_of(self, row: Row) -> TokenRecord:
        return record_of(row, self.clock())

    def _migrations(self) -> Sequence[Migration]:
        return migrations(self.database, self.table, self._search, self._requests)

    async def _prepare(self) -> None:
        await self._search.prepare()
