"""Signed tokens: the same bytes as Datasette's, read more strictly."""

import hashlib
import re
import time
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from itsdangerous import Signer, URLSafeSerializer
from itsdangerous.encoding import base64_encode

from asgi_token_auth.authentication import Authenticated, Credential, Outcome, Reason, Rejected
from asgi_token_auth.errors import ConfigurationError, InvalidInput
from asgi_token_auth.signing import SigningSecrets, TokenSigner
from asgi_token_auth.sources.signed import CLOCK_SKEW, SignedTokens

pytestmark = pytest.mark.anyio

SECRET = "a-secret-of-this-test"
NOW = 1_700_000_000


def tokens(*, now: float = NOW, max_ttl: int | None = None, secret: str = SECRET) -> SignedTokens:
    return SignedTokens(secret, max_ttl=max_ttl, clock=lambda: now)


def containing(payload: object) -> str:
    """A token with a good signature and anything inside."""
    return "dstok_" + str(URLSafeSerializer(SECRET, salt="token").dumps(payload))


async def check(token: str, *, now: float = NOW, max_ttl: int | None = None) -> Outcome:
    return await tokens(now=now, max_ttl=max_ttl).authenticate(Credential(token))


async def actor_of(token: str, *, now: float = NOW, max_ttl: int | None = None) -> dict[str, Any]:
    outcome = await check(token, now=now, max_ttl=max_ttl)
    assert isinstance(outcome, Authenticated), outcome
    return outcome.actor()


GOOD: dict[str, tuple[object, dict[str, Any]]] = {
    "without an expiry": ({"a": "root", "t": NOW}, {"id": "root", "token": "dstok"}),
    "with an expiry": (
        {"a": "root", "t": NOW, "d": 60},
        {"id": "root", "token": "dstok", "token_expires": NOW + 60},
    ),
    "an id that is a number, which Datasette signs too": ({"a": 5, "t": NOW}, {"id": 5, "token": "dstok"}),
    "restricted": (
        {"a": "root", "t": NOW, "_r": {"a": ["vi"]}},
        {"id": "root", "token": "dstok", "_r": {"a": ["vi"]}},
    ),
    "restricted to nothing": ({"a": "root", "t": NOW, "_r": {}}, {"id": "root", "token": "dstok", "_r": {}}),
    "the field that early alphas wrote": ({"a": "root", "token": "dstok", "t": NOW}, {"id": "root", "token": "dstok"}),
    "an explicit null for no expiry": ({"a": "root", "t": NOW, "d": None}, {"id": "root", "token": "dstok"}),
    "long ago": ({"a": "root", "t": 1}, {"id": "root", "token": "dstok"}),
}


@pytest.mark.parametrize(("payload", "actor"), GOOD.values(), ids=GOOD.keys())
async def test_a_good_token_becomes_datasettes_actor(payload: object, actor: dict[str, Any]) -> None:
    assert await actor_of(containing(payload)) == actor


