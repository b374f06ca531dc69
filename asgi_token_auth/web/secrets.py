"""The pages and the JSON API of encrypted secrets: list, set, change and delete. No value ever comes out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from starlette.responses import Response

from asgi_token_auth.access.permissions import MANAGE_SECRETS, no_permission
from asgi_token_auth.access.signed_in import SignedIn
from asgi_token_auth.errors import AlreadyDone, IdempotencyKeyReused, InvalidInput, SecretNotFound, SecretUnreadable
from asgi_token_auth.secrets.as_json import secret_json, version_json
from asgi_token_auth.secrets.record import MAX_NOTE, SecretRecord, ValueShape, check_note, check_secret_name
from asgi_token_auth.secrets.store import ENVIRONMENT_PREFIX, SecretStore
from asgi_token_auth.storage.idempotency import IdempotencyKey
from asgi_token_auth.web.host import AnyApp, Host, Section
from asgi_token_auth.web.http import CSRF_FIELD, HTTPError, json_answer, redirect
from asgi_token_auth.web.idempotency import FormTooOld
from asgi_token_auth.web.pages import PageRequest, Pages, Person, View, requests_only
from asgi_token_auth.wording import exact

#: Where the pages are in every app.
PATH: Final = "/-/secrets"

SECTION: Final = Section(title="Secrets", singular="secret", plural="secrets", path=PATH, action=MANAGE_SECRETS)

#: That a page lists; the JSON has all of them.
_MAX_VERSIONS: Final = 50

#: So many seconds the list says what was stored.
_NOTICE_SECONDS: Final = 60

_JSON_FIELDS: Final = {"value", "note"}
_FORM_FIELDS: Final = {"secret", "note", CSRF_FIELD}


@dataclass(slots=True)
class _Form:
    """What was sent to set a secret, and what is wrong with it. The value is never shown again."""

    value: str | None = field(default=None, repr=False)
    #: ``None``: as it is.
    note: str | None = None
    #: Field name to sentence. Nothing is changed unless it is empty.
    errors: dict[str, str] = field(default_factory=dict[str, str])


class SecretPages:
    """An ASGI app with the pages of ``store``, to be mounted anywhere; ``from_config`` does so at ``/-/secrets``.

    It must stand inside of the :class:`~asgi_token_auth.middleware.TokenAuthMiddleware`, so that a request
    that comes with a token is known as such, and refused.

    Args:
        signed_in: the app's own way to say who is asking: a function of the scope, async or not.
        permissions: allow blocks by action; here ``manage-secrets``. What has none is denied.
        only_registered: nobody can use a secret that was not registered; the pages say so, and offer no others.
        trusted_origins: those whose forms are taken although the Host header is another, because a proxy changes it.
        host: the app around the pages, where it is not just any ASGI app.

    Raises:
        ConfigurationError: ``signed_in`` is no function, or one of ``trusted_origins`` no origin.
    """

    def __init__(
        self,
        store: SecretStore,
        *,
        signed_in: SignedIn | None = None,
        permissions: Mapping[str, Any] | None = None,
        only_registered: bool = False,
        trusted_origins: Collection[str] = (),
        host: Host | None = None,
    ) -> None:
        self._store = store
        self._only_registered = only_registered
        self._host = host or AnyApp(signed_in=signed_in, permissions=permissions or {})
        routes: list[tuple[str, View, str]] = [
            (r"(?:\.json)?/?", self._list, "GET"),
            (r"/(?P<rest>.+)", self._secret, "GET POST"),
        ]
        self._pages = Pages(SECTION, self._host, routes, clock=store.clock, trusted_origins=trusted_origins)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request; ``root_path`` is where the pages are mounted."""
        await self._pages(scope, receive, send)

    # Views

    async def _list(self, request: PageRequest) -> Response:
        manager = await self._manager(request)
        if not request.as_json and (wanted := request.query.get("name", "").strip()):
            return redirect(f"{request.base}/{link_to(check_secret_name(wanted))}")
        records = await self._store.list()
        if request.as_json:
            return json_answer({"ok": True, "secrets": [secret_json(record) for record in records]})
        return await self._pages.page(
            request,
            SECTION.title,
            "secrets/list.html",
            records=records,
            stored=await self._just_stored(manager, records),
            names=await self._names(records),
            link_to=link_to,
            only_registered=self._only_registered,
            offers_more=self._store.can_encrypt and not self._only_registered,
            can_encrypt=self._store.can_encrypt,
        )

    async def _secret(self, request: PageRequest, rest: str) -> Response:
        manager = await self._manager(request)
        name = rest.removesuffix(".json") if request.as_json else rest
        if request.is_post:
            return await self._change(request, manager, name)
        if request.as_json:
            record, history = await self._store.get(name), await self._store.history(name)
            return json_answer(
                {"ok": True, "details": secret_json(record), "versions": [version_json(one) for one in history]}
            )
        return await self._secret_page(request, name, _Form())

    async def _change(self, request: PageRequest, manager: Person, name: str) -> Response:
        try:
            return await self._change_once(request, manager, name)
        except AlreadyDone as done:
            return await self._repeated(request, name, done)

    async def _change_once(self, request: PageRequest, manager: Person, name: str) -> Response:
        values = await request.read_actions("delete")
        if "delete" in values:
            if not requests_only("delete", values):
                raise HTTPError(400, "Send either delete, or what the secret shall be.")
            key = await self._new_key(request, manager, f"delete {name}")
            record = await self._store.delete(name, by=manager.id, idempotency_key=key)
            return self._changed(request, record)
        check_secret_name(name)
        form = _read_json(values) if request.as_json else _read_form(values)
        try:
            return await self._set(request, manager, name, form)
        except IdempotencyKeyReused as done:
            if request.as_json:
                raise
            form.errors["form"] = (
                "This form was used before, and what was sent now is something else. Look at what the secret is now, "
                f"and send it again if that shall change. (It was {done.event} {exact(done.at)}.)"
            )
            return await self._secret_page(request, name, form, status=409)
        except FormTooOld:
            form.errors["form"] = (
                "This form was loaded more than a day ago. Look at what the secret is now, and send it again."
            )
            return await self._secret_page(request, name, form, status=409)

    async def _set(self, request: PageRequest, manager: Person, name: str, form: _Form) -> Response:
        key = await self._new_key(request, manager, f"set {name}")
        before = await self._find(name)
        if before is not None and before.source == "environment":
            raise HTTPError(400, f"{_from_environment(name)} It cannot be set here: change the variable there.")
        if not form.errors and form.value is None and (before is None or before.version is None):
            form.errors["value" if request.as_json else "secret"] = "Give the value; this secret is not set yet."
        if not form.errors and form.value is None and form.note is None:
            form.errors["form"] = "Give a value, a note or both."
        if not form.errors:
            try:
                return self._changed(request, await self._write(name, form, manager, key))
            except InvalidInput as error:
                form.errors["value" if request.as_json else "secret"] = str(error)
        if request.as_json:
            raise HTTPError(400, " ".join(form.errors.values()), errors=form.errors)
        return await self._secret_page(request, name, form, status=400)

    async def _write(self, name: str, form: _Form, manager: Person, key: IdempotencyKey | None) -> SecretRecord:
        if not self._store.can_encrypt:
            raise HTTPError(400, _NO_KEY)
        if form.value is None:
            return await self._store.set_note(name, form.note, by=manager.id, idempotency_key=key)
        return await self._store.set(name, form.value, note=form.note, by=manager.id, idempotency_key=key)

    async def _new_key(self, request: PageRequest, manager: Person, action: str) -> IdempotencyKey | None:
        """The key of what was sent, which was not used before."""
        key = request.key(manager, action)
        await self._store.refuse_repeat(key, by=manager.id, action=action)
        return key

    async def _repeated(self, request: PageRequest, name: str, done: AlreadyDone) -> Response:
        """The answer to a repeat of the same: nothing more was done."""
        if not request.as_json:
            return redirect(request.base)
        record = await self._find(name)
        what = {"event": done.event, "version": done.subject, "at": exact(done.at)}
        details = None if record is None else secret_json(record)
        return json_answer({"ok": True, "repeated": True, "done": what, "details": details})

    def _changed(self, request: PageRequest, record: SecretRecord) -> Response:
        return json_answer({"ok": True, "details": secret_json(record)}) if request.as_json else redirect(request.base)

    # Who, and what there is

    async def _manager(self, request: PageRequest) -> Person:
        person = await self._pages.person(request)
        if person.token is not None:
            raise self._pages.token_refused()
        if not await self._pages.has_permission(request, person, MANAGE_SECRETS):
            raise HTTPError(403, no_permission("manage secrets", MANAGE_SECRETS))
        return person

    async def _find(self, name: str) -> SecretRecord | None:
        try:
            return await self._store.get(name)
        except SecretNotFound:
            return None

    async def _names(self, records: Iterable[SecretRecord]) -> Mapping[str, str]:
        people = {who for record in records for who in (record.updated_by, record.last_used_by) if who}
        return await self._host.names(people)

    async def _just_stored(self, manager: Person, records: Iterable[SecretRecord]) -> tuple[str, ValueShape] | None:
        """What this person stored just now: its name and its shape, which tell whether all of it arrived."""
        own = [one for one in records if one.source == "stored" and one.created_by == manager.id and one.created_at]
        # Of the value: whoever changes a note has stored nothing.
        latest = max(own, key=lambda one: one.created_at or 0, default=None)
        if latest is None or not 0 <= self._store.clock() - (latest.created_at or 0) <= _NOTICE_SECONDS:
            return None
        try:
            shape = await self._store.shape(latest.name)
        except SecretUnreadable:
            return None
        return None if shape is None else (latest.name, shape)

    # Pages

    async def _secret_page(self, request: PageRequest, name: str, form: _Form, *, status: int = 200) -> Response:
        record = await self._find(name)
        if record is None:
            # A page to set a secret of that name: there is one for every name that can be one, and for what
            # datasette-secrets stored under another, which must be seen to be deleted.
            check_secret_name(name)
        history = () if record is None else await self._store.history(name)
        people = {who for one in history for who in (one.created_by, one.updated_by, one.deleted_by, one.last_used_by)}
        return await self._pages.page(
            request,
            name,
            "secrets/detail.html",
            status_code=status,
            name=name,
            record=record,
            form=form,
            history=history,
            names=await self._host.names({who for who in people if who}),
            action=f"{request.base}/{link_to(name)}",
            from_environment=_from_environment(name) if record and record.source == "environment" else None,
            no_key=None if self._store.can_encrypt else _NO_KEY,
            nobody_asks=self._only_registered and not (record and record.registered),
            max_note=MAX_NOTE,
            max_versions=_MAX_VERSIONS,
        )


