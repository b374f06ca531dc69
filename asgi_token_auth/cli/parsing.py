"""What is said of arguments that cannot be parsed, without them: a secret may stand where none belongs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final, cast

import click

#: What an option may look like that is repeated. Anything else that begins with a hyphen may be a secret.
_OPTION: Final = re.compile(r"-[A-Za-z]|--[a-z]{2,14}(-[a-z]{2,14}){0,3}")


class Command(click.Command):
    """A command whose messages never repeat what was given.

    Args:
        extra: what to say of arguments that it does not take.
    """

    def __init__(self, *args: Any, extra: str = "--help tells what it takes.", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._extra = extra

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does."""
        with nothing_repeated(ctx, self._extra):
            return super().parse_args(ctx, args)


@contextmanager
def nothing_repeated(ctx: click.Context, extra: str) -> Generator[None, None, None]:
    """Replace click's sentences about values by ones without them."""
    try:
        yield
    except click.MissingParameter:
        raise
    except click.BadParameter as error:
        sentence = None if error.param is None else _expected(error.param.type)
        if sentence is None:
            # One of ours.
            raise
        raise click.BadParameter(sentence, error.ctx, error.param, error.param_hint) from None
    except click.NoSuchOption as error:
        if _OPTION.fullmatch(error.option_name):
            raise
        raise click.UsageError(
            "There is no such option. It is not repeated, because it may be a secret: what begins with a hyphen is "
            "taken for an option.",
            error.ctx or ctx,
        ) from None
    except click.UsageError as error:
        if type(error) is not click.UsageError:
            raise
        raise click.UsageError(
            f"There are more arguments than this command takes; they are not repeated. {extra}", error.ctx or ctx
        ) from None


def no_such_command(group: click.Group, name: str, ctx: click.Context) -> click.UsageError:
    """The error for a command that ``group`` does not have."""
    close = difflib.get_close_matches(name, group.list_commands(ctx), n=1)
    return click.UsageError(
        f"There is no such command; did you mean {close[0]}?" if close else "There is no such command.", ctx
    )


def _expected(kind: Any) -> str | None:
    """What a value of click's own types must be; ``None`` for types of ours, whose sentences repeat nothing."""
    match kind:
        case click.Choice():
            return f"It must be one of {', '.join(map(str, getattr(cast('object', kind), 'choices', ())))}."
        case click.IntRange():
            return f"It must be a whole number from {kind.min} to {kind.max}."
        case click.Path():
            return "It is a folder; give the path of a file." if kind.file_okay else "There is no such folder."
        case _:
            return "It must be a whole number." if kind is click.INT else None
