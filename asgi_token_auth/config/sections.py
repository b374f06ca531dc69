"""Where a block stands in Datasette's configuration, under ``plugins``: in a section of ours, or of a predecessor.

Nothing of Datasette is imported for it, so that its files can be checked where it is not installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

PLUGIN: Final = "asgi-token-auth"
PREDECESSOR: Final = "datasette-auth-tokens"
SECRETS_PREDECESSOR: Final = "datasette-secrets"


def section_in(plugins: Mapping[str, Any]) -> str | None:
    """The name of the section that holds the block, or ``None``."""
    return next((name for name in (PLUGIN, PREDECESSOR) if name in plugins), None)


def with_secrets_section(block: Mapping[str, Any], section: Any) -> Mapping[str, Any]:
    """``block``, and ``section`` of datasette-secrets as its ``secrets`` where it has none."""
    if "secrets" in block or not section:
        return block
    match section:
        # There this name stands for the internal database, which a block means by naming none.
        case {"database": "_internal", **others}:
            return {**block, "secrets": others}
        case _:
            return {**block, "secrets": section}
