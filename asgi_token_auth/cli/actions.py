"""Restrictions from options, and the actions that Datasette knows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click

from asgi_token_auth.cli.output import print_to_stderr
from asgi_token_auth.errors import InvalidInput
from asgi_token_auth.restrictions import DATASETTE_ABBREVIATIONS, Restrictions


def read_restrictions(
    alls: Sequence[str], databases: Sequence[tuple[str, str]], resources: Sequence[tuple[str, str, str]]
) -> Restrictions | None:
    """What the shared options of restrictions say; ``None`` where none was given."""
    if not (alls or databases or resources):
        return None
    restrictions = Restrictions()
    try:
        for action in alls:
            restrictions = restrictions.allow_all(action)
        for database, action in databases:
            restrictions = restrictions.allow_database(database, action)
        for database, resource, action in resources:
            restrictions = restrictions.allow_resource(database, resource, action)
    except InvalidInput as error:
        raise click.UsageError(str(error)) from error
    return restrictions


def named_actions(
    alls: Sequence[str], databases: Sequence[tuple[str, str]], resources: Sequence[tuple[str, str, str]]
) -> list[str]:
    """The actions alone, in the order given."""
    return [*alls, *(action for _, action in databases), *(action for _, _, action in resources)]


def warn_of_unknown_actions(actions: Iterable[str], known: dict[str, str | None]) -> None:
    """Warn of actions that the installed Datasette, or else any that we know of, does not have."""
    short = set(known.values())
    for action in dict.fromkeys(actions):
        if action not in known and action not in short:
            print_to_stderr(f"Warning: unknown action {action!r}; it is written into the token all the same.")


def known_actions(plugins_dir: str | None = None) -> dict[str, str | None]:
    """Actions and their abbreviations, as the installed Datasette 1.0 and its plugins have them, or built in.

    Raises:
        click.ClickException: Datasette is not there but needed, or cannot start.
    """
    try:
        # Here and not above: it takes longer than all the rest, and most commands do without.
        from asgi_token_auth.datasette.installed import actions

        found = actions(plugins_dir)
    except ImportError as error:
        if plugins_dir is not None:
            raise click.ClickException(f"--plugins-dir needs Datasette, which cannot be imported: {error}.") from error
        return dict(DATASETTE_ABBREVIATIONS)
    return dict(DATASETTE_ABBREVIATIONS) if found is None else found
