"""Hard-coded tokens: what is refused at construction, and whose actor is whose."""

import logging
import tracemalloc
from typing import Any

import pytest

from asgi_token_auth.authentication import Authenticated, Credential
from asgi_token_auth.errors import ConfigurationError
from asgi_token_auth.sources.static import StaticTokens

pytestmark = pytest.mark.anyio

TOKEN = "a-hard-coded-token-1"
OTHER = "a-hard-coded-token-2"


async def accepted(source: StaticTokens, token: str) -> Authenticated:
    outcome = await source.authenticate(Credential(token))
    assert isinstance(outcome, Authenticated)
    return outcome


async def test_each_token_has_its_actor() -> None:
    source = StaticTokens({TOKEN: {"id": "one", "name": "One"}, OTHER: {"id": 2}})
    assert (await accepted(source, TOKEN)).actor() == {"id": "one", "name": "One"}
    assert (await accepted(source, OTHER)).actor() == {"id": 2}


@pytest.mark.parametrize("token", ["", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), " " + TOKEN, "other", TOKEN + "\x00"])
async def test_nothing_but_the_whole_token_is_known(token: str) -> None:
    assert await StaticTokens({TOKEN: {"id": "one"}}).authenticate(Credential(token)) is None


@pytest.mark.parametrize(
    "token",
    ["with-some-hyphens-in-it", "colon:and/slash+plus=~._", "'quoted\"-and-\\escaped", "dsatokX1234567890", "a" * 8192],
)
async def test_every_token_that_can_be_sent_works(token: str) -> None:
    """D18: hyphens mean nothing here."""
    assert (await accepted(StaticTokens({token: {"id": "one"}}), token)).actor() == {"id": "one"}


BAD_TOKENS: dict[str, tuple[Any, str]] = {
    "D21 empty": ("", "has an empty token"),
    "D22 null": (None, "is not a string"),
    "D22 a number": (5, "is not a string"),
    "bytes": (b"a-hard-coded-token-1", "is not a string"),
    "D19 beyond ASCII": ("a-hard-coded-tokén-1", "cannot be sent"),
    "a lone surrogate": ("a-hard-coded-token\ud800", "cannot be sent"),
    "a space within": ("a-hard-coded token-1", "cannot be sent"),
    "a space at the end": ("a-hard-coded-token-1 ", "cannot be sent"),
    "a comma": ("a-hard-coded,token-1", "cannot be sent"),
    "a line break at the end": ("a-hard-coded-token-1\n", "cannot be sent"),
    "a NUL": ("a-hard-coded-token\x00", "cannot be sent"),
    "too long": ("a" * 8193, "cannot be sent"),
    "the prefix of managed tokens": ("dsatok_hard-coded-token", "starts with one of dsatok_, dstok_"),
    "the prefix of signed tokens": ("dstok_hard-coded-token", "starts with one of dsatok_, dstok_"),
}


