"""The pages and the JSON API of managed tokens: create, list, look at, edit, rotate, revoke."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlencode

from starlette.responses import Response

from asgi_token_auth.authentication import Authenticated
from asgi_token_auth.errors import EditConflict, InvalidInput
from asgi_token_auth.middleware import OUTCOME_KEY, SignedIn
from asgi_token_auth.tokens.as_json import events_json, record_json
from asgi_token_auth.tokens.record import IssuedToken, Owner, Page, TokenRecord
from asgi_token_auth.tokens.store import TokenStore
from asgi_token_auth.web.choices import Choices
from asgi_token_auth.web.host import AnyApp, Host, Section
from asgi_token_auth.web.http import Refused, json_answer, see_other
from asgi_token_auth.web.pages import Pages, View, Visit, asks_only_for
from asgi_token_auth.web.tokens.access import Visitor, Visitors, check_within
from asgi_token_auth.web.tokens.forms import TokenForm, read_form, read_json, to_fields
from asgi_token_auth.wording import exact

#: Where the pages are in every app.
PATH: Final = "/-/api/tokens"

SECTION: Final = Section(title="API tokens", singular="token", plural="tokens", path=PATH)

# What the next page of a list repeats; whatever else stood in the address, a token for one, is not spread.
_FILTERS: Final = ("search", "status", "owner", "used_before", "used_after", "size")

# The buttons of the forms.
_ACTIONS: Final = ("revoke", "rotate", "revoke_all")

#: Of what happened to a token, so much is on its page.
_SHOWN_EVENTS: Final = 100

_ID = r"/0*(?P<number>[0-9]{1,19})"


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
        named = scopes if isinstance(scopes, Mapping) else dict.fromkeys(scopes, "")
        host = host or AnyApp(signed_in=signed_in, permissions=permissions or {}, scopes=named)
        routes: list[tuple[str, View, str]] = [
            (r"(?P<json>\.json)?/?", self._list, "GET POST"),
            (r"/create(?P<json>\.json)?", self._create, "GET POST"),
            (r"/current(?P<json>\.json)", self._current, "GET"),
            (_ID + r"(?P<json>\.json)?", self._detail, "GET POST"),
            (_ID + r"/edit(?P<json>\.json)?", self._edit, "GET POST"),
        ]
        self._pages = Pages(SECTION, host, routes, clock=store.clock)
        self._visitors = Visitors(store, self._pages, tokens_may_manage=tokens_may_manage_tokens)
        self._host = host

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request; ``root_path`` is where the pages are mounted."""
        await self._pages(scope, receive, send)

    # Views

    async def _list(self, visit: Visit) -> Response:
        visitor = await self._visitors.of(visit)
        if visit.posts:
            return await self._revoke_all(visit, visitor)
        query = visit.query
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
        if visit.as_json:
            return json_answer(
                {
                    "ok": True,
                    "tokens": [_as_json(token) for token in page.items],
                    "next": page.next_cursor,
                    "next_url": f"{visit.base}.json?{following}" if following else None,
                }
            )
        filters: dict[str, Any] = {name: query.get(name, "") for name in ("search", "status", "owner")}
        return await self._pages.page(
            visit,
            "API tokens",
            "list.html",
            page=page,
            names=await self._host.names({token.actor_id for token in page.items}),
            me=visitor.id,
            ends_all_of=_ends_all_of(visitor, page, query),
            everybody=visitor.may_view_all,
            may_create=visitor.may_create,
            filtered=any(filters.values()) or "next" in query,
            first_url=visit.base + _with_question(urlencode({k: v for k, v in filters.items() if v}))
            if "next" in query
            else None,
            next_url=f"{visit.base}?{following}" if following else None,
            **filters,
        )

    async def _create(self, visit: Visit) -> Response:
        visitor = await self._visitors.of(visit)
        if not visitor.may_create:
            raise Refused(403, "You do not have permission to create a token.")
        choices = await self._host.choices(visit.request.scope, visitor.actor)
        limit = self._visitors.longest_life(visitor)
        if not visit.posts:
            if visit.as_json:
                return json_answer({"ok": True, "max_expires_after": limit, "actions": sorted(_known(choices))})
            return await self._create_page(visit, visitor, choices, self._empty_form())
        if visit.as_json:
            form = read_json(await visit.body(), choices, max_expires_after=limit)
            if form.errors:
                raise Refused(400, " ".join(form.errors.values()), errors=form.errors)
            issued = await self._issue(visitor, form)
            return json_answer({"ok": True, "token": issued.token, "details": _as_json(issued.record)}, status=201)
        form = read_form(await visit.body(), choices, max_expires_after=limit)
        if not form.errors:
            try:
                issued = await self._issue(visitor, form)
            except InvalidInput as error:
                form.errors["limit"] = str(error)
            else:
                return await self._shown(visit, issued)
        return await self._create_page(visit, visitor, choices, form, status=400)

    async def _detail(self, visit: Visit, number: str) -> Response:
        visitor = await self._visitors.of(visit)
        token_id = int(number)
        if visit.posts:
            return await self._change(visit, visitor, token_id)
        token, full = await self._visitors.look_up(visitor, token_id)
        return await self._detail_page(visit, visitor, token, full=full)

    async def _change(self, visit: Visit, visitor: Visitor, token_id: int) -> Response:
        values = await visit.actions(*_ACTIONS)
        if asks_only_for("revoke", values):
            record = await self._visitors.revoke(visitor, token_id)
            if visit.as_json:
                return json_answer({"ok": True, "details": _as_json(record, full=visitor.sees_all_of(record))})
            return see_other(f"{visit.base}/{token_id}")
        if not asks_only_for("rotate", values, "grace"):
            raise Refused(400, "Send either revoke, or rotate with grace in seconds.")
        grace = values.get("grace", 0)
        if not visit.as_json:
            if not re.fullmatch(r"[0-9]{1,9}", str(grace)):
                raise Refused(400, "grace must be a whole number of seconds.")
            grace = int(grace)
        await self._visitors.look_up_own(visitor, token_id)
        issued = await self._store.rotate(token_id, owner=visitor.own, by=visitor.id, grace=grace)
        if visit.as_json:
            return json_answer({"ok": True, "token": issued.token, "details": _as_json(issued.record)})
        return await self._shown(visit, issued, grace=int(grace), rotated=True)

    async def _edit(self, visit: Visit, number: str) -> Response:
        visitor = await self._visitors.of(visit)
        token = await self._visitors.look_up_own(visitor, int(number))
        choices = await self._host.choices(visit.request.scope, visitor.actor)
        # What the token may do already is no news, be it offered here or not.
        choices = choices.including(token.restrictions)
        limit = self._visitors.longest_life(visitor)
        if not visit.posts:
            if visit.as_json:
                return json_answer({"ok": True, "details": _as_json(token)})
            typed = {
                "description": token.description or "",
                "expire_type": "keep",
                "version": token.version,
                **to_fields(token.restrictions),
            }
            form = TokenForm(typed=typed)
            if token.status != "active":
                raise Refused(400, f"This token is {token.status}; only an active one can be changed.")
            return await self._edit_page(visit, token, choices, form)
        sent = await visit.body()
        version = _version(sent)
        if visit.as_json:
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
            keeps = sent.get("expire_type") == "keep"
            form = read_form(
                {**sent, "expire_type": ""} if keeps else sent,
                choices,
                max_expires_after=None if keeps else limit,
            )
            form.typed = sent if version is None else {**sent, "version": version}
            changes = {"description": form.description}
            # A form without that question is no wish to lift the limits.
            if "limit" in sent or form.restrictions is not None:
                changes["restrictions"] = form.restrictions
            if not keeps:
                changes["expires_after"] = form.expires_after
        if not form.errors:
            try:
                if "restrictions" in changes:
                    check_within(visitor, form.restrictions)
                record = await self._store.edit(token.id, owner=visitor.own, by=visitor.id, version=version, **changes)
            except InvalidInput as error:
                form.errors["limit"] = str(error)
            except EditConflict as error:
                if visit.as_json:
                    raise Refused(409, str(error)) from error
                token = await self._visitors.look_up_own(visitor, token.id)
                # Whoever saves again has seen what it is now.
                form.typed = {**form.typed, "version": token.version}
                choices = choices.including(token.restrictions)
                return await self._edit_page(visit, token, choices, form, status=409)
            else:
                return (
                    json_answer({"ok": True, "details": _as_json(record)})
                    if visit.as_json
                    else see_other(f"{visit.base}/{token.id}")
                )
        if visit.as_json:
            raise Refused(400, " ".join(form.errors.values()))
        return await self._edit_page(visit, token, choices, form, status=400)

    async def _revoke_all(self, visit: Visit, visitor: Visitor) -> Response:
        values = await visit.actions(*_ACTIONS)
        owner = values.get("owner", visitor.id)
        if not asks_only_for("revoke_all", values, "owner") or not isinstance(owner, str) or not owner:
            raise Refused(400, "Send revoke_all, with an owner if they are somebody else's.")
        if owner != visitor.id and not visitor.may_revoke_all:
            raise Refused(403, "You do not have permission to revoke other people's tokens.")
        reach: Owner = visitor.own if owner == visitor.id else owner
        count = await self._store.revoke_all(owner=reach, by=visitor.id)
        return json_answer({"ok": True, "revoked": count}) if visit.as_json else see_other(visit.base)

    async def _current(self, visit: Visit) -> Response:
        outcome = visit.request.scope.get(OUTCOME_KEY)
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

    async def _issue(self, visitor: Visitor, form: TokenForm) -> IssuedToken:
        check_within(visitor, form.restrictions)
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
        self, visit: Visit, visitor: Visitor, choices: Choices, form: TokenForm, *, status: int = 200
    ) -> Response:
        names = await self._host.names({visitor.id})
        return await self._pages.page(
            visit,
            "Create an API token",
            "create.html",
            code=status,
            form=form,
            choices=choices,
            limit=self._limit,
            owner=names.get(visitor.id, visitor.id),
        )

    async def _edit_page(
        self, visit: Visit, token: TokenRecord, choices: Choices, form: TokenForm, *, status: int = 200
    ) -> Response:
        return await self._pages.page(
            visit,
            "Edit a token",
            "edit.html",
            code=status,
            token=token,
            form=form,
            choices=choices,
            limit=self._limit,
            conflict=status == 409,
        )

    async def _shown(self, visit: Visit, issued: IssuedToken, *, grace: int = 0, rotated: bool = False) -> Response:
        return await self._pages.page(
            visit, "Your API token", "shown.html", issued=issued, grace=grace, rotated=rotated
        )

    async def _detail_page(self, visit: Visit, visitor: Visitor, token: TokenRecord, *, full: bool) -> Response:
        # A token that a script rotates every hour has thousands. Scripts get them all.
        latest = None if visit.as_json else _SHOWN_EVENTS + 1
        events = await self._store.events(token.id, owner=visitor.sees, latest=latest) if full else ()
        if visit.as_json:
            details = _as_json(token, full=full)
            return json_answer({"ok": True, "details": details, "events": events_json(events)})
        own = token.actor_id == visitor.id
        token = token if full else replace(token, description=None)
        return await self._pages.page(
            visit,
            token.description or f"Token {token.id}",
            "detail.html",
            token=token,
            full=full,
            events=events[-_SHOWN_EVENTS:],
            earlier=len(events) > _SHOWN_EVENTS,
            error=None,
            names=await self._host.names({token.actor_id, *(event.by for event in events if event.by)}),
            may_change=own and visitor.may_create,
            may_revoke=own or visitor.may_revoke_all,
        )


def _as_json(token: TokenRecord, *, full: bool = True) -> dict[str, Any]:
    if not full:
        return {"id": token.id, "status": token.status, "actor_id": token.actor_id}
    return record_json(token)


def _ends_all_of(visitor: Visitor, page: Page, query: Mapping[str, str]) -> str | None:
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


def _version(sent: dict[str, Any]) -> str | None:
    """What was sent as the version of the token that the change was made for, taken out of ``sent``."""
    if "version" not in sent:
        return None
    version = sent.pop("version")
    if not isinstance(version, str):
        raise Refused(400, "version must be the text that came with the token.")
    return version


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
