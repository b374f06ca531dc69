"""``check``: whether a configuration would work, before a server is started with it."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

import click

from asgi_token_auth.cli.options import ParamType, hint_at_password, json_option
from asgi_token_auth.cli.output import escape_unprintable, print_json
from asgi_token_auth.cli.parsing import Command
from asgi_token_auth.cli.records import list_all
from asgi_token_auth.cli.stores import database_exists, existing_database, untracked_store
from asgi_token_auth.config.assembly import from_config
from asgi_token_auth.config.block import Configuration, read_configuration
from asgi_token_auth.config.sections import PLUGIN, PREDECESSOR, SECRETS_PREDECESSOR, section_in, with_secrets_section
from asgi_token_auth.config.values import is_array, is_object, is_readable_by_everyone, read_config_file
from asgi_token_auth.databases.address import is_dsn, is_of_another_kind, mend_for
from asgi_token_auth.decoding import is_unfilled, listed
from asgi_token_auth.decoding import logger as decoding_logger
from asgi_token_auth.errors import ConfigurationError, SecretUnreadable, TokenAuthError
from asgi_token_auth.secrets.known import ENVIRONMENT_PREFIX, environment_secret
from asgi_token_auth.secrets.store import SecretStore
from asgi_token_auth.signing import MIN_SECRET_LENGTH, SigningSecrets
from asgi_token_auth.sources.sql import SQLTokens
from asgi_token_auth.storage.store import TableStore
from asgi_token_auth.wording import exact

#: Fewer different characters than this, and a secret is a pattern, however long.
_MIN_DIFFERENT_CHARACTERS: Final = 8
_MAX_LISTED: Final = 20


class _Report:
    """What was found. Problems make the command fail, notes do not."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.notes: list[str] = []

    @contextmanager
    def collecting(self) -> Generator[None, None, None]:
        """Errors and logged warnings become problems, and what was left out of a text a note."""
        report = self

        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                # Reading a block twice warns twice.
                if record.getMessage() not in report.problems:
                    report.problems.append(record.getMessage())

        class Dropped(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if record.getMessage() not in report.notes:
                    report.notes.append(record.getMessage())

        handler, logger = Handler(logging.WARNING), logging.getLogger("asgi_token_auth")
        logger.addHandler(handler)
        dropped, level = Dropped(logging.INFO), decoding_logger.level
        decoding_logger.addHandler(dropped)
        decoding_logger.setLevel(logging.INFO)
        try:
            yield
        except TokenAuthError as error:
            self.problems.append(str(error))
        finally:
            logger.removeHandler(handler)
            decoding_logger.removeHandler(dropped)
            decoding_logger.setLevel(level)


class _NamedPath(ParamType):
    name = "name=path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return cast("tuple[str, str]", value)
        name, equals, path = str(value).partition("=")
        # It is not repeated, because it may be a DSN with a password.
        if not (name and equals and path) or is_dsn(name) or is_of_another_kind(name):
            self.fail("It must be a name and a path, or a DSN, for example tokens=tokens.db.", param, ctx)
        if is_of_another_kind(path):
            self.fail(f"There is no such kind of database; {mend_for(path)}", param, ctx)
        hint_at_password(path, places="PGPASSWORD")
        return name, path


@click.command(cls=Command)
@click.argument("config", type=click.Path(dir_okay=False))
@click.option(
    "--database",
    "databases",
    type=_NamedPath(),
    metavar="NAME=PATH",
    multiple=True,
    help="A database that the configuration names. May be given several times.",
)
@click.option(
    "--expiring-within",
    type=click.IntRange(0, 36_500),
    default=7,
    show_default=True,
    metavar="DAYS",
    help="Report tokens that expire so soon; 0: none.",
)
@json_option
@click.pass_context
def check(
    ctx: click.Context, config: str, databases: tuple[tuple[str, str], ...], expiring_within: int, as_json: bool
) -> None:
    """Check a configuration without starting anything.

    CONFIG is a .json or .toml file that holds the block; Datasette's own configuration file does as well. The
    environment should be the server's. The databases are only read. Also reported: tokens that expire soon, weak
    secrets, secrets in files that every user may read, and stored secrets that the encryption keys do not open. Exits
    with 1 if anything is wrong.
    """
    report = _Report()
    named = dict(databases)
    if len(named) < len(databases):
        raise click.UsageError("--database: two have the same name.")
    with report.collecting():
        block, in_datasette = _read_block(Path(config))
        _check_files(block, Path(config), report)
        configuration = _check_block(block, named, report, in_datasette=in_datasette)
        _check_secrets(configuration, report)
        _check_environment(report)
        _check_databases(configuration, named, expiring_within, report)
    if as_json:
        print_json({"ok": not report.problems, "problems": report.problems, "notes": report.notes})
    else:
        for problem in report.problems:
            click.echo(escape_unprintable(f"Problem: {problem}"))
        for remark in report.notes:
            click.echo(escape_unprintable(f"Note: {remark}"))
        if not report.problems:
            click.echo("No problems found.")
    ctx.exit(1 if report.problems else 0)


async def _no_app(scope: Any, receive: Any, send: Any) -> None:
    """The app that is wrapped; nobody asks it."""


async def _nobody(scope: Any) -> None:
    """Who is signed in; nobody asks it either."""


def _read_block(path: Path) -> tuple[Mapping[str, Any], bool]:
    """The block, and whether it stands in a configuration of Datasette."""
    content: Any
    if path.suffix in (".yaml", ".yml"):
        try:
            from asgi_token_auth.datasette.installed import read_datasette_file
        except ImportError as error:
            raise ConfigurationError(f"{path}: YAML can be read only where Datasette is installed.") from error
        content = read_datasette_file(path)
    else:
        content = read_config_file(path)
    plugins = content.get("plugins") if is_object(content) else None
    if not is_object(plugins):
        return content, False
    section = section_in(plugins)
    secrets = plugins.get(SECRETS_PREDECESSOR)
    if section is None and "asgi_token_auth" in plugins:
        raise ConfigurationError(f"{path}: plugins.asgi_token_auth: the section is called {PLUGIN}, with hyphens.")
    if section is None and not secrets:
        raise ConfigurationError(f"{path}: there is no block {PLUGIN} under plugins.")
    block: Any = {} if section is None else plugins[section]
    if not is_object(block) or (section is not None and not block):
        raise ConfigurationError(f"{path}: nothing is configured under plugins.{section}.")
    return with_secrets_section(block, secrets), True


def _check_block(
    block: Mapping[str, Any], databases: dict[str, str], report: _Report, *, in_datasette: bool
) -> Configuration:
    if not in_datasette:
        # Who signs people in is not in the block.
        from_config(_no_app, block, databases=databases, signed_in=_nobody)
        return read_configuration(block)
    try:
        from asgi_token_auth.datasette.configuration import read_block
    except ImportError:
        report.notes.append("Datasette is not installed here, so what it alone refuses was not checked.")
        return read_configuration(block)
    return read_block(block)


def _check_files(block: Mapping[str, Any], path: Path, report: _Report) -> None:
    files: list[Path] = []
    literal = _has_literal_secrets(block, files)
    if literal and is_readable_by_everyone(path):
        report.problems.append(f"{path} holds secrets, and every user of this machine may read it: chmod o-r {path}.")
    report.problems.extend(
        f"{file} is a secret's file, and every user of this machine may read it: chmod o-r {file}."
        for file in files
        if is_readable_by_everyone(file)
    )


def _has_literal_secrets(block: Mapping[str, Any], files: list[Path]) -> bool:
    """Whether secrets stand in the block itself; the files that hold others are added to ``files``."""
    secrets = block.get("secrets")
    entries = block.get("tokens")
    places = [block.get("secret")]
    places += [entry.get("token") for entry in entries if is_object(entry)] if is_array(entries) else []
    keys = [secrets.get("encryption_key"), secrets.get("encryption-key")] if is_object(secrets) else []
    # Files of encryption keys are checked where they are read, for their group too.
    literal = any(isinstance(key, str) for value in keys for key in (value if is_array(value) else [value]))
    while places:
        value = places.pop()
        if is_array(value):
            places += value
        elif isinstance(value, str):
            literal = True
        elif is_object(value) and isinstance(value.get("$file"), str):
            files.append(Path(value["$file"]))
    return literal


def _check_secrets(configuration: Configuration, report: _Report) -> None:
    values: list[str] = []
    if configuration.secret is not None:
        values += SigningSecrets.of(configuration.secret).reveal()
    elif os.environ.get("DATASETTE_SECRET"):
        signing = SigningSecrets([os.environ["DATASETTE_SECRET"]])
        values += signing.reveal()
        if signing.dropped:
            decoding_logger.info("DATASETTE_SECRET: %s left out; take it away there", listed(signing.dropped))
    if any(len(set(key)) < _MIN_DIFFERENT_CHARACTERS for key in configuration.encryption_keys):
        report.problems.append(
            "secrets.encryption_key: is a pattern of few different characters; make one with asgi-token-auth secrets "
            "generate-encryption-key."
        )
    if any(len(set(value)) < _MIN_DIFFERENT_CHARACTERS for value in values):
        report.problems.append(
            "secret: is a pattern of few different characters; make one with asgi-token-auth generate-secret."
        )
    for token, actor in configuration.tokens.items():
        # A short one has been reported already.
        if len(token) >= MIN_SECRET_LENGTH and len(set(token)) < _MIN_DIFFERENT_CHARACTERS:
            report.problems.append(f"tokens: the one of actor {actor.get('id')!r} is a pattern of few characters.")


def _check_environment(report: _Report) -> None:
    """The secrets that the environment gives in place of stored ones."""
    for variable, given in os.environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        try:
            value = environment_secret(os.environ, variable.removeprefix(ENVIRONMENT_PREFIX))
        except SecretUnreadable as error:
            report.problems.append(str(error))
            continue
        if is_unfilled(given):
            report.problems.append(f"{variable}: is the name of a variable and not its value; set it to the secret.")
        elif value != given and given:
            report.notes.append(f"{variable}: a byte-order mark or a line end is left out; take it away there.")


def _check_databases(
    configuration: Configuration, databases: dict[str, str], expiring_within: int, report: _Report
) -> None:
    existing: set[str] = set()
    for name, given in databases.items():
        with report.collecting():
            if database_exists(given):
                existing.add(given)
            else:
                report.notes.append(
                    f"The file of database {name} is missing; a server would make it for managed tokens or secrets."
                )
    if configuration.manage_tokens:
        path = _database_for(configuration.manage_tokens_database, databases)
        if path is None:
            report.notes.append("The database of managed tokens was not checked; give --database NAME=PATH.")
        elif path in existing or is_dsn(path):
            if not is_dsn(path) and not _may_write(path):
                report.problems.append(f"{path} cannot be written by this user: tokens could not be issued or revoked.")
            with report.collecting():
                asyncio.run(_check_tokens(path, expiring_within, report))
    if configuration.encryption_keys:
        path = _database_for(configuration.secrets_database, databases)
        if path is None:
            report.notes.append("The database of secrets was not checked; give --database NAME=PATH.")
        elif path in existing or is_dsn(path):
            with report.collecting():
                asyncio.run(_check_stored_secrets(path, configuration.encryption_keys, report))
    if configuration.query_sql is not None:
        path = _database_for(configuration.query_database, databases)
        if path is None:
            report.notes.append("The query was not tried; give --database NAME=PATH.")
        else:
            with report.collecting():
                asyncio.run(_check_query(SQLTokens(existing_database(path), configuration.query_sql)))


async def _check_query(source: SQLTokens) -> None:
    await source.open()
    await source.close()


def _database_for(name: str | None, databases: dict[str, str]) -> str | None:
    if name is None:
        return next(iter(databases.values())) if len(databases) == 1 else None
    return databases.get(name, name if is_dsn(name) else None)


def _may_write(path: str) -> bool:
    return os.access(path, os.W_OK) and os.access(Path(path).absolute().parent, os.W_OK)


async def _is_prepared(store: TableStore, path: str, content: str, predecessor: str, report: _Report) -> bool:
    state = await store.state()
    if state != "ready":
        why = f"holds no {content} yet" if state == "absent" else f"is of an older release or of {predecessor}"
        shown = store.database.name if is_dsn(path) else path
        report.notes.append(f"{shown} {why}; a server prepares it when it starts.")
    return state == "ready"


async def _check_tokens(path: str, expiring_within: int, report: _Report) -> None:
    database = existing_database(path)
    store = untracked_store(database)
    try:
        if not await _is_prepared(store, path, "tokens", PREDECESSOR, report):
            return
        async with store:
            soon = time.time() + expiring_within * 86_400
            tokens = await list_all(store)
            active = [token for token in tokens if token.status == "active"]
            expiring = [token for token in active if token.expires_at is not None and token.expires_at < soon]
            for token in expiring[:_MAX_LISTED] if expiring_within else []:
                report.problems.append(f"Token {token.id} of {token.actor_id} expires at {exact(token.expires_at)}.")
            if expiring_within and len(expiring) > _MAX_LISTED:
                report.problems.append(f"{len(expiring) - _MAX_LISTED:,} more tokens expire soon.")
            report.problems.extend(
                f"Token {token.id} is refused, because its row is damaged: revoke it."
                for token in tokens
                if token.status == "damaged" and token.ended_at is None
            )
    finally:
        await database.close()


async def _check_stored_secrets(path: str, keys: Sequence[str], report: _Report) -> None:
    database = existing_database(path)
    store = SecretStore(database, encryption_key=keys)
    try:
        if not await _is_prepared(store, path, "secrets", SECRETS_PREDECESSOR, report):
            return
        async with store:
            sentences = await store.problems()
            report.problems.extend(sentences[:_MAX_LISTED])
            if len(sentences) > _MAX_LISTED:
                report.problems.append(f"{len(sentences) - _MAX_LISTED:,} more secrets cannot be decrypted.")
    finally:
        await database.close()
