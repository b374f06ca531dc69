"""Pages in front of an app or inside of it, each at its own path, wherever the app itself stands."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from starlette.applications import Starlette
from starlette.middleware import Middleware

from asgi_token_auth.asgi.types import ASGIApp, Receive, Scope, Send

#: Under it the pages around an app wait until the app's own middleware has run.
_PAGES_KEY: Final = "asgi_token_auth.pages"

logger: Final = logging.getLogger("asgi_token_auth")


def root_of(scope: Mapping[str, Any]) -> str:
    """What stands before the app's own paths in links: nothing, or a path without a slash at its end."""
    root: str = (scope.get("root_path") or "").strip("/")
    # One slash in front: with two, a link would lead to another host.
    return "/" + root if root else ""


def path_inside(scope: Mapping[str, Any]) -> str:
    """The path without ``root_path``, as Starlette's own routes see it.

    Servers differ: uvicorn puts ``root_path`` in front of the path, hypercorn and daphne leave the path as it came, and
    a proxy may have stripped it. An app that is mounted in another one then finds only the place of the mount in the
    path, which Starlette keeps apart from what the server said. Nothing else is taken away, letter by letter: a path
    that were read in one more way would pass whatever guards it in the other.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path") or ""
    of_server: str = scope.get("app_root_path") or ""
    in_path = [root]
    if of_server and root.startswith(of_server + "/"):
        in_path.append(root.removeprefix(of_server))
    for front in in_path:
        rest = path.removeprefix(front)
        if front and len(rest) < len(path) and rest[:1] in ("", "/", "."):
            return rest
    return path


def mount_pages(app: ASGIApp, pages: Mapping[str, ASGIApp]) -> ASGIApp:
    """``app``, but for the paths that belong to ``pages``.

    The own middleware of a Starlette or FastAPI app runs around the pages too, so that they know its sessions. Any
    other app is not called for them.
    """
    if isinstance(app, Starlette) and app.middleware_stack is None:
        entries: list[Any] = app.user_middleware
        if not any(entry.cls is PagesInside for entry in entries):
            # The last is the innermost, and what is added later is added in front.
            entries.append(Middleware(PagesInside))
        return Mounted(app, pages, inside=True)
    if isinstance(app, Starlette) and app.user_middleware:
        logger.warning(
            "the pages stand outside of the app's own middleware, which does not guard them and whose sessions they "
            "do not know, because the app was called before it was wrapped: wrap it first"
        )
    return Mounted(app, pages, inside=False)


class Mounted:
    """``app``, but for the paths that belong to pages.

    Args:
        inside: leave them to :class:`PagesInside`, which stands inside of ``app``.
    """

    def __init__(self, app: ASGIApp, pages: Mapping[str, ASGIApp], *, inside: bool) -> None:
        self.app = app
        self._pages = dict(pages)
        self._inside = inside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            if self._inside:
                scope[_PAGES_KEY] = self
            elif await self.serve(scope, receive, send):
                return
        await self.app(scope, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Serve the request if it is for a page. Whether it was."""
        path = path_inside(scope)
        for prefix, pages in self._pages.items():
            if path == prefix or path.startswith((prefix + "/", prefix + ".")):
                root = root_of(scope)
                await pages({**scope, "root_path": root + prefix, "path": root + path}, receive, send)
                return True
        return False


class PagesInside:
    """The innermost middleware of a Starlette app, which serves the pages that were put around the app."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        mounted = scope.get(_PAGES_KEY) if scope["type"] == "http" else None
        # An app inside of that app has paths of its own.
        if mounted is not None and mounted.app is scope.get("app") and await mounted.serve(scope, receive, send):
            return
        await self._app(scope, receive, send)