BAD: dict[str, tuple[object, Reason]] = {
    "no timestamp": ({"a": "root"}, Reason.MALFORMED),
    "t is a string": ({"a": "root", "t": str(NOW)}, Reason.MALFORMED),
    "t is no whole number": ({"a": "root", "t": NOW + 0.5}, Reason.MALFORMED),
    "t is true": ({"a": "root", "t": True}, Reason.MALFORMED),
    "t is null": ({"a": "root", "t": None}, Reason.MALFORMED),
    "d is a string": ({"a": "root", "t": NOW, "d": "60"}, Reason.MALFORMED),
    "d is no whole number": ({"a": "root", "t": NOW, "d": 60.0}, Reason.MALFORMED),
    "d is true": ({"a": "root", "t": NOW, "d": True}, Reason.MALFORMED),
    "d is false": ({"a": "root", "t": NOW, "d": False}, Reason.MALFORMED),
    "d is zero": ({"a": "root", "t": NOW, "d": 0}, Reason.EXPIRED),
    "d is negative": ({"a": "root", "t": NOW, "d": -5}, Reason.EXPIRED),
    "expired": ({"a": "root", "t": NOW - 61, "d": 60}, Reason.EXPIRED),
    "issued in the future": ({"a": "root", "t": NOW + CLOCK_SKEW + 1}, Reason.NOT_YET_VALID),
    "issued in the far future": ({"a": "root", "t": 10**300, "d": 1}, Reason.NOT_YET_VALID),
    "D40 no actor": ({"t": NOW}, Reason.MALFORMED),
    "D40 a number for the payload": (5, Reason.MALFORMED),
    "D40 a list for the payload": (["a", "t"], Reason.MALFORMED),
    "D40 a string for the payload": ("at", Reason.MALFORMED),
    "D40 null for the payload": (None, Reason.MALFORMED),
    "the actor is an object": ({"a": {"id": 3}, "t": NOW}, Reason.MALFORMED),
    "the actor is a list": ({"a": ["root"], "t": NOW}, Reason.MALFORMED),
    "the actor is null": ({"a": None, "t": NOW}, Reason.MALFORMED),
    "the actor is empty": ({"a": "", "t": NOW}, Reason.MALFORMED),
    "the actor is true": ({"a": True, "t": NOW}, Reason.MALFORMED),
    "the actor is no whole number": ({"a": 1.0, "t": NOW}, Reason.MALFORMED),
    "restrictions that are null": ({"a": "root", "t": NOW, "_r": None}, Reason.MALFORMED),
    "restrictions that are a list": ({"a": "root", "t": NOW, "_r": ["vi"]}, Reason.MALFORMED),
    "restrictions with an unknown key": ({"a": "root", "t": NOW, "_r": {"a": ["vi"], "z": 1}}, Reason.MALFORMED),
    "restrictions that are half good": ({"a": "root", "t": NOW, "_r": {"a": ["vi"], "d": []}}, Reason.MALFORMED),
}


@pytest.mark.parametrize(("payload", "reason"), BAD.values(), ids=BAD.keys())
async def test_a_well_signed_token_with_anything_amiss_is_refused(payload: object, reason: Reason) -> None:
    assert await check(containing(payload)) == Rejected(reason)


def other_digest() -> str:
    signer = TokenSigner(SigningSecrets([SECRET]), salt="token", digest=hashlib.sha256)
    return "dstok_" + signer.sign({"a": "root", "t": NOW})


UNSIGNED = {
    "nothing but the prefix": "dstok_",
    "no signature": "dstok_abc",
    "an empty signature": "dstok_abc.",
    "another secret": "dstok_" + str(URLSafeSerializer("another secret", salt="token").dumps({"a": "root", "t": NOW})),
    "another namespace": "dstok_" + str(URLSafeSerializer(SECRET, salt="actor").dumps({"a": "root", "t": NOW})),
    "another digest": other_digest(),
    "padding": containing({"a": "root", "t": NOW}) + "=",
    "a changed payload": containing({"a": "root", "t": NOW}).replace("dstok_ey", "dstok_eZ"),
    "text beyond ASCII": "dstok_é.é",
}


@pytest.mark.parametrize("token", UNSIGNED.values(), ids=UNSIGNED.keys())
async def test_what_we_did_not_sign_is_refused_for_its_signature(token: str) -> None:
    assert await check(token) == Rejected(Reason.BAD_SIGNATURE)


async def test_a_signature_spelled_differently_is_refused() -> None:
    """Base64 has four spellings of the last character; elsewhere all of them open."""
    token = containing({"a": "root", "t": NOW})
    accepted = []
    for character in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
        if isinstance(await check(token[:-1] + character), Authenticated):
            accepted.append(character)
    assert accepted == [token[-1]]


@pytest.mark.parametrize(
    "payload",
    [
        base64_encode(b"{"),
        b"!!!!",
        b"A",
        b"." + base64_encode(b"no zlib"),
        base64_encode(b"[" * 5000),
        base64_encode(b'{"a":"\\ud800","t":1}'),
    ],
    ids=["no JSON", "no base64", "cut base64", "no zlib", "deep", "a lone surrogate"],
)
async def test_d28_a_well_signed_payload_that_cannot_be_read_is_refused(payload: bytes) -> None:
    token = "dstok_" + Signer(SECRET, salt="token").sign(payload).decode()
    assert await check(token) == Rejected(Reason.MALFORMED)


