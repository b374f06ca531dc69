"""What a command reads: secrets, their files, standard input, and answers to questions."""

from __future__ import annotations

import codecs
import io
import os
import select
import sys
from pathlib import Path
from typing import Final, TextIO, cast

import click

from asgi_token_auth.cli.options import SECRET_VARIABLE
from asgi_token_auth.cli.output import escape_unprintable, print_to_stderr
from asgi_token_auth.config.values import is_readable_by_everyone
from asgi_token_auth.decoding import (
    MAX_SECRET_FILE,
    Undecodable,
    decode,
    is_unfilled,
    listed,
    read_bytes,
    read_value,
    token_of,
)
from asgi_token_auth.signing import SigningSecrets

_LONGEST_ANSWER: Final = 100


def read_secret(ctx: click.Context, secret: str | None, secret_file: str | None) -> SigningSecrets:
    """The secret that the options or the environment give; any that Datasette takes is taken.

    Raises:
        click.ClickException: there is none, it is empty, or it is no text.
    """
    by_option = ctx.get_parameter_source("secret") == click.core.ParameterSource.COMMANDLINE
    if secret_file is not None:
        if by_option:
            raise click.UsageError("Give --secret or --secret-file, not both.")
        secret = _secret_from_file(Path(secret_file))
    if secret is None:
        raise click.UsageError(
            f"Missing secret: set the variable {SECRET_VARIABLE}, or give --secret-file or --secret."
        )
    if not secret:
        raise click.UsageError("The secret is empty: use a long random string, as `generate-secret` prints one.")
    try:
        secret.encode()
    except UnicodeEncodeError as error:
        raise click.ClickException("The secret is not valid UTF-8.") from error
    if by_option:
        print_to_stderr(
            f"Hint: options are seen by other users and kept in histories; the variable {SECRET_VARIABLE} is not."
        )
    signing = SigningSecrets([secret])
    if signing.dropped:
        print_to_stderr(
            f"Warning: the secret: {listed(signing.dropped)} left out, as servers do; Datasette alone would not."
        )
    if is_unfilled(secret):
        print_to_stderr("Warning: the secret is the name of a variable and not its value; servers refuse it.")
    if signing.weak:
        print_to_stderr("Warning: the secret is shorter than 16 characters and may be guessed.")
    return signing


def read_optional_secret(ctx: click.Context, secret: str | None, secret_file: str | None) -> SigningSecrets | None:
    """The same, or ``None`` where no secret is given."""
    return None if secret is None and secret_file is None else read_secret(ctx, secret, secret_file)


def read_key_file(path: Path, what: str) -> str:
    """The text of a file of keys.

    Raises:
        click.ClickException: ``what`` cannot be read, is no text, or holds nothing.
    """
    try:
        text = decode(read_bytes(path)).text
    except Undecodable as error:
        raise click.ClickException(f"{what} {error}") from error
    if not text.strip():
        raise click.ClickException(f"{what} holds no key.")
    return text


def _secret_from_file(path: Path) -> str:
    try:
        secret = read_value(path, signs=True).text
    except Undecodable as error:
        raise click.ClickException(f"The secret's file {error}") from error
    if is_readable_by_everyone(path):
        print_to_stderr(f"Warning: every user of this machine may read {path}; chmod o-r takes that away.")
    return secret


def read_token_from_stdin() -> str:
    """The token on standard input.

    Raises:
        click.ClickException: there is none, or it is no text.
    """
    token = token_of(read_stdin("token", prompt="Paste the token, press Enter, then Ctrl-D:")).text
    if not token:
        raise click.ClickException("Standard input holds no token.")
    return token


def read_stdin(what: str, *, prompt: str | None = None) -> str:
    """All of standard input, which holds ``what``, without a byte-order mark. People are shown the ``prompt``.

    Raises:
        click.ClickException: it is closed, too long, or no text.
    """
    # The type of sys.stdin leaves out that it is None where standard input is closed.
    stdin: TextIO | None = sys.stdin
    if stdin is None:
        raise click.ClickException(f"Standard input is closed; pipe the {what} into it.")
    if prompt is not None and stdin.isatty():
        print_to_stderr(prompt)
    raw = b""
    # The end of a line is no part of what is measured.
    most = MAX_SECRET_FILE + len("\r\n")
    while len(raw) <= most and (more := _read_some(stdin, most + 1 - len(raw))):
        raw += more
    if len(raw) > most or len(raw.rstrip(b"\r\n")) > MAX_SECRET_FILE:
        raise click.ClickException(f"Standard input holds more than {MAX_SECRET_FILE:,} bytes; that is no {what}.")
    try:
        read = decode(raw)
    except Undecodable as error:
        raise click.ClickException(f"Standard input {error}") from error
    if read.dropped:
        print_to_stderr(f"Hint: standard input: {listed(read.dropped)} left out.")
    return read.text


def _read_some(stdin: TextIO, size: int) -> bytes:
    """At most ``size`` bytes, and none at the end; a stream that would not wait is waited for."""
    while True:
        try:
            if stdin.isatty():
                # read() would go on until Ctrl-D, and once more to tell that nothing comes.
                if os.name == "posix":
                    select.select([stdin], [], [])
                return cast("io.BufferedReader", stdin.buffer).read1(size)
            raw = cast("bytes | None", stdin.buffer.read(size))
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
        click.echo(escape_unprintable(f"{question} [y/N]: "), err=True, nl=False)
    except OSError:
        # Nobody says yes to what could not be asked.
        stdin = None
    while stdin is not None and len(answer) < _LONGEST_ANSWER and (more := _read_some(stdin, 1)) not in (b"", b"\n"):
        answer += more
    # PowerShell begins what it pipes with a byte-order mark.
    if answer.removeprefix(codecs.BOM_UTF8).strip().lower() not in (b"y", b"yes"):
        raise click.ClickException("Nothing was changed, because nobody said yes; a script says --yes.")
