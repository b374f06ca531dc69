"""What every command shares as a process: its streams, its exit code, and a sentence instead of a traceback."""

from __future__ import annotations

import asyncio
import errno
import io
import logging
import os
import re
import signal
import sys
from collections.abc import Awaitable
from typing import IO, Any, Final, NoReturn, TypeVar

import click

from asgi_token_auth.cli.output import OutputError, StandardOutput, discard, plain, tell
from asgi_token_auth.errors import TokenAuthError

T = TypeVar("T")

PROGRAM: Final = "asgi-token-auth"
#: The exit code of a command that Ctrl-C ended, as shells count it.
INTERRUPTED: Final = 130

_CHANGES: Final = f"{__name__}.changes"
_WHAT_CTRL_C_LEFT: Final = {
    "none": "Interrupted; nothing was changed.",
    "prepared": "Interrupted; the database was prepared, but nothing else was changed.",
    "begun": "Interrupted in the middle of a change; `tokens show`, or `secrets list`, tells whether it was made.",
    "made": "Interrupted; but the change had been made by then.",
}
#: Seconds that pass before somebody who waits is told for what.
_SILENCE: Final = 0.5
_TOKEN: Final = re.compile(r"\b(dsa?tok_)[\w.~-]+")


class Interrupted(click.ClickException):
    """Ctrl-C, as a sentence that says what had been done by then."""

    exit_code = INTERRUPTED

    def show(self, file: IO[Any] | None = None) -> None:
        """Write it."""
        # A terminal has echoed ^C.
        click.echo(f"\n{self.message}" if sys.stderr.isatty() else self.message, file=file, err=file is None)


class Commands(click.Group):
    """A group whose commands may raise the package's exceptions: each becomes its sentence and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that ``ctx`` names."""
        try:
            return super().invoke(ctx)
        except TokenAuthError as error:
            raise click.ClickException(plain(str(error))) from error
        except OutputError as error:
            if ctx.meta.get(_CHANGES) != "made":
                raise
            raise click.ClickException(
                f"The change was made, but what tells so could not be written: {error.strerror}."
            ) from error
        except OSError as error:
            about = "" if error.filename is None else f"{error.filename}: "
            raise click.ClickException(plain(f"{about}{error.strerror or error}.")) from error
        except KeyboardInterrupt as error:
            raise Interrupted(_WHAT_CTRL_C_LEFT[ctx.meta.get(_CHANGES, "none")]) from error


def run(command: click.Command) -> NoReturn:
    """Run ``command`` on the process's arguments and exit."""
    try:
        code = _run(command)
        # Only the interpreter's own end is left, which Ctrl-C would fill with tracebacks.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:
        # While the last words were said, and those said what had been done.
        code = INTERRUPTED
    sys.exit(code)


def _run(command: click.Command) -> int:
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - it lasts as long as the process
    if sys.stdout is None:
        return _failed("Standard output is closed, so nothing could be shown and nothing was done.", 1)
    for argument in sys.argv[1:]:
        if any("\ud800" <= character <= "\udfff" for character in argument):
            return _failed("An argument is not valid UTF-8.", 2)
    sys.stdout = StandardOutput.instead_of(sys.stdout)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Descriptions may hold what the terminal's encoding does not.
            stream.reconfigure(errors="backslashreplace")
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        # Until now Ctrl-C ended the process at once. Now it is an exception, and what was done by then can be told.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            # Who ends a script shall find no half-made file of an import either.
            signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    # What goes wrong is said by the command itself; without this, records of level WARNING would be written as well.
    logging.getLogger("asgi_token_auth").addHandler(logging.NullHandler())
    try:
        code = command.main(prog_name=PROGRAM, standalone_mode=False)
    except click.ClickException as error:
        discard(sys.stdout)
        text = io.StringIO()
        error.show(text)
        tell(_without_tokens(text.getvalue()), nl=False)
        return error.exit_code
    except OutputError as error:
        discard(sys.stdout)
        return 1 if error.errno == errno.EPIPE else _failed(f"The output could not be written: {error.strerror}.", 1)
    except OSError as error:
        return _failed(f"{error.strerror or error}.", 1)
    except click.Abort:
        tell(_WHAT_CTRL_C_LEFT["none"])
        return INTERRUPTED
    except Exception as error:
        return _failed(f"Unexpected {type(error).__name__}: {plain(str(error))}. Please report this.", 1)
    # What a command returns is no exit code, but ctx.exit() arrives here as one.
    return code if isinstance(code, int) else 0


async def whole(work: Awaitable[T]) -> T:
    """Finish ``work``, a short write, even if Ctrl-C comes meanwhile: whoever asked for it shall know what it did."""
    task = asyncio.ensure_future(work)
    before = mark_changes("begun")
    try:
        try:
            result = await asyncio.shield(task)
        except asyncio.CancelledError:
            # It may be waiting for the lock of another process.
            if not (await asyncio.wait([task], timeout=_SILENCE))[0]:
                tell("Interrupted; waiting for the change that has begun.")
            result = await task
    except Exception:
        # The promise of every write: one that failed has changed nothing.
        mark_changes(before)
        raise
    mark_changes("made")
    return result


async def settled(work: Awaitable[T]) -> T:
    """The same, but nothing comes after it where Ctrl-C came meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def mark_changes(state: str) -> str:
    """Say that the running command's changes are ``none``, ``prepared``, ``begun`` or ``made``; what they were."""
    # Not the one of another command in the same process.
    meta = click.get_current_context().meta
    before: str = meta.get(_CHANGES, "none")
    meta[_CHANGES] = state
    return before


def _failed(sentence: str, code: int) -> int:
    tell(f"Error: {_without_tokens(sentence)}")
    return code


def _without_tokens(text: str) -> str:
    # Whoever gives a token where none belongs shall not find it in the log of a script as well.
    return _TOKEN.sub(r"\1...", text)
