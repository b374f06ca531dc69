"""``tokens import``: the tokens of another database."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from asgi_token_auth.cli.options import database_option, hint_at_password, json_option
from asgi_token_auth.cli.output import escape_unprintable, print_json, print_to_stderr
from asgi_token_auth.cli.parsing import Command
from asgi_token_auth.cli.process import set_change_state
from asgi_token_auth.cli.records import count_of_tokens
from asgi_token_auth.cli.stores import database_exists, existing_database, open_token_store, untracked_store
from asgi_token_auth.databases.address import is_dsn
from asgi_token_auth.databases.protocol import Database
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.errors import StorageError
from asgi_token_auth.tokens.copying import ImportedToken
from asgi_token_auth.tokens.store import TokenStore


@click.command(cls=Command, name="import")
@click.argument("source", type=click.Path(dir_okay=False))
@database_option
@click.option("--dry-run", is_flag=True, help="Change nothing, and say what would be imported.")
@json_option
def import_(source: str, database: str, dry_run: bool, as_json: bool) -> None:
    """Copy all tokens of SOURCE, another database of this package or of datasette-auth-tokens.

    SOURCE is a SQLite file or the DSN of a PostgreSQL database, as --database is.

    Every token keeps its number and its text, and works where the secret is the same. All are imported, or none: none
    if a number belongs to another token already. SOURCE is only read.
    """
    origin = existing_database(source)
    hint_at_password(source)
    exists, target = database_exists(database), Path(database).resolve()
    are_files = not is_dsn(source) and not is_dsn(database)
    if (exists and are_files and Path(source).samefile(database)) or source == database:
        raise StorageError("SOURCE and --database are the same database.")

    async def run() -> Sequence[ImportedToken]:
        try:
            # First in any case: what cannot be imported shall not have made or migrated the other file.
            planned = await _dry_run(origin, existing_database(database) if exists else None)
            if dry_run:
                return planned
            return await (_import_into_existing(database, origin) if exists else _import_into_new(target, origin))
        finally:
            await origin.close()

    found = asyncio.run(run())
    new = sum(token.imported for token in found)
    if as_json:
        rows = [{"id": t.id, "actor_id": t.actor_id, "status": t.status, "new": t.imported} for t in found]
        print_json({"dry_run": dry_run, "imported": 0 if dry_run else new, "present": len(found) - new, "tokens": rows})
        return
    for token in found:
        word = "there already" if not token.imported else "would be imported" if dry_run else "imported"
        click.echo(escape_unprintable(f"{token.id}  {token.actor_id}  {token.status}  {word}"))
    print_to_stderr(
        f"{'Would import' if dry_run else 'Imported'} {count_of_tokens(new)}; {len(found) - new:,} there already."
    )


async def _import_into_existing(database: str, origin: Database) -> Sequence[ImportedToken]:
    async with open_token_store(database, creates=True) as store:
        before = set_change_state("begun")
        try:
            found = await _import_all(store, origin)
        except asyncio.CancelledError:
            again = await _dry_run(origin, existing_database(database))
            set_change_state(before if any(token.imported for token in again) else "made")
            raise
        except Exception:
            set_change_state(before)
            raise
        set_change_state("made")
        return found


async def _import_into_new(target: Path, origin: Database) -> Sequence[ImportedToken]:
    """The same into a file that appears with all tokens in it, or not at all."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=".importing-", dir=target.parent)
    except OSError as error:
        raise StorageError(f"{target} cannot be made: {error.strerror}.") from error
    with folder as name:
        # Without WAL, so that one file is all of it.
        file = SQLite(Path(name) / "tokens.db", journal_mode=None)
        file.name = SQLite(target).name
        async with untracked_store(file) as store:
            found = await _import_all(store, origin)
        _publish(Path(name) / "tokens.db", target)
    set_change_state("made")
    await SQLite(target).open()
    print_to_stderr(f"{target} is new.")
    return found


def _publish(made: Path, target: Path) -> None:
    try:
        target.hardlink_to(made)
    except FileExistsError as error:
        raise StorageError(f"{target} was made meanwhile. Nothing was imported; import again.") from error
    except OSError:
        # Not every file system has hard links.
        made.rename(target)


async def _import_all(store: TokenStore, origin: Database) -> Sequence[ImportedToken]:
    try:
        return await store.import_tokens(origin)
    except asyncio.CancelledError:
        # The transaction outlives whoever waits for it, but Ctrl-C is for it too; what it did is clear at its end.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others)
        raise


async def _dry_run(origin: Database, target: Database | None) -> Sequence[ImportedToken]:
    with tempfile.TemporaryDirectory() as folder:
        if target is None:
            target = SQLite(Path(folder) / "empty.db", journal_mode=None)
            await target.open()
        try:
            return await untracked_store(target).import_tokens(origin, dry_run=True)
        finally:
            await target.close()
