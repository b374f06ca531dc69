"""What is done once only, and what whoever sends it again is told: what it did, and that nothing more was done."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final

from starlette.responses import Response

from asgi_token_auth.errors import AlreadyDone, IdempotencyKeyReused, TokenNotFound
from asgi_token_auth.storage.idempotency import IdempotencyKey
from asgi_token_auth.tokens.as_json import record_json
from asgi_token_auth.tokens.store import TokenStore
from asgi_token_auth.web.http import HTTPError, json_answer, redirect
from asgi_token_auth.web.pages import PageRequest, Pages
from asgi_token_auth.web.tokens.access import Requester, TokenAccess
from asgi_token_auth.wording import exact

_LOST: Final = (
    "The token's text was shown then and cannot be shown again; if it is lost, rotate the token to get a new one."
)


class Once:
    """Keys of forms and of requests, and the answers to repeats."""

    def __init__(self, store: TokenStore, pages: Pages, access: TokenAccess) -> None:
        self._store = store
        self._pages = pages
        self._access = access

    async def new_key(self, request: PageRequest, requester: Requester, action: str) -> IdempotencyKey | None:
        """The key of a request whose body was read, if it has one.

        Args:
            action: as the method of the store that will be given the key calls it.

        Raises:
            AlreadyDone, IdempotencyKeyReused: it was used before.
            HTTPError: 400 or 409: it is none, or belongs to somebody or something else.
        """
        key = request.key(requester, action)
        await self._store.refuse_repeat(key, by=requester.id, action=action)
        return key

    async def answer(self, request: PageRequest, requester: Requester, doing: Awaitable[Response]) -> Response:
        """What ``doing`` answers; to a repeat what was done before, without a token's text."""
        try:
            return await doing
        except AlreadyDone as done:
            if request.as_json:
                return json_answer(await self._as_json(requester, done))
            if done.event == "revoked_all":
                return redirect(request.base)
            if done.event in ("revoked", "edited"):
                return redirect(f"{request.base}/{done.subject}")
            return await self._used_page(request, done, other=False)
        except IdempotencyKeyReused as done:
            if request.as_json:
                raise HTTPError(422, str(done)) from done
            if requester.token is not None:
                # Another token of the same actor may have used it, which this one is to know nothing of.
                raise HTTPError(409, str(done)) from done
            return await self._used_page(request, done, other=True)

    async def _used_page(
        self, request: PageRequest, done: AlreadyDone | IdempotencyKeyReused, *, other: bool
    ) -> Response:
        return await self._pages.page(
            request,
            "Used already",
            "tokens/used.html",
            status_code=409 if other else 200,
            done=done,
            lost=_LOST,
            other=other,
        )

    async def _as_json(self, requester: Requester, done: AlreadyDone) -> dict[str, Any]:
        what: dict[str, Any] = {"event": done.event, "at": exact(done.at)}
        answer: dict[str, Any] = {"ok": True, "repeated": True, "done": what}
        if done.event == "revoked_all":
            return {**answer, "revoked": done.subject}
        what["token_id"] = done.subject
        if done.event in ("created", "rotated"):
            answer["message"] = _LOST
        try:
            token, full = await self._access.get_visible(requester, done.subject or 0)
        except TokenNotFound:
            # It is gone by now, or nothing that they may see any more.
            return answer
        if full:
            answer["details"] = record_json(token)
        return answer
