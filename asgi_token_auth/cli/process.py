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
from typing import IO, Any, Final, Literal, NoReturn, TypeVar

import click

from asgi_token_auth.cli.output import OutputError, StandardOutput, discard_buffer, escape_unprintable, write_to_stderr
from asgi_token_auth.cli.parsing import Command, no_such_command, nothing_repeated
from asgi_token_auth.errors import TokenAuthError

T = TypeVar("T")

#: How far the running command has come: ``prepared`` is a database that was made or migrated for a change to come.
ChangeState = Literal["none", "prepared", "begun", "made"]

PROGRAM: Final = "asgi-token-auth"
#: The exit code of a command that Ctrl-C ended, as shells count it.
EXIT_INTERRUPTED: Final = 130

_CHANGE_STATE: Final = f"{__name__}.changes"
_INTERRUPTED_MESSAGES: Final[dict[ChangeState, str]] = {
    "none": "Interrupted; nothing was changed.",
    "prepared": "Interrupted; the database was prepared, but nothing else was changed.",
    "begun": "Interrupted in the middle of a change; `tokens show`, or `secrets list`, tells whether it was made.",
    "made": "Interrupted; but the change had been made by then.",
}
#: Seconds after which somebody who pressed Ctrl-C and still waits is told for what.
_NOTICE_AFTER: Final = 0.5
# The second: managed tokens that begin otherwise, by their signature.
_TOKEN_TEXT: Final = re.compile(r"\b(dsa?tok_)[\w.~-]+|\b([A-Za-z][A-Za-z0-9]{1,29}_)[\w-]{16,}\.[\w-]{43}")


class Interrupted(click.ClickException):
    """Ctrl-C, as a sentence that says what had been done by then."""

    exit_code = EXIT_INTERRUPTED

    def show(self, file: IO[Any] | None = None) -> None:
        """Write it."""
        # A terminal has echoed ^C.
        click.echo(f"\n{self.message}" if sys.stderr.isatty() else self.message, file=file, err=file is None)


class CommandGroup(click.Group):
    """A group whose commands may raise the package's exceptions: each becomes its sentence and exit code 1."""

    command_class: type[click.Command] | None = Command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, and nothing that was given is repeated."""
        with nothing_repeated(ctx, ""):
            return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The same for the name of a command."""
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing and not name.startswith("-"):
            raise no_such_command(self, name, ctx)
        with nothing_repeated(ctx, ""):
            return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that ``ctx`` names."""
        try:
            return super().invoke(ctx)
        except TokenAuthError as error:
            raise click.ClickException(escape_unprintable(str(error))) from error
        except OutputError as error:
            if ctx.meta.get(_CHANGE_STATE) != "made":
                raise
            raise click.ClickException(
                f"The change was made, but what tells so could not be written: {error.strerror}."
            ) from error
        except OSError as error:
            about = "" if error.filename is None else f"{error.filename}: "
            raise click.ClickException(escape_unprintable(f"{about}{error.strerror or error}.")) from error
        except KeyboardInterrupt as error:
            raise Interrupted(_INTERRUPTED_MESSAGES[ctx.meta.get(_CHANGE_STATE, "none")]) from error


def run(command: click.Command) -> NoReturn:
    """Run ``command`` on the process's arguments and exit."""
    try:
        code = _run(command)
        # Only the interpreter's own end is left, which Ctrl-C would fill with tracebacks.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:
        # While the last words were said, and those said what had been done.
        code = EXIT_INTERRUPTED
    sys.exit(code)


def _run(command: click.Command) -> int:
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - it lasts as long as the process
    if sys.stdout is None:
        return _report_failure("Standard output is closed, so nothing could be shown and nothing was done.", 1)
    for argument in sys.argv[1:]:
        if any("\ud800" <= character <= "\udfff" for character in argument):
            return _report_failure("An argument is not valid UTF-8.", 2)
    sys.stdout = StandardOutput.wrapping(sys.stdout)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Descriptions may hold what the terminal's encoding does not.
            stream.reconfigure(errors="backslashreplace")
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        # Until now Ctrl-C ended the process at once. Now it is an exception, and what was done by then can be told.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            # Who ends a script shall find no half-made file of an import either.
            signal.signal(signal.SIGTERM, lambda _signal, _frame: signal.raise_signal(signal.SIGINT))
    # What goes wrong is said by the command itself; without this, records of level WARNING would be written as well.
    logging.getLogger("asgi_token_auth").addHandler(logging.NullHandler())
    try:
        code = command.main(prog_name=PROGRAM, standalone_mode=False)
    except click.ClickException as error:
        discard_buffer(sys.stdout)
        text = io.StringIO()
        error.show(text)
        write_to_stderr(_redact_tokens(text.getvalue()), nl=False)
        return error.exit_code
    except OutputError as error:
        discard_buffer(sys.stdout)
        return (
            1
            if error.errno == errno.EPIPE
            else _report_failure(f"The output could not be written: {error.strerror}.", 1)
        )
    except OSError as error:
        return _report_failure(f"{error.strerror or error}.", 1)
    except click.Abort:
        write_to_stderr(_INTERRUPTED_MESSAGES["none"])
        return EXIT_INTERRUPTED
    except Exception as error:
        return _report_failure(
            f"Unexpected {type(error).__name__}: {escape_unprintable(str(error))}. Please report this.", 1
        )
    # What a command returns is no exit code, but ctx.exit() arrives here as one.
    return code if isinstance(code, int) else 0


async def finish_despite_interrupt(work: Awaitable[T]) -> T:
    """Finish ``work``, a short write, even if Ctrl-C comes meanwhile: who ran the command shall know what it did."""
    task = asyncio.ensure_future(work)
    before = set_change_state("begun")
    try:
        try:
            result = await asyncio.shield(task)
        except asyncio.CancelledError:
            # It may be waiting for the lock of another process.
            if not (await asyncio.wait([task], timeout=_NOTICE_AFTER))[0]:
                write_to_stderr("Interrupted; waiting for the change that has begun.")
            result = await task
    except Exception:
        # The promise of every write: one that failed has changed nothing.
        set_change_state(before)
        raise
    set_change_state("made")
    return result


async def finish_then_stop(work: Awaitable[T]) -> T:
    """Finish ``work`` too, but go no further where Ctrl-C came meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def set_change_state(state: ChangeState) -> ChangeState:
    """Set what an interrupt of the running command would have to say was done; returns what was set before."""
    # In the context, because a process may run several commands.
    meta = click.get_current_context().meta
    before: ChangeState = meta.get(_CHANGE_STATE, "none")
    meta[_CHANGE_STATE] = state
    return before


def _report_failure(sentence: str, code: int) -> int:
    write_to_stderr(f"Error: {_redact_tokens(sentence)}")
    return code


def _redact_tokens(text: str) -> str:
    # Whoever gives a token where none belongs shall not find it in the log of a script as well.
    return _TOKEN_TEXT.sub(r"\1\2...", text)