@pytest.mark.parametrize(("token", "message"), BAD_TOKENS.values(), ids=BAD_TOKENS.keys())
def test_a_token_that_could_not_work_is_refused_by_its_number(token: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^tokens: number 2 ") as caught:
        StaticTokens({TOKEN: {"id": "one"}, token: {"id": "two"}})
    assert message in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert "hard-coded" not in str(caught.value)


cyclic: dict[str, Any] = {"id": "one"}
cyclic["self"] = cyclic

BAD_ACTORS: dict[str, tuple[Any, str]] = {
    "D22 null": (None, "needs an actor"),
    "D22 a string": ("root", "needs an actor"),
    "a list": (["root"], "needs an actor"),
    "empty": ({}, "needs an actor"),
    "without an id": ({"name": "One"}, "without an id"),
    "an id of null": ({"id": None}, "without an id"),
    "an empty id": ({"id": ""}, "without an id"),
    "an id that is an object": ({"id": {"id": 1}}, "whose id is no string"),
    "an id that is a list": ({"id": ["one"]}, "whose id is no string"),
    "an id that is true": ({"id": True}, "whose id is no string"),
    "no JSON": ({"id": "one", "what": object()}, "not plain JSON"),
    "bytes inside": ({"id": "one", "key": b"secret"}, "not plain JSON"),
    "no number": ({"id": "one", "limit": float("nan")}, "not plain JSON"),
    "no text": ({"id": "one\ud800"}, "not plain JSON"),
    "itself inside": (cyclic, "not plain JSON"),
    "restrictions of null": ({"id": "one", "_r": None}, "no set of restrictions"),
    "restrictions that are a list": ({"id": "one", "_r": ["vt"]}, "no set of restrictions"),
    "restrictions that are half good": ({"id": "one", "_r": {"a": ["vt"], "d": []}}, "no set of restrictions"),
}


@pytest.mark.parametrize(("actor", "message"), BAD_ACTORS.values(), ids=BAD_ACTORS.keys())
def test_an_actor_that_could_not_work_is_refused_by_its_number(actor: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^tokens: number 1 ") as caught:
        StaticTokens({TOKEN: actor})
    assert message in str(caught.value)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("tokens", [None, [TOKEN], TOKEN, [(TOKEN, {"id": "one"})]])
def test_the_tokens_are_an_object(tokens: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^tokens: give an object") as caught:
        StaticTokens(tokens)
    assert TOKEN not in str(caught.value)


async def test_changing_an_actor_changes_nobody_elses() -> None:
    given = {"id": "one", "_r": {"a": ["vt"], "d": {"db": ["es"]}}, "teams": [{"name": "a"}]}
    expected = {"id": "one", "_r": {"a": ["vt"], "d": {"db": ["es"]}}, "teams": [{"name": "a"}]}
    source = StaticTokens({TOKEN: given})
    given["id"] = "mallory"
    given["_r"]["a"].append("dt")  # type: ignore[index]
    first = (await accepted(source, TOKEN)).actor()
    assert first == expected
    first["id"] = "mallory"
    first["new"] = 1
    first["_r"]["a"].append("dt")
    first["_r"]["d"]["db"].append("dt")
    first["teams"][0]["name"] = "b"
    del first["_r"]
    assert (await accepted(source, TOKEN)).actor() == expected


async def test_a_flat_actor_is_copied_too() -> None:
    source = StaticTokens({TOKEN: {"id": "one"}})
    (await accepted(source, TOKEN)).actor()["id"] = "mallory"
    assert (await accepted(source, TOKEN)).actor() == {"id": "one"}


async def test_restrictions_are_read_from_the_actor() -> None:
    outcome = await accepted(StaticTokens({TOKEN: {"id": "one", "_r": {"a": ["vt"]}}}), TOKEN)
    assert outcome.restrictions is not None
    assert outcome.restrictions.allows("view-table")
    assert not outcome.restrictions.allows("drop-table")
    assert outcome.auth.scopes == ("authenticated", "vt", "view-table")


async def test_what_is_known_of_the_token_stands_in_auth() -> None:
    auth = (await accepted(StaticTokens({TOKEN: {"id": "one"}}), TOKEN)).auth
    assert (auth.source, auth.token_id, auth.expires_at) == ("static", None, None)
    assert await auth.recheck()


async def test_ten_thousand_tokens_cost_a_look_up_no_more_than_one() -> None:
    """Counted in what a look-up allocates, since a clock would tell the machine's mood."""
    many = StaticTokens({f"a-hard-coded-token-{n}": {"id": str(n)} for n in range(10_000)})
    one = StaticTokens({TOKEN: {"id": "1"}})
    assert (await accepted(many, "a-hard-coded-token-9999")).actor() == {"id": "9999"}
    peaks = []
    for source in (one, many):
        for token in (TOKEN, "unknown"):
            credential = Credential(token)
            await source.authenticate(credential)
            tracemalloc.start()
            await source.authenticate(credential)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert max(peaks) < 4_000


class Colliding(str):
    """A string with the hash of every other of its kind."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 1


async def test_tokens_of_one_hash_are_told_apart() -> None:
    source = StaticTokens({Colliding(TOKEN): {"id": "one"}, Colliding(OTHER): {"id": "two"}})
    assert (await accepted(source, Colliding(TOKEN))).actor() == {"id": "one"}
    assert (await accepted(source, Colliding(OTHER))).actor() == {"id": "two"}
    assert await source.authenticate(Credential(Colliding("unknown"))) is None


def test_a_short_token_is_a_warning_that_names_its_actor(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        StaticTokens({"hunter2": {"id": "bot"}, "exactly16letters": {"id": "other"}})
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "'bot'" in caplog.text
    assert "hunter2" not in caplog.text


async def test_nothing_tells_a_token(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        source = StaticTokens({TOKEN: {"id": "one"}})
        outcome = await accepted(source, TOKEN)
    shown = repr([source, outcome, outcome.auth, outcome.user, Credential(TOKEN)]) + str(source) + caplog.text
    assert TOKEN not in shown
    assert repr(source) == "StaticTokens(<1 hidden>)"
