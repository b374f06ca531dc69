"""In which order sources are asked, and who answers for a token."""

from typing import Any

import pytest

from asgi_token_auth.authentication import (
    Authenticated,
    Credential,
    Outcome,
    Reason,
    Rejected,
    Source,
)
from asgi_token_auth.chain import CallableSource, Chain, authenticate
from asgi_token_auth.errors import ConfigurationError, StorageError
from asgi_token_auth.sources.static import StaticTokens
from tests.support.sources import FakeSource

pytestmark = pytest.mark.anyio


# exact, owner of dsatok_, owner of dsatok_long_, open; the token; what comes of it; who was asked.
CHAIN = {
    "a token without a prefix goes past the owners": ("pass", "pass", "pass", "accept", "t", "open", "exact open"),
    "an exact match comes first": ("accept", "fail", "fail", "fail", "dsatok_t", "exact", "exact"),
    "an exact source may refuse": ("reject", "accept", "accept", "accept", "t", "expired", "exact"),
    "the owner of a prefix decides": ("pass", "accept", "fail", "fail", "dsatok_t", "owner", "exact owner"),
    "the longest prefix owns": ("pass", "fail", "accept", "fail", "dsatok_long_t", "long", "exact long"),
    "an owner's refusal is final": ("pass", "reject", "accept", "accept", "dsatok_t", "expired", "exact owner"),
    "an owner that does not know it is not followed": (
        "pass",
        "pass",
        "accept",
        "accept",
        "dsatok_t",
        None,
        "exact owner",
    ),
    "a reserved prefix without an owner is never asked of others": (
        "pass",
        "pass",
        "pass",
        "accept",
        "dstok_t",
        "this kind of token is switched off",
        "exact",
    ),
    "an open source may refuse": ("pass", "pass", "pass", "reject", "t", "expired", "exact open"),
    "nobody knows it: the plain function is asked last": (
        "pass",
        "pass",
        "pass",
        "pass",
        "t",
        None,
        "exact open plain",
    ),
    "a fault is not followed by the next source": ("fail", "accept", "accept", "accept", "t", "fault", "exact"),
    "an owner's fault is not followed": ("pass", "fail", "accept", "accept", "dsatok_t", "fault", "exact owner"),
    "an open source's fault is not followed": ("pass", "pass", "pass", "fail", "t", "fault", "exact open"),
}


def described(outcome: Outcome) -> str | None:
    match outcome:
        case Authenticated():
            return outcome.user.identity
        case Rejected():
            return str(outcome.reason)
    return None


@pytest.mark.parametrize(
    ("exact", "owner", "long", "open_", "token", "expected", "order", "with_exact"),
    [
        *(pytest.param(*row, True, id=name) for name, row in CHAIN.items()),
        *(pytest.param(*row, False, id=f"{name}, no exact source") for name, row in CHAIN.items() if row[0] == "pass"),
    ],
)
async def test_sources_are_asked_in_order_and_the_first_answer_decides(
    exact: str, owner: str, long: str, open_: str, token: str, expected: str | None, order: str, with_exact: bool
) -> None:
    asked: list[str] = []

    async def plain(token: str) -> None:
        asked.append("plain")

    # Given backwards, so that the order is the chain's own.
    sources: list[Source | CallableSource] = [
        plain,
        FakeSource("open", asked, answer=open_),
        FakeSource("owner", asked, answer=owner, prefixes=("dsatok_",)),
        FakeSource("long", asked, answer=long, prefixes=("dsatok_long_",)),
    ]
    if with_exact:
        sources.append(FakeSource("exact", asked, answer=exact, exact=True))
    try:
        result = described(await authenticate(Chain.of(sources), Credential(token)))
    except StorageError:
        result = "fault"
    assert result == expected
    assert asked == [name for name in order.split() if with_exact or name != "exact"]


@pytest.mark.parametrize(("token", "expected"), [("t", "exact"), ("dsatok_t", "exact")])
async def test_an_exact_source_alone_is_asked_about_every_token(token: str, expected: str) -> None:
    chain = Chain.of([FakeSource("exact", [], answer="accept", exact=True)])
    assert described(await authenticate(chain, Credential(token))) == expected


@pytest.mark.parametrize("others", [[], ["exact"]])
async def test_any_owned_prefix_is_its_owners_alone(others: list[str]) -> None:
    """A store may have a prefix of its own, which is not among the reserved ones."""
    asked: list[str] = []
    sources = [FakeSource("open", asked, answer="accept"), FakeSource("owner", asked, prefixes=("mine_",))]
    chain = Chain.of([*sources, *(FakeSource(name, asked, exact=True) for name in others)])
    assert await authenticate(chain, Credential("mine_t")) is None
    assert asked == [*others, "owner"]


async def test_open_sources_are_asked_as_given_and_plain_functions_after_them() -> None:
    asked: list[str] = []

    async def first(token: str) -> None:
        asked.append("first")

    async def second(token: str) -> dict[str, str]:
        asked.append("second")
        return {"id": token}

    chain = Chain.of([first, FakeSource("a", asked), second, FakeSource("b", asked)])
    outcome = await authenticate(chain, Credential("t"))
    assert isinstance(outcome, Authenticated)
    assert outcome.actor() == {"id": "t"}
    assert outcome.auth.source == "second"
    assert asked == ["a", "b", "first", "second"]


@pytest.mark.parametrize("token", ["dsatok_t", "dstok_t"])
async def test_a_plain_function_never_sees_a_reserved_prefix(token: str) -> None:
    async def plain(token: str) -> dict[str, str]:
        raise AssertionError(token)

    assert await authenticate(Chain.of([plain]), Credential(token)) == Rejected(Reason.SWITCHED_OFF)


@pytest.mark.parametrize("answer", ["root", [], {}, 5, True])
async def test_a_plain_function_that_returns_no_actor_is_a_fault_and_no_answer(answer: Any) -> None:
    async def plain(token: str) -> Any:
        return answer

    with pytest.raises(TypeError, match="plain must return an actor"):
        await authenticate(Chain.of([plain]), Credential("t"))


async def test_a_plain_functions_malformed_restrictions_refuse_the_token() -> None:
    async def plain(token: str) -> dict[str, Any]:
        return {"id": "one", "_r": ["vt"]}

    assert await authenticate(Chain.of([plain]), Credential("t")) == Rejected(Reason.DAMAGED)


@pytest.mark.parametrize("source", [None, "token", {"token": {"id": "one"}}, 5, StaticTokens])
def test_what_is_no_source_is_refused(source: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^sources: \w+ is neither a source nor an async function"):
        Chain.of([source])


def test_two_sources_cannot_own_one_prefix() -> None:
    with pytest.raises(ConfigurationError, match=r"^sources: two sources own tokens that start with 'dsatok_'"):
        Chain.of([FakeSource("one", [], prefixes=("dsatok_",)), FakeSource("two", [], prefixes=("dsatok_",))])


def test_every_source_of_a_chain_is_kept_once() -> None:
    """They are opened and closed by this list."""
    exact, owner, open_ = (
        FakeSource("exact", [], exact=True),
        FakeSource("owner", [], prefixes=("a_",)),
        FakeSource("open", []),
    )
    assert Chain.of([open_, owner, exact]).sources == (exact, owner, open_)
    assert isinstance(exact, Source)
