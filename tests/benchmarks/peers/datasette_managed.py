"""datasette-auth-tokens with a managed token, inside a Datasette: its hook alone, without any page."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import datasette_auth_tokens
from datasette.app import Datasette
from datasette.plugins import pm
from datasette.utils import await_me_maybe
from datasette.utils.asgi import Request

from tests.benchmarks.apps import SECRET, bare
from tests.benchmarks.harness import App
from tests.benchmarks.stores import IN_ROTATION

assert datasette_auth_tokens.__name__


async def case(stack: AsyncExitStack, folder: Path) -> tuple[App, list[str]]:
    # Both read the same section of the configuration, and only one of them is measured here.
    if (ours := pm.get_plugin("asgi_token_auth")) is not None:
        pm.unregister(ours)
    (folder / "datasette.db").touch()
    site = Datasette(
        [str(folder / "datasette.db")],
        config={"plugins": {"datasette-auth-tokens": {"manage_tokens": True}}},
        secret=SECRET,
    )
    await site.invoke_startup()
    handler = datasette_auth_tokens.ManagedTokenHandler()
    tokens = [await handler.create_token(site, f"actor {number}") for number in range(IN_ROTATION)]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        for answer in pm.hook.actor_from_request(datasette=site, request=request):
            if (actor := await await_me_maybe(answer)) is not None:
                await bare({**scope, "actor": actor}, receive, send)
                return
        raise RuntimeError("a good token was refused")

    return app, tokens
