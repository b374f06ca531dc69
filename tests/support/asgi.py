"""ASGI spoken by hand, message by message, and the few doubles that several test modules pass in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from asgi_token_auth import Authenticated, Credential, Outcome, TokenAuthMiddleware

Message: TypeAlias = MutableMapping[str, Any]
Headers: TypeAlias = list[tuple[bytes, bytes]]

SECRET = "a secret that is only used in tests"


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class Answer:
    """What came back: the messages, and the parts of them that tests ask for."""

    messages: list[Message]

    @property
    def status(self) -> int:
        status: int = self._start["status"]
        return status

    @property
    def headers(self) -> dict[str, str]:
        names = [name for name, _ in self._start["headers"]]
        assert len(set(names)) == len(names), "a header is sent twice"
        return {name.decode(): value.decode() for name, value in self._start["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages if message["type"].endswith(".body"))

    @property
    def _start(self) -> Message:
        return next(message for message in self.messages if message["type"].endswith("response.start"))


@dataclass
class App:
    """An application that notes how it was called and answers 200, or accepts and closes a websocket."""

    scopes: list[Message] = field(default_factory=list)
    headers: Headers = field(default_factory=lambda: [(b"content-type", b"text/plain")])

    @property
    def scope(self) -> Message:
        assert len(self.scopes) == 1, f"the app was called {len(self.scopes)} times"
        return self.scopes[0]

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        self.scopes.append(scope)
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": list(self.headers)})
            await send({"type": "http.response.body", "body": b"served"})
        elif scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 1000})


class Scripted:
    """A source that answers each token with what it was told to, and counts how often it is asked."""

    def __init__(
        self, answers: dict[str, Outcome | BaseException], *, name: str = "scripted", prefixes: tuple[str, ...] = ()
    ) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.name = name
        self.prefixes = prefixes
        self.exact = False

    async def authenticate(self, credential: Credential) -> Outcome:
        self.asked.append(credential.token)
        answer = self.answers.get(credential.token)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def authenticated(actor_id: str = "ann", **more: Any) -> Authenticated:
    async def recheck() -> bool:
        return True

    return Authenticated({"id": actor_id, "token": "test", **more}, source="scripted", recheck=recheck)


def http(
    headers: Iterable[tuple[bytes, bytes]] = (),
    *,
    method: str = "GET",
    query: bytes = b"",
    path: str = "/",
    **more: Any,
) -> Message:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query,
        "headers": list(headers),
        "client": ("192.0.2.7", 50000),
        "server": ("127.0.0.1", 80),
        **more,
    }


def websocket(headers: Iterable[tuple[bytes, bytes]] = (), *, denial: bool = False, **more: Any) -> Message:
    scope = http(headers, **more)
    del scope["method"]
    scope["type"] = "websocket"
    if denial:
        scope["extensions"] = {"websocket.http.response": {}}
    return scope


def bearer(token: str) -> tuple[bytes, bytes]:
    return b"authorization", b"Bearer " + token.encode()


async def ask(app: Callable[[Any, Any, Any], Awaitable[None]], scope: Message) -> Answer:
    """Send one request, or open one websocket."""
    messages: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect" if scope["type"] == "websocket" else "http.request", "body": b""}

    async def send(message: Message) -> None:
        messages.append(message)

    await app(scope, receive, send)
    return Answer(messages)


async def status_of(app: TokenAuthMiddleware, token: str) -> int:
    """The status with which ``app`` answers a request with ``token``."""
    return (await ask(app, http([bearer(token)]))).status
