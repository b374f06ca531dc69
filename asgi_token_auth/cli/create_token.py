"""``create-token``: signed tokens, byte for byte as ``datasette create-token`` makes them."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from asgi_token_auth.cli.actions import known_actions, named_actions, warn_of_unknown_actions
from asgi_token_auth.cli.inputs import read_secret
from asgi_token_auth.cli.options import restriction_options, secret_options
from asgi_token_auth.cli.parsing import Command
from asgi_token_auth.signing import SIGNED_PREFIX, datasette_signer


@click.command(cls=Command)
@click.argument("actor_id", metavar="ID")
@secret_options
@click.option("-e", "--expires-after", type=int, metavar="SECONDS", help="The token expires after so many seconds.")
@restriction_options("--database", "--resource")
@click.option("--debug", is_flag=True, help="Show what the token says.")
@click.option(
    "--plugins-dir",
    type=click.Path(exists=True, file_okay=False),
    help="Datasette plugins whose actions the token may name.",
)
@click.pass_context
def create_token(
    ctx: click.Context,
    actor_id: str,
    secret: str | None,
    secret_file: str | None,
    expires_after: int | None,
    alls: tuple[str, ...],
    databases: tuple[tuple[str, str], ...],
    resources: tuple[tuple[str, str, str], ...],
    debug: bool,
    plugins_dir: str | None,
) -> None:
    """Create a signed token for the actor ID, as `datasette create-token` does.

    Signed tokens need no database and cannot be revoked. -a, -d and -r may be given several times; without them the
    token may do all that its actor may.
    """
    if not actor_id:
        raise click.UsageError("The actor ID is empty.")
    if expires_after is not None and expires_after < 1:
        raise click.UsageError("--expires-after must be 1 second or more; leave it out for a token that never expires.")
    signing = read_secret(ctx, secret, secret_file)
    named = named_actions(alls, databases, resources)
    known = known_actions(plugins_dir) if named or plugins_dir is not None else {}
    warn_of_unknown_actions(named, known)

    payload: dict[str, Any] = {"a": actor_id, "t": int(time.time())}
    if expires_after is not None:
        payload["d"] = expires_after
    if named:
        payload["_r"] = _wire_restrictions(alls, databases, resources, known)
    click.echo(SIGNED_PREFIX + datasette_signer(signing).sign(payload))
    if debug:
        click.echo(f"\nDecoded:\n\n{json.dumps(payload, indent=2)}")


def _wire_restrictions(
    alls: tuple[str, ...],
    databases: tuple[tuple[str, str], ...],
    resources: tuple[tuple[str, str, str], ...],
    known: dict[str, str | None],
) -> dict[str, Any]:
    """As Datasette writes them: in the order given, and repeated where they are repeated."""
    wire: dict[str, Any] = {}
    for action in alls:
        wire.setdefault("a", []).append(known.get(action) or action)
    for database, action in databases:
        wire.setdefault("d", {}).setdefault(database, []).append(known.get(action) or action)
    for database, resource, action in resources:
        inner = wire.setdefault("r", {}).setdefault(database, {})
        inner.setdefault(resource, []).append(known.get(action) or action)
    return wire
