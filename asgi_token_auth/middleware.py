"""The middleware: a request comes in, and the app is called with an actor or not called at all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from asgi_token_auth.access.signed_in import SignedIn, SignedInCall, SignedInFailed
from asgi_token_auth.asgi.remembered import RememberedTokens
from asgi_token_auth.asgi.requests import REDACTED, is_preflight, redact_query, without_cookies
from asgi_token_auth.asgi.responses import Refusals, private, varying
from asgi_token_auth.asgi.types import ASGIApp, Receive, Scope, Send
from asgi_token_auth.authentication import ANONYMOUS, Authenticated, Credential, Reason, Rejected, Source
from asgi_token_auth.bearer import (
    CREDENTIAL_REQUIRED,
    EXPIRED_TOKEN,
    INVALID_TOKEN,
    NO_CREDENTIAL,
    REVOKED_TOKEN,
    UNAVAILABLE,
    CredentialReader,
    Fault,
    HeaderList,
    QueryParameter,
    Reading,
    Refusal,
    insufficient_scope,
    invalid_request,
)
from asgi_token_auth.chain import CallableSource, Chain, authenticate
from asgi_token_auth.errors import ConfigurationError, for_the_log
from asgi_token_auth.lifespan import Resource, run_lifespan
from asgi_token_auth.storage.outages import OutageLog

logger: Final = logging.getLogger("asgi_token_auth")

#: The scope key under which the outcome stands, so that an inner instance does not check again.
OUTCOME_KEY: Final = "asgi_token_auth"

#: The longest token that is looked at, unless said otherwise.
DEFAULT_MAX_TOKEN_BYTES: Final = 8192

#: What may become of a request that carried a credential or needed one.
EventKind: TypeAlias = Literal["accepted", "rejected", "unknown", "unreadable", "unavailable", "forbidden", "required"]


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """What ``on_event`` is told about a request that carried a credential or needed one. Never the token."""

    kind: EventKind
    reason: str | None
    source: str | None
    token_id: int | None
    actor_id: str | None
    path: str
    address: str | None


class TokenAuthMiddleware:
    """Checks the bearer token of every HTTP request and websocket before ``app`` sees it.

    Args:
        app: any ASGI application.
        sources: where tokens are checked; also plain async functions of the token. None, if there are
            ``resources``: every request passes as it came, and only those are looked after.
        parameter: the query parameter that may carry a token instead of the header. ``None``: none may. URLs
            are kept in logs and histories, so this is off unless asked for (RFC 9700 section 4.3.2).
        required: refuse whoever is nobody: no token, no outer middleware's actor, not signed in.
        unknown: a token that no source claims is refused (``"reject"``) or passed on without an actor and
            without cookies (``"pass"``).
        realm: the protection space named in challenges.
        hide_credentials: replace the token in the app's headers by the bare word ``Bearer``.
        max_token_bytes: the longest token that is looked at.
        on_event: called with a :class:`TokenEvent`; what it raises is logged and changes nothing.
        signed_in: the app's own way to say who is asking, for ``required``: a function of the scope, async or not.
        drop_cookies: take the Cookie header away from requests with a valid token, for apps that would
            prefer it.
        forbid: a function of the outcome that returns why this app cannot take a valid token, or ``None``.
        refusal_headers: sent with every refusal, such as CORS headers.
        resources: opened before the first request and closed after the last, in this order before the sources.
        vary: add ``Vary: Authorization`` to every answer (RFC 9110 section 12.5.5); off for apps that do.

    Raises:
        ConfigurationError: an argument cannot work.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        sources: Sequence[Source | CallableSource],
        parameter: str | None = None,
        required: bool = False,
        unknown: Literal["reject", "pass"] = "reject",
        realm: str = "api",
        hide_credentials: bool = True,
        max_token_bytes: int = DEFAULT_MAX_TOKEN_BYTES,
        on_event: Callable[[TokenEvent], object] | None = None,
        signed_in: SignedIn | None = None,
        # For hosts that embed it, as Datasette's plugin does.
        drop_cookies: bool = False,
        forbid: Callable[[Authenticated], str | None] | None = None,
        refusal_headers: Sequence[tuple[bytes, bytes]] = (),
        resources: Sequence[Resource] = (),
        vary: bool = True,
    ) -> None:
        if not callable(app):
            raise ConfigurationError("app: give the ASGI application that is to be wrapped.")
        for name, flag in (
            ("required", required),
            ("hide_credentials", hide_credentials),
            ("drop_cookies", drop_cookies),
            ("vary", vary),
        ):
            if not isinstance(flag, bool):
                raise ConfigurationError(f"{name}: must be True or False.")
        for name, given in (("sources", sources), ("resources", resources)):
            # One of them without its list, or a token with its actor.
            if isinstance(given, (str, bytes, Mapping)) or not (given is None or isinstance(given, Iterable)):
                raise ConfigurationError(f"{name}: give a list, for example sources=[ManagedTokens(store)].")
        for name, function in (("on_event", on_event), ("forbid", forbid)):
            if function is not None and not callable(function):
                raise ConfigurationError(f"{name}: give a function, not {type(function).__name__}.")
        if not sources and not resources:
            raise ConfigurationError("sources: give at least one, for example StaticTokens or ManagedTokens.")
        if unknown not in ("reject", "pass"):
            raise ConfigurationError(f'unknown: {unknown!r} must be "reject" or "pass".')
        if not isinstance(realm, str) or not realm or not all(" " <= c <= "~" and c not in '"\\' for c in realm):
            raise ConfigurationError('realm: give printable ASCII text without " and \\.')
        if type(max_token_bytes) is not int or not 64 <= max_token_bytes <= 65_536:
            raise ConfigurationError("max_token_bytes: give a whole number from 64 to 65,536.")
        self.app = app
        self._chain = Chain.of(sources)
        self._parameter = None if parameter is None else QueryParameter(parameter)
        self._required = required
        self._pass_unknown = unknown == "pass"
        self._hide_credentials = hide_credentials
        self._reader = CredentialReader(parameter=self._parameter, max_token_bytes=max_token_bytes)
        self._on_event = on_event
        self._signed_in = None if signed_in is None else SignedInCall(signed_in)
        self._drop_cookies = drop_cookies
        self._forbid = forbid
        self._vary = vary
        # While something is away, every request would write a line of its own.
        self._unavailable = OutageLog(logger, "a token could not be checked")
        self._signed_in_fails = OutageLog(logger, "signed_in failed")
        self._on_event_fails = OutageLog(logger, "on_event failed, which affects no request")
        self._refusals = Refusals(realm, refusal_headers)
        self._remembered = RememberedTokens()
        self._known = self._remembered.known
        self._position = 0
        self._checks = bool(sources)
        #: What is opened and closed with the server, in this order.
        self.resources: tuple[Resource, ...] = (
            *resources,
            *(s for s in self._chain.sources if isinstance(s, Resource)),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        kind = scope["type"]
        if (kind != "http" and kind != "websocket") or OUTCOME_KEY in scope or not self._checks:
            if kind == "lifespan":
                await run_lifespan(self.app, self.resources, scope, receive, send)
            else:
                await self._unchecked(scope, receive, send)
            return
        if self._vary and kind == "http":
            send = varying(send)
        headers: HeaderList = scope["headers"]
        outcome: Authenticated | None = None
        position: int | None = None
        # Most requests carry a token that was accepted before, or none, and need no more than this.
        if type(headers) is list and (
            self._parameter is None or not (query := scope.get("query_string")) or not self._parameter.may_be_in(query)
        ):
            found = None
            for header in headers:
                if len(header[0]) == 13 and (header[0] == b"authorization" or header[0].lower() == b"authorization"):
                    if found is not None:
                        break
                    found = header
            else:
                if found is None:
                    await self._without_token(scope, receive, send, NO_CREDENTIAL)
                    return
                value = found[1]
                # A bytearray has no hash.
                if type(value) is bytes and (known := self._known.get(value)) is not None:
                    try:
                        holds = known.holds()
                    except Exception as error:
                        await self._refuse_unchecked(for_the_log(error), scope, send)
                        return
                    if holds:
                        outcome = known
                        # Counting along takes longer than looking where it stood in the last request.
                        position = self._position
                        if position >= len(headers) or headers[position] is not found:
                            position = self._position = _position(headers, found)
        if outcome is None:
            checked = await self._check(scope, receive, send)
            if checked is None:
                return
            scope, send, position, outcome = checked
            headers = scope["headers"]
        if self._forbid is not None and await self._forbidden(outcome, scope, send):
            return
        if self._on_event is not None:
            self._emit("accepted", scope, outcome=outcome)
        # One key after the other takes half the time of a display with ** in it.
        child = {**scope}
        if position is not None and self._hide_credentials:
            headers = headers.copy()
            headers[position] = (headers[position][0], REDACTED)
        child["headers"] = without_cookies(headers) if self._drop_cookies else headers
        child["actor"] = outcome.actor()
        child["auth"] = outcome.auth
        child["user"] = outcome.user
        child[OUTCOME_KEY] = outcome
        await self.app(child, receive, send)

    async def _check(
        self, scope: Scope, receive: Receive, send: Send
    ) -> tuple[Scope, Send, int | None, Authenticated] | None:
        """Read the whole request and ask the sources; ``None``: it was answered or passed on.

        Of a token that is accepted: what the app is to be called with, and where in the headers the token stands.
        """
        kind = scope["type"]
        server_scope = scope
        headers: HeaderList = scope["headers"]
        if type(headers) is not list:
            # ASGI promises an iterable only, and the app must be able to read it again.
            headers = list(headers)
            scope = {**scope, "headers": headers}
        parameter = self._parameter
        if parameter is None:
            reading = self._reader.read(headers)
        else:
            reading = self._reader.read(
                headers,
                query=scope.get("query_string") or b"",
                parameter_allowed=kind == "websocket" or scope["method"] in ("GET", "HEAD"),
            )
        if reading.query is not None:
            # Access logs are written from the scope that the server made, so that one is cleaned too.
            for seen in (scope, server_scope):
                redact_query(seen, reading.query, parameter)
            if kind == "http":
                send = private(send)
            if reading.fault is not Fault.REPEATED and is_preflight(scope):
                # The browser repeats the URL in a preflight, but no credential is meant by it.
                reading = NO_CREDENTIAL
        if reading.token is None:
            await self._without_token(scope, receive, send, reading)
            return None
        client = scope.get("client")
        credential = Credential(reading.token, client[0] if client else None)
        value = None if reading.header is None else headers[reading.header][1]
        try:
            outcome = await authenticate(self._chain, credential)
            if isinstance(outcome, Authenticated):
                if value is not None and not (
                    self._chain.decides_alone(reading.token) and self._remembered.remember(value, outcome)
                ):
                    self._reader.remember(value, reading)
                return scope, send, reading.header, outcome
        except Exception as error:
            # A fault, whatever it is, says nothing about the token: neither "good" nor "bad" may follow from it.
            await self._refuse_unchecked(for_the_log(error), scope, send)
            return None
        if value is not None:
            self._remembered.forget(value)
        await self._not_accepted(outcome, scope, receive, send)
        return None

    async def _unchecked(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is not for us, or what an outer instance has checked already."""
        outcome = scope.get(OUTCOME_KEY)
        # What this app cannot take, it cannot take from an outer instance either.
        if isinstance(outcome, Authenticated) and await self._forbidden(outcome, scope, send):
            return
        await self.app(scope, receive, send)

    async def _forbidden(self, outcome: Authenticated, scope: Scope, send: Send) -> bool:
        why = self._forbid(outcome) if self._forbid is not None else None
        if why is None:
            return False
        self._emit("forbidden", scope, reason=why, outcome=outcome)
        await self._refuse(insufficient_scope(why), scope, send)
        return True

    async def _not_accepted(self, outcome: Rejected | None, scope: Scope, receive: Receive, send: Send) -> None:
        if outcome is not None and not isinstance(outcome, Rejected):
            # A source of somebody else's making that answers with anything but an outcome has decided nothing.
            await self._refuse_unchecked(f"a source answered with {type(outcome).__name__}", scope, send)
            return
        if outcome is None or outcome.reason is Reason.WRONG_SECRET:
            # Both alike, so that passing on does not tell which ids exist.
            self._emit("unknown", scope, reason=outcome.reason if outcome else None)
            if not self._pass_unknown:
                await self._refuse(INVALID_TOKEN, scope, send)
                return
            child = {**scope, "headers": without_cookies(scope["headers"])}
            child.update(actor=None, auth=ANONYMOUS, user=ANONYMOUS)
            if self._required:
                await self._refuse_anonymous(scope, send)
                return
            await self.app(child, receive, send)
            return
        logger.info("a token was refused: %s (id %s)", outcome.reason, outcome.token_id)
        self._emit("rejected", scope, reason=outcome.reason, token_id=outcome.token_id)
        await self._refuse(_REFUSALS.get(outcome.reason, INVALID_TOKEN), scope, send)

    async def _refuse_unchecked(self, detail: str, scope: Scope, send: Send) -> None:
        self._unavailable.note(detail)
        self._emit("unavailable", scope, reason=detail)
        await self._refuse(UNAVAILABLE, scope, send)

    async def _without_token(self, scope: Scope, receive: Receive, send: Send, reading: Reading) -> None:
        if reading.fault is not None:
            self._emit("unreadable", scope, reason=reading.fault)
            await self._refuse(invalid_request(reading.fault), scope, send)
            return
        if self._required and not scope.get("actor") and not is_preflight(scope):
            try:
                known = self._signed_in is not None and await self._signed_in(scope)
            except SignedInFailed as error:
                self._signed_in_fails.note(error.detail)
                await self._refuse(UNAVAILABLE, scope, send)
                return
            if not known:
                await self._refuse_anonymous(scope, send)
                return
        # Apps and decorators read these keys of every request; an outer middleware's stay.
        child = dict(scope)
        child.setdefault("actor", None)
        child.setdefault("auth", ANONYMOUS)
        child.setdefault("user", ANONYMOUS)
        await self.app(child, receive, send)

    async def _refuse_anonymous(self, scope: Scope, send: Send) -> None:
        self._emit("required", scope)
        await self._refuse(CREDENTIAL_REQUIRED, scope, send)

    async def _refuse(self, refusal: Refusal, scope: Scope, send: Send) -> None:
        await self._refusals.send(refusal, scope, send)

    def _emit(
        self,
        kind: EventKind,
        scope: Scope,
        *,
        reason: str | None = None,
        outcome: Authenticated | None = None,
        token_id: int | None = None,
    ) -> None:
        if self._on_event is None:
            return
        client = scope.get("client")
        event = TokenEvent(
            kind=kind,
            reason=str(reason) if reason is not None else None,
            source=outcome.auth.source if outcome else None,
            token_id=outcome.auth.token_id if outcome else token_id,
            actor_id=outcome.user.identity if outcome else None,
            path=str(scope.get("path", "")),
            address=client[0] if client else None,
        )
        try:
            self._on_event(event)
        except Exception as error:
            self._on_event_fails.note(for_the_log(error), exc_info=True)


# Disclosed only because these reasons follow a good signature or an exact match.
_REFUSALS: Final = {Reason.EXPIRED: EXPIRED_TOKEN, Reason.REVOKED: REVOKED_TOKEN}


def _position(headers: HeaderList, found: tuple[bytes, bytes]) -> int:
    """Where the very object ``found`` stands."""
    return next(index for index, header in enumerate(headers) if header is found)
