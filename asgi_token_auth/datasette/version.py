"""Which Datasette is installed, and whether it is one that this package was tested with."""

from __future__ import annotations

import re
from typing import Final

from datasette.version import __version__ as installed

from asgi_token_auth.errors import ConfigurationError


def _parse(text: str) -> tuple[int, int, int | None] | None:
    match = re.match(r"(\d+)\.(\d+)(?:\.\d+)?(?:a(\d+))?(?:$|[.+])", text)
    return None if match is None else (int(match[1]), int(match[2]), int(match[3]) if match[3] else None)


def is_supported(text: str) -> bool:
    """0.65, or a 1.0 alpha from 1.0a36 on."""
    match _parse(text):
        case (0, 65, None):
            return True
        case (1, 0, int(alpha)):
            return alpha >= 36
        case _:
            return False


#: Datasette 1.0 moved configuration, permissions and tokens; most of what differs here hangs on it.
IS_1_0: Final = not installed.startswith("0.")


def check_version() -> None:
    """Refuse an installed Datasette that is not supported.

    Raises:
        ConfigurationError: it is not.
    """
    if not is_supported(installed):
        raise ConfigurationError(f"Datasette {installed} is not supported: install 0.65 or a 1.0 alpha from 1.0a36 on.")
