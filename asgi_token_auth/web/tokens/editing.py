"""The page and the JSON that change a token."""

from __future__ import annotations

from starlette.responses import Response

from asgi_token_auth.errors import EditConflict, IdempotencyKeyReused, InvalidInput
from asgi_token_auth.storage.idempotency import IdempotencyKey
from asgi_token_auth.tokens.as_json import record_json
from asgi_token_auth.tokens.record import TokenRecord
from asgi_token_auth.tokens.store import TokenStore
from asgi_token_auth.web.choices import Choices
from asgi_token_auth.web.host import Host
from asgi_token_auth.web.http import HTTPError, json_answer, redirect
from asgi_token_auth.web.pages import PageRequest, Pages
from asgi_token_auth.web.tokens.access import Requester, TokenAccess, check_within_limits
from asgi_token_auth.web.tokens.forms import TokenEdit, TokenForm, check_errors, form_of, read_form_edit, read_json_edit
from asgi_token_auth.web.tokens.repeats import Once


class TokenEditing:
    """The view of ``/edit`` below a token's page."""

    def __init__(self, store: TokenStore, host: Host, pages: Pages, access: TokenAccess, once: Once) -> None:
        self._store = store
        self._max_expires_after = store.max_expires_after
        self._host = host
        self._pages = pages
        self._access = access
        self._once = once

    async def __call__(self, request: PageRequest, token_id: int) -> Response:
        """Show or take the form, or the JSON, for a token."""
        requester = await self._access.requester(request)
        token = await self._access.get_changeable(requester, token_id)
        choices = await self._host.choices(request.http.scope, requester.actor)
        # What the token may do already is no news, be it offered here or not.
        choices = choices.including(token.restrictions)
        edit = self._edit_json if request.as_json else self._edit_form
        return await self._once.answer(request, requester, edit(request, requester, token, choices))

    async def _edit_json(
        self, request: PageRequest, requester: Requester, token: TokenRecord, choices: Choices
    ) -> Response:
        if not request.is_post:
            return json_answer({"ok": True, "details": record_json(token)})
        limit = self._access.max_expires_after(requester)
        sent = await request.read_body()
        key = await self._once.new_key(request, requester, f"edit {token.id}")
        edit = read_json_edit(sent, choices, max_expires_after=limit)
        check_errors(edit.form)
        try:
            record = await self._save(requester, token.id, edit, key)
        except EditConflict as error:
            raise HTTPError(409, str(error)) from error
        return json_answer({"ok": True, "details": record_json(record)})

    async def _edit_form(
        self, request: PageRequest, requester: Requester, token: TokenRecord, choices: Choices
    ) -> Response:
        if not request.is_post:
            if token.status != "active":
                raise HTTPError(
                    400, f"This token is {token.status}; only an active one can be changed. Create another one."
                )
            return await self._edit_page(request, token, choices, form_of(token))
        limit = self._access.max_expires_after(requester)
        edit = read_form_edit(await request.read_body(), choices, max_expires_after=limit)
        form = edit.form
        try:
            key = await self._once.new_key(request, requester, f"edit {token.id}")
        except IdempotencyKeyReused:
            # What it was used for has changed the token.
            return await self._conflict_page(request, requester, token.id, choices, form)
        if not form.errors:
            try:
                await self._save(requester, token.id, edit, key)
                return redirect(f"{request.base}/{token.id}")
            except InvalidInput as error:
                form.errors["limit"] = str(error)
            except (EditConflict, IdempotencyKeyReused):
                return await self._conflict_page(request, requester, token.id, choices, form)
        return await self._edit_page(request, token, choices, form, status=400)

    async def _conflict_page(
        self, request: PageRequest, requester: Requester, token_id: int, choices: Choices, form: TokenForm
    ) -> Response:
        token = await self._access.get_changeable(requester, token_id)
        # Whoever saves again has seen what it is now.
        form.typed = {**form.typed, "version": token.version}
        choices = choices.including(token.restrictions)
        return await self._edit_page(request, token, choices, form, status=409)

    async def _save(
        self, requester: Requester, token_id: int, edit: TokenEdit, key: IdempotencyKey | None
    ) -> TokenRecord:
        if "restrictions" in edit.changes:
            check_within_limits(requester, edit.form.restrictions)
        return await self._store.edit(
            token_id,
            owner=requester.changeable,
            by=requester.id,
            version=edit.version,
            idempotency_key=key,
            **edit.changes,
        )

    async def _edit_page(
        self, request: PageRequest, token: TokenRecord, choices: Choices, form: TokenForm, *, status: int = 200
    ) -> Response:
        return await self._pages.page(
            request,
            "Edit a token",
            "tokens/edit.html",
            status_code=status,
            token=token,
            form=form,
            choices=choices,
            limit=self._max_expires_after,
            conflict=status == 409,
        )
