"""What an outcome holds: scopes, user, an actor of its own for each request."""

import copy
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from starlette.authentication import has_required_scope
from starlette.requests import HTTPConnection

from asgi_token_auth.authentication import (
    Authenticated,
    Credential,
    Recheck,
    TokenUser,
    accept,
)
from asgi_token_auth.chain import Chain, authenticate
from asgi_token_auth.restrictions import Restrictions
from tests.support.sources import FakeSource

pytestmark = pytest.mark.anyio


async def recheck() -> bool:
    return True


def accepted(actor: Mapping[str, Any], restrictions: Restrictions | None = None) -> Authenticated:
    return Authenticated(actor, source="fake", recheck=recheck, restrictions=restrictions)


async def test_recheck_asks_the_source_again() -> None:
    actors: list[dict[str, str] | None] = [{"id": "one"}, {"id": "one"}, None]

    async def plain(token: str) -> dict[str, str] | None:
        return actors.pop(0)

    outcome = await authenticate(Chain.of([plain]), Credential("t"))
    assert isinstance(outcome, Authenticated)
    assert await outcome.auth.recheck()
    assert not await outcome.auth.recheck()


SCOPES: dict[str, tuple[dict[str, Any], Restrictions | None, tuple[str, ...]]] = {
    "unrestricted: nothing is granted by absence": ({"id": "one"}, None, ("authenticated",)),
    "restricted to nothing": ({"id": "one"}, Restrictions(), ("authenticated",)),
    "global actions": (
        {"id": "one"},
        Restrictions().allow_all("edit").allow_all("view-table"),
        ("authenticated", "edit", "view-table"),
    ),
    "an abbreviation and its long name": (
        {"id": "one"},
        Restrictions().allow_all("vt"),
        ("authenticated", "vt", "view-table"),
    ),
    "an action on one database is no scope": (
        {"id": "one"},
        Restrictions().allow_database("one", "edit").allow_resource("one", "people", "edit"),
        ("authenticated",),
    ),
    "what the actor lists itself": (
        {"id": "one", "scopes": ["a", "b", "a", 5, None]},
        None,
        ("authenticated", "a", "b"),
    ),
    "scopes that are no list": ({"id": "one", "scopes": "admin"}, None, ("authenticated",)),
}


@pytest.mark.parametrize(("actor", "restrictions", "scopes"), SCOPES.values(), ids=SCOPES.keys())
def test_scopes_are_what_somebody_wrote_down(
    actor: dict[str, Any], restrictions: Restrictions | None, scopes: tuple[str, ...]
) -> None:
    auth = accepted(actor, restrictions).auth
    assert auth.scopes == scopes
    connection = HTTPConnection({"type": "http", "headers": [], "auth": auth})
    assert has_required_scope(connection, list(scopes))
    assert not has_required_scope(connection, ["admin"])


DISPLAYED = {
    "the id": ({"id": "one"}, "one", "one"),
    "a number": ({"id": 5}, "5", "5"),
    "display before name": ({"id": "one", "name": "N", "display": "D"}, "one", "D"),
    "name before username": ({"id": "one", "username": "U", "name": "N"}, "one", "N"),
    "username before login": ({"id": "one", "login": "L", "username": "U"}, "one", "U"),
    "login": ({"id": "one", "login": "L"}, "one", "L"),
    "an empty name": ({"id": "one", "name": ""}, "one", "one"),
    "no id": ({"name": "N"}, "", "N"),
}


@pytest.mark.parametrize(("actor", "identity", "name"), DISPLAYED.values(), ids=DISPLAYED.keys())
def test_the_user_is_shown_as_datasette_shows_an_actor(actor: dict[str, Any], identity: str, name: str) -> None:
    user = TokenUser(actor)
    assert (user.is_authenticated, user.identity, user.display_name) == (True, identity, name)


@pytest.mark.parametrize(
    "actor",
    [
        {"id": "one"},
        {"id": "one", "_r": {"a": ["vt"], "d": {"one": ["es"]}}},
        {"id": "one", "teams": [["a"], {"name": "b"}]},
        {"id": "one", "teams": ({"name": "a"}, ["b"])},
        {"id": "one", "teams": {"a", "b"}},
        MappingProxyType({"id": "one", "teams": ["a"]}),
    ],
)
def test_every_call_gives_an_actor_of_its_own(actor: Mapping[str, Any]) -> None:
    outcome, before = accepted(actor), copy.deepcopy(dict(actor))
    first = outcome.actor()
    assert type(first) is dict
    assert first == before
    spoil(first)
    assert outcome.actor() == before


def spoil(value: Any) -> None:
    """Change everything within ``value`` that can be changed."""
    if isinstance(value, dict):
        for inner in value.values():
            spoil(inner)
        value.clear()
    elif isinstance(value, (list, tuple)):
        for inner in value:
            spoil(inner)
        if isinstance(value, list):
            value.clear()
    elif isinstance(value, set):
        value.clear()


def test_no_repr_tells_the_token() -> None:
    credential = Credential("a-secret-token", "127.0.0.1")
    assert repr(credential) == "Credential(<hidden>)"
    source = FakeSource("fake", [])
    assert "a-secret-token" not in repr(accept({"id": "one"}, source=source, credential=credential).auth)
    assert repr(Recheck(source, credential)) == "Recheck('fake')"
    outcome = accepted({"id": "one", "key": "a-secret-token"})
    assert repr(outcome) == "Authenticated('one', source='fake')"
    assert "a-secret-token" not in repr([credential, outcome, outcome.auth, outcome.user])
