"""Places of one's own where tokens are checked."""

from datetime import timedelta
from typing import Any, assert_type

from starlette.applications import Starlette

from asgi_token_auth import (
    Actor,
    Authenticated,
    Credential,
    ManagedTokens,
    Outcome,
    Reason,
    Rejected,
    SignedTokens,
    Source,
    SQLTokens,
    StaticTokens,
    TokenAuthMiddleware,
    TokenStore,
)
from asgi_token_auth.databases.postgres import Postgres
from asgi_token_auth.databases.sqlite import SQLite


class Badges:
    """A source as somebody outside of the package writes it, without a class to inherit from."""

    name = "badges"
    prefixes: tuple[str, ...] = ("badge_",)
    exact = False

    async def authenticate(self, credential: Credential) -> Outcome:
        assert_type(credential.token, str)
        assert_type(credential.address, str | None)
        if credential.token == "badge_lost":
            return Rejected(Reason.REVOKED, token_id=7)
        if credential.token != "badge_7":
            return None
        return Authenticated({"id": "alice"}, source=self.name, recheck=self._recheck, expires_at=1e10)

    async def _recheck(self) -> bool:
        return True


class Incomplete:
    """Says neither which tokens are its own nor whether it is exact."""

    name = "incomplete"

    async def authenticate(self, credential: Credential) -> Outcome:
        return None


class Liar:
    """Answers with something else than an outcome."""

    name = "liar"
    prefixes: tuple[str, ...] = ()
    exact = False

    async def authenticate(self, credential: Credential) -> bool:
        return True


async def from_a_function(token: str) -> Actor | None:
    return {"id": "alice"} if token == "open sesame" else None


async def from_a_narrower_function(token: str) -> dict[str, Any]:
    return {"id": token}


def not_awaitable(token: str) -> Actor | None:
    return None


badges: Source = Badges()
static: Source = StaticTokens({"a-long-random-string": {"id": "bot"}})
managed: Source = ManagedTokens(TokenStore(SQLite("tokens.db"), secret="keep-this-secret-and-the-same-everywhere"))
custom: Source = SQLTokens(Postgres("postgresql://db.internal/app"), "select 1", timeout=0.5)
signed = SignedTokens("keep-this-secret-and-the-same-everywhere", max_ttl=86_400)

TokenAuthMiddleware(
    Starlette(), sources=[badges, static, managed, custom, signed, from_a_function, from_a_narrower_function]
)

assert_type(signed.create_token("alice", expires_after=3_600, restrict_all=["view-instance"]), str)
signed.create_token(
    "alice",
    timedelta(days=1),
    restrict_database={"logs": ("view-table",)},
    restrict_resource={"logs": {"requests": {"insert-row"}}},
)


async def outcomes(source: Source, credential: Credential) -> str:
    outcome = await source.authenticate(credential)
    assert_type(outcome, Authenticated | Rejected | None)
    if outcome is None:
        return "nobody's"
    if isinstance(outcome, Rejected):
        assert_type(outcome.reason, Reason)
        assert_type(outcome.token_id, int | None)
        return outcome.reason
    assert_type(outcome, Authenticated)
    return outcome.user.identity


incomplete: Source = Incomplete()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
liar: Source = Liar()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
TokenAuthMiddleware(Starlette(), sources=[not_awaitable])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
TokenAuthMiddleware(Starlette(), sources=[StaticTokens])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
StaticTokens({"a-long-random-string": "bot"})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
ManagedTokens(SQLite("tokens.db"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
signed.create_token(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
