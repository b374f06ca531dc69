"""The pages and the JSON API of managed tokens: create, list, look at, edit, rotate, revoke."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from asgi_token_auth.authentication import Authenticated
from asgi_token_auth.errors import InvalidInput, StorageError, TokenNotFound
from asgi_token_auth.middleware import OUTCOME_KEY, SignedIn
from asgi_token_auth.records import ANY_OWNER, Family, IssuedToken, Owner, Page, TokenRecord
from asgi_token_auth.restrictions import Restrictions
from asgi_token_auth.store import TokenStore
from asgi_token_auth.web.cross_origin import cross_origin_reason
from asgi_token_auth.web.forms import CSRF_FIELD, Choices, TokenForm, read_form, read_json, to_fields
from asgi_token_auth.web.host import AnyApp, Host
from asgi_token_auth.web.http import (
    Refused,
    html,
    json_answer,
    json_error,
    read_form_body,
    read_json_body,
    see_other,
)
from asgi_token_auth.web.templates import render
from asgi_token_auth.words import exact, record_json

logger = logging.getLogger("asgi_token_auth")

#: Where the pages are in every app.
PATH: Final = "/-/api/tokens"

CREATE: Final = "auth-tokens-create"
VIEW_ALL: Final = "auth-tokens-view-all"
REVOKE_ALL: Final = "auth-tokens-revoke-all"

# What the next page of a list repeats; whatever else stood in the address, a token for one, is not spread.
_FILTERS: Final = ("search", "status", "owner", "used_before", "used_after", "size")

# The buttons of the forms.
_ACTIONS: Final = ("revoke", "rotate", "revoke_all")

_STATIC = Path(__file__).parent / "static"
_ID = r"/0*(?P<number>[0-9]{1,19})"


@dataclass(frozen=True, slots=True)
class _Visitor:
    """Who is asking, and how far they reach."""

    actor: Mapping[str, Any]
    id: str
    #: The token that they came by, if any.
    token: Authenticated | None
    #: What they are limited to, by that token or otherwise.
    limits: Restrictions | None
    may_create: bool
    may_view_all: bool
    may_revoke_all: bool

    @property
    def own(self) -> Owner:
        """What they may change."""
        if self.token is not None and self.token.auth.token_id is not None:
            return Family(self.id, self.token.auth.token_id)
        return self.id

    @property
    def sees(self) -> Owner:
        """What they may look at."""
        return ANY_OWNER if self.may_view_all else self.own

    @property
    def ends(self) -> Owner:
        """What they may revoke."""
        return ANY_OWNER if self.may_revoke_all else self.own

    def sees_all_of(self, token: TokenRecord) -> bool:
        """Whether nothing of the token is to be kept from them."""
        return self.may_view_all or token.actor_id == self.id

    @property
    def parent(self) -> int | None:
        """The token that new ones are created through."""
        return self.token.auth.token_id if self.token is not None else None


class TokenPages:
    """An ASGI app with the pages of ``store``, to be mounted anywhere; ``from_config`` does so at ``/-/api/tokens``.

    It must stand inside of the :class:`~asgi_token_auth.middleware.TokenAuthMiddleware`, so that a request
    that comes with a token is known as such.

    Args:
        signed_in: the app's own way to say who is asking: an async function of the scope.
        permissions: allow blocks by action. What has none is denied.
        scopes: what a token may be restricted to: names, or names and descriptions.
        tokens_may_manage_tokens: whether a token that names ``auth-tokens-create`` in its restrictions may
            create tokens within its own limits, and look after those. Off: tokens are refused here.
        host: the app around the pages, where it is not just any ASGI app.
    """

    def __init__(
        self,
        store: TokenStore,
        *,
        signed_in: SignedIn | None = None,
        permissions: Mapping[str, Any] | None = None,
        scopes: Mapping[str, str] | Sequence[str] = (),
        tokens_may_manage_tokens: bool = False,
        host: Host | None = None,
    ) -> None:
        self._store = store
        self._limit = store.max_expires_after
        self._tokens_may_manage = tokens_may_manage_tokens
        named = scopes if isinstance(scopes, Mapping) else dict.fromkeys(scopes, "")
        self._host = host or AnyApp(signed_in=signed_in, permissions=permissions or {}, scopes=named)
        route = re.compile
        self._routes: list[tuple[re.Pattern[str], Callable[..., Awaitable[Response]], str]] = [
            (route(r"(?P<json>\.json)?/?"), self._list, "GET POST"),
            (route(r"/create(?P<json>\.json)?"), self._create, "GET POST"),
            (route(r"/current(?P<json>\.json)"), self._current, "GET"),
            (route(_ID + r"(?P<json>\.json)?"), self._detail, "GET POST"),
            (route(_ID + r"/edit(?P<json>\.json)?"), self._edit, "GET POST"),
            (route(r"/static/(?P<file>pages\.css|pages\.js)"), self._static, "GET"),
        ]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request; ``root_path`` is where the pages are mounted."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000, "reason": ""})
            return
        request = Request(scope, receive)
        base = scope.get("root_path", "")
        path: str = scope["path"]
        path = path.removeprefix(base)
        # From here on it stands in links and in Location, where only ASCII may.
        response = await self._answer(request, quote(base, safe="/%~:@!$&'()*+,;="), path)
        if request.method == "HEAD":
            # The length stays that of the page.
            response.body = b""
        await response(scope, receive, send)

    async def _answer(self, request: Request, base: str, path: str) -> Response:
        wants_json = path.endswith(".json")
        try:
            for pattern, view, methods in self._routes:
                if (found := pattern.fullmatch(path)) is None:
                    continue
                method = "GET" if request.method == "HEAD" else request.method
                if method not in methods.split():
                    allow = {"Allow": "HEAD, " + methods.replace(" ", ", ")}
                    raise Refused(405, "This address does not take that.", headers=allow)
                if (reason := cross_origin_reason(request.method, request.headers)) is not None:
                    raise Refused(403, reason)
                return await view(request, base, **{k: v for k, v in found.groupdict().items() if k != "json"})
            raise Refused(404, "There is no such page.")
        except Refused as refused:
            return await self._refusal(request, base, refused, wants_json)
        except TokenNotFound:
            return await self._refusal(request, base, Refused(404, "There is no such token."), wants_json)
        except InvalidInput as error:
            return await self._refusal(request, base, Refused(400, str(error)), wants_json)
        except StorageError as error:
            logger.error("a page of tokens could not be served: %s", error)
            message = "The tokens cannot be reached at the moment; nothing was changed. Try again soon."
            unavailable = Refused(503, message, headers={"Retry-After": "5"})
            return await self._refusal(request, base, unavailable, wants_json)

    # Views

    async def _list(self, request: Request, base: str) -> Response:
        visitor = await self._visitor(request)
        as_json = request.scope["path"].endswith(".json")
        if request.method == "POST":
            return await self._revoke_all(request, base, visitor, as_json)
        query = request.query_params
        owner: Owner = visitor.sees
        if visitor.may_view_all and query.get("owner"):
            owner = query["owner"]
        page = await self._store.list(
            owner=owner,
            status=query.get("status") or None,
            search=query.get("search") or None,
            used_before=_whole(query, "used_before"),
            used_after=_whole(query, "used_after"),
            cursor=_whole(query, "next"),
            limit=_whole(query, "size") or 30,
        )
        following = _next_query(query, page)
        if as_json:
            return json_answer(
                {
                    "ok": True,
                    "tokens": [_as_json(token) for token in page.items],
                    "next": page.next_cursor,
                    "next_url": f"{base}.json?{following}" if following else None,
                }
            )
        filters: dict[str, Any] = {name: query.get(name, "") for name in ("search", "status", "owner")}
        return await self._page(
            request,
            base,
            "API tokens",
            "list.html",
            page=page,
            names=await self._host.names({token.actor_id for token in page.items}),
            me=visitor.id,
            ends_all_of=_ends_all_of(visitor, page, query),
            everybody=visitor.may_view_all,
            may_create=visitor.may_create,
            filtered=any(filters.values()) or "next" in query,
            first_url=base + _with_question(urlencode({k: v for k, v in filters.items() if v}))
            if "next" in query
            else None,
            next_url=f"{base}?{following}" if following else None,
            **filters,
        )

    async def _create(self, request: Request, base: str) -> Response:
        visitor = await self._visitor(request)
        if not visitor.may_create:
            raise Refused(403, "You do not have permission to create a token.")
        choices = await self._host.choices(request.scope, visitor.actor)
        limit = self._longest_life(visitor)
        if request.method != "POST":
            if request.scope["path"].endswith(".json"):
                return json_answer({"ok": True, "max_expires_after": limit, "actions": sorted(_known(choices))})
            return await self._create_page(request, base, visitor, choices, self._empty_form())
        if request.scope["path"].endswith(".json"):
            form = read_json(await read_json_body(request), choices, max_expires_after=limit)
            if form.errors:
                raise Refused(400, " ".join(form.errors.values()), errors=form.errors)
            issued = await self._issue(visitor, form)
            return json_answer({"ok": True, "token": issued.token, "details": _as_json(issued.record)}, status=201)
        form = read_form(await read_form_body(request), choices, max_expires_after=limit)
        if not form.errors:
            try:
                issued = await self._issue(visitor, form)
            except InvalidInput as error:
                form.errors["limit"] = str(error)
            else:
                return await self._shown(request, base, issued)
        return await self._create_page(request, base, visitor, choices, form, status=400)

    async def _detail(self, request: Request, base: str, number: str) -> Response:
        visitor = await self._visitor(request)
        token_id = int(number)
        as_json = request.scope["path"].endswith(".json")
        if request.method == "POST":
            return await self._change(request, base, visitor, token_id, as_json)
        token, full = await self._look_up(visitor, token_id)
        return await self._detail_page(request, base, visitor, token, full=full, as_json=as_json)

    async def _change(self, request: Request, base: str, visitor: _Visitor, token_id: int, as_json: bool) -> Response:
        values = await _sent(request, as_json)
        if _asks_only_for("revoke", values):
            record = await self._revoke(visitor, token_id)
            if as_json:
                return json_answer({"ok": True, "details": _as_json(record, full=visitor.sees_all_of(record))})
            return see_other(f"{base}/{token_id}")
        if not _asks_only_for("rotate", values, "grace"):
            raise Refused(400, "Send either revoke, or rotate with grace in seconds.")
        grace = values.get("grace", 0)
        if not as_json:
            if not re.fullmatch(r"[0-9]{1,9}", str(grace)):
                raise Refused(400, "grace must be a whole number of seconds.")
            grace = int(grace)
        await self._look_up_own(visitor, token_id)
        issued = await self._store.rotate(token_id, owner=visitor.own, by=visitor.id, grace=grace)
        if as_json:
            return json_answer({"ok": True, "token": issued.token, "details": _as_json(issued.record)})
        return await self._shown(request, base, issued, grace=int(grace), rotated=True)

    async def _edit(self, request: Request, base: str, number: str) -> Response:
        visitor = await self._visitor(request)
        token = await self._look_up_own(visitor, int(number))
        choices = await self._host.choices(request.scope, visitor.actor)
        # What the token may do already is no news, be it offered here or not.
        choices = choices.including(token.restrictions)
        limit = self._longest_life(visitor)
        as_json = request.scope["path"].endswith(".json")
        if request.method != "POST":
            if as_json:
                return json_answer({"ok": True, "details": _as_json(token)})
            typed = {"description": token.description or "", "expire_type": "keep", **to_fields(token.restrictions)}
            form = TokenForm(typed=typed)
            if token.status != "active":
                raise Refused(400, f"This token is {token.status}; only an active one can be changed.")
            return await self._edit_page(request, base, token, choices, form)
        if as_json:
            sent = await read_json_body(request)
            form = read_json(
                {"expires_after": None, **sent},
                choices,
                max_expires_after=limit if "expires_after" in sent else None,
            )
            if form.errors:
                raise Refused(400, " ".join(form.errors.values()), errors=form.errors)
            changes: dict[str, Any] = {
                name: getattr(form, name) for name in ("description", "expires_after", "restrictions") if name in sent
            }
        else:
            fields = await read_form_body(request)
            keeps = fields.get("expire_type") == "keep"
            form = read_form(
                {**fields, "expire_type": ""} if keeps else fields,
                choices,
                max_expires_after=None if keeps else limit,
            )
            form.typed = fields
            changes = {"description": form.description}
            # A form without that question is no wish to lift the limits.
            if "limit" in fields or form.restrictions is not None:
                changes["restrictions"] = form.restrictions
            if not keeps:
                changes["expires_after"] = form.expires_after
        if not form.errors:
            try:
                if "restrictions" in changes:
                    _check_within(visitor, form.restrictions)
                record = await self._store.edit(token.id, owner=visitor.own, by=visitor.id, **changes)
            except InvalidInput as error:
                form.errors["limit"] = str(error)
            else:
                return (
                    json_answer({"ok": True, "details": _as_json(record)})
                    if as_json
                    else see_other(f"{base}/{token.id}")
                )
        if as_json:
            raise Refused(400, " ".join(form.errors.values()))
        return await self._edit_page(request, base, token, choices, form, status=400)

    async def _revoke_all(self, request: Request, base: str, visitor: _Visitor, as_json: bool) -> Response:
        values = await _sent(request, as_json)
        owner = values.get("owner", visitor.id)
        if not _asks_only_for("revoke_all", values, "owner") or not isinstance(owner, str) or not owner:
            raise Refused(400, "Send revoke_all, with an owner if they are somebody else's.")
        if owner != visitor.id and not visitor.may_revoke_all:
            raise Refused(403, "You do not have permission to revoke other people's tokens.")
        reach: Owner = visitor.own if owner == visitor.id else owner
        count = await self._store.revoke_all(owner=reach, by=visitor.id)
        return json_answer({"ok": True, "revoked": count}) if as_json else see_other(base)

    async def _current(self, request: Request, base: str) -> Response:
        outcome = request.scope.get(OUTCOME_KEY)
        if not isinstance(outcome, Authenticated):
            challenge = {"WWW-Authenticate": 'Bearer realm="api"'}
            raise Refused(401, "Send a token with the request to learn about it.", headers=challenge)
        restrictions = outcome.restrictions
        return json_answer(
            {
                "ok": True,
                "actor": {key: value for key, value in outcome.actor().items() if key != "_r"},
                "source": outcome.auth.source,
                "token_id": outcome.auth.token_id,
                "expires_at": exact(outcome.auth.expires_at),
                "restrictions": None if restrictions is None else restrictions.to_wire(),
            }
        )

    async def _static(self, request: Request, base: str, file: str) -> Response:
        headers = {"Cache-Control": "public, max-age=3600", "X-Content-Type-Options": "nosniff"}
        return FileResponse(_STATIC / file, headers=headers)

    # Who, and what they may

    async def _visitor(self, request: Request) -> _Visitor:
        scope = request.scope
        actor = await self._host.actor(scope)
        actor_id = actor.get("id") if actor else None
        if actor is None or not isinstance(actor_id, str) or not actor_id:
            raise Refused(403, "You must be logged in as an actor with an ID to look after tokens.")
        outcome = scope.get(OUTCOME_KEY)
        token = outcome if isinstance(outcome, Authenticated) else None
        if token is None and actor.get("token"):
            raise Refused(403, "A token cannot be used to look after tokens.")
        if token is not None and not await self._may_manage(token, actor_id):
            raise Refused(403, "A token cannot be used to look after tokens.")
        limits = token.restrictions if token is not None else _outer_limits(actor)
        if limits is not None and not limits.allows(CREATE):
            raise Refused(403, f"You are limited, and {CREATE} is not among what you may do.")

        async def may(action: str) -> bool:
            return (limits is None or limits.allows(action)) and await self._host.allowed(scope, actor, action)

        # A token looks after itself and its children, whatever its actor may do besides.
        beyond = token is None
        return _Visitor(
            actor,
            actor_id,
            token,
            limits,
            await may(CREATE),
            beyond and await may(VIEW_ALL),
            beyond and await may(REVOKE_ALL),
        )

    async def _may_manage(self, token: Authenticated, actor_id: str) -> bool:
        token_id, limits = token.auth.token_id, token.restrictions
        if not self._tokens_may_manage or token_id is None or limits is None or not limits.allows(CREATE):
            return False
        try:
            record = await self._store.get(token_id, owner=Family(actor_id, token_id))
        except TokenNotFound:
            return False
        # The old text of a rotated token ends sooner than the row, and a token of another store is another row:
        # what they create within the row would reach further than they do.
        return record.restrictions == limits and record.expires_at == token.auth.expires_at

    async def _look_up(self, visitor: _Visitor, token_id: int) -> tuple[TokenRecord, bool]:
        """The token and whether all of it may be seen, or only what is needed to revoke it."""
        try:
            return await self._store.get(token_id, owner=visitor.sees), True
        except TokenNotFound:
            if not visitor.may_revoke_all:
                raise
            return await self._store.get(token_id, owner=ANY_OWNER), False

    async def _look_up_own(self, visitor: _Visitor, token_id: int) -> TokenRecord:
        token = await self._store.get(token_id, owner=visitor.sees)
        if token.actor_id != visitor.id:
            raise Refused(403, "Only its owner may change a token.")
        if not visitor.may_create:
            raise Refused(403, "You do not have permission to create a token, and so none to change one.")
        if token_id == visitor.parent:
            raise Refused(403, "A token cannot change itself.")
        try:
            # Its new text would be theirs.
            _check_within(visitor, token.restrictions)
        except InvalidInput as error:
            raise Refused(403, str(error)) from error
        return token

    async def _revoke(self, visitor: _Visitor, token_id: int) -> TokenRecord:
        try:
            return await self._store.revoke(token_id, owner=visitor.ends, by=visitor.id)
        except TokenNotFound:
            if not visitor.may_view_all:
                raise
            await self._store.get(token_id, owner=ANY_OWNER)
            raise Refused(403, "You do not have permission to revoke other people's tokens.") from None

    def _longest_life(self, visitor: _Visitor) -> int | None:
        """What this visitor may give to a token."""
        until = None if visitor.token is None else visitor.token.auth.expires_at
        if until is None:
            return self._limit
        left = max(1, int(until - self._store.clock()))
        return left if self._limit is None else min(left, self._limit)

    async def _issue(self, visitor: _Visitor, form: TokenForm) -> IssuedToken:
        _check_within(visitor, form.restrictions)
        return await self._store.issue(
            visitor.id,
            by=visitor.id,
            parent=visitor.parent,
            description=form.description,
            expires_after=form.expires_after,
            restrictions=form.restrictions,
        )

    # Pages

    def _empty_form(self) -> TokenForm:
        typed = {"expire_type": "days", "expire_duration": "90"}
        if self._limit is not None and self._limit < 90 * 86_400:
            unit, size = next(
                (u, s) for u, s in (("days", 86_400), ("hours", 3_600), ("minutes", 60)) if self._limit >= s or s == 60
            )
            typed = {"expire_type": unit, "expire_duration": str(max(1, self._limit // size))}
        return TokenForm(typed=typed)

    async def _create_page(
        self, request: Request, base: str, visitor: _Visitor, choices: Choices, form: TokenForm, *, status: int = 200
    ) -> Response:
        names = await self._host.names({visitor.id})
        return await self._page(
            request,
            base,
            "Create an API token",
            "create.html",
            code=status,
            form=form,
            choices=choices,
            limit=self._limit,
            owner=names.get(visitor.id, visitor.id),
        )

    async def _edit_page(
        self, request: Request, base: str, token: TokenRecord, choices: Choices, form: TokenForm, *, status: int = 200
    ) -> Response:
        return await self._page(
            request,
            base,
            "Edit a token",
            "edit.html",
            code=status,
            token=token,
            form=form,
            choices=choices,
            limit=self._limit,
        )

    async def _shown(
        self, request: Request, base: str, issued: IssuedToken, *, grace: int = 0, rotated: bool = False
    ) -> Response:
        return await self._page(
            request, base, "Your API token", "shown.html", issued=issued, grace=grace, rotated=rotated
        )

    async def _detail_page(
        self, request: Request, base: str, visitor: _Visitor, token: TokenRecord, *, full: bool, as_json: bool
    ) -> Response:
        events = await self._store.events(token.id, owner=visitor.sees) if full else ()
        if as_json:
            details = _as_json(token, full=full)
            happened = [{"at": exact(e.at), "event": e.name, "by": e.by, "details": e.details} for e in events]
            return json_answer({"ok": True, "details": details, "events": happened})
        own = token.actor_id == visitor.id
        token = token if full else replace(token, description=None)
        return await self._page(
            request,
            base,
            token.description or f"Token {token.id}",
            "detail.html",
            token=token,
            full=full,
            events=events,
            error=None,
            names=await self._host.names({token.actor_id, *(event.by for event in events if event.by)}),
            may_change=own and visitor.may_create,
            may_revoke=own or visitor.may_revoke_all,
        )

    async def _page(
        self, request: Request, base: str, title: str, template: str, *, code: int = 200, **values: Any
    ) -> Response:
        content = render(template, base=base, notice=await self._host.notice(), now=self._store.clock(), **values)
        text = await self._host.frame(request.scope, title, content, base)
        return html(text, policy=self._host.content_security_policy, status=code)

    async def _refusal(self, request: Request, base: str, refused: Refused, as_json: bool) -> Response:
        if as_json:
            answer = json_error(refused.status, refused.message, refused.errors)
            answer.headers.update(refused.headers)
            return answer
        title = {403: "Not permitted", 404: "Not found", 503: "Not available"}.get(refused.status, "That did not work")
        content = render("message.html", title=title, message=refused.message, base=base, back=refused.status != 403)
        text = await self._host.frame(request.scope, title, content, base)
        page = html(text, policy=self._host.content_security_policy, status=refused.status)
        page.headers.update(refused.headers)
        return page


async def _sent(request: Request, as_json: bool) -> dict[str, Any]:
    if as_json:
        return await read_json_body(request)
    fields = await read_form_body(request)
    return {name: True if name in _ACTIONS and value else value for name, value in fields.items() if name != CSRF_FIELD}


def _asks_only_for(action: str, values: Mapping[str, Any], *more: str) -> bool:
    """Whether ``action`` is asked for, and nothing but ``more`` besides. In JSON ``"false"`` is no yes."""
    return values.get(action) is True and not values.keys() - {action, *more}


def _outer_limits(actor: Mapping[str, Any]) -> Restrictions | None:
    """What an actor is limited to without a token, by a cookie for example. What cannot be read allows nothing."""
    if actor.get("_r") is None:
        return None
    try:
        return Restrictions.from_wire(actor["_r"])
    except InvalidInput:
        return Restrictions()


def _check_within(visitor: _Visitor, restrictions: Restrictions | None) -> None:
    limits = visitor.limits
    if limits is not None and (restrictions is None or not restrictions.is_subset(limits)):
        raise InvalidInput("You are limited yourself, and cannot have a token that may do more than you.")


def _as_json(token: TokenRecord, *, full: bool = True) -> dict[str, Any]:
    if not full:
        return {"id": token.id, "status": token.status, "actor_id": token.actor_id}
    return record_json(token)


def _ends_all_of(visitor: _Visitor, page: Page, query: Mapping[str, str]) -> str | None:
    """Whose tokens the list offers to end altogether. Not while it shows a choice of them: all would mean more."""
    owner = query.get("owner") if visitor.may_view_all else None
    if any(query.get(name) for name in _FILTERS if name not in ("owner", "size")):
        return None
    if owner and owner != visitor.id and not visitor.may_revoke_all:
        return None
    wanted = owner or visitor.id
    return wanted if any(token.status == "active" and token.actor_id == wanted for token in page.items) else None


def _known(choices: Choices) -> set[str]:
    return {*choices.known, *choices.everywhere, *choices.per_database, *choices.per_resource}


def _whole(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise Refused(400, f"{name} must be a whole number.")
    return int(text)


def _next_query(query: Mapping[str, str], page: Page) -> str | None:
    if page.next_cursor is None:
        return None
    kept = {name: query[name] for name in _FILTERS if query.get(name)}
    return urlencode({**kept, "next": page.next_cursor})


def _with_question(query: str) -> str:
    return f"?{query}" if query else ""
