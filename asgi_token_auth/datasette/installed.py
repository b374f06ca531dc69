"""What the installed Datasette knows, asked by the command line, where no Datasette is being served."""

# Datasette's functions have no types.
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from asgi_token_auth.config.values import MAX_CONFIG_FILE
from asgi_token_auth.datasette.files import repeated_key
from asgi_token_auth.datasette.version import IS_1_0
from asgi_token_auth.decoding import Undecodable, decode, read_bytes
from asgi_token_auth.errors import ConfigurationError


def actions(plugins_dir: str | None = None) -> dict[str, str | None] | None:
    """Names and abbreviations of actions, those of plugins too; ``None`` for Datasette 0.65, which has none.

    Raises:
        ConfigurationError: Datasette, or one of its plugins, does not start.
    """
    if not IS_1_0:
        return None
    from datasette.app import Datasette

    try:
        datasette = Datasette(plugins_dir=plugins_dir)
        try:
            asyncio.run(datasette.invoke_startup())
            return {name: action.abbr for name, action in datasette.actions.items()}
        finally:
            datasette.close()
    except Exception as error:
        # Plugins may raise anything.
        raise ConfigurationError(f"Datasette does not start, so its actions are not known: {error}") from error


def read_datasette_file(path: Path) -> Any:
    """Datasette's own configuration file, as YAML or JSON.

    Raises:
        ConfigurationError: it cannot be read.
    """
    from datasette.utils import BadMetadataError, parse_metadata

    try:
        text = decode(read_bytes(path, MAX_CONFIG_FILE)).log_dropped(str(path))
        content, repeated = parse_metadata(text), repeated_key(text)
    except Undecodable as error:
        raise ConfigurationError(f"{path} {error}") from error
    except (ValueError, BadMetadataError) as error:
        mark = getattr(error.__context__, "problem_mark", None)
        place = "" if mark is None else f": see line {mark.line + 1}, column {mark.column + 1}"
        # The error's own text may quote the file, which may hold a secret.
        raise ConfigurationError(f"{path} is not valid YAML{place}.") from None
    if repeated is not None:
        raise ConfigurationError(f"{path} has the same key twice in {repeated.place}; remove one.")
    return content