async def test_d28_a_well_signed_bomb_is_refused() -> None:
    token = containing({"a": "A" * 5_000_000, "t": NOW})
    assert len(token) < 8192
    assert await check(token) == Rejected(Reason.MALFORMED)


@pytest.mark.parametrize("token", ["DSTOK_x", "dsatok_x", "dstok", "", "xxxxxx"])
async def test_a_token_of_another_kind_is_not_ours(token: str) -> None:
    assert await check(token) is None
    assert await check(token[:6].ljust(6, "x") + containing({"a": "root", "t": NOW})[6:]) is None


@pytest.mark.parametrize(("seconds_left", "good"), [(1, True), (0.001, True), (0, False), (-1, False)])
async def test_an_expiry_ends_at_its_second(seconds_left: float, good: bool) -> None:
    outcome = await check(containing({"a": "root", "t": NOW, "d": 60}), now=NOW + 60 - seconds_left)
    assert (outcome != Rejected(Reason.EXPIRED)) == good
    assert isinstance(outcome, Authenticated) == good


@pytest.mark.parametrize(("ahead", "good"), [(CLOCK_SKEW - 1, True), (CLOCK_SKEW, True), (CLOCK_SKEW + 1, False)])
async def test_a_clock_may_be_a_minute_ahead(ahead: int, good: bool) -> None:
    assert isinstance(await check(containing({"a": "root", "t": NOW + ahead})), Authenticated) == good


@pytest.mark.parametrize("duration", [None, 0, -1, 1, 99, 100, 101, 10**9, 10**300])
@pytest.mark.parametrize("created", [NOW - 101, NOW - 100])
async def test_nothing_defeats_max_ttl(duration: int | None, created: int) -> None:
    payload = {"a": "root", "t": created} | ({} if duration is None else {"d": duration})
    assert await check(containing(payload), max_ttl=100) == Rejected(Reason.EXPIRED)


@pytest.mark.parametrize("duration", [0, -1])
async def test_d40_a_duration_of_nothing_stays_nothing_under_max_ttl(duration: int) -> None:
    assert await check(containing({"a": "root", "t": NOW, "d": duration}), max_ttl=100) == Rejected(Reason.EXPIRED)


@pytest.mark.parametrize(("duration", "expires"), [(None, 100), (50, 50), (100, 100), (10**9, 100)])
async def test_max_ttl_is_the_most_that_an_actor_is_told(duration: int | None, expires: int) -> None:
    payload = {"a": "root", "t": NOW} | ({} if duration is None else {"d": duration})
    outcome = await check(containing(payload), max_ttl=100)
    assert isinstance(outcome, Authenticated)
    assert outcome.actor()["token_expires"] == NOW + expires
    assert outcome.auth.expires_at == NOW + expires


