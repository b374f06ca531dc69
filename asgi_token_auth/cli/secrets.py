"""``secrets``: what the pages do with encrypted secrets, from a terminal, and the rotation of their keys."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import click

from asgi_token_auth.cli.inputs import confirm, read_key_file, read_stdin
from asgi_token_auth.cli.options import ACTOR, AnyFunction, CheckedText, database_option_for, json_option, yes_option
from asgi_token_auth.cli.output import escape_unprintable, format_table, print_json, print_to_stderr, terminal_width
from asgi_token_auth.cli.process import CommandGroup, finish_despite_interrupt
from asgi_token_auth.cli.records import relative_or
from asgi_token_auth.cli.stores import open_store
from asgi_token_auth.config.values import is_readable_by_group_or_others
from asgi_token_auth.decoding import keys_of, one_line_or_all, shown_path
from asgi_token_auth.errors import ConfigurationError
from asgi_token_auth.secrets.as_json import secret_json
from asgi_token_auth.secrets.record import Rotation, SecretRecord, check_note, check_secret_name, shape_of
from asgi_token_auth.secrets.store import SecretStore

_KEY_VARIABLE: Final = "ASGI_TOKEN_AUTH_ENCRYPTION_KEY"
#: Bytes of a line that a terminal of Linux hands over, whatever was pasted.
_MAX_TERMINAL_LINE: Final = 4_095
_by_option = click.option("--by", type=ACTOR, help="The actor to name as the one who did it.")
_database_option = database_option_for("secrets")
_NAME = click.argument("name", metavar="NAME", type=CheckedText(check_secret_name))
# Of datasette-secrets, which had other limits than ours.
_STORED_NAME = click.argument("name", metavar="NAME")


def _key_file_option(command: AnyFunction) -> AnyFunction:
    """Give ``command`` the argument ``key_files``."""
    return click.option(
        "--encryption-key-file",
        "key_files",
        type=click.Path(dir_okay=False),
        multiple=True,
        help=f"A file that holds an encryption key, in place of the variable {_KEY_VARIABLE}. May be given several "
        "times, the newest key last.",
    )(command)


@click.group(cls=CommandGroup)
def secrets() -> None:
    """Look after encrypted secrets, which are kept in a database.

    The encryption key is read from the variable ASGI_TOKEN_AUTH_ENCRYPTION_KEY, which may hold several with spaces
    or commas between them, the newest last.
    """


@secrets.command()
def generate_encryption_key() -> None:
    """Print a key that can encrypt secrets: 256 random bits."""
    click.echo(_import_encryption().generate_key())


@secrets.command(name="set", extra="The value is read from standard input, or asked for; arguments are seen by others.")
@_NAME
@_database_option
@_key_file_option
@click.option("--note", type=CheckedText(check_note), help="For people, at most 100 characters. Without it: as it was.")
@_by_option
@json_option
def set_(name: str, database: str, key_files: tuple[str, ...], note: str | None, by: str | None, as_json: bool) -> None:
    """Store a value for NAME as a new version.

    The value is read from standard input: of one line without its end, of several as they are. At a terminal it is
    asked for. A missing database is made.
    """
    keys = _read_keys(key_files)
    value = _read_value(name)

    async def run() -> SecretRecord:
        async with _open_secret_store(database, keys, creates=True) as store:
            return await finish_despite_interrupt(store.set(name, value, note=note, by=by))

    record = asyncio.run(run())
    if as_json:
        print_json(secret_json(record))
    else:
        click.echo(escape_unprintable(f"Secret {record.name} is set, version {record.version}."))
    shape = shape_of(value)
    if shape.lines > 1 or shape.begins_with or shape.ends_with:
        # Nobody sees it otherwise.
        print_to_stderr(f"What is stored: {shape}")


@secrets.command()
@_STORED_NAME
@click.argument("text", metavar="NOTE", type=CheckedText(check_note))
@_database_option
@_by_option
@json_option
def note(name: str, text: str, database: str, by: str | None, as_json: bool) -> None:
    """Change the NOTE of a stored secret; an empty one removes it."""

    async def run() -> SecretRecord:
        async with _open_secret_store(database, writes=True) as store:
            return await finish_despite_interrupt(store.set_note(name, text, by=by))

    record = asyncio.run(run())
    if as_json:
        print_json(secret_json(record))
    else:
        click.echo(
            escape_unprintable(f"The note of secret {record.name} is {'changed' if record.note else 'removed'}.")
        )


@secrets.command(name="list")
@_database_option
@json_option
def list_(database: str, as_json: bool) -> None:
    """List the stored secrets, without their values."""

    async def run() -> Sequence[SecretRecord]:
        async with _open_secret_store(database) as store:
            return await store.list()

    found = asyncio.run(run())
    if as_json:
        print_json([secret_json(record) for record in found])
    elif found:
        now = time.time()
        rows = [
            (
                record.name,
                str(record.version or ""),
                relative_or(record.updated_at, now, ""),
                record.updated_by or "",
                relative_or(record.last_used_at, now, "never"),
                record.note or "",
            )
            for record in found
        ]
        header = ("NAME", "VERSION", "CHANGED", "BY", "LAST USED", "NOTE")
        click.echo(format_table(header, rows, width=terminal_width(), shrinks=("NAME", "BY", "NOTE")))
    else:
        print_to_stderr("There are no secrets.")


@secrets.command()
@_STORED_NAME
@_database_option
@yes_option
@_by_option
@json_option
def delete(name: str, database: str, yes: bool, by: str | None, as_json: bool) -> None:
    """Delete every value of a stored secret. Who set it and when is kept."""

    async def find() -> SecretRecord:
        async with _open_secret_store(database, writes=True) as store:
            return await store.get(name)

    async def run() -> SecretRecord:
        async with _open_secret_store(database, writes=True) as store:
            return await finish_despite_interrupt(store.delete(name, by=by))

    asyncio.run(find())
    confirm(escape_unprintable(f"Delete every value of secret {name}?"), yes=yes)
    record = asyncio.run(run())
    if as_json:
        print_json(secret_json(record))
    else:
        click.echo(escape_unprintable(f"Secret {record.name} is deleted."))


@secrets.command()
@_database_option
@_key_file_option
@_by_option
@json_option
def rotate(database: str, key_files: tuple[str, ...], by: str | None, as_json: bool) -> None:
    """Encrypt every version of every secret with the newest key.

    All of them, or none if one cannot be read. Give the old keys too, in front of the new one. Servers must know the
    new key before this, and need the old ones no more afterwards.
    """
    keys = _read_keys(key_files)

    async def run() -> Rotation:
        async with _open_secret_store(database, keys, writes=True) as store:
            return await finish_despite_interrupt(store.rotate(by=by))

    rotation = asyncio.run(run())
    if as_json:
        print_json({"rewritten": rotation.rewritten, "unchanged": rotation.unchanged})
    else:
        click.echo(
            f"Encrypted {_count_of_values(rotation.rewritten)} with the newest key; "
            f"{_count_of_values(rotation.unchanged)} had it already."
        )


@asynccontextmanager
async def _open_secret_store(
    database: str, keys: Sequence[str] | None = None, *, creates: bool = False, writes: bool = False
) -> AsyncGenerator[SecretStore, None]:
    async with open_store(
        # The environment of this process is not the server's.
        lambda file: SecretStore(file, encryption_key=keys, environ={}),
        database,
        what="secrets",
        outdated="or of datasette-secrets, and this command only reads: start the server on it once",
        creates=creates,
        writes=writes,
    ) as store:
        yield store


def _read_keys(files: Sequence[str]) -> Sequence[str]:
    """The keys that the options or the environment give, newest last.

    Raises:
        click.ClickException: there is none, or it cannot be one.
    """
    texts = [_read_key_file(Path(file)) for file in files] if files else [os.environ.get(_KEY_VARIABLE, "")]
    keys = [key for text in texts for key in keys_of(text)[0]]
    if not keys:
        raise click.UsageError(
            f"Missing encryption key: set the variable {_KEY_VARIABLE}, or give --encryption-key-file."
        )
    encryption = _import_encryption()
    try:
        encryption.Encryption(keys)
    except ConfigurationError as error:
        raise click.UsageError(str(error).replace("encryption_key: ", "Encryption key: ", 1)) from error
    return keys


def _read_key_file(path: Path) -> str:
    text = read_key_file(path, f"The encryption key's file {shown_path(path)}")
    if is_readable_by_group_or_others(path):
        print_to_stderr(
            f"Warning: other users of this machine, or of the group, may read {path}; chmod go-rwx takes that away."
        )
    return text


def _read_value(name: str) -> str:
    if sys.stdin is not None and sys.stdin.isatty():
        try:
            typed: str = click.prompt(
                escape_unprintable(f"Value of {name}"), hide_input=True, confirmation_prompt="The same again", err=True
            )
            size = len(typed.encode())
        except UnicodeError as error:
            raise click.ClickException("What was typed is not valid UTF-8.") from error
        if size >= _MAX_TERMINAL_LINE:
            raise click.ClickException("A terminal cuts off what is so long; give the value on standard input.")
        return typed
    value = read_stdin("secret")
    if not value.rstrip("\r\n"):
        raise click.ClickException("Standard input holds no secret.")
    return one_line_or_all(value)


def _import_encryption() -> Any:
    try:
        from asgi_token_auth.secrets import encryption
    except ImportError as error:
        raise ConfigurationError(
            "Encrypting needs one more package: pip install 'asgi-token-auth[secrets]'."
        ) from error
    return encryption


def _count_of_values(count: int) -> str:
    return f"{count:,} {'value' if count == 1 else 'values'}"
