"""The pages and the JSON API of managed tokens: create, list, show, edit, rotate, revoke."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlencode

from starlette.responses import Response

from asgi_token_auth.access.permissions import CREATE_TOKENS, REVOKE_ALL_TOKENS, no_permission
from asgi_token_auth.access.signed_in import SignedIn
from asgi_token_auth.authentication import Authenticated
from asgi_token_auth.errors import EditConflict, IdempotencyKeyReused, InvalidInput
from asgi_token_auth.middleware import OUTCOME_KEY
from asgi_token_auth.storage.idempotency import IdempotencyKey
from asgi_token_auth.tokens.as_json import events_json, record_json
from asgi_token_auth.tokens.record import IssuedToken, Owner, Page, TokenRecord
from asgi_token_auth.tokens.store import TokenStore
from asgi_token_auth.web.choices import Choices
from asgi_token_auth.web.host import AnyApp, Host, Section
from asgi_token_auth.web.http import HTTPError, json_answer, long_json_answer, redirect
from asgi_token_auth.web.idempotency import FORM_KEY, FormTooOld, is_form_key, new_form_key
from asgi_token_auth.web.pages import PageRequest, Pages, View, requests_only
from asgi_token_auth.web.tokens.access import Requester, TokenAccess, check_within_limits
from asgi_token_auth.web.tokens.editing import TokenEditing
from asgi_token_auth.web.tokens.filters import first_page, form_filters, next_page, read_filters, shows_all_of_owner
from asgi_token_auth.web.tokens.forms import (
    TokenForm,
    check_errors,
    default_form,
    read_form,
    read_json,
    read_version,
)
from asgi_token_auth.web.tokens.repeats import Once
from asgi_token_auth.wording import exact

#: Where the pages are in every app.
PATH: Final = "/-/api/tokens"

SECTION: Final = Section(title="API tokens", singular="token", plural="tokens", path=PATH)

# The buttons of the forms.
_ACTIONS: Final = ("revoke", "rotate", "revoke_all")

# What the key of the form that creates a token is for.
_CREATE: Final = "create"

#: So many of the latest events of a token are on its page, and in its JSON.
_MAX_EVENTS: Final = 100
_MAX_JSON_EVENTS: Final = 1_000

#: Bytes of JSON: restrictions of the largest permitted size, however they are indented.
_LONGEST_JSON: Final = 131_072

_ID = r"/0*(?P<number>[0-9]{1,19})"


class TokenPages:
    """An ASGI app with the pages of ``store``, to be mounted anywhere; ``from_config`` does so at ``/-/api/tokens``.

    It must stand inside of the :class:`~asgi_token_auth.middleware.TokenAuthMiddleware`, so that a request
    that comes with a token is known as such.

    Args:
        signed_in: the app's own way to say who is asking: a function of the scope, async or not.
        permissions: allow blocks by action. What has none is denied.
        scopes: what a token may be restricted to: names, or names and descriptions.
        tokens_may_manage_tokens: whether a token that names ``auth-tokens-create`` in its restrictions may
            create tokens within its own limits, and manage those. Off: tokens are refused here.
        trusted_origins: those whose forms are taken although the Host header is another, because a proxy changes it.
        host: the app around the pages, where it is not just any ASGI app.

    Raises:
        ConfigurationError: ``signed_in`` is no function, or one of ``trusted_origins`` no origin.
    """

    def __init__(
        self,
        store: TokenStore,
        *,
        signed_in: SignedIn | None = None,
        permissions: Mapping[str, Any] | None = None,
        scopes: Mapping[str, str] | Sequence[str] = (),
        tokens_may_manage_tokens: bool = False,
        trusted_origins: Collection[str] = (),
        host: Host | None = None,
    ) -> None:
        self._store = store
        self._max_expires_after = store.max_expires_after
        named = scopes if isinstance(scopes, Mapping) else dict.fromkeys(scopes, "")
        host = host or AnyApp(signed_in=signed_in, permissions=permissions or {}, scopes=named)
        routes: list[tuple[str, View, str]] = [
            (r"(?P<json>\.json)?/?", self._list, "GET POST"),
            (r"/create(?P<json>\.json)?", self._create, "GET POST"),
            (r"/current(?P<json>\.json)", self._current, "GET"),
            (_ID + r"(?P<json>\.json)?", self._detail, "GET POST"),
            (_ID + r"/edit(?P<json>\.json)?", self._edit, "GET POST"),
        ]
        self._pages = Pages(
            SECTION, host, routes, clock=store.clock, longest_json=_LONGEST_JSON, trusted_origins=trusted_origins
        )
        self._access = TokenAccess(store, self._pages, tokens_may_manage=tokens_may_manage_tokens)
        self._once = Once(store, self._pages, self._access)
        self._editing = TokenEditing(store, host, self._pages, self._access, self._once)
        self._host = host

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request; ``root_path`` is where the pages are mounted."""
        await self._pages(scope, receive, send)

    # Views

    async def _list(self, request: PageRequest) -> Response:
        requester = await self._access.requester(request)
        if request.is_post:
            return await self._once.answer(request, requester, self._revoke_all(request, requester))
        query = request.query
        owner: Owner = requester.visible
        if requester.may_view_all and query.get("owner"):
            owner = query["owner"]
        page = await self._store.list(owner=owner, **read_filters(query))
        following = next_page(query, page)
        if request.as_json:
            return await long_json_answer(
                {
                    "ok": True,
                    "tokens": map(record_json, page.items),
                    "next": page.next_cursor,
                    "next_url": f"{request.base}.json?{following}" if following else None,
                }
            )
        filters, first = form_filters(query), first_page(query)
        return await self._pages.page(
            request,
            "API tokens",
            "tokens/list.html",
            page=page,
            names=await self._host.names({token.actor_id for token in page.items}),
            me=requester.id,
            revoke_all_owner=_owner_to_revoke(requester, page, query),
            everybody=requester.may_view_all,
            may_create=requester.may_create,
            filtered=any(filters.values()) or first is not None,
            first_url=None if first is None else request.base + (f"?{first}" if first else ""),
            next_url=f"{request.base}?{following}" if following else None,
            **filters,
        )

    async def _create(self, request: PageRequest) -> Response:
        requester = await self._access.requester(request)
        if not requester.may_create:
            raise HTTPError(403, no_permission("create a token", CREATE_TOKENS))
        choices = await self._host.choices(request.http.scope, requester.actor)
        create = self._create_json if request.as_json else self._create_form
        return await self._once.answer(request, requester, create(request, requester, choices))

    async def _create_json(self, request: PageRequest, requester: Requester, choices: Choices) -> Response:
        limit = self._access.max_expires_after(requester)
        if not request.is_post:
            return json_answer({"ok": True, "max_expires_after": limit, "actions": sorted(choices.actions)})
        sent = await request.read_body()
        key = await self._once.new_key(request, requester, _CREATE)
        form = read_json(sent, choices, max_expires_after=limit)
        check_errors(form)
        issued = await self._issue(requester, form, key)
        return json_answer({"ok": True, "token": issued.token, "details": record_json(issued.record)}, status=201)

    async def _create_form(self, request: PageRequest, requester: Requester, choices: Choices) -> Response:
        if not request.is_post:
            if (address := _address_of_form(request, requester)) is not None:
                return redirect(address)
            form = default_form(max_expires_after=self._max_expires_after)
            return await self._create_page(request, requester, choices, form, keep_key=True)
        limit = self._access.max_expires_after(requester)
        form = read_form(await request.read_body(), choices, max_expires_after=limit)
        try:
            key = await self._once.new_key(request, requester, _CREATE)
        except IdempotencyKeyReused as done:
            # The key may be that of another token of the same actor, which a token is to know nothing of.
            made = f", and made token {done.subject}" if requester.token is None else ""
            form.errors["form"] = (
                f"This form was already used{made}. If there shall be another one, with what "
                "stands here, send it again."
            )
            return await self._create_page(request, requester, choices, form, status=409)
        except FormTooOld:
            form.errors["form"] = "This form was loaded more than a day ago. Send it again if a token shall be created."
            return await self._create_page(request, requester, choices, form, status=409)
        if not form.errors:
            try:
                issued = await self._issue(requester, form, key)
            except InvalidInput as error:
                form.errors["limit"] = str(error)
            else:
                return await self._issued_page(request, issued)
        # The form is not used yet. With another key the next try and its Back would be two forms.
        return await self._create_page(request, requester, choices, form, status=400, keep_key=True)

    async def _issue(self, requester: Requester, form: TokenForm, key: IdempotencyKey | None) -> IssuedToken:
        check_within_limits(requester, form.restrictions)
        return await self._store.issue(
            requester.id,
            by=requester.id,
            parent=requester.parent,
            description=form.description,
            expires_after=form.expires_after,
            restrictions=form.restrictions,
            idempotency_key=key,
        )

    async def _detail(self, request: PageRequest, number: str) -> Response:
        requester = await self._access.requester(request)
        token_id = int(number)
        if request.is_post:
            return await self._once.answer(request, requester, self._revoke_or_rotate(request, requester, token_id))
        token, full = await self._access.get_visible(requester, token_id)
        return await self._detail_page(request, requester, token, full=full)

    async def _revoke_or_rotate(self, request: PageRequest, requester: Requester, token_id: int) -> Response:
        values = await request.read_actions(*_ACTIONS)
        if requests_only("revoke", values, "version"):
            key = await self._once.new_key(request, requester, f"revoke {token_id}")
            try:
                record = await self._access.revoke(requester, token_id, version=read_version(values), key=key)
            except EditConflict as error:
                raise HTTPError(409, str(error)) from error
            if request.as_json:
                return json_answer(
                    {"ok": True, "details": _visible_json(record, full=requester.may_view_details(record))}
                )
            return redirect(f"{request.base}/{token_id}")
        if not requests_only("rotate", values, "grace", "version"):
            raise HTTPError(400, "Send either revoke, or rotate with grace in seconds.")
        key = await self._once.new_key(request, requester, f"rotate {token_id}")
        grace = values.get("grace", 0)
        if not request.as_json:
            if not re.fullmatch(r"[0-9]{1,9}", str(grace)):
                raise HTTPError(400, "grace must be a whole number of seconds.")
            grace = int(grace)
        await self._access.get_changeable(requester, token_id)
        try:
            issued = await self._store.rotate(
                token_id,
                owner=requester.changeable,
                by=requester.id,
                grace=grace,
                version=read_version(values),
                idempotency_key=key,
            )
        except EditConflict as error:
            if request.as_json:
                raise HTTPError(409, str(error)) from error
            token, full = await self._access.get_visible(requester, token_id)
            return await self._detail_page(request, requester, token, full=full, error=str(error))
        if request.as_json:
            return json_answer({"ok": True, "token": issued.token, "details": record_json(issued.record)})
        return await self._issued_page(request, issued, grace=int(grace), rotated=True)

    async def _edit(self, request: PageRequest, number: str) -> Response:
        return await self._editing(request, int(number))

    async def _revoke_all(self, request: PageRequest, requester: Requester) -> Response:
        values = await request.read_actions(*_ACTIONS)
        owner = values.get("owner", requester.id)
        if not requests_only("revoke_all", values, "owner") or not isinstance(owner, str) or not owner:
            raise HTTPError(400, "Send revoke_all, with an owner if they are somebody else's.")
        if owner != requester.id and not requester.may_revoke_all:
            raise HTTPError(403, no_permission("revoke other people's tokens", REVOKE_ALL_TOKENS))
        reach: Owner = requester.changeable if owner == requester.id else owner
        key = await self._once.new_key(request, requester, "revoke_all")
        count = await self._store.revoke_all(owner=reach, by=requester.id, idempotency_key=key)
        return json_answer({"ok": True, "revoked": count}) if request.as_json else redirect(request.base)

    async def _current(self, request: PageRequest) -> Response:
        outcome = request.http.scope.get(OUTCOME_KEY)
        if not isinstance(outcome, Authenticated):
            challenge = {"WWW-Authenticate": 'Bearer realm="api"'}
            raise HTTPError(401, "Send a token with the request to learn about it.", headers=challenge)
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

    # Pages

    async def _create_page(
        self,
        request: PageRequest,
        requester: Requester,
        choices: Choices,
        form: TokenForm,
        *,
        status: int = 200,
        keep_key: bool = False,
    ) -> Response:
        names = await self._host.names({requester.id})
        key = request.form_key
        if not keep_key or key is None or not is_form_key(key, requester.id, _CREATE):
            key = new_form_key(requester.id, request.now, _CREATE)
        return await self._pages.page(
            request,
            "Create an API token",
            "tokens/create.html",
            status_code=status,
            form=form,
            choices=choices,
            limit=self._max_expires_after,
            owner=names.get(requester.id, requester.id),
            form_key={_CREATE: key}.get,
        )

    async def _issued_page(
        self, request: PageRequest, issued: IssuedToken, *, grace: int = 0, rotated: bool = False
    ) -> Response:
        return await self._pages.page(
            request, "Your API token", "tokens/issued.html", issued=issued, grace=grace, rotated=rotated
        )

    async def _detail_page(
        self,
        request: PageRequest,
        requester: Requester,
        token: TokenRecord,
        *,
        full: bool,
        error: str | None = None,
    ) -> Response:
        # A token that a script rotates every hour has thousands.
        most = _MAX_JSON_EVENTS if request.as_json else _MAX_EVENTS
        events = await self._store.events(token.id, owner=requester.visible, latest=most + 1) if full else ()
        events, earlier = events[-most:], len(events) > most
        if request.as_json:
            details = _visible_json(token, full=full)
            return json_answer(
                {"ok": True, "details": details, "events": events_json(events), "earlier_events": earlier}
            )
        own = token.actor_id == requester.id
        token = token if full else replace(token, description=None)
        return await self._pages.page(
            request,
            token.description or f"Token {token.id}",
            "tokens/detail.html",
            status_code=200 if error is None else 409,
            token=token,
            full=full,
            events=events,
            earlier=earlier,
            error=error,
            names=await self._host.names({token.actor_id, *(event.by for event in events if event.by)}),
            may_change=own and requester.may_create,
            may_revoke=own or requester.may_revoke_all,
        )