@pytest.mark.parametrize("max_ttl", [0, -1, True, 1.5, "60", timedelta(seconds=5)])
def test_a_max_ttl_that_could_not_work_is_refused(max_ttl: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^max_ttl"):
        SignedTokens(SECRET, max_ttl=max_ttl)


def test_a_secret_is_needed_and_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATASETTE_SECRET", raising=False)
    with pytest.raises(ConfigurationError, match=r"^secret"):
        SignedTokens()
    monkeypatch.setenv("DATASETTE_SECRET", SECRET)
    fixed = SignedTokens(clock=lambda: NOW)
    assert fixed.create_token("root") == tokens().create_token("root")


async def test_an_old_secret_verifies_and_the_newest_signs() -> None:
    both = SignedTokens(["the-old-secret-of-this-test", SECRET], clock=lambda: NOW)
    old = tokens(secret="the-old-secret-of-this-test").create_token("root")
    assert isinstance(await both.authenticate(Credential(old)), Authenticated)
    assert both.create_token("root") == tokens().create_token("root")


async def test_recheck_asks_again() -> None:
    now = [float(NOW)]
    source = SignedTokens(SECRET, clock=lambda: now[0])
    outcome = await source.authenticate(Credential(source.create_token("root", 60)))
    assert isinstance(outcome, Authenticated)
    assert await outcome.auth.recheck()
    now[0] += 60
    assert not await outcome.auth.recheck()


async def test_two_requests_get_two_actors() -> None:
    source, credential = tokens(), Credential(tokens().create_token("root", restrict_all=["view-table"]))
    one, two = await source.authenticate(credential), await source.authenticate(credential)
    assert isinstance(one, Authenticated)
    assert isinstance(two, Authenticated)
    one.actor()["_r"]["a"].append("drop-table")
    assert one.actor()["_r"] == two.actor()["_r"] == {"a": ["vt"]}


def test_created_tokens_hold_what_was_asked_for() -> None:
    def payload(token: str) -> Any:
        return URLSafeSerializer(SECRET, salt="token").loads(token.removeprefix("dstok_"))

    source = tokens(now=NOW + 0.9)
    assert payload(source.create_token("root")) == {"a": "root", "t": NOW}
    assert payload(source.create_token("root", 60)) == {"a": "root", "t": NOW, "d": 60}
    assert payload(source.create_token("root", timedelta(hours=1)))["d"] == 3600
    assert payload(source.create_token("root", restrict_all=iter(["view-table", "custom"])))["_r"] == {
        "a": ["vt", "custom"]
    }
    assert payload(source.create_token("é☃"))["a"] == "é☃"


@pytest.mark.parametrize("name", ["restrict_all", "restrict_database", "restrict_resource"])
async def test_restrictions_that_are_given_and_empty_allow_nothing(name: str) -> None:
    """A list that came out empty must not turn a restricted token into a full one."""
    empty: Any = [] if name == "restrict_all" else {}
    outcome = await check(tokens().create_token("root", **{name: empty}))
    assert isinstance(outcome, Authenticated)
    assert outcome.actor()["_r"] == {}
    assert outcome.restrictions is not None
    assert not outcome.restrictions.allows("view-instance")


BAD_ARGUMENTS: dict[str, dict[str, Any]] = {
    "no id": {"actor_id": ""},
    "null for an id": {"actor_id": None},
    "an object for an id": {"actor_id": {"id": 1}},
    "an id that is no text": {"actor_id": "\ud800"},
    "expires at once": {"expires_after": 0},
    "expired": {"expires_after": -1},
    "a fraction": {"expires_after": 1.5},
    "text": {"expires_after": "60"},
    "true": {"expires_after": True},
    "less than a second": {"expires_after": timedelta(milliseconds=900)},
    "a string of actions": {"restrict_all": "view-table"},
    "an action that is no text": {"restrict_all": [5]},
    "an empty action": {"restrict_all": [""]},
    "a number for actions": {"restrict_all": 5},
    "a list for databases": {"restrict_database": ["view-table"]},
    "a string for a database's actions": {"restrict_database": {"one": "view-table"}},
    "a list for resources": {"restrict_resource": {"one": ["view-table"]}},
    "a string for a resource's actions": {"restrict_resource": {"one": {"people": "view-table"}}},
    "a database that is no text": {"restrict_database": {5: ["view-table"]}},
}


@pytest.mark.parametrize("arguments", BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS.keys())
def test_create_token_refuses_what_could_not_work(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        tokens().create_token(**({"actor_id": "root"} | arguments))


@given(st.text(max_size=60))
@example("\ud800.\udfff")
@settings(max_examples=100, deadline=None)
def test_no_text_raises(text: str) -> None:
    for token in (text, "dstok_" + text, f"dstok_{text}.{'A' * 27}"):
        assert not isinstance(run(check(token)), Authenticated)


json_payloads = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just(NOW),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "t", "d", "_r", "r"]), inner, max_size=5)
    ),
    max_leaves=12,
)


@given(json_payloads)
@settings(max_examples=200, deadline=None)
def test_no_payload_raises_and_an_actor_always_has_an_id(payload: object) -> None:
    outcome = run(check(containing(payload), max_ttl=100))
    assert isinstance(outcome, (Authenticated, Rejected))
    if isinstance(outcome, Authenticated):
        assert outcome.actor()["id"] not in ("", None)
        assert NOW < outcome.actor()["token_expires"] <= NOW + 100 + CLOCK_SKEW


def run(coroutine: Any) -> Any:
    """Run what never really waits, without a loop for each example."""
    try:
        coroutine.send(None)
    except StopIteration as stopped:
        return stopped.value
    raise AssertionError("it waited")


