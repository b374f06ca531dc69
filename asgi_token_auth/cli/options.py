"""What an option or an argument may be, and the options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from asgi_token_auth.cli.output import print_to_stderr
from asgi_token_auth.databases.address import is_dsn
from asgi_token_auth.errors import ConfigurationError, InvalidInput
from asgi_token_auth.signing import MANAGED_PREFIX
from asgi_token_auth.storage.values import check_actor_id
from asgi_token_auth.tokens.record import check_description
from asgi_token_auth.tokens.text import check_prefix

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    # Before 8.4 it takes no type.
    ParamType = click.ParamType

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])

#: The environment variable that holds the secret, as Datasette has it.
SECRET_VARIABLE: Final = "DATASETTE_SECRET"

_PREFIX: Final = f"{__name__}.prefix"
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


class Duration(ParamType):
    """A length of time in seconds, or with one of the letters s, m, h, d, w: ``90d``."""

    name = "duration"

    def __init__(self, *, least: int = 1) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Seconds."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"([0-9]{1,12})([smhdw]?)", value)
        if match is None:
            self.fail("It is no length of time: give seconds, or for example 90d, 12h or 30m.", param, ctx)
        seconds = int(match[1]) * _UNITS[match[2]]
        if seconds < self._least:
            self.fail(f"Give {self._least} second or more.", param, ctx)
        return seconds


class CheckedText(ParamType):
    """Text that passes ``check``, which raises ``InvalidInput`` with a sentence."""

    name = "text"

    def __init__(self, check: Callable[[str], Any]) -> None:
        self._check = check

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text."""
        try:
            self._check(value)
        except InvalidInput as error:
            self.fail(str(error), param, ctx)
        return str(value)


ACTOR: Final = CheckedText(check_actor_id)
DESCRIPTION: Final = CheckedText(check_description)


class TokenID(ParamType):
    """The number of a token. What is given instead may be the token itself, so it is never repeated."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number."""
        if isinstance(value, int):
            return value
        if re.fullmatch(r"0*[1-9][0-9]{0,99}", value) is None:
            self.fail("A token is named by its number, which `tokens list` shows.", param, ctx)
        return int(value)


TOKEN_ID: Final = TokenID()


def secret_options(command: AnyFunction) -> AnyFunction:
    """Give ``command`` the arguments ``secret`` and ``secret_file``."""
    file = click.option(
        "--secret-file",
        type=click.Path(dir_okay=False),
        help="A file that holds the secret.",
    )
    option = click.option(
        "--secret",
        "-s",
        envvar=SECRET_VARIABLE,
        show_envvar=True,
        help="The secret that signs tokens. Better given by the variable, because others can see options.",
    )
    return option(file(command))


def prefix_option(command: AnyFunction) -> AnyFunction:
    """Let ``command`` be told how the tokens of the store begin; :func:`token_prefix` says it."""
    return click.option(
        "--prefix",
        envvar="ASGI_TOKEN_AUTH_PREFIX",
        show_envvar=True,
        expose_value=False,
        callback=_store_prefix,
        help=f"How managed tokens begin, where the configuration or TokenStore says so. Default: {MANAGED_PREFIX}",
    )(command)


def _store_prefix(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        try:
            ctx.meta[_PREFIX] = check_prefix(value)
        except ConfigurationError:
            # It is not repeated: what stands in the wrong place may be a token.
            raise click.BadParameter(
                "It must be 2 to 30 letters and digits, a letter first, followed by an underscore.", ctx, param
            ) from None


def token_prefix() -> str:
    """How managed tokens begin, for the running command."""
    prefix: str = click.get_current_context().meta.get(_PREFIX, MANAGED_PREFIX)
    return prefix


def database_option(command: AnyFunction) -> AnyFunction:
    """Give ``command`` the argument ``database``, a path."""
    return database_option_for("tokens")(command)


def database_option_for(what: str) -> Callable[[AnyFunction], AnyFunction]:
    """The same for a database of something else."""
    return click.option(
        "--database",
        type=click.Path(dir_okay=False),
        envvar="ASGI_TOKEN_AUTH_DATABASE",
        show_envvar=True,
        required=True,
        callback=check_for_password,
        help=f"The SQLite file, or the DSN of the PostgreSQL database, that holds the {what}.",
    )


def check_for_password(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The callback of an option that takes a database: :func:`hint_at_password`, where it was not the variable."""
    if value is not None and ctx.get_parameter_source(param.name or "") == click.core.ParameterSource.COMMANDLINE:
        hint_at_password(value)
    return value


def hint_at_password(database: str, *, places: str = "the variable ASGI_TOKEN_AUTH_DATABASE, PGPASSWORD") -> None:
    """Say where a password does not belong, where a DSN on the command line has one."""
    if is_dsn(database) and re.search(r"//[^/@]*:[^/@]*@|[?&]password=", database):
        print_to_stderr(
            f"Hint: options are seen by other users, and this one holds a password; {places} and ~/.pgpass are not."
        )


def json_option(command: AnyFunction) -> AnyFunction:
    """Give ``command`` the flag ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Write JSON.")(command)


def by_option(command: AnyFunction) -> AnyFunction:
    """Give ``command`` the argument ``by``, an actor, for the events of tokens."""
    return click.option("--by", type=ACTOR, help="The actor to name in the record of what happened.")(command)


def yes_option(command: AnyFunction) -> AnyFunction:
    """Give ``command`` the flag ``yes``."""
    return click.option("--yes", "-y", is_flag=True, help="Do not ask.")(command)


def restriction_options(database: str, resource: str) -> Callable[[AnyFunction], AnyFunction]:
    """Give a command the arguments ``alls``, ``databases`` and ``resources``. The long options are as given."""

    def decorate(command: AnyFunction) -> AnyFunction:
        for option in (
            click.option(
                "resources",
                "-r",
                resource,
                type=(str, str, str),
                metavar="DB RESOURCE ACTION",
                multiple=True,
                help="Restrict the token to this action on this table, view or query.",
            ),
            click.option(
                "databases",
                "-d",
                database,
                type=(str, str),
                metavar="DB ACTION",
                multiple=True,
                help="Restrict the token to this action on this database.",
            ),
            click.option(
                "alls", "-a", "--all", metavar="ACTION", multiple=True, help="Restrict the token to this action."
            ),
        ):
            command = option(command)
        return command

    return decorate
