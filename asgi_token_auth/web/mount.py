"""Pages in front of an app, each at its own path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asgi_token_auth.middleware import ASGIApp, Receive, Scope, Send


class Mounted:
    """``app``, but for the paths that belong to pages."""

    def __init__(self, app: ASGIApp, pages: Mapping[str, Any]) -> None:
        self._app = app
        self._pages = dict(pages)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            root: str = scope.get("root_path", "").rstrip("/")
            path: str = scope["path"]
            inside = path.removeprefix(root)
            for prefix, pages in self._pages.items():
                if inside == prefix or inside.startswith((prefix + "/", prefix + ".")):
                    await pages({**scope, "root_path": path[: len(path) - len(inside)] + prefix}, receive, send)
                    return
        await self._app(scope, receive, send)
