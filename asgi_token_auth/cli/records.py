"""Records of tokens for a terminal: all that match, one in words, and a new one with its text."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

import click

from asgi_token_auth.cli.output import escape_unprintable, print_json, print_to_stderr, wait_for_reader
from asgi_token_auth.cli.process import finish_despite_interrupt
from asgi_token_auth.errors import StorageError
from asgi_token_auth.tokens.as_json import record_json
from asgi_token_auth.tokens.listing import MAX_LIMIT
from asgi_token_auth.tokens.record import ANY_OWNER, Family, IssuedToken, StoredEvent, TokenRecord
from asgi_token_auth.tokens.store import TokenStore
from asgi_token_auth.wording import describe, exact, relative


async def list_all(
    store: TokenStore,
    *,
    owner: str | Family | None = None,
    status: str | None = None,
    search: str | None = None,
    unused_since: int | None = None,
) -> list[TokenRecord]:
    """Every token that the filters leave, newest first.

    Args:
        owner: ``None``: of everybody.
        unused_since: seconds since the epoch; tokens made after that are not unused but new.
    """
    found: list[TokenRecord] = []
    cursor = None
    while True:
        page = await store.list(
            owner=ANY_OWNER if owner is None else owner,
            status=status,
            search=search,
            used_before=unused_since,
            cursor=cursor,
            limit=MAX_LIMIT,
        )
        found += page.items
        if page.next_cursor is None:
            break
        cursor = page.next_cursor
    if unused_since is None:
        return found
    return [token for token in found if token.created_at is None or token.created_at < unused_since]


async def issue_and_print(
    issuing: Callable[[Callable[[IssuedToken], None]], Awaitable[IssuedToken]], otherwise: str, *, as_json: bool
) -> None:
    """Issue a token, and write its text to standard output: the only moment when it exists.

    It is written before it is stored. So whatever happens to this process, no token is stored whose text nobody has.

    Args:
        issuing: is given what writes the text.
        otherwise: a sentence that says what is true if this fails.

    Raises:
        click.ClickException: the text could not be written, or not be stored after it was written.
    """
    written = False

    def write(issued: IssuedToken) -> None:
        nonlocal written
        try:
            if as_json:
                print_json({"token": issued.token, "details": record_json(issued.record)})
            else:
                click.echo(issued.token)
        except OSError as error:
            raise click.ClickException(
                f"The text of the token could not be written: {error.strerror}. {otherwise}"
            ) from error
        written = True

    # Not later, when the database is locked for everybody else.
    wait_for_reader()
    try:
        token = (await finish_despite_interrupt(issuing(write))).record
    except StorageError as error:
        if not written:
            raise
        raise click.ClickException(
            escape_unprintable(f"{error} The text that was written does not work. {otherwise}")
        ) from error
    if not as_json:
        end = relative_or(token.expires_at, time.time(), "")
        expiry = f"expires {end}" if end else "never expires"
        print_to_stderr(f"Token {token.id} of {token.actor_id}, {expiry}. It is shown only now.")


def token_fields(token: TokenRecord) -> list[tuple[str, str]]:
    """All that is known of a token, as names and values."""
    now = time.time()
    pairs = [
        ("Token", str(token.id)),
        ("Status", token.status),
        ("Owner", token.actor_id),
        ("Description", token.description or ""),
        ("Created", _relative_and_exact(token.created_at, now, "unknown")),
        ("Expires", _relative_and_exact(token.expires_at, now, "never")),
        ("Last used", _relative_and_exact(token.last_used_at, now, "never")),
    ]
    if token.last_used_address:
        pairs.append(("Used from", token.last_used_address))
    if token.ended_at is not None:
        pairs.append(("Ended", _relative_and_exact(token.ended_at, now, "")))
    if token.parent_id is not None:
        pairs.append(("Created through", f"token {token.parent_id}"))
    if token.previous_until is not None and token.previous_until > now:
        pairs.append(("Old text works", _relative_and_exact(token.previous_until, now, "")))
    if token.restrictions is None:
        return [*pairs, ("May do", "all that its owner may")]
    allowed = describe(token.restrictions)
    return [*pairs, *((heading, ", ".join(actions)) for heading, actions in allowed or [("May do", ["nothing"])])]


def event_fields(events: Sequence[StoredEvent]) -> list[tuple[str, str]]:
    """A token's events as names and values."""
    now = time.time()
    return [
        (
            "History",
            f"{event.name} {_relative_and_exact(event.at, now, 'at an unknown time')}"
            + (f" by {event.by}" if event.by else "")
            + (f": {event.details}" if event.details else ""),
        )
        for event in events
    ]


def relative_or(timestamp: float | None, now: float, unknown: str) -> str:
    """``in 3 days``, or ``unknown`` where there is no time."""
    return unknown if timestamp is None else relative(timestamp, now)


def count_of_tokens(count: int, kind: str = "") -> str:
    """``1 token``, ``2 tokens``."""
    return f"{count:,} {kind + ' ' if kind else ''}{'token' if count == 1 else 'tokens'}"


def _relative_and_exact(timestamp: float | None, now: float, unknown: str) -> str:
    at = exact(timestamp)
    return unknown if timestamp is None or at is None else f"{relative(timestamp, now)} ({at})"
