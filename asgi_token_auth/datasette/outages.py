"""Faults of other plugins that last, each in one log for each Datasette."""

from __future__ import annotations

import logging
from typing import Any, Final

from asgi_token_auth.storage.outages import OutageLog

_LOGS: Final = "_asgi_token_auth_outages"

logger: Final = logging.getLogger("asgi_token_auth")


def outage_log(datasette: Any, what: str) -> OutageLog:
    """The log about one thing that may fail at every request.

    Args:
        what: what fails, as a clause.
    """
    logs: dict[str, OutageLog] | None = getattr(datasette, _LOGS, None)
    if logs is None:
        logs = {}
        setattr(datasette, _LOGS, logs)
    if what not in logs:
        logs[what] = OutageLog(logger, what)
    return logs[what]
