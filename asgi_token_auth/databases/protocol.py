"""What a store asks of a database. Statements are written once, with ``:name`` parameters, for all of them."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

T = TypeVar("T")

Row: TypeAlias = tuple[Any, ...]
Parameters: TypeAlias = Mapping[str, Any]
Statement: TypeAlias = tuple[str, Parameters]

#: A transaction as a generator: it yields statements, receives their rows and returns its result. So one
#: text of it runs on a thread, on an event loop or over a network, and always as a whole.
Steps: TypeAlias = Generator[Statement, list[Row], T]


@dataclass(frozen=True, slots=True)
class Result:
    """What a query returned."""

    columns: tuple[str, ...]
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class Dialect:
    """The few words in which the databases differ."""

    #: The type of an id column that the database fills.
    identity: str
    #: A query for the column names of the table ``:table``.
    table_columns: str
    #: The comparison with a pattern that ignores case.
    like: str


class Lookup(Protocol):
    """Rows by id, always as they are when asked for."""

    def version(self) -> object | None:
        """A value that changes whenever another connection commits; ``None``: it cannot be told cheaply.

        A row that was read under a version is still current while the version is the same.
        """
        ...

    async def fetch(self, row_id: int) -> tuple[object | None, Row | None]:
        """The row and the version before it was read.

        Raises:
            StorageError: the database cannot answer.
        """
        ...


class Database(Protocol):
    """One database. Every method raises ``StorageError`` when the database cannot do what is asked."""

    #: What messages call it. Never holds a password.
    name: str
    dialect: Dialect

    async def open(self) -> None:
        """Make sure that it can be reached, creating an empty one where that is the database's way."""
        ...

    async def close(self) -> None:
        """Let go of every connection. It may be opened again."""
        ...

    async def query(self, sql: str, parameters: Parameters, *, timeout: float = 5.0) -> Result:
        """Run one reading statement. ``timeout`` in seconds."""
        ...

    async def transaction(self, steps: Steps[T]) -> T:
        """Run ``steps`` in one writing transaction: all of it is committed, durably, or none."""
        ...

    def lookup(self, sql: str) -> Lookup:
        """A kept query for one row by ``:id``."""
        ...