def test_no_repr_tells_the_secret_or_the_token() -> None:
    source = tokens()
    assert SECRET not in repr(source)
    token = source.create_token("root")
    assert token not in repr(Credential(token))
    assert token not in repr(run(source.authenticate(Credential(token))))


@pytest.fixture
async def datasette() -> Any:
    """Datasette 1.0 with our secret, started."""
    from datasette.app import Datasette

    instance = Datasette(memory=True, secret=SECRET)
    await instance.invoke_startup()
    return instance


CREATED: dict[str, tuple[str, int | None, list[str], dict[str, list[str]], dict[str, dict[str, list[str]]]]] = {
    "unrestricted": ("root", None, [], {}, {}),
    "with an expiry": ("root", 3600, [], {}, {}),
    "beyond ASCII": ("é☃", 5, [], {}, {}),
    "an action of every database": ("root", None, ["view-instance", "bogus"], {}, {}),
    "a database": ("root", None, [], {"mydb": ["create-table", "execute-sql"]}, {}),
    "a resource": ("root", None, [], {}, {"mydb": {"t": ["insert-row"], "É t": ["view-table"]}}),
    "all of it": (
        "root",
        3600,
        ["view-instance"],
        {"mydb": ["create-table"], "two": ["vd"]},
        {"mydb": {"t": ["insert-row"]}},
    ),
}


@pytest.mark.parametrize(("actor_id", "expires", "all_", "database", "resource"), CREATED.values(), ids=CREATED.keys())
@pytest.mark.datasette("1.0")
async def test_datasette_and_we_make_the_same_bytes_and_read_each_others(
    datasette: Any,
    monkeypatch: pytest.MonkeyPatch,
    actor_id: str,
    expires: int | None,
    all_: list[str],
    database: dict[str, list[str]],
    resource: dict[str, dict[str, list[str]]],
) -> None:
    from datasette.tokens import TokenRestrictions

    monkeypatch.setattr(time, "time", lambda: NOW + 0.75)
    restrictions = TokenRestrictions()
    for action in all_:
        restrictions.allow_all(action)
    for name, actions in database.items():
        for action in actions:
            restrictions.allow_database(name, action)
    for name, tables in resource.items():
        for table, actions in tables.items():
            for action in actions:
                restrictions.allow_resource(name, table, action)
    theirs = await datasette.create_token(actor_id, expires_after=expires, restrictions=restrictions, handler="signed")
    mine = tokens(now=NOW + 0.75).create_token(
        actor_id,
        expires,
        restrict_all=all_ or None,
        restrict_database=database or None,
        restrict_resource=resource or None,
    )
    assert mine == theirs
    assert await datasette.verify_token(mine) == await actor_of(theirs)


@pytest.mark.parametrize(("payload", "actor"), GOOD.values(), ids=GOOD.keys())
@pytest.mark.datasette("1.0")
async def test_datasette_gives_the_same_actor_for_every_good_token(
    datasette: Any, monkeypatch: pytest.MonkeyPatch, payload: object, actor: dict[str, Any]
) -> None:
    monkeypatch.setattr(time, "time", lambda: float(NOW))
    assert await datasette.verify_token(containing(payload)) == actor


@pytest.mark.parametrize("expires", [None, 60])
@pytest.mark.datasette("1.0")
async def test_datasettes_own_limit_gives_the_same_actor(
    datasette: Any, monkeypatch: pytest.MonkeyPatch, expires: int | None
) -> None:
    monkeypatch.setattr(time, "time", lambda: float(NOW))
    monkeypatch.setitem(datasette._settings, "max_signed_tokens_ttl", 30)
    token = tokens().create_token("root", expires)
    assert await datasette.verify_token(token) == await actor_of(token, max_ttl=30)


async def test_a_published_token_is_read() -> None:
    """The example of our compatibility notes, whose secret is shorter than we would take."""
    source = SignedTokens(SigningSecrets(["s3cret"]), clock=lambda: NOW)
    token = "dstok_eyJhIjoicm9vdCIsInQiOjE3MDAwMDAwMDB9.PPK7LWmFBbt4LFcVHODaF5DyAE8"
    assert source.create_token("root") == token
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", token)
    assert isinstance(await source.authenticate(Credential(token)), Authenticated)
