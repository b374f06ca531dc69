"""What every set of pages shares: routes, who is asking, errors as a page or as JSON, headers, the frame."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from asgi_token_auth.access.origins import check_origins
from asgi_token_auth.access.signed_in import SignedInFailed
from asgi_token_auth.authentication import Authenticated
from asgi_token_auth.errors import IdempotencyKeyReused, InvalidInput, SecretNotFound, StorageError, TokenNotFound
from asgi_token_auth.middleware import OUTCOME_KEY
from asgi_token_auth.restrictions import Restrictions
from asgi_token_auth.storage.idempotency import IdempotencyKey
from asgi_token_auth.storage.outages import OutageLog
from asgi_token_auth.storage.parts import PartlyDone
from asgi_token_auth.web.cross_origin import cross_origin_reason
from asgi_token_auth.web.host import Frame, Host, Link, Section, id_of
from asgi_token_auth.web.http import (
    CSRF_FIELD,
    MAX_BODY,
    HTTPError,
    html,
    in_thread,
    json_error,
    read_form_body,
    read_json_body,
)
from asgi_token_auth.web.idempotency import FORM_KEY, key_of, new_form_key
from asgi_token_auth.web.mount import path_inside, root_of
from asgi_token_auth.web.templates import render

logger: Final = logging.getLogger("asgi_token_auth")

_STATIC: Final = Path(__file__).parent / "static"
_ASSETS: Final = ("/static/pages.css", "/static/pages.js")

#: A view of one address: a request, and the named groups of the address but ``json``.
View: TypeAlias = Callable[..., Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Person:
    """Who is asking."""

    actor: Mapping[str, Any]
    id: str
    #: The token that they came by, if any.
    token: Authenticated | None
    #: What they are limited to, by that token or otherwise.
    limits: Restrictions | None

    def within_limits(self, action: str) -> bool:
        """Whether their limits name ``action``. It is for the host to say whether they may, besides."""
        return self.limits is None or self.limits.allows(action)


@dataclass(slots=True)
class PageRequest:
    """One request for a page."""

    http: Request
    #: The path of the pages as it stands in links, percent-encoded.
    base: str
    #: Whether the address asks for JSON.
    as_json: bool
    #: When it came, in seconds since the epoch.
    now: float
    #: The most bytes of JSON that it may bring.
    longest_json: int = MAX_BODY
    #: Who is asking, once that is known.
    person: Person | None = None
    _form_key: str | None = field(default=None, init=False)
    _sent: Mapping[str, Any] = field(default_factory=dict[str, Any], init=False, repr=False)

    @property
    def is_post(self) -> bool:
        """Whether something is to be changed."""
        return self.http.method == "POST"

    @property
    def query(self) -> Mapping[str, str]:
        """What follows the question mark; of a repeated name the last."""
        return self.http.query_params

    async def read_body(self) -> dict[str, Any]:
        """The JSON object or the fields of the form that were sent, but for the form's key.

        Raises:
            HTTPError: 413, 415 or 400.
        """
        sent: dict[str, Any]
        if self.as_json:
            sent = await read_json_body(self.http, longest=self.longest_json)
        else:
            sent = dict(await read_form_body(self.http))
            self._form_key = sent.pop(FORM_KEY, None)
        self._sent = {name: value for name, value in sent.items() if name != CSRF_FIELD}
        return sent

    @property
    def form_key(self) -> str | None:
        """The key of the form that was sent and is read, or that stands in the address of one; ``None``: there is none.

        Nobody has looked yet whether it can be one.
        """
        return self._form_key if self.is_post else self.query.get(FORM_KEY)

    @property
    def is_navigation(self) -> bool:
        """Whether a browser asks that will show the page, or anything else that asks for HTML by name."""
        return not self.as_json and "text/html" in self.http.headers.get("accept", "").lower()

    def key(self, person: Person, action: str) -> IdempotencyKey | None:
        """The key under which what was sent, and is read, is done once; ``None``: as often as it is sent.

        Args:
            action: what it is used for, as the method of the store that will be given the key calls it.

        Raises:
            HTTPError: 400 or 409: it is none, or belongs to somebody or something else.
        """
        token_id = None if person.token is None else person.token.auth.token_id
        return key_of(self.http.headers, self._form_key, person.id, action, self._sent, token_id, self.now)

    async def read_actions(self, *buttons: str) -> dict[str, Any]:
        """The body, where a form's ``buttons`` are the ``true`` of JSON.

        Raises:
            HTTPError: 413, 415 or 400.
        """
        sent = await self.read_body()
        if self.as_json:
            return sent
        return {k: True if k in buttons and value else value for k, value in sent.items() if k != CSRF_FIELD}


def requests_only(action: str, values: Mapping[str, Any], *more: str) -> bool:
    """Whether ``action`` is asked for, and nothing but ``more`` besides. In JSON ``"false"`` is no yes."""
    return values.get(action) is True and not values.keys() - {action, *more}


class Pages:
    """An ASGI app that finds the view of a request and answers whatever goes wrong in it.

    Args:
        routes: a pattern of what follows the path of the pages, its view, and the methods that it takes.
        clock: says how long ago a time on a page was.
        longest_json: the most bytes of JSON that the views take.
        trusted_origins: those whose forms are taken although Host is another.

    Raises:
        ConfigurationError: one of them is no origin.
    """

    def __init__(
        self,
        section: Section,
        host: Host,
        routes: Iterable[tuple[str, View, str]],
        *,
        clock: Callable[[], float],
        longest_json: int = MAX_BODY,
        trusted_origins: Collection[str] = (),
    ) -> None:
        self._section = section
        self._longest_json = longest_json
        self._trusted_origins = check_origins(trusted_origins)
        self.host = host
        self._clock = clock
        self._outage = OutageLog(logger, f"a page of {section.plural} could not be served")
        self._routes: list[tuple[re.Pattern[str], View, str]] = [
            (re.compile(pattern, re.DOTALL), view, methods) for pattern, view, methods in routes
        ]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request; ``root_path`` is where the pages are mounted."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000, "reason": ""})
            return
        # From here on it stands in links and in Location, where only ASCII may.
        base = quote(root_of(scope), safe="/%~:@!$&'()*+,;=")
        as_json = _path_ends_with(scope, ".json")
        request = PageRequest(Request(scope, receive), base, as_json, self._clock(), self._longest_json)
        response = await self._answer(request, path_inside(scope))
        if request.http.method == "HEAD":
            # The length stays that of the page.
            response.body = b""
        await response(scope, receive, send)

    async def person(self, request: PageRequest) -> Person:
        """Who is asking. Whoever came by a token of ours has it in ``token``; whether it will do is for the view.

        Raises:
            HTTPError: 403 for nobody, for whoever has no id, and for whoever came by another kind of token.
            StorageError: it cannot be found out.
        """
        scope = request.http.scope
        actor = await self.host.actor(scope)
        actor_id = id_of(actor)
        if actor is None or actor_id is None:
            raise HTTPError(403, self._why_nobody(actor))
        outcome = scope.get(OUTCOME_KEY)
        token = outcome if isinstance(outcome, Authenticated) else None
        if token is None and actor.get("token"):
            raise self.token_refused()
        request.person = Person(
            actor, actor_id, token, _limits_of_actor(actor) if token is None else token.restrictions
        )
        return request.person

    def _why_nobody(self, actor: Mapping[str, Any] | None) -> str:
        sentence = f"You must be logged in as an actor with an ID to look after {self._section.plural}."
        if not actor:
            return f"{sentence} {self.host.about_nobody}".rstrip()
        if not actor.get("id"):
            return f"{sentence} The one that you are logged in as has none."
        return (
            f"{sentence} Yours is of the type {type(actor['id']).__name__}; it must be text, a whole number or a UUID."
        )

    def token_refused(self) -> HTTPError:
        """The error for whoever came by a token where a person is needed."""
        return HTTPError(403, f"A token cannot be used to look after {self._section.plural}; log in without one.")

    async def has_permission(self, request: PageRequest, person: Person, action: str) -> bool:
        """Whether they may do ``action``, within what they are limited to."""
        return person.within_limits(action) and await self.host.allowed(request.http.scope, person.actor, action)

    async def page(
        self, request: PageRequest, title: str, template: str, *, status_code: int = 200, **values: Any
    ) -> Response:
        """The page that ``template`` makes of ``values``; ``form_key`` among them: the keys of its forms, by action."""
        notice = await self.host.notice()
        who = "" if request.person is None else request.person.id
        values = {"form_key": partial(new_form_key, who, request.now), **values}
        # The form of a token that names a thousand tables takes a tenth of a second, which others need not wait for.
        content = await in_thread(render, template, base=request.base, notice=notice, now=request.now, **values)
        return await self._in_frame(request, title, content, status_code)

    async def _answer(self, request: PageRequest, path: str) -> Response:
        http, section = request.http, self._section
        try:
            if path in _ASSETS and _path_ends_with(http.scope, path):
                return self._asset(http, path)
            for pattern, view, methods in self._routes:
                if (match := pattern.fullmatch(path)) is None:
                    continue
                _check_method(http, methods)
                if (
                    reason := cross_origin_reason(http.method, http.headers, trusted=self._trusted_origins)
                ) is not None:
                    raise HTTPError(403, reason)
                return await view(request, **{k: v for k, v in match.groupdict().items() if k != "json"})
            raise HTTPError(404, f"There is no such page; all {section.plural} are at {request.base or '/'}.")
        except HTTPError as error:
            return await self._error(request, error)
        except (TokenNotFound, SecretNotFound):
            return await self._error(request, HTTPError(404, f"There is no such {section.singular} for you."))
        except InvalidInput as error:
            return await self._error(request, HTTPError(400, str(error)))
        except IdempotencyKeyReused as error:
            return await self._error(request, HTTPError(422 if request.as_json else 409, str(error)))
        except StorageError as error:
            self._outage.note(str(error))
            message = f"The {section.plural} cannot be reached at the moment; nothing was changed. Try again soon."
            if isinstance(error, SignedInFailed):
                message = "It cannot be found out who you are; nothing was changed. The server's log says why."
            elif isinstance(error, PartlyDone):
                message = (
                    f"Not all was done, because the {section.plural} cannot be reached any more. Send it again soon."
                )
            return await self._error(request, HTTPError(503, message, headers={"Retry-After": "5"}))

    def _asset(self, http: Request, path: str) -> Response:
        _check_method(http, "GET")
        headers = {"Cache-Control": "public, max-age=3600", "X-Content-Type-Options": "nosniff"}
        return FileResponse(_STATIC / path.rpartition("/")[2], headers=headers)

    async def _error(self, request: PageRequest, error: HTTPError) -> Response:
        if request.as_json:
            answer = json_error(error.status, error.message, error.errors)
        else:
            titles = {403: "Not permitted", 404: "Not found", 503: "Not available"}
            title = titles.get(error.status, "That did not work")
            back = None if error.status == 403 else f"All {self._section.plural}"
            content = render("message.html", title=title, message=error.message, base=request.base, back=back)
            answer = await self._in_frame(request, title, content, error.status)
        answer.headers.update(error.headers)
        return answer

    async def _in_frame(self, request: PageRequest, title: str, content: str, status: int) -> Response:
        links = await self._links(request, title)
        frame = Frame(self._section, title, content, request.base, f"{request.base}/static/pages", links)
        text = await self.host.frame(request.http.scope, frame)
        return html(text, policy=self.host.content_security_policy, status=status)

    async def _links(self, request: PageRequest, title: str) -> list[Link]:
        """To the lists of every section that this person may see; on a list without neighbours there are none."""
        own, person = self._section, request.person
        shown = [
            section
            for section in self.host.sections or [own]
            if section is own or (person is not None and await self._may_see(request, person, section))
        ]
        if len(shown) == 1 and title == own.title:
            return []
        root = request.base.removesuffix(own.path)
        return [
            Link(request.base if section is own else root + section.path, section.title, section.title == title)
            for section in shown
        ]

    async def _may_see(self, request: PageRequest, person: Person, section: Section) -> bool:
        if person.token is not None:
            return False
        return section.action is None or await self.has_permission(request, person, section.action)


def _check_method(http: Request, methods: str) -> None:
    method = "GET" if http.method == "HEAD" else http.method
    if method not in methods.split():
        allow = {"Allow": "HEAD, " + methods.replace(" ", ", ")}
        raise HTTPError(405, f"This address takes {' and '.join(methods.split())}, and nothing else.", headers=allow)


def _path_ends_with(scope: Mapping[str, Any], ending: str) -> bool:
    """Whether the address ends so, and as it was sent: a name in it may end so too, percent-encoded."""
    raw: bytes = scope.get("raw_path") or b""
    sent = raw.partition(b"?")[0].decode("latin-1") or scope["path"]
    return scope["path"].endswith(ending) and sent.endswith(ending)


def _limits_of_actor(actor: Mapping[str, Any]) -> Restrictions | None:
    """What an actor is limited to without a token, by a cookie for example. What cannot be read allows nothing."""
    if actor.get("_r") is None:
        return None
    try:
        return Restrictions.from_wire(actor["_r"])
    except InvalidInput:
        return Restrictions()
