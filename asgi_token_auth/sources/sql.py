"""Tokens in the operator's own tables, found by the operator's own query."""

from __future__ import annotations

import hmac
import logging
import re
from typing import Any, Final

from asgi_token_auth.authentication import Authenticated, Credential, Outcome, Reason, Rejected, actor_outcome
from asgi_token_auth.databases.protocol import Database
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.databases.sqlite.lookup import SQLiteLookup
from asgi_token_auth.databases.sqlite.repeatable import is_repeatable
from asgi_token_auth.errors import ConfigurationError, StorageError, ValueRefused
from asgi_token_auth.storage.outages import OutageLog

logger: Final = logging.getLogger("asgi_token_auth")

# Where a parameter is only text: comments and quoted words.
_NOT_CODE = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"", re.DOTALL)

_ACTOR = "actor_"


class _SQLOutcome(Authenticated):
    """What the query answered, and the version of its file before it did."""

    __slots__ = ("lookup", "own_size", "version")

    lookup: SQLiteLookup
    version: object
    #: Characters of its actor.
    own_size: int

    @property
    def size(self) -> int:
        """Bytes, roughly."""
        return super().size + 4 * self.own_size

    def holds(self) -> bool:
        """Whether nothing was committed to the file since."""
        return self.lookup.version() == self.version


class SQLTokens:
    """Tokens of the form ``<id>-<secret>``, split at the first hyphen.

    The query gets the id as ``:token_id`` and returns ``token_secret`` and columns that start with
    ``actor_``, which make up the actor. Secrets are compared in constant time.

    In SQLite an answer is reused while nothing is committed to the file, if the query depends on nothing else: not on
    the time, for example. Everywhere else it is asked each time.

    Args:
        database: where the query runs; in SQLite on connections that cannot write.
        sql: one SELECT.
        timeout: seconds that it may take.

    Raises:
        ConfigurationError: the query has no ``:token_id``, or the timeout is not a positive number.
    """

    name = "sql"
    prefixes: tuple[str, ...] = ()
    exact = False
    reusable = True

    def __init__(self, database: Database, sql: str, *, timeout: float = 1.0) -> None:
        if not hasattr(database, "query"):
            raise ConfigurationError('database: give a database, for example SQLite("app.db").')
        if not isinstance(sql, str) or not sql.strip():
            raise ConfigurationError("query.sql: give a SELECT that returns token_secret and actor_ columns.")
        if not re.search(r":token_id\b", _NOT_CODE.sub(" ", sql)):
            raise ConfigurationError(
                "query.sql: the query must use :token_id, the part of the token before the hyphen."
            )
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= 60:
            raise ConfigurationError("query timeout: give a number of seconds above 0 and up to 60.")
        # The operator's file: never created, and its journal mode left as it is.
        self._database: Database = database.for_reading() if isinstance(database, SQLite) else database
        self._sql = sql.strip().rstrip(";").rstrip()
        self._timeout = float(timeout)
        self._columns: tuple[str, ...] | None = None
        self._schema = self._database.schema_lookup() if isinstance(self._database, SQLite) else None
        # For which state of the schema it is known whether the answer may be reused, and whether it may.
        self._repeatable: tuple[object, bool] = (None, False)
        self._damaged = OutageLog(logger, "query.sql returned what is no actor, and the token is refused")

    async def open(self) -> None:
        """Check the query against the database.

        Raises:
            ConfigurationError: it is not one SELECT, or does not return what is needed.
            StorageError: the database cannot be reached.
        """
        try:
            await self._database.open()
            self._columns = await self._check()
        except BaseException:
            await self._database.close()
            raise

    async def _check(self) -> tuple[str, ...]:
        try:
            # It must be whole by itself, and not only together with the words around it below.
            await self._database.query(f"explain {self._sql}", {"token_id": None}, timeout=10.0)
            columns = await self._database.columns(self._sql, {"token_id": None}, timeout=10.0)
        except StorageError as error:
            raise ConfigurationError(f"query.sql: the database refuses it; it must be one SELECT. {error}") from error
        if "token_secret" not in columns:
            raise ConfigurationError("query.sql: the query must return a column token_secret.")
        actors = [column for column in columns if column.startswith(_ACTOR) and column != _ACTOR]
        if "actor_id" not in actors:
            raise ConfigurationError(
                "query.sql: the query must return a column actor_id, which becomes the actor's id."
            )
        # SQLite calls the second one "name:1" when it comes out of a subquery.
        if len({re.sub(r":\d+$", "", column) for column in columns}) != len(columns):
            raise ConfigurationError("query.sql: the query returns two columns of one name; give one an alias.")
        return columns

    async def close(self) -> None:
        """Close the database's connections."""
        await self._database.close()
        self._columns = None
        self._repeatable = (None, False)

    async def authenticate(self, credential: Credential) -> Outcome:
        """Run the query for the part before the hyphen and compare the part after it."""
        token_id, hyphen, secret = credential.token.partition("-")
        if not hyphen or not _is_text(token_id):
            return None
        if self._columns is None:
            await self.open()
        try:
            # Before the query: a commit between the two makes the answer one that is not reused.
            version = self._version()
            result = await self._database.query(self._sql, {"token_id": token_id}, timeout=self._timeout)
        except StorageError as error:
            if isinstance(error, ValueRefused):
                # A word for a column of numbers, say: no row can have such an id.
                return None
            if isinstance(error.__cause__, TimeoutError):
                raise
            # A database may quote in its message what it was given, which comes from the token.
            raise StorageError(f"{self._database.name}: the query of query.sql could not be run.") from None
        if not result.rows:
            return None
        row = dict(zip(result.columns, result.rows[0], strict=True))
        stored = _as_bytes(row.get("token_secret"))
        if not stored or not hmac.compare_digest(stored, secret.encode()):
            return Rejected(Reason.WRONG_SECRET)
        actor: dict[str, Any] = {
            column[len(_ACTOR) :]: value
            for column, value in row.items()
            if column.startswith(_ACTOR) and column != _ACTOR
        }
        if actor.get("id") in (None, "") or any(isinstance(value, bytes) for value in actor.values()):
            self._damaged.note("an actor without an id, or with a binary column")
            return Rejected(Reason.DAMAGED)
        if version is None or self._schema is None:
            return actor_outcome(actor, source=self, credential=credential)
        outcome = actor_outcome(actor, source=self, credential=credential, kind=_SQLOutcome)
        if isinstance(outcome, _SQLOutcome):
            outcome.lookup, outcome.version = self._schema, version
            outcome.own_size = sum(len(str(value)) for value in actor.values())
        return outcome

    def _version(self) -> object | None:
        """What tells whether an answer that is given now may be reused; ``None``: it may not."""
        if self._schema is None or (found := self._schema.fetch_now(1)) is None:
            return None
        # The number of one file says nothing about another that takes its place.
        schema = found[1], self._schema.file()
        if schema != self._repeatable[0]:
            # Of a view, say, that is another by now.
            program = self._schema.explain_now(self._sql, {"token_id": None})
            self._repeatable = (schema, program is not None and is_repeatable(program))
        return found[0] if self._repeatable[1] else None


def _is_text(value: str) -> bool:
    """Whether a database could hold it: half of a surrogate pair is in no encoding."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _as_bytes(value: str | bytes | memoryview[int] | int | None) -> bytes:
    """The stored secret as it would be sent; empty, which matches nothing, for what cannot be sent."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    if isinstance(value, (bytes, memoryview)):
        return bytes(value)
    return str(value).encode() if type(value) is int else b""
