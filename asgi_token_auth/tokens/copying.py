"""Tokens of another database, as they are read there and judged before they are written here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from asgi_token_auth.databases.protocol import Database, Row
from asgi_token_auth.errors import InvalidInput
from asgi_token_auth.storage.values import MAX_ACTOR_ID, MAX_ID, is_text
from asgi_token_auth.tokens.record import Status, StoredToken
from asgi_token_auth.tokens.table import DECIDING_COLUMNS

#: The predecessor's columns as its first release had them.
OLDEST: Final = (
    "id",
    "token_status",
    "description",
    "actor_id",
    "permissions",
    "created_timestamp",
    "expires_after_seconds",
)
#: All that make up a token.
COPIED: Final = (
    *OLDEST,
    "ended_timestamp",
    "secret_version",
    "token_digest",
    "previous_digest",
    "previous_until",
    "parent_id",
    # Last, because a token that was used since is still the same.
    "last_used_timestamp",
    "last_used_address",
)
_USE_COLUMNS: Final = 2
_INTEGERS: Final = frozenset(
    (
        "id",
        "created_timestamp",
        "expires_after_seconds",
        "ended_timestamp",
        "secret_version",
        "previous_until",
        "parent_id",
        "last_used_timestamp",
    )
)
#: Seconds that reading another store's table may take.
_COPY_PATIENCE: Final = 300.0


@dataclass(frozen=True, slots=True)
class ImportedToken:
    """What became of one token of another store. ``imported`` is false where it was here already."""

    id: int
    actor_id: str
    status: Status
    imported: bool


async def tokens_of(database: Database, name: str) -> Sequence[Row] | None:
    """The tokens in the table ``name``; ``None``: it is no table of tokens, or is not there."""
    table = database.qualified(name)
    found = await database.query(database.dialect.table_columns, {"table": table})
    columns = {name for (name,) in found.rows}
    if not columns >= set(OLDEST):
        return None
    # One statement, so that all rows are of one moment.
    wanted = ", ".join(name if name in columns else f"null as {name}" for name in COPIED)
    result = await database.query(f"select {wanted} from {table} order by id", {}, timeout=_COPY_PATIENCE)
    if "token_digest" in columns:
        # Migrated: a row that has their word here came later, and opens nothing there either.
        return result.rows
    # 'L' was the first releases' word for active.
    return [(row[0], "A" if row[1] == "L" else row[1], *row[2:]) for row in result.rows]


async def events_of(database: Database, name: str) -> Sequence[Row]:
    """What happened to them, in order."""
    table = f"{database.qualified(name)}_events"
    if not (await database.query(database.dialect.table_columns, {"table": table})).rows:
        return []
    # In the order in which the store takes what makes up an event.
    sql = f"select token_id, event, by_actor_id, at_timestamp, details from {table} order by id"
    return (await database.query(sql, {}, timeout=_COPY_PATIENCE)).rows


def check(name: str, rows: Sequence[Row], events: Sequence[Row], *, typed: bool) -> None:
    """Refuse what no table of tokens could have given out, and what the tables here could not hold.

    Args:
        typed: whether columns here take nothing but values of their type.

    Raises:
        InvalidInput: the message names the token, and the column.
    """
    seen: set[object] = set()
    for row in rows:
        if type(row[0]) is not int or not 1 <= row[0] <= MAX_ID or row[0] in seen:
            raise InvalidInput(
                f"{name}: the id of a token must be a whole number from 1, which no other token there has. One has "
                f"{str(row[0])[:40]!r}. Nothing was imported."
            )
        seen.add(row[0])
        if typed and (unfit := _unfit(row)) is not None:
            raise InvalidInput(
                f"{name}: token {row[0]} is damaged in its column {unfit}, so the database here cannot hold it; mend "
                "that row, or take it out. Nothing was imported."
            )
    for token_id, event, by, at, details in events:
        well = isinstance(event, str) and type(at) is int
        well = well and all(isinstance(text, str | None) for text in (by, details))
        if well and typed:
            well = all(text is None or is_text(text) for text in (event, by, details))
        if token_id in seen and not well:
            raise InvalidInput(
                f"{name}: what happened to token {token_id} cannot be read; delete the damaged row of events. Nothing "
                "was imported."
            )


def _unfit(row: Row) -> str | None:
    """A column of ``row`` whose value is not of its type, and what that is."""
    for column, value in zip(COPIED, row, strict=True):
        if value is None:
            continue
        if column in _INTEGERS:
            if type(value) is not int:
                return f"{column}, which is no whole number"
        elif not isinstance(value, str) or not is_text(value):
            return f"{column}, which is no text"
        elif column == "actor_id" and len(value) > MAX_ACTOR_ID:
            # There is an index of it, whose entries have a limit.
            return f"{column}, which is longer than {MAX_ACTOR_ID} characters"
    return None


def missing(rows: Sequence[Row], here: Sequence[Row]) -> set[int]:
    """The ids of those of ``rows`` that are not here yet.

    Raises:
        InvalidInput: another token has an id of theirs.
    """
    present: Mapping[object, Row] = {row[0]: row for row in here}
    taken = [
        str(row[0]) for row in rows if row[0] in present and row[:-_USE_COLUMNS] != present[row[0]][:-_USE_COLUMNS]
    ]
    if taken:
        listed = ", ".join(taken[:10]) + (", ..." if len(taken) > 10 else "")
        raise InvalidInput(
            f"Of these tokens {len(taken):,} cannot keep their ids, which their texts name: {listed}. Other "
            "tokens, or other states of them, have those ids here. Nothing was imported."
        )
    return {row[0] for row in rows if row[0] not in present}


def imported(rows: Sequence[Row], new: set[int], now: float) -> Sequence[ImportedToken]:
    """What became of ``rows``."""
    place = [COPIED.index(name) for name in DECIDING_COLUMNS]
    return [
        ImportedToken(
            row[0],
            row[3] if isinstance(row[3], str) else "",
            StoredToken(*(row[index] for index in place)).status(now),
            row[0] in new,
        )
        for row in rows
    ]
