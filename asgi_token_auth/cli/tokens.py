"""``tokens``: what the pages do with managed tokens, from a terminal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import click

from asgi_token_auth.cli.actions import known_actions, named_actions, read_restrictions, warn_of_unknown_actions
from asgi_token_auth.cli.importing import import_
from asgi_token_auth.cli.inputs import confirm, read_secret
from asgi_token_auth.cli.options import (
    ACTOR,
    DESCRIPTION,
    TOKEN_ID,
    Duration,
    by_option,
    database_option,
    json_option,
    prefix_option,
    restriction_options,
    secret_options,
    yes_option,
)
from asgi_token_auth.cli.output import format_fields, format_table, print_json, print_to_stderr, terminal_width
from asgi_token_auth.cli.process import CommandGroup, finish_despite_interrupt
from asgi_token_auth.cli.records import (
    count_of_tokens,
    event_fields,
    issue_and_print,
    list_all,
    relative_or,
    token_fields,
)
from asgi_token_auth.cli.revoking import revoke
from asgi_token_auth.cli.stores import open_token_store
from asgi_token_auth.errors import InvalidInput
from asgi_token_auth.tokens.as_json import events_json, record_json
from asgi_token_auth.tokens.record import ANY_OWNER, KEEP, MAX_EXPIRES_AFTER, MAX_GRACE, StoredEvent, TokenRecord
from asgi_token_auth.wording import duration

_DAY = 86_400
_DEFAULT_LIFETIME = 90 * _DAY
_restriction_options = restriction_options("--on-database", "--on-resource")


@click.group(cls=CommandGroup)
def tokens() -> None:
    """Look after managed tokens, which are kept in a database."""


@tokens.command()
@click.argument("actor_id", metavar="ACTOR", type=ACTOR)
@database_option
@secret_options
@prefix_option
@click.option("--description", type=DESCRIPTION, help="What it is for.")
@click.option(
    "-e",
    "--expires-after",
    type=Duration(),
    metavar="TIME",
    help="Seconds, or for example 12h or 30d. Without it: 90d.",
)
@click.option("--never", is_flag=True, help="It never expires.")
@_restriction_options
@by_option
@json_option
@click.pass_context
def create(
    ctx: click.Context,
    actor_id: str,
    database: str,
    secret: str | None,
    secret_file: str | None,
    description: str | None,
    expires_after: int | None,
    never: bool,
    alls: tuple[str, ...],
    databases: tuple[tuple[str, str], ...],
    resources: tuple[tuple[str, str, str], ...],
    by: str | None,
    as_json: bool,
) -> None:
    """Create a token for ACTOR and print its text, which is kept nowhere.

    Without -a, -d and -r it may do all that its actor may. A missing database is made.
    """
    lifetime = _checked_lifetime(expires_after, never=never)
    restrictions = read_restrictions(alls, databases, resources)
    signing = read_secret(ctx, secret, secret_file)
    if named := named_actions(alls, databases, resources):
        warn_of_unknown_actions(named, known_actions())

    async def run() -> None:
        async with open_token_store(database, signing, creates=True) as store:
            await issue_and_print(
                lambda write: store.issue(
                    actor_id,
                    by=by,
                    description=description,
                    expires_after=_DEFAULT_LIFETIME if lifetime is None and not never else lifetime,
                    restrictions=restrictions,
                    deliver=write,
                ),
                "No token was created.",
                as_json=as_json,
            )

    asyncio.run(run())


@tokens.command(name="list")
@database_option
@click.option("--status", type=click.Choice(["active", "revoked", "expired"]), help="Only those of this status.")
@click.option("--owner", type=ACTOR, help="Only those of this actor.")
@click.option("--search", help="Only those with this text in the description or the actor's id.")
@click.option("--unused-for", type=click.IntRange(0, 36_500), metavar="DAYS", help="Only those not used for so long.")
@json_option
def list_(
    database: str, status: str | None, owner: str | None, search: str | None, unused_for: int | None, as_json: bool
) -> None:
    """List tokens, newest first."""
    before = None if unused_for is None else max(0, int(time.time()) - unused_for * _DAY)

    async def run() -> list[TokenRecord]:
        async with open_token_store(database) as store:
            return await list_all(store, owner=owner, status=status, search=search, unused_since=before)

    try:
        found = asyncio.run(run())
    except InvalidInput as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        print_json([record_json(token) for token in found])
    elif found:
        now = time.time()
        rows = [
            (
                str(token.id),
                token.status,
                token.actor_id,
                relative_or(token.expires_at, now, "never"),
                relative_or(token.last_used_at, now, "never"),
                token.description or "",
                "all" if token.restrictions is None else "restricted",
                relative_or(token.created_at, now, ""),
            )
            for token in found
        ]
        header = ("ID", "STATUS", "OWNER", "EXPIRES", "LAST USED", "DESCRIPTION", "MAY DO", "CREATED")
        click.echo(format_table(header, rows, width=terminal_width(), shrinks=("OWNER", "DESCRIPTION")))
    else:
        print_to_stderr("There are no such tokens.")


@tokens.command()
@click.argument("token_id", metavar="ID", type=TOKEN_ID)
@database_option
@json_option
def show(token_id: int, database: str, as_json: bool) -> None:
    """Show a token, and what happened to it."""

    async def run() -> tuple[TokenRecord, Sequence[StoredEvent]]:
        async with open_token_store(database) as store:
            return await store.get(token_id, owner=ANY_OWNER), await store.events(token_id, owner=ANY_OWNER)

    token, events = asyncio.run(run())
    if as_json:
        print_json({**record_json(token), "events": events_json(events)})
    else:
        click.echo(format_fields([*token_fields(token), *event_fields(events)]))


@tokens.command()
@click.argument("token_id", metavar="ID", type=TOKEN_ID)
@database_option
@click.option("--description", type=DESCRIPTION, help="What it is for; empty for none.")
@click.option("-e", "--expires-after", type=Duration(), metavar="TIME", help="From now: seconds, or for example 30d.")
@click.option("--never", is_flag=True, help="It never expires.")
@_restriction_options
@click.option("--unrestricted", is_flag=True, help="It may do all that its actor may.")
@by_option
@json_option
def edit(
    token_id: int,
    database: str,
    description: str | None,
    expires_after: int | None,
    never: bool,
    alls: tuple[str, ...],
    databases: tuple[tuple[str, str], ...],
    resources: tuple[tuple[str, str, str], ...],
    unrestricted: bool,
    by: str | None,
    as_json: bool,
) -> None:
    """Change an active token. What it loses, the tokens created through it lose too.

    -a, -d and -r together replace what it was restricted to.
    """
    restrictions = read_restrictions(alls, databases, resources)
    if unrestricted and restrictions is not None:
        raise click.UsageError("Give --unrestricted, or restrictions, not both.")
    lifetime = _checked_lifetime(expires_after, never=never)
    if description is None and lifetime is None and not never and restrictions is None and not unrestricted:
        raise click.UsageError("Nothing to change: give a description, an expiry or restrictions.")
    if named := named_actions(alls, databases, resources):
        warn_of_unknown_actions(named, known_actions())

    async def run() -> TokenRecord:
        async with open_token_store(database, writes=True) as store:
            return await finish_despite_interrupt(
                store.edit(
                    token_id,
                    owner=ANY_OWNER,
                    by=by,
                    description=KEEP if description is None else description or None,
                    expires_after=KEEP if lifetime is None and not never else lifetime,
                    restrictions=KEEP if restrictions is None and not unrestricted else restrictions,
                )
            )

    token = asyncio.run(run())
    if as_json:
        print_json(record_json(token))
    else:
        click.echo(format_fields(token_fields(token)))


@tokens.command()
@click.argument("token_id", metavar="ID", type=TOKEN_ID)
@database_option
@secret_options
@prefix_option
@click.option("--grace", type=Duration(least=0), default=0, metavar="TIME", help="The old text works so much longer.")
@by_option
@json_option
@click.pass_context
def rotate(
    ctx: click.Context,
    token_id: int,
    database: str,
    secret: str | None,
    secret_file: str | None,
    grace: int,
    by: str | None,
    as_json: bool,
) -> None:
    """Give an active token a new text, and print it. Without --grace the old one stops at once."""
    if grace > MAX_GRACE:
        raise click.UsageError("--grace: the old text can work for 90 days at most.")
    signing = read_secret(ctx, secret, secret_file)

    async def run() -> None:
        async with open_token_store(database, signing, writes=True) as store:
            await issue_and_print(
                lambda write: store.rotate(token_id, owner=ANY_OWNER, by=by, grace=grace, deliver=write),
                "Nothing was changed: the old text goes on working.",
                as_json=as_json,
            )

    asyncio.run(run())


@tokens.command()
@database_option
@click.option(
    "--ended-for",
    type=Duration(least=0),
    required=True,
    metavar="TIME",
    help="Only tokens that ended so long ago, for example 365d.",
)
@click.option("--dry-run", is_flag=True, help="Only say how many.")
@yes_option
@json_option
def prune(database: str, ended_for: int, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Delete tokens that ended long ago, with the record of what happened to them.

    The newest of all tokens always stays, so that its number is never given to another one.
    """
    before = max(0.0, time.time() - ended_for)

    async def count() -> int:
        async with open_token_store(database, writes=not dry_run) as store:
            return await store.prune(ended_before=before, dry_run=True)

    async def delete() -> int:
        async with open_token_store(database, writes=True) as store:
            return await finish_despite_interrupt(store.prune(ended_before=before))

    found = asyncio.run(count())
    if not dry_run and found:
        confirm(f"Delete {count_of_tokens(found)} that ended more than {duration(ended_for)} ago?", yes=yes)
        found = asyncio.run(delete())
    if as_json:
        print_json({"pruned": 0 if dry_run else found, "found": found})
    else:
        click.echo(f"{count_of_tokens(found)} would be deleted." if dry_run else f"Deleted {count_of_tokens(found)}.")


for _command in (revoke, import_):
    tokens.add_command(_command)


def _checked_lifetime(expires_after: int | None, *, never: bool) -> int | None:
    if never and expires_after is not None:
        raise click.UsageError("Give --expires-after or --never, not both.")
    if expires_after is not None and expires_after > MAX_EXPIRES_AFTER:
        raise click.UsageError("A token can live for a hundred years at most; --never is longer.")
    return expires_after
