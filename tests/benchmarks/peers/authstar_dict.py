"""authstar, with a dict of tokens."""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack
from pathlib import Path

import authstar

from tests.benchmarks.apps import bare
from tests.benchmarks.harness import App
from tests.benchmarks.stores import IN_ROTATION


async def case(stack: AsyncExitStack, folder: Path) -> tuple[App, list[str]]:
    tokens = [secrets.token_urlsafe(32) for _ in range(IN_ROTATION)]
    known = {token: authstar.AuthstarClient(client_id="bot", scopes=[]) for token in tokens}

    async def on_auth_bearer(token: str) -> authstar.Client | None:
        return known.get(token)

    return authstar.AuthstarMiddleware(bare, on_auth_bearer=on_auth_bearer), tokens
