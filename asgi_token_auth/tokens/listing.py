"""Lists of tokens, read without going through all of them where few fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from asgi_token_auth.databases.protocol import Database, Row
from asgi_token_auth.errors import InvalidInput
from asgi_token_auth.storage.search import TextSearch
from asgi_token_auth.storage.values import MAX_ID, is_text
from asgi_token_auth.tokens.table import DECIDING_COLUMNS, HAS_STATUS, MAY_HAVE_STATUS, SHOWN

#: Tokens in one page of a list.
MAX_LIMIT: Final = 1_000
#: Characters of a search.
MAX_SEARCH: Final = 200
#: Characters of restrictions in one page, which is shorter where they are more: reading them holds up everybody.
MAX_PAGE_PERMISSIONS: Final = 100_000
#: The same of descriptions, actors and addresses, which only have to be written.
MAX_PAGE_TEXT: Final = 200_000
_PERMISSIONS: Final = DECIDING_COLUMNS.index("permissions")
# Those in the columns of SHOWN.
_TEXTS: Final = tuple(SHOWN.split(", ").index(name) for name in ("actor_id", "description", "last_used_address"))

#: The newest rows, which are read first if they are not all, and rows that an index may propose: a millisecond of each.
_NEWEST: Final = 500
_PROPOSED: Final = 1_000


def check_filters(
    status: object, search: object, *, used_before: object, used_after: object, cursor: object, limit: object
) -> None:
    """What a list is asked for.

    Raises:
        InvalidInput: one of the arguments is unusable.
    """
    if status is not None and (not isinstance(status, str) or status not in HAS_STATUS):
        raise InvalidInput(f"status must be one of {', '.join(HAS_STATUS)}.")
    if search is not None and (not isinstance(search, str) or len(search) > MAX_SEARCH or not is_text(search)):
        raise InvalidInput(f"Search for text of at most {MAX_SEARCH} characters.")
    for name, value in (("used_before", used_before), ("used_after", used_after), ("cursor", cursor)):
        if value is not None and (type(value) is not int or not 0 <= value <= MAX_ID):
            raise InvalidInput(f"{name} must be a whole number.")
    if type(limit) is not int or not 1 <= limit <= MAX_LIMIT:
        raise InvalidInput(f"limit must be from 1 to {MAX_LIMIT:,}.")


def cut_page(rows: Sequence[Row], limit: int) -> tuple[Sequence[Row], bool]:
    """The first ``limit`` of ``rows``, or fewer where what they hold is long; and whether there are more."""
    permissions = texts = 0
    for count, row in enumerate(rows[:limit]):
        permissions += _length(row[_PERMISSIONS])
        texts += sum(_length(row[index]) for index in _TEXTS)
        if count and (permissions > MAX_PAGE_PERMISSIONS or texts > MAX_PAGE_TEXT):
            return rows[:count], True
    return rows[:limit], len(rows) > limit


def _length(value: object) -> int:
    return len(value) if isinstance(value, (str, bytes)) else 0


class TokenList:
    """The rows of one table of tokens, newest first."""

    def __init__(self, database: Database, table: str, search: TextSearch) -> None:
        self._database = database
        self._table = table
        self._search = search

    async def rows(
        self,
        owned: str,
        parameters: Mapping[str, Any],
        *,
        status: str | None,
        search: str | None,
        used_before: int | None,
        used_after: int | None,
        cursor: int | None,
        now: int,
        limit: int,
    ) -> Sequence[Row]:
        """At most ``limit`` rows that fit all of it.

        Args:
            owned: the condition that limits them to what may be seen.
            parameters: of that condition.

        Raises:
            StorageError: the database cannot answer.
        """
        where = [owned]
        parameters = dict(parameters)
        if status is not None:
            where.append(HAS_STATUS[status])
            parameters["now"] = now
        for name, value, condition in (
            ("used_before", used_before, "(last_used_timestamp is null or last_used_timestamp < :used_before)"),
            ("used_after", used_after, "last_used_timestamp >= :used_after"),
            ("cursor", cursor, "id < :cursor"),
        ):
            if value is not None:
                where.append(condition)
                parameters[name] = value
        # Where the rows begin that are read before all others, if all others are many.
        newest = None
        if proposals := self._proposals(owned, status, used_before, used_after):
            newest, count, fewest = await self._fewest(owned, proposals, parameters)
            if count == 0:
                return []
            if count < _PROPOSED:
                where, newest = [fewest, *where], None
        if search is not None:
            return await self._search.rows(SHOWN, where, parameters, search, limit, cursor)
        rows = await self._newest(where, parameters, limit, newest)
        if newest is not None and len(rows) < limit:
            if cursor is not None:
                # Counted only now, because all that is newer may have to be gone through.
                older = [f"select id from ({each}) as proposed where +id < :cursor" for each in proposals]
                _, count, fewest = await self._fewest(owned, older, parameters)
                if count < _PROPOSED:
                    where = [fewest, *where]
            rows = await self._newest(where, parameters, limit)
        return rows

    async def _newest(
        self, where: Sequence[str], parameters: Mapping[str, Any], limit: int, since: int | None = None
    ) -> Sequence[Row]:
        conditions = " and ".join(where if since is None else [*where, f"id >= {since}"])
        sql = f"select {SHOWN} from {self._table} where {conditions} order by id desc limit :limit"
        return (await self._database.query(sql, {**parameters, "limit": limit})).rows

    def _proposals(
        self, owned: str, status: str | None, used_before: int | None, used_after: int | None
    ) -> Sequence[str]:
        """For each filter that an index serves, a query for the ids of all rows that may fit it."""
        select = f"select id from {self._table} where"
        proposals: list[str] = []
        if status is not None:
            proposals.append(f"{select} {owned} and {MAY_HAVE_STATUS[status]}")
        if self._database.dialect.indexes_uses and (used_before is not None or used_after is not None):
            known: list[str] = []
            if used_after is not None:
                known.append("last_used_timestamp >= :used_after")
            if used_before is not None:
                known.append("last_used_timestamp < :used_before")
            uses = [" and ".join(known)]
            if used_after is None:
                uses.append("last_used_timestamp is null")
            # The plus keeps SQLite from reading the owner's rows, each of which costs what eight of the index do.
            proposals.append(" union all ".join(f"{select} {each} and +{owned}" for each in uses))
        return proposals

    async def _fewest(
        self, owned: str, proposals: Sequence[str], parameters: Mapping[str, Any]
    ) -> tuple[int | None, int, str]:
        """Where the owner's newest rows begin, if there are others; how many rows the best of ``proposals`` has; and
        the condition that leaves only these.

        No more than ``_PROPOSED`` are counted, and none of an owner who has few.
        """
        before = " and id < :cursor" if "cursor" in parameters else ""
        newest = f"(select id from {self._table} where {owned}{before} order by id desc limit 1 offset {_NEWEST})"
        counts = [
            f"case when {newest} is null then {_PROPOSED} "
            f"else (select count(*) from ({each} limit {_PROPOSED}) as proposed) end"
            for each in proposals
        ]
        result = await self._database.query(f"select {newest}, {', '.join(counts)}", parameters)
        first, *counted = result.rows[0]
        fewest = min(counted)
        return first, fewest, f"id in ({proposals[counted.index(fewest)]})"