_NO_KEY: Final = (
    "There is no encryption key, so no secret can be set here. Configure one, or use environment variables whose names "
    f"start with {ENVIRONMENT_PREFIX}."
)


def link_to(name: str) -> str:
    """The part of a path that stands for the secret ``name``."""
    # Rows written by hand can hold what is no text.
    quoted = quote(name, safe="", errors="replace")
    # Only what was sent so asks for JSON.
    return quoted.removesuffix(".json") + "%2Ejson" if quoted.endswith(".json") else quoted


def _read_form(fields: Mapping[str, Any]) -> _Form:
    form = _Form()
    if fields.keys() - _FORM_FIELDS:
        form.errors["form"] = "There is a field in this form that does not belong to it. Reload the page and try again."
    # HTML has every line of a form end with CR LF, whatever was typed or pasted; everything else is as it was given.
    value = fields.get("secret", "").replace("\r\n", "\n")
    form.value = value if value.strip() else None
    if value and form.value is None:
        form.errors["secret"] = "A secret must be text, and not empty. To change the note only, leave the field empty."
    if "note" in fields:
        form.note = _note(fields["note"])
        _check_note(form)
    return form


def _read_json(values: Mapping[str, Any]) -> _Form:
    form = _Form()
    if values.keys() - _JSON_FIELDS:
        # It is not repeated: it may be a value in the wrong place.
        form.errors["form"] = "There is a field that is none here; the fields are value and note, or delete alone."
    if "value" in values:
        if isinstance(values["value"], str) and values["value"]:
            form.value = values["value"]
        else:
            form.errors["value"] = "A value is text, and not empty."
    if "note" in values:
        note = values["note"] if values["note"] is not None else ""
        if isinstance(note, str):
            form.note = _note(note)
            _check_note(form)
        else:
            form.errors["note"] = "A note is text; null or an empty one for none."
    if not values:
        form.errors["form"] = "Send value, note or both, or delete."
    return form


def _note(text: str) -> str:
    # Blanks alone are nothing to read, and in the list nobody would see them.
    return text if text.strip() else ""


def _check_note(form: _Form) -> None:
    if form.note is not None and len(form.note) > MAX_NOTE:
        form.errors["note"] = f"A note has at most {MAX_NOTE} characters; this one has {len(form.note):,}."
        return
    try:
        check_note(form.note)
    except InvalidInput as error:
        form.errors["note"] = str(error)


def _from_environment(name: str) -> str:
    return f"This secret comes from the environment variable {ENVIRONMENT_PREFIX}{name}."
