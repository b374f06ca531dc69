"""The root of the command line, and the commands that need no module of their own."""

from __future__ import annotations

import secrets

import click

from asgi_token_auth.cli.check import check
from asgi_token_auth.cli.create_token import create_token
from asgi_token_auth.cli.decode import decode
from asgi_token_auth.cli.parsing import Command
from asgi_token_auth.cli.process import PROGRAM, CommandGroup
from asgi_token_auth.cli.secrets import secrets as secrets_
from asgi_token_auth.cli.tokens import tokens


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name=PROGRAM, prog_name=PROGRAM, message="%(prog)s %(version)s")
def root() -> None:
    """Make, look after and inspect API tokens; look after encrypted secrets.

    Exit codes: 0, 1 if it failed, 2 if the arguments are wrong, 130 if it was interrupted.
    """


@click.command(cls=Command)
def generate_secret() -> None:
    """Print a secret that can sign tokens: 256 random bits."""
    click.echo(secrets.token_hex(32))


for _command in (create_token, tokens, secrets_, decode, check, generate_secret):
    root.add_command(_command)
