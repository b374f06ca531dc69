"""``tokens revoke``: one token by its number or its text, or all of an actor."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from asgi_token_auth.authentication import Authenticated, Credential, Reason, Rejected
from asgi_token_auth.cli.inputs import confirm, read_secret, read_token_from_stdin
from asgi_token_auth.cli.options import (
    ACTOR,
    TOKEN_ID,
    by_option,
    database_option,
    json_option,
    prefix_option,
    secret_options,
    token_prefix,
    yes_option,
)
from asgi_token_auth.cli.output import escape_unprintable, print_json
from asgi_token_auth.cli.parsing import Command
from asgi_token_auth.cli.process import finish_despite_interrupt
from asgi_token_auth.cli.records import count_of_tokens, list_all
from asgi_token_auth.cli.stores import open_token_store
from asgi_token_auth.decoding import token_of
from asgi_token_auth.errors import TokenNotFound
from asgi_token_auth.sources.managed import ManagedTokens
from asgi_token_auth.tokens.as_json import record_json
from asgi_token_auth.tokens.record import ANY_OWNER, Family, TokenRecord
from asgi_token_auth.tokens.store import TokenStore


@click.command(cls=Command)
@click.argument("which", metavar="[ID]", required=False)
@database_option
@secret_options
@prefix_option
@click.option("--all-of", "everything_of", type=ACTOR, metavar="ACTOR", help="End every active token of this actor.")
@yes_option
@by_option
@json_option
@click.pass_context
def revoke(
    ctx: click.Context,
    which: Any,
    database: str,
    secret: str | None,
    secret_file: str | None,
    everything_of: str | None,
    yes: bool,
    by: str | None,
    as_json: bool,
) -> None:
    """End a token, and those created through it. Every server refuses them at their next request.

    ID is the token's number; or - to read the token itself from standard input, which needs the secret. Where others
    end with it, this asks first.
    """
    if (which is None) == (everything_of is None):
        raise click.UsageError("Give the ID of a token, - or --all-of ACTOR.")
    if everything_of is not None:
        _revoke_all(database, everything_of, yes=yes, by=by, as_json=as_json)
        return
    by_text = which == "-"
    if not by_text and token_of(which).text.startswith(token_prefix()):
        raise click.UsageError(
            "Give the token on standard input, and - as the ID: other users see arguments, and histories keep them."
        )
    signing = read_secret(ctx, secret, secret_file) if by_text else None
    presented: str | int = read_token_from_stdin() if by_text else TOKEN_ID.convert(which, None, ctx)

    async def find() -> tuple[TokenRecord, int]:
        async with open_token_store(database, signing, writes=True) as store:
            number = await _token_id_of(store, presented) if isinstance(presented, str) else presented
            token = await store.get(number, owner=ANY_OWNER)
            if not token.actor_id:
                return token, 0
            family = await list_all(store, owner=Family(token.actor_id, token.id), status="active")
            return token, sum(member.id != token.id for member in family)

    async def end(token_id: int) -> TokenRecord:
        async with open_token_store(database, writes=True) as store:
            return await finish_despite_interrupt(store.revoke(token_id, owner=ANY_OWNER, by=by))

    before, others = asyncio.run(find())
    if others:
        confirm(f"End token {before.id} and {count_of_tokens(others, 'active')} created through it?", yes=yes)
    record = asyncio.run(end(before.id))
    if as_json:
        print_json(record_json(record))
    elif before.ended_at != record.ended_at or before.status != record.status:
        click.echo(f"Token {record.id} is revoked, and so are those created through it.")
    else:
        click.echo(f"Token {record.id} had ended before: it is {record.status}.")


def _revoke_all(database: str, actor_id: str, *, yes: bool, by: str | None, as_json: bool) -> None:
    async def count() -> int:
        async with open_token_store(database, writes=True) as store:
            return len(await list_all(store, owner=actor_id, status="active"))

    async def revoke_all() -> int:
        async with open_token_store(database, writes=True) as store:
            return await finish_despite_interrupt(store.revoke_all(owner=actor_id, by=by))

    found = asyncio.run(count())
    if found:
        confirm(f"End {count_of_tokens(found, 'active')} of {actor_id}?", yes=yes)
    ended = asyncio.run(revoke_all())
    if as_json:
        print_json({"revoked": ended})
    else:
        click.echo(f"Revoked {count_of_tokens(ended)}.")


async def _token_id_of(store: TokenStore, token: str) -> int:
    """The id of a token by its text, checked as a server checks it: another instance may have signed it."""
    outcome = await ManagedTokens(store).authenticate(Credential(token))
    if isinstance(outcome, Authenticated) and outcome.auth.token_id is not None:
        return outcome.auth.token_id
    match outcome:
        case Rejected(Reason.DAMAGED, int(token_id)):
            return token_id
        case Rejected(reason, int(token_id)):
            raise click.ClickException(escape_unprintable(await _why_refused(store, token_id, reason)))
        case _:
            raise click.ClickException("This is no managed token that was signed with this secret.")


async def _why_refused(store: TokenStore, token_id: int, reason: Reason) -> str:
    try:
        token = await store.get(token_id, owner=ANY_OWNER)
    except TokenNotFound:
        return "This token is not in this database."
    if token.status != "active":
        return f"This text had stopped working before; token {token_id}, which it names, is {token.status}."
    # Rows keep the digests of the last two texts, so what does not match may be older, or from somewhere else.
    unless = "" if reason is Reason.EXPIRED else ", or the text is of another database"
    return (
        f"This text does not work, and nothing was changed: token {token_id} has had a new one since it was rotated"
        f"{unless}. The token itself, of {token.actor_id}, is active; `tokens revoke {token_id}` ends it."
    )
