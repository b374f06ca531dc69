"""The table of secrets: its columns, its migrations, and what is read from a row."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from asgi_token_auth.databases.protocol import Database, Row, Steps
from asgi_token_auth.secrets.record import SecretVersion
from asgi_token_auth.storage.idempotency import Requests
from asgi_token_auth.storage.migrations import Migration
from asgi_token_auth.storage.values import as_integer, as_text

_COLUMNS: Final = (
    "name",
    "version",
    "note",
    "created_at",
    "created_by",
    "updated_at",
    "updated_by",
    "deleted_at",
    "deleted_by",
    "last_used_at",
    "last_used_by",
)
#: The columns of a SecretVersion, after the name.
SHOWN: Final = ", ".join(_COLUMNS)
#: Where among them it stands when a version was deleted.
DELETED_AT: Final = _COLUMNS.index("deleted_at")
#: The columns that a value is decrypted from.
DECRYPTED: Final = "id, name, version, encrypted, encryption_key_name, deleted_at"
#: The newest version of a name.
NEWEST: Final = "order by version desc, id desc limit 1"


def migrations(database: Database, name: str, requests: Requests) -> Sequence[Migration]:
    """What makes the table of the secrets in ``name``, in order."""
    table = database.qualified(name)

    def predecessor() -> Steps[None]:
        # The columns in the order and with the types that datasette-secrets gives them.
        yield (
            f"create table if not exists {table} (id {database.dialect.identity}, name text not null, "
            f"note text, version integer not null default 1, encrypted {database.dialect.blob}, "
            "encryption_key_name text not null, created_at text, created_by text, updated_at text, "
            "updated_by text, deleted_at text, deleted_by text, last_used_at text, last_used_by text)",
            {},
        )

    def names() -> Steps[None]:
        yield f"create index if not exists {name}_name on {table} (name, version)", {}

    return [("0001_predecessor", predecessor), ("0002_names", names), ("0003_requests", requests.migration)]


def version_of(row: Row) -> SecretVersion:
    """The version that a row of the columns in :data:`SHOWN` holds."""
    # A row may have been written by anybody, so anything may stand in it.
    _, version, note, created_at, created_by, updated_at, updated_by, deleted_at, deleted_by, used_at, used_by = row
    return SecretVersion(
        version=as_integer(version),
        note=as_text(note) or None,
        created_at=_read_time(created_at),
        created_by=as_text(created_by),
        updated_at=_read_time(updated_at),
        updated_by=as_text(updated_by),
        deleted_at=_read_time(deleted_at),
        deleted_by=as_text(deleted_by),
        last_used_at=_read_time(used_at),
        last_used_by=as_text(used_by),
    )


def time_text(seconds: int) -> str:
    """A time as datasette-secrets writes it, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _read_time(text: object) -> int | None:
    """A time as datasette-secrets writes it, in UTC; ``None`` for what is none."""
    try:
        return int(datetime.strptime(str(text), "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None
