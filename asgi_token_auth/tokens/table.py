"""The table of managed tokens: its columns, a status in SQL, its migrations, and a record of each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from asgi_token_auth.databases.protocol import Database, Row, Steps
from asgi_token_auth.storage.idempotency import Requests
from asgi_token_auth.storage.migrations import Migration, add_missing_columns
from asgi_token_auth.storage.search import TextSearch
from asgi_token_auth.storage.values import as_integer, as_text
from asgi_token_auth.tokens.record import StoredEvent, StoredToken, TokenRecord

#: The columns that decide whether a token is accepted: those of a StoredToken, in its order.
DECIDING_COLUMNS: Final = (
    "id",
    "actor_id",
    "token_status",
    "permissions",
    "created_timestamp",
    "expires_after_seconds",
    "ended_timestamp",
    "token_digest",
    "previous_digest",
    "previous_until",
)
#: The same as a SELECT lists them.
DECIDING: Final = ", ".join(DECIDING_COLUMNS)
#: These, and what a TokenRecord holds beside them.
SHOWN: Final = f"{DECIDING}, description, last_used_timestamp, last_used_address, parent_id"

# Status in SQL, as StoredToken.status() computes it, but for rows that are damaged inside.
# The casts keep times at the ends of the calendar from being too large a number together. Both are cast because
# PostgreSQL prefers an operator for exactly these types, which somebody may have made, to its own for similar ones.
ENDS: Final = "cast(created_timestamp as numeric) + cast(expires_after_seconds as numeric)"
_EXPIRED: Final = f"(token_status = 'E' or {ENDS} <= :now)"
HAS_STATUS: Final[dict[str, str]] = {
    "active": f"token_status = 'A' and ended_timestamp is null and not coalesce({_EXPIRED}, false)",
    "revoked": f"(token_status = 'R' or (ended_timestamp is not null and not coalesce({_EXPIRED}, false)))",
    "expired": f"coalesce(token_status, '') <> 'R' and coalesce({_EXPIRED}, false)",
}

# When a token ends, as a number that has an index: -1e20 for a revoked one, 1e20 for one that does not expire, and 0
# for what only its other columns tell. A change of this text needs a migration that makes the indexes anew.
_END: Final = (
    "case when token_status = 'R' then -1e20 when token_status = 'A' and ended_timestamp is null "
    f"then coalesce({ENDS}, 1e20) else 0 end"
)
# Every row with the status has such an end. Some others have too.
MAY_HAVE_STATUS: Final[dict[str, str]] = {
    "active": f"{_END} > :now",
    "revoked": f"{_END} in (-1e20, 0)",
    "expired": f"{_END} > -1e20 and {_END} <= :now",
}

# Until when a token may be good, whoever repairs what is damaged in it: -1 for one that was ended. It has an index.
OPEN_UNTIL: Final = (
    "case when ended_timestamp is not null or coalesce(token_status, '') in ('R', 'E') then -1 "
    "when cast(created_timestamp as bigint) = created_timestamp "
    f"and cast(expires_after_seconds as bigint) = expires_after_seconds then {ENDS} else 1e20 end"
)


def migrations(database: Database, name: str, search: TextSearch, requests: Requests) -> Sequence[Migration]:
    """What makes the tables of the tokens in ``name``, in order."""
    table = database.qualified(name)
    integer = database.dialect.integer

    def predecessor() -> Steps[None]:
        # The columns in the order and with the types that datasette-auth-tokens gives them.
        yield (
            f"create table if not exists {table} (id {database.dialect.identity}, "
            "token_status text default 'A', description text, actor_id text, permissions text, "
            f"created_timestamp {integer}, last_used_timestamp {integer}, expires_after_seconds {integer}, "
            f"ended_timestamp {integer}, secret_version {integer} default '0')",
            {},
        )
        yield from add_missing_columns(database, table, {"ended_timestamp": integer})
        # 'L' was the first releases' word for active; several later ones meant to rewrite it and did not.
        yield f"update {table} set token_status = 'A' where token_status = 'L'", {}

    def nonces() -> Steps[None]:
        columns = {
            "token_digest": "text",
            "previous_digest": "text",
            "previous_until": integer,
            "last_used_address": "text",
            "parent_id": integer,
        }
        yield from add_missing_columns(database, table, columns)
        yield f"create index if not exists {name}_actor on {table} (actor_id)", {}
        yield f"create index if not exists {name}_parent on {table} (parent_id)", {}

    def events() -> Steps[None]:
        yield (
            f"create table if not exists {table}_events (id {database.dialect.identity}, "
            f"token_id {integer} not null, event text not null, by_actor_id text, at_timestamp {integer} not null, "
            "details text)",
            {},
        )
        yield f"create index if not exists {name}_events_token on {table}_events (token_id)", {}

    def ends() -> Steps[None]:
        # Noting a use changes none of what they hold, so it costs what it did.
        yield f"create index if not exists {name}_actor_end on {table} (actor_id, ({_END}))", {}
        yield f"create index if not exists {name}_end on {table} (({_END}))", {}

    def uses() -> Steps[None]:
        # One for everybody and for each owner: a second one would be written at every use too.
        if database.dialect.indexes_uses:
            columns = "last_used_timestamp, actor_id"
            yield f"create index if not exists {name}_used on {table} ({columns})", {}

    def families() -> Steps[None]:
        # In place of the index on the parents alone. Tokens without a parent, which most are, stand in neither.
        child = "where parent_id is not null"
        yield f"create index if not exists {name}_family on {table} (parent_id, ({OPEN_UNTIL})) {child}", {}
        yield f"create index if not exists {name}_children on {table} (actor_id, ({OPEN_UNTIL})) {child}", {}
        yield f"drop index if exists {database.qualified(f'{name}_parent')}", {}

    return [
        ("0001_predecessor", predecessor),
        ("0002_nonces", nonces),
        ("0003_events", events),
        ("0004_search", search.make),
        ("0005_ends", ends),
        ("0006_uses", uses),
        ("0007_requests", requests.migration),
        ("0008_families", families),
    ]


def record_of(row: Row, now: float) -> TokenRecord:
    """The record of a row of the columns in :data:`SHOWN`. ``now``: seconds since the epoch."""
    stored = StoredToken(*row[: len(DECIDING_COLUMNS)])
    description, last_used, address, parent = row[len(DECIDING_COLUMNS) :]
    # Shown as damaged where it is: the others of a list must not suffer for it.
    status, expires_at, restrictions = stored.read(now)
    return TokenRecord(
        id=stored.id,
        actor_id=stored.actor_id if isinstance(stored.actor_id, str) else "",
        status=status,
        description=description if isinstance(description, str) else None,
        restrictions=restrictions,
        created_at=as_integer(stored.created),
        expires_at=expires_at,
        last_used_at=as_integer(last_used),
        last_used_address=address if isinstance(address, str) else None,
        ended_at=as_integer(stored.ended),
        parent_id=as_integer(parent),
        previous_until=as_integer(stored.previous_until),
        text_digest=as_text(stored.digest),
    )


def event_of(row: Row) -> StoredEvent:
    """The event of a row: when, what, by whom, details."""
    at, name, by, details = row
    return StoredEvent(as_integer(at), as_text(name) or "", as_text(by), as_text(details))
