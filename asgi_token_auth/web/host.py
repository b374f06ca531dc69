"""What the pages ask of the app that they stand in: who is asking, what they may do, and the frame around a page."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias
from uuid import UUID

from asgi_token_auth.access.permissions import CREATE_TOKENS, matches
from asgi_token_auth.access.signed_in import SignedIn, SignedInCall
from asgi_token_auth.errors import StorageError
from asgi_token_auth.middleware import OUTCOME_KEY
from asgi_token_auth.web.choices import Choices
from asgi_token_auth.web.templates import render

logger: Final = logging.getLogger("asgi_token_auth")

Scope: TypeAlias = MutableMapping[str, Any]
Actor: TypeAlias = Mapping[str, Any]

# Pages of ours load nothing but their own style sheet and script.
_STRICT_CSP = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)


_NO_SIGNED_IN: Final = "This server does not tell these pages who is logged in: whoever runs it can do so by signed_in."


@dataclass(frozen=True, slots=True)
class Section:
    """One set of pages, as the frame around them knows it."""

    #: Of the list, and of links to it.
    title: str
    #: What the pages manage, one and several.
    singular: str
    plural: str
    #: Where the pages are in every app.
    path: str
    #: What only people who may do it are shown a link to these pages for; ``None``: everybody with an id is.
    action: str | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A link at the head of a page."""

    href: str
    text: str
    #: Whether it leads to the page that it is on.
    here: bool


@dataclass(frozen=True, slots=True)
class Frame:
    """What goes around a page."""

    section: Section
    title: str
    #: The page itself, as HTML.
    content: str
    #: The path of the pages, percent-encoded.
    base: str
    #: Where, without ``.css`` and ``.js``, the style sheet and the script are.
    assets: str
    links: Sequence[Link]


def id_of(actor: Actor | None) -> str | None:
    """The id of an actor as text, which is what tokens and secrets are stored with; ``None`` where there is none."""
    value = actor.get("id") if actor else None
    if isinstance(value, UUID) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    return value if isinstance(value, str) and value else None


class Host(Protocol):
    """One app around the pages."""

    #: The Content-Security-Policy of every page.
    content_security_policy: str

    #: All sets of pages that the app has at their own paths, if links between them are to stand on each.
    sections: Sequence[Section]

    #: Told to whoever is nobody, besides that they must log in; may be empty.
    about_nobody: str

    async def actor(self, scope: Scope) -> Actor | None:
        """Who is asking.

        Raises:
            StorageError: it cannot be found out.
        """
        ...

    async def allowed(self, scope: Scope, actor: Actor, action: str) -> bool:
        """Whether they may, apart from what a restricted token or actor is limited to."""
        ...

    async def choices(self, scope: Scope, actor: Actor) -> Choices:
        """What a token may be restricted to."""
        ...

    async def names(self, actor_ids: Iterable[str]) -> Mapping[str, str]:
        """How to show actors; ids that are not in the answer are shown as they are."""
        ...

    async def frame(self, scope: Scope, frame: Frame) -> str:
        """The whole page."""
        ...

    async def notice(self) -> str | None:
        """A warning to show on every page, such as that tokens will be lost."""
        ...


class AnyApp:
    """Any ASGI app: allow blocks decide, and the pages bring a frame of their own."""

    content_security_policy = _STRICT_CSP

    def __init__(
        self,
        *,
        signed_in: SignedIn | None,
        permissions: Mapping[str, Any],
        scopes: Mapping[str, str] | None = None,
        sections: Sequence[Section] = (),
    ) -> None:
        self.sections = sections
        self._signed_in = None if signed_in is None else SignedInCall(signed_in)
        self.about_nobody = _NO_SIGNED_IN if signed_in is None else ""
        if signed_in is None:
            # Whoever wrote permissions wants the pages; others may never look at them.
            logger.log(
                logging.WARNING if permissions else logging.INFO,
                "there is no signed_in, so the pages let nobody in, unless a middleware outside of this one sets "
                "scope['actor']",
            )
        self._permissions = permissions
        self._choices = Choices(everywhere=scopes or {}, known=frozenset({CREATE_TOKENS}))

    async def actor(self, scope: Scope) -> Actor | None:
        """The actor of a token or of an outer middleware, else what ``signed_in`` says."""
        actor: Actor | None = scope.get("actor")
        if not actor and OUTCOME_KEY not in scope and self._signed_in is not None:
            actor = await self._signed_in(scope)
        return actor if isinstance(actor, Mapping) and actor else None

    async def allowed(self, scope: Scope, actor: Actor, action: str) -> bool:
        """The action's allow block; without one nobody may."""
        allow = self._permissions.get(action, False)
        # Allow blocks of JSON and TOML can name a UUID, and whatever else is known here as text, in this way only.
        return matches(actor, allow) or matches({**actor, "id": id_of(actor)}, allow)

    async def choices(self, scope: Scope, actor: Actor) -> Choices:
        """The scopes that the app declares."""
        return self._choices

    async def names(self, actor_ids: Iterable[str]) -> Mapping[str, str]:
        """Ids are all that is known."""
        return {}

    async def frame(self, scope: Scope, frame: Frame) -> str:
        """Our own layout."""
        try:
            actor = await self.actor(scope)
        except StorageError:
            # The page says so, and needs a frame to say it in.
            actor = None
        return render("layout.html", frame=frame, actor=actor)

    async def notice(self) -> str | None:
        """Nothing: the database is the operator's choice."""
        return None
