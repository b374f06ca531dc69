"""What every command shares as a process: its streams, its exit code, and a sentence instead of a traceback."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import os
import sys
from collections.abc import Awaitable
from typing import Any, Final, NoReturn, TypeVar

import click

from asgi_token_auth.cli.output import plain
from asgi_token_auth.errors import TokenAuthError

T = TypeVar("T")

PROGRAM: Final = "asgi-token-auth"


class Commands(click.Group):
    """A group whose commands may raise the package's exceptions: each becomes its sentence and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that ``ctx`` names."""
        try:
            return super().invoke(ctx)
        except TokenAuthError as error:
            raise click.ClickException(plain(str(error))) from error
        except BrokenPipeError as error:
            # Versions of click differ in the exit code that they give it.
            _discard_output()
            raise click.exceptions.Exit(1) from error


def run(command: click.Command) -> NoReturn:
    """Run ``command`` on the process's arguments and exit."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - it lasts as long as the process
    if sys.stdout is None:
        _fail("Standard output is closed, so nothing could be shown and nothing was done.", 1)
    for argument in sys.argv[1:]:
        if any("\ud800" <= character <= "\udfff" for character in argument):
            _fail("An argument is not valid UTF-8.", 2)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Descriptions may hold what the terminal's encoding does not.
            stream.reconfigure(errors="backslashreplace")
    try:
        command.main(prog_name=PROGRAM)
    except OSError as error:
        _discard_output()
        if error.errno == errno.EPIPE:
            sys.exit(1)
        _fail(f"The output could not be written: {error.strerror or error}.", 1)
    except KeyboardInterrupt:
        _fail("Interrupted.", 1)
    except Exception as error:
        _fail(f"Unexpected {type(error).__name__}: {plain(str(error))}. Please report this.", 1)
    sys.exit(0)


async def whole(work: Awaitable[T]) -> T:
    """Finish ``work``, a short write, even if Ctrl-C comes meanwhile: its result exists nowhere else."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        return await task


def _fail(sentence: str, code: int) -> NoReturn:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"Error: {sentence}\n")
        sys.stderr.flush()
    sys.exit(code)


def _discard_output() -> None:
    # What is still buffered would fail once more, with a traceback, when the interpreter ends.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
