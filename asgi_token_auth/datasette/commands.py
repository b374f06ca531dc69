"""Commands of Datasette's own command line that datasette-secrets has, under the same names."""

from __future__ import annotations

from typing import Any

import click

GROUP = "secrets"
COMMAND = "generate-encryption-key"


def add_to(cli: Any) -> None:
    """Add them to Datasette's ``cli``, where no other plugin has taken the names."""
    group = cli.commands.get(GROUP)
    if group is None:
        group = click.Group(GROUP, help="Look after encrypted secrets: see also asgi-token-auth secrets.")
        cli.add_command(group)
    if isinstance(group, click.Group) and COMMAND not in group.commands:
        group.add_command(click.Command(COMMAND, callback=_generate, help="Print a key that can encrypt secrets."))


def _generate() -> None:
    try:
        from asgi_token_auth.secrets.encryption import generate_key
    except ImportError as error:
        raise click.ClickException("Keys need cryptography: pip install 'asgi-token-auth[secrets]'") from error
    click.echo(generate_key())