def _visible_json(token: TokenRecord, *, full: bool) -> dict[str, Any]:
    return record_json(token) if full else {"id": token.id, "status": token.status, "actor_id": token.actor_id}


def _owner_to_revoke(requester: Requester, page: Page, query: Mapping[str, str]) -> str | None:
    """Whose tokens the list offers to revoke altogether. Not while it shows a choice of them: all would mean more."""
    owner = query.get("owner") if requester.may_view_all else None
    if not shows_all_of_owner(query):
        return None
    if owner and owner != requester.id and not requester.may_revoke_all:
        return None
    wanted = owner or requester.id
    return wanted if any(token.status == "active" and token.actor_id == wanted for token in page.items) else None


def _address_of_form(request: PageRequest, requester: Requester) -> str | None:
    """Where a browser finds a form to create a token, with a key of its own; ``None``: it is there, or is none.

    Back loads the address again, scripts or not, and so comes to the form that was used. No cache has to keep it.
    """
    key = request.form_key
    if not request.is_navigation or (key is not None and is_form_key(key, requester.id, _CREATE)):
        return None
    if requester.token is not None:
        # It may have come in the address, where it must not be repeated.
        return None
    others = [(name, value) for name, value in request.http.query_params.multi_items() if name != FORM_KEY]
    new = new_form_key(requester.id, request.now, _CREATE)
    return f"{request.base}/create?{urlencode([*others, (FORM_KEY, new)])}"
