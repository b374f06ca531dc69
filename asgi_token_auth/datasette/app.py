"""The ASGI apps around and inside Datasette."""

# Datasette's functions have no types.
# pyright: reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import MutableMapping
from functools import partial
from typing import Any, Final

from datasette.utils import add_cors_headers

from asgi_token_auth.asgi.types import ASGIApp, Receive, Scope, Send
from asgi_token_auth.authentication import Authenticated
from asgi_token_auth.bearer import Refusal
from asgi_token_auth.datasette.instance import INSTANCE, Instance
from asgi_token_auth.datasette.outages import outage_log
from asgi_token_auth.datasette.redirects import came_in_the_url, follow_redirects
from asgi_token_auth.datasette.refusals import REFUSED, body_read, refuse_through
from asgi_token_auth.datasette.startup import IfItOpens, Startup, ensure_started
from asgi_token_auth.datasette.version import IS_1_0
from asgi_token_auth.lifespan import run_lifespan
from asgi_token_auth.middleware import TokenAuthMiddleware

NOT_STARTED: Final = Refusal(503, "The server could not start; its log says why.", retry_after=5)


def build_middleware(instance: Instance, app: ASGIApp) -> TokenAuthMiddleware:
    """``app``, built from the Datasette of ``instance``, behind its sources."""
    configuration = instance.configuration
    return _DatasettesMiddleware(
        instance.datasette,
        _StartedFirst(instance.datasette, app, follow=configuration.param is not None),
        sources=instance.sources(),
        parameter=configuration.param,
        unknown=configuration.unknown,
        realm=configuration.realm,
        hide_credentials=configuration.hide_credentials,
        max_token_bytes=configuration.max_token_bytes,
        # With the token's actor in place, a cookie could only bring in another one.
        drop_cookies=True,
        forbid=None if IS_1_0 else _forbid_restricted,
        resources=[Startup(instance.datasette), *instance.resources()],
        # Datasette says by itself what its answers depend on.
        vary=False,
    )


class _DatasettesMiddleware(TokenAuthMiddleware):
    """The middleware, knowing that there are other plugins, and that a Datasette may be closed and served again."""

    def __init__(self, datasette: Any, app: ASGIApp, **options: Any) -> None:
        super().__init__(app, **options)
        self._datasette = datasette
        self._wrapper_fails = outage_log(
            datasette, "an ASGI wrapper of another plugin failed on a refused request, which is refused all the same"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan" and getattr(self._datasette, "_closed", False):
            opened = [IfItOpens(self._datasette, one) for one in self.resources]
            await run_lifespan(self.app, opened, scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def _refuse(self, refusal: Refusal, scope: Scope, send: Send) -> None:
        if scope["type"] != "http":
            await super()._refuse(refusal, scope, send)
            return
        messages: list[MutableMapping[str, Any]] = []

        async def collect(message: MutableMapping[str, Any]) -> None:
            messages.append(message)

        await super()._refuse(refusal, scope, collect)
        messages[0]["headers"] = [*messages[0]["headers"], *_cors_headers(self._datasette)]
        await refuse_through(self.app, messages, scope, body_read(), send, self._wrapper_fails)


class InsideDatasette:
    """The ASGI app around the wrappers of all plugins. What is configured is looked up when a connection comes."""

    def __init__(self, datasette: Any, app: ASGIApp) -> None:
        self._datasette = datasette
        self._app = app
        self._built: tuple[Instance, TokenAuthMiddleware] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        instance = getattr(self._datasette, INSTANCE, None)
        if instance is None or REFUSED in scope:
            await self._app(scope, receive, send)
        elif self._built is not None and self._built[0] is instance:
            await self._built[1](scope, receive, send)
        elif scope["type"] == "lifespan":
            # Startup comes before anything is built, because plugins attach databases in it.
            startup = Startup(self._datasette)
            await run_lifespan(partial(self._build_and_serve, instance), [startup], scope, receive, send)
        else:
            # 0.65 would let the second request through while the first one starts it.
            if await _started_or_refused(self._datasette, scope, send):
                await self._build_and_serve(instance, scope, receive, send)

    async def _build_and_serve(self, instance: Instance, scope: Scope, receive: Receive, send: Send) -> None:
        middleware = build_middleware(instance, self._app)
        self._built = (instance, middleware)
        await middleware(scope, receive, send)


class _StartedFirst:
    """Datasette, called only once it has started, and without a server's error for websockets, which it has none of."""

    def __init__(self, datasette: Any, app: ASGIApp, *, follow: bool) -> None:
        self._datasette = datasette
        self._app = app
        self._follow = follow

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif await _started_or_refused(self._datasette, scope, send):
            if scope["type"] == "websocket":
                await self._serve_websocket(scope, receive, send)
            elif self._follow and came_in_the_url(scope):
                await follow_redirects(self._app, self._datasette.setting("base_url"), scope, receive, send)
            else:
                await self._app(scope, receive, send)

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Another plugin may serve it; Datasette itself answers as if it were HTTP, or fails.
        answered = False

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal answered
            if message["type"].startswith("websocket."):
                answered = True
                await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            if answered:
                raise
        if not answered:
            await send({"type": "websocket.close", "code": 1000, "reason": ""})


async def _started_or_refused(datasette: Any, scope: Scope, send: Send) -> bool:
    """Whether Datasette has started; if it cannot, the connection is refused and the log says why."""
    try:
        await ensure_started(datasette)
    except Exception as error:
        outage_log(datasette, "Datasette could not start").note(str(error))
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1013, "reason": ""})
        else:
            headers = [*NOT_STARTED.headers("api"), *_cors_headers(datasette)]
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": NOT_STARTED.body()})
        return False
    return True


def _cors_headers(datasette: Any) -> list[tuple[bytes, bytes]]:
    """Those of Datasette's own answers, as it is set at this moment."""
    headers: dict[str, str] = {}
    if datasette.cors:
        add_cors_headers(headers)
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def _forbid_restricted(outcome: Authenticated) -> str | None:
    if outcome.restrictions is None:
        return None
    return "This token is restricted, and Datasette 0.65 cannot limit what a token may do. Use Datasette 1.0."
