"""What other plugins may tell us. The hook is that of datasette-secrets, so that plugins written for it work."""

from __future__ import annotations

from typing import Any

from datasette import hookspec


@hookspec  # type: ignore[untyped-decorator]
def register_secrets(datasette: Any) -> Any:
    """The secrets that a plugin needs: a list of ``Secret``, or an async function that returns one."""
