"""PyJWT: signature and expiry, which nobody can revoke."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import jwt

from tests.benchmarks.apps import SECRET, bare, bearer
from tests.benchmarks.harness import App
from tests.benchmarks.stores import IN_ROTATION

_KEY = SECRET * 2


async def app(scope: Any, receive: Any, send: Any) -> None:
    claims = jwt.decode(bearer(scope), _KEY, algorithms=["HS256"])
    await bare({**scope, "actor": {"id": claims["sub"]}}, receive, send)


async def case(stack: AsyncExitStack, folder: Path) -> tuple[App, list[str]]:
    expiry = int(time.time()) + 86_400
    return app, [jwt.encode({"sub": f"{n}", "exp": expiry}, _KEY, algorithm="HS256") for n in range(IN_ROTATION)]
