"""What commands are given: secrets, databases, lengths of time, restrictions, tokens on standard input."""

from __future__ import annotations

import io
import os
import re
import secrets
import select
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TextIO, TypeVar, cast

import click

from asgi_token_auth.cli.output import note, plain
from asgi_token_auth.cli.process import mark_changes, settled
from asgi_token_auth.databases.address import WHICH_KINDS, database_at, is_dsn, is_of_another_kind
from asgi_token_auth.databases.protocol import Database
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.errors import ConfigurationError, InvalidInput, StorageError
from asgi_token_auth.restrictions import DATASETTE_ABBREVIATIONS, Restrictions
from asgi_token_auth.signing import SigningSecrets
from asgi_token_auth.storage.store import TableStore
from asgi_token_auth.storage.values import check_actor_id
from asgi_token_auth.tokens.record import check_description
from asgi_token_auth.tokens.store import TokenStore

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])
AnyStore = TypeVar("AnyStore", bound=TableStore)

#: Bytes read of a secret's file, and of a token on standard input.
MAX_FILE: Final = 65_536

_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_VARIABLE: Final = "DATASETTE_SECRET"
_LONGEST_ANSWER: Final = 100


class Duration(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A length of time in seconds, or with one of the letters s, m, h, d, w: ``90d``."""

    name = "duration"

    def __init__(self, *, least: int = 1) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Seconds."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"([0-9]{1,12})([smhdw]?)", value)
        if match is None:
            self.fail(f"{value!r} is no length of time: give seconds, or for example 90d, 12h or 30m.", param, ctx)
        seconds = int(match[1]) * _UNITS[match[2]]
        if seconds < self._least:
            self.fail(f"Give {self._least} second or more.", param, ctx)
        return seconds


class Checked(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Text that passes ``check``, which raises ``InvalidInput`` with a sentence."""

    name = "text"

    def __init__(self, check: Callable[[str], Any]) -> None:
        self._check = check

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text."""
        try:
            self._check(value)
        except InvalidInput as error:
            self.fail(str(error), param, ctx)
        return str(value)


ACTOR: Final = Checked(check_actor_id)
DESCRIPTION: Final = Checked(check_description)


class TokenID(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """The number of a token. What is given instead may be the token itself, so it is never repeated."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number."""
        if isinstance(value, int):
            return value
        if re.fullmatch(r"0*[1-9][0-9]{0,99}", value) is None:
            self.fail("A token is named by its number, which `tokens list` shows.", param, ctx)
        return int(value)


TOKEN_ID: Final = TokenID()


def secret_options(command: AnyFunction) -> AnyFunction:
    """Give ``command`` the arguments ``secret`` and ``secret_file``."""
    file = click.option(
        "--secret-file",
        type=click.Path(dir_okay=False),
        help="A file that holds the secret.",
    )
    option = click.option(
        "--secret",
        "-s",
        envvar=_VARIABLE,
        show_envvar=True,
        help="The secret that signs tokens. Better given by the variable, because others can see options.",
    )
    return option(file(command))


def database_option(command: AnyFunction) -> AnyFunction:
    """Give ``command`` the argument ``database``, a path."""
    return database_of("tokens")(command)


def database_of(what: str) -> Callable[[AnyFunction], AnyFunction]:
    """The same, for a database of something."""
    return click.option(
        "--database",
        type=click.Path(dir_okay=False),
        envvar="ASGI_TOKEN_AUTH_DATABASE",
        show_envvar=True,
        required=True,
        callback=without_password,
        help=f"The SQLite file, or the DSN of the PostgreSQL database, that holds the {what}.",
    )


def without_password(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The callback of an option that takes a database, which hints at where its password belongs."""
    if value is not None and ctx.get_parameter_source(param.name or "") == click.core.ParameterSource.COMMANDLINE:
        hint_at_password(value)
    return value


def hint_at_password(database: str, *, places: str = "the variable ASGI_TOKEN_AUTH_DATABASE, PGPASSWORD") -> None:
    """Say where a password does not belong, where a DSN on the command line has one."""
    if is_dsn(database) and re.search(r"//[^/@]*:[^/@]*@|[?&]password=", database):
        note(f"Hint: options are seen by other users, and this one holds a password; {places} and ~/.pgpass are not.")


def json_option(command: AnyFunction) -> AnyFunction:
    """Give ``command`` the flag ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Write JSON.")(command)


def restriction_options(database: str, resource: str) -> Callable[[AnyFunction], AnyFunction]:
    """Give a command the arguments ``alls``, ``databases`` and ``resources``. The long options are as given."""

    def decorate(command: AnyFunction) -> AnyFunction:
        for option in (
            click.option(
                "resources",
                "-r",
                resource,
                type=(str, str, str),
                metavar="DB RESOURCE ACTION",
                multiple=True,
                help="Restrict the token to this action on this table, view or query.",
            ),
            click.option(
                "databases",
                "-d",
                database,
                type=(str, str),
                metavar="DB ACTION",
                multiple=True,
                help="Restrict the token to this action on this database.",
            ),
            click.option(
                "alls", "-a", "--all", metavar="ACTION", multiple=True, help="Restrict the token to this action."
            ),
        ):
            command = option(command)
        return command

    return decorate


def read_secret(ctx: click.Context, secret: str | None, secret_file: str | None) -> SigningSecrets:
    """The secret that the options or the environment give; any that Datasette takes is taken.

    Raises:
        click.ClickException: there is none, it is empty, or it is no text.
    """
    by_option = ctx.get_parameter_source("secret") == click.core.ParameterSource.COMMANDLINE
    if secret_file is not None:
        if by_option:
            raise click.UsageError("Give --secret or --secret-file, not both.")
        secret = _secret_in(Path(secret_file))
    if secret is None:
        raise click.UsageError(f"Missing secret: set the variable {_VARIABLE}, or give --secret-file or --secret.")
    if not secret:
        raise click.UsageError("The secret is empty: use a long random string, as `generate-secret` prints one.")
    try:
        secret.encode()
    except UnicodeEncodeError as error:
        raise click.ClickException("The secret is not valid UTF-8.") from error
    if by_option:
        note(f"Hint: options are seen by other users and kept in histories; the variable {_VARIABLE} is not.")
    signing = SigningSecrets([secret])
    if signing.weak:
        note("Warning: the secret is shorter than 16 characters and may be guessed.")
    return signing


def may_read_secret(ctx: click.Context, secret: str | None, secret_file: str | None) -> SigningSecrets | None:
    """The same, or ``None`` where no secret is given."""
    return None if secret is None and secret_file is None else read_secret(ctx, secret, secret_file)


def is_world_readable(path: Path) -> bool:
    """Whether every user of the machine may read the file, which a directory is not."""
    try:
        mode = path.stat().st_mode
        return os.name == "posix" and stat.S_ISREG(mode) and bool(mode & 0o004)
    except (OSError, ValueError):
        return False


def read_file(path: Path, what: str) -> bytes:
    """The first bytes of a file, one more than :data:`MAX_FILE` where there are so many.

    Raises:
        click.ClickException: ``what`` cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "that is no path"
        raise click.ClickException(f"{what} cannot be read: {why}.") from error


def _secret_in(path: Path) -> str:
    raw = read_file(path, "The secret's file")
    if len(raw) > MAX_FILE:
        raise click.ClickException(f"The secret's file is longer than {MAX_FILE:,} bytes.")
    if is_world_readable(path):
        note(f"Warning: every user of this machine may read {path}; chmod o-r takes that away.")
    try:
        return raw.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise click.ClickException("The secret's file is not valid UTF-8.") from error


def read_token_from_stdin() -> str:
    """The token on standard input.

    Raises:
        click.ClickException: there is none, or it is no text.
    """
    token = read_stdin("token", prompt="Paste the token, press Enter, then Ctrl-D:").strip()
    if not token:
        raise click.ClickException("Standard input holds no token.")
    return token


def read_stdin(what: str, *, prompt: str | None = None) -> str:
    """All of standard input, which holds ``what``. People at a terminal are shown the ``prompt``.

    Raises:
        click.ClickException: it is closed, too long, or no text.
    """
    # The type of sys.stdin leaves out that it is None where standard input is closed.
    stdin: TextIO | None = sys.stdin
    if stdin is None:
        raise click.ClickException(f"Standard input is closed; pipe the {what} into it.")
    if prompt is not None and stdin.isatty():
        note(prompt)
    raw = b""
    # The end of a line is no part of what is measured.
    most = MAX_FILE + len("\r\n")
    while len(raw) <= most and (more := _read(stdin, most + 1 - len(raw))):
        raw += more
    if len(raw) > most or len(raw.rstrip(b"\r\n")) > MAX_FILE:
        raise click.ClickException(f"Standard input holds more than {MAX_FILE:,} bytes; that is no {what}.")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise click.ClickException(f"Standard input is not valid UTF-8; that is no {what}.") from error


def _read(stdin: TextIO, size: int) -> bytes:
    """At most ``size`` bytes, and none at the end; a stream that would not wait is waited for."""
    while True:
        try:
            if stdin.isatty():
                # read() would go on until Ctrl-D, and once more to tell that nothing comes.
                if os.name == "posix":
                    select.select([stdin], [], [])
                return cast("io.BufferedReader", stdin.buffer).read1(size)
            raw: bytes | None = stdin.buffer.read(size)
        except OSError as error:
            raise click.ClickException(f"Standard input cannot be read: {error.strerror}.") from error
        if raw is not None:
            return raw
        select.select([stdin], [], [])


def confirm(question: str, *, yes: bool) -> None:
    """Ask, unless ``yes``.

    Raises:
        click.ClickException: the answer is no, or nobody is there to answer.
    """
    if yes:
        return
    stdin: TextIO | None = sys.stdin
    answer = b""
    try:
        click.echo(plain(f"{question} [y/N]: "), err=True, nl=False)
    except OSError:
        # Nobody says yes to what could not be asked.
        stdin = None
    while stdin is not None and len(answer) < _LONGEST_ANSWER and (more := _read(stdin, 1)) not in (b"", b"\n"):
        answer += more
    if answer.strip().lower() not in (b"y", b"yes"):
        raise click.ClickException("Nothing was changed, because nobody said yes; a script says --yes.")


def read_restrictions(
    alls: Sequence[str], databases: Sequence[tuple[str, str]], resources: Sequence[tuple[str, str, str]]
) -> Restrictions | None:
    """What the options of :func:`restriction_options` say; ``None`` where none was given."""
    if not (alls or databases or resources):
        return None
    restrictions = Restrictions()
    try:
        for action in alls:
            restrictions = restrictions.allow_all(action)
        for database, action in databases:
            restrictions = restrictions.allow_database(database, action)
        for database, resource, action in resources:
            restrictions = restrictions.allow_resource(database, resource, action)
    except InvalidInput as error:
        raise click.UsageError(str(error)) from error
    return restrictions


def warn_of_unknown(actions: Iterable[str], known: dict[str, str | None]) -> None:
    """Warn of actions that the installed Datasette, or else any that we know of, does not have."""
    short = set(known.values())
    for action in dict.fromkeys(actions):
        if action not in known and action not in short:
            note(f"Warning: unknown action {action!r}; it is written into the token all the same.")


def known_actions(plugins_dir: str | None = None) -> dict[str, str | None]:
    """Actions and their abbreviations, as the installed Datasette 1.0 and its plugins have them, or built in.

    Raises:
        click.ClickException: Datasette is not there but needed, or cannot start.
    """
    try:
        # Here and not above: it takes longer than all the rest, and most commands do without.
        from asgi_token_auth.datasette.installed import actions

        found = actions(plugins_dir)
    except ImportError as error:
        if plugins_dir is not None:
            raise click.ClickException(f"--plugins-dir needs Datasette, which cannot be imported: {error}.") from error
        return dict(DATASETTE_ABBREVIATIONS)
    return dict(DATASETTE_ABBREVIATIONS) if found is None else found


class _OnlyLooking(TokenStore):
    """A store that notes no use."""

    def note_use(self, token_id: int, when: int, address: str | None) -> None:
        """Nothing."""


def only_looking(database: Database, signing: SigningSecrets | None = None) -> TokenStore:
    """A store that is not open, and that takes checking a token for no use of it."""
    # A secret that nobody knows, where none is needed: nothing can be signed with it by mistake.
    return _OnlyLooking(database, secret=signing or SigningSecrets([secrets.token_hex(32)]))


@asynccontextmanager
async def opened(
    database: str, signing: SigningSecrets | None = None, *, creates: bool = False, writes: bool = False
) -> AsyncIterator[TokenStore]:
    """The store in a file.

    Args:
        signing: not needed by what neither makes nor reads the text of a token.
        creates: a missing file, or missing tables, are made.
        writes: tables of an older release, or of datasette-auth-tokens, are migrated.

    Raises:
        StorageError: the file is missing, holds no tokens, or cannot be read.
    """
    async with opened_as(
        lambda file: only_looking(file, signing),
        database,
        what="tokens",
        outdated="or of datasette-auth-tokens, and this command only reads: start the server on it once, or copy its "
        "tokens with `tokens import`",
        creates=creates,
        writes=writes,
    ) as store:
        yield store


@asynccontextmanager
async def opened_as(
    make: Callable[[Database], AnyStore], database: str, *, what: str, outdated: str, creates: bool, writes: bool
) -> AsyncIterator[AnyStore]:
    """The store that ``make`` makes of a file, or of a database of a server, which is taken to be there.

    Args:
        what: what it keeps.
        outdated: of what else than an older release tables may be, and the mend where nothing is written.
        creates: a missing file, or missing tables, are made.
        writes: outdated tables are migrated.

    Raises:
        StorageError: the file is missing, holds nothing of the kind, or cannot be read.
    """
    exists = is_there(database)
    if not exists and not creates:
        raise StorageError(f"There is no file {database}; check --database, or ASGI_TOKEN_AUTH_DATABASE.")
    file: Database
    if is_dsn(database):
        file = by_dsn(database)
        shown = file.name
    else:
        # A file that is there belongs to somebody, who chose its journal mode.
        file = SQLite(database, journal_mode=None if exists else "wal", create=not exists)
        shown = database
    store = make(file)
    if exists:
        try:
            state = await store.state()
        finally:
            await file.close()
        if state == "absent" and not creates:
            raise StorageError(f"{file.name} holds no {what}; check --database, or ASGI_TOKEN_AUTH_DATABASE.")
        if state == "outdated" and not writes and not creates:
            raise StorageError(f"{file.name} is of an older release {outdated}.")
    else:
        state = "absent"
    if state != "ready":
        mark_changes("prepared")
    try:
        await settled(store.open())
        yield store
    finally:
        await store.close()
    if state == "absent":
        # Not earlier: nobody is told of a file by a command that fails.
        note(f"{shown} held no {what} until now." if exists else f"{shown} is new.")


def by_dsn(dsn: str) -> Database:
    """A PostgreSQL database.

    Raises:
        click.ClickException: the DSN cannot be one, or a package is missing.
    """
    try:
        return database_at(dsn)
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from error


def existing(database: str) -> Database:
    """A file that is only read, or a database of a server.

    Raises:
        StorageError: it is missing.
    """
    if is_dsn(database):
        return by_dsn(database)
    if not is_there(database):
        raise StorageError(f"There is no file {database}.")
    return SQLite(database).for_reading()


def is_there(database: str) -> bool:
    """Whether the file exists. A database of a server is taken to be there.

    Raises:
        StorageError: the path can be none.
        click.UsageError: it is empty, or no path at all.
    """
    if is_dsn(database):
        return True
    if not database:
        raise click.UsageError("The path of the database is empty.")
    # A database in memory would be lost with this process.
    if database == ":memory:" or is_of_another_kind(database):
        raise click.UsageError(f"There is no such kind of database; {WHICH_KINDS}")
    try:
        database.encode()
        Path(database).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not valid UTF-8"
        raise StorageError(f"The path of a database cannot be used: {why}.") from error
    return True
