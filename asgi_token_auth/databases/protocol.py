"""What a store asks of a database. Statements are written once, with ``:name`` parameters, for all of them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

T = TypeVar("T")

Row: TypeAlias = tuple[Any, ...]
#: What a lookup answers: the version before the row was read; the row, ``None`` if there is none; and its
#: fingerprint, which is the same for the same row only. A bare tuple: a named one takes ten times as long to make.
Found: TypeAlias = tuple[object | None, Row | None, bytes]
Parameters: TypeAlias = Mapping[str, Any]
#: A statement and its parameters; or a list of them, to run it once with each, which returns no rows.
Statement: TypeAlias = tuple[str, Parameters | Sequence[Parameters]]

#: A transaction as a generator: it yields statements, receives their rows and returns its result. So one
#: text of it runs on a thread, on an event loop or over a network, and always as a whole.
Steps: TypeAlias = Generator[Statement, list[Row], T]
#: The same for what only reads.
ReadingSteps: TypeAlias = Generator[tuple[str, Parameters], list[Row], T]


@dataclass(frozen=True, slots=True)
class Result:
    """What a query returned. Without rows the columns may be unknown."""

    columns: tuple[str, ...]
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class Search:
    """A question for rows, newest first, of which a column holds a text in any case."""

    #: What is asked about each row.
    select: str
    table: str
    #: The columns that may hold the text.
    columns: Sequence[str]
    text: str
    #: What else must be true. The first condition is the one that an index of the table serves.
    where: Sequence[str]
    parameters: Parameters
    limit: int
    #: The id that ``where`` keeps all rows below, if it does.
    before: int | None = None

    def statement(self, like: str, source: str | None = None) -> tuple[str, Parameters]:
        """Every row of the table, or of ``source``, is read and looked at; that is right on every database."""
        # Without lower(), which made it six times as slow.
        holds = " or ".join(f"{column} {like} :search escape '!'" for column in self.columns)
        where = " and ".join([*self.where, f"({holds})"])
        pattern = "%" + re.sub(r"([%_!])", r"!\1", self.text) + "%"
        return (
            f"select {self.select} from {source or self.table} where {where} order by id desc limit :limit",
            {**self.parameters, "search": pattern, "limit": self.limit},
        )


class TextIndex(Protocol):
    """What makes searches quick. They find the same without it."""

    def make(self, table: str, columns: Sequence[str]) -> Steps[None]:
        """Make the index, or make it anew; do nothing where the database cannot have one."""
        ...

    def is_complete(self, table: str, columns: Sequence[str]) -> ReadingSteps[bool]:
        """Whether ``find()`` may rely on the index. Only reads; a damaged index may make it fail."""
        ...

    def find(self, search: Search) -> ReadingSteps[list[Row]]:
        """The rows that ``search`` asks for. Only reads."""
        ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """The few words in which the databases differ."""

    #: The type of an id column that the database fills.
    identity: str
    #: The type of a whole number of up to 64 bits.
    integer: str
    #: The type of bytes.
    blob: str
    #: A query for the column names of the table ``:table``.
    table_columns: str
    #: The comparison with a pattern that ignores case.
    like: str
    #: How text is found without reading every row, where the database has such a thing.
    text_index: TextIndex | None = None
    #: Whether last uses may have an index, which costs something at each of them. It would make PostgreSQL write the
    #: other indexes as well.
    indexes_uses: bool = False
    #: Whether a column takes nothing but values of its type.
    typed: bool = False
    #: A statement that makes the ids which the database fills go on after those in ``{table}``; ``None``: they do.
    continue_ids: str | None = None


class Lookup(Protocol):
    """Rows by id, always as they are when asked for."""

    def version(self) -> object | None:
        """A value that changes whenever another connection commits; ``None``: it cannot be told cheaply.

        A row that was read under a version is still current while the version is the same.
        """
        ...

    def fetch_now(self, row_id: int) -> Found | None:
        """As :meth:`fetch`, without waiting; ``None``: that cannot be done now, or never can. Never raises."""
        ...

    def fetch(self, row_id: int) -> Awaitable[Found]:
        """The row as it is now. To be awaited.

        Raises:
            StorageError: the database cannot answer.
        """
        ...


class Database(Protocol):
    """One database. Every method raises ``StorageError`` when the database cannot do what is asked."""

    #: What messages call it. Never holds a password.
    name: str
    dialect: Dialect

    def qualified(self, table: str) -> str:
        """The name of ``table`` as statements must say it."""
        ...

    async def open(self) -> None:
        """Make sure that it can be reached, creating an empty one where that is the database's way."""
        ...

    async def close(self) -> None:
        """Let go of every connection. It may be opened again."""
        ...

    async def query(self, sql: str, parameters: Parameters, *, timeout: float = 5.0) -> Result:
        """Run one reading statement. ``timeout`` in seconds.

        Raises:
            ValueRefused: a parameter is nothing that could be found in this database.
        """
        ...

    async def columns(self, sql: str, parameters: Parameters, *, timeout: float = 5.0) -> tuple[str, ...]:
        """The names of the columns that ``sql``, which must be one SELECT, returns. It is not run."""
        ...

    async def transaction(self, steps: Steps[T]) -> T:
        """Run ``steps`` in one writing transaction: all of it is committed, durably, or none.

        Writing transactions come one after the other, those of other processes too.
        """
        ...

    async def run_many(self, sql: str, parameters: Sequence[Parameters]) -> None:
        """Run one writing statement with each of ``parameters``, all of them or none, in as little time as can be.

        Raises:
            ValueRefused: one of them holds what this database cannot.
        """
        ...

    def lookup(self, table: str, columns: str) -> Lookup:
        """A reusable query for ``columns``, of which ``id`` is the first, of one row of ``table``."""
        ...
