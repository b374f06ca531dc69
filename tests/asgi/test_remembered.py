"""A token that was accepted before is accepted without its source, and only where the source would say the same."""

from __future__ import annotations

import copy
import gc
import pickle
import sqlite3
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import (
    Authenticated,
    Credential,
    ManagedTokens,
    Outcome,
    Reason,
    Rejected,
    Restrictions,
    SignedTokens,
    Source,
    StaticTokens,
    TokenAuthMiddleware,
    TokenEvent,
    TokenStore,
)
from asgi_token_auth.asgi import remembered
from asgi_token_auth.asgi.remembered import RememberedTokens
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.sources.managed import USE_INTERVAL
from tests.support.asgi import SECRET, App, Clock, Scripted, ask, authenticated, bearer, http, status_of, websocket

pytestmark = pytest.mark.anyio

HARD_CODED = "a-hard-coded-token-for-tests"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock, anyio_backend: str) -> Any:
    async with TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET, clock=clock) as store:
        yield store


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which of our sources were asked, in order."""
    asked: list[str] = []
    for kind in (ManagedTokens, SignedTokens, StaticTokens):

        async def counted(self: Any, credential: Credential, authenticate: Any = kind.authenticate) -> Outcome:
            asked.append(self.name)
            outcome: Outcome = await authenticate(self, credential)
            return outcome

        monkeypatch.setattr(kind, "authenticate", counted)
    return asked


class Holding(Authenticated):
    """What a source of somebody else's may answer."""

    __slots__ = ("answer",)

    answer: bool | BaseException

    def holds(self) -> bool:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return bool(self.answer)


class Reusable(Scripted):
    """The same for the source."""

    reusable = True


def holding(answer: bool | BaseException = True, actor_id: str = "ann") -> Holding:
    async def recheck() -> bool:
        return True

    outcome = Holding({"id": actor_id}, source="scripted", recheck=recheck)
    outcome.answer = answer
    return outcome


async def actor(app: TokenAuthMiddleware, token: str, inner: App) -> Any:
    inner.scopes.clear()
    assert await status_of(app, token) == 200
    return inner.scope["actor"]


async def test_each_kind_of_token_is_checked_once(store: TokenStore, asked: list[str]) -> None:
    signed = SignedTokens(SECRET)
    app = TokenAuthMiddleware(App(), sources=[ManagedTokens(store), signed, StaticTokens({HARD_CODED: {"id": "bot"}})])
    tokens = [(await store.issue("ann")).token, signed.create_token("bob"), HARD_CODED]
    for token in tokens:
        assert await status_of(app, token) == 200
    assert asked == ["static", "managed", "static", "signed", "static"]
    for token in tokens * 3:
        assert await status_of(app, token) == 200
    assert len(asked) == 5


async def test_a_revocation_is_seen_by_the_next_request(store: TokenStore, asked: list[str]) -> None:
    app = TokenAuthMiddleware(App(), sources=[ManagedTokens(store)])
    issued = [await store.issue("ann") for _ in range(3)]
    for _ in range(2):
        assert [await status_of(app, one.token) for one in issued] == [200] * 3
    await store.revoke(issued[1].record.id, owner="ann")
    assert [await status_of(app, one.token) for one in issued] == [200, 401, 200]
    # Of the others only the row was read, and of the revoked one nothing is left.
    assert asked == ["managed"] * 4
    assert len(app._known) == 2


async def test_an_edit_is_seen_by_the_next_request(store: TokenStore) -> None:
    inner = App()
    app = TokenAuthMiddleware(inner, sources=[ManagedTokens(store)])
    issued = await store.issue("ann")
    assert "_r" not in await actor(app, issued.token, inner)
    await store.edit(issued.record.id, owner="ann", restrictions=Restrictions(all=("view-table",)))
    for _ in range(2):
        assert (await actor(app, issued.token, inner))["_r"] == {"a": ["view-table"]}


async def test_expiry_is_looked_at_each_time(store: TokenStore, clock: Clock) -> None:
    signed = SignedTokens(SECRET, clock=clock)
    app = TokenAuthMiddleware(App(), sources=[ManagedTokens(store), signed])
    tokens = [(await store.issue("ann", expires_after=90)).token, signed.create_token("ann", expires_after=90)]
    for token in tokens * 2:
        assert await status_of(app, token) == 200
    clock.now += 89
    assert [await status_of(app, token) for token in tokens] == [200, 200]
    clock.now += 1
    assert [await status_of(app, token) for token in tokens] == [401, 401]
    assert not app._known


async def test_a_clock_that_goes_back_makes_no_token_of_the_future_good(clock: Clock) -> None:
    signed = SignedTokens(SECRET, clock=clock)
    app = TokenAuthMiddleware(App(), sources=[signed])
    token = signed.create_token("ann")
    for _ in range(2):
        assert await status_of(app, token) == 200
    clock.now -= 3_600
    assert await status_of(app, token) == 401


async def test_uses_are_noted_as_often_as_before(store: TokenStore, clock: Clock) -> None:
    app = TokenAuthMiddleware(App(), sources=[ManagedTokens(store)])
    issued = await store.issue("ann")
    for passed in (0, USE_INTERVAL - 1, 1, USE_INTERVAL - 1, 1):
        clock.now += passed
        assert await status_of(app, issued.token) == 200
        await store.flush()
        last = (await store.get(issued.record.id, owner="ann")).last_used_at
        assert last == int(clock.now - (clock.now - 1_700_000_000) % USE_INTERVAL)


async def test_all_that_is_done_for_a_token_is_done_for_one_that_is_remembered(store: TokenStore) -> None:
    inner, events = App(), list[TokenEvent]()
    app = TokenAuthMiddleware(
        inner,
        sources=[ManagedTokens(store)],
        on_event=events.append,
        drop_cookies=True,
        forbid=lambda outcome: "Not with this one." if outcome.user.identity == "eve" else None,
    )
    ann, eve = await store.issue("ann"), await store.issue("eve")
    for others in ([], [(b"host", b"x"), (b"cookie", b"a=b")], [(b"x-a", b"b")], []):
        inner.scopes.clear()
        name, value = bearer(ann.token)
        for headers in ([*others, (name, value)], [(name, value), *others]):
            before = list(headers)
            inner.scopes.clear()
            answer = await ask(app, http(headers))
            assert (answer.status, answer.headers["vary"]) == (200, "Authorization")
            assert sorted(inner.scope["headers"]) == sorted(
                [(b"authorization", b"Bearer"), *(one for one in others if one[0] != b"cookie")]
            )
            assert headers == before
            assert inner.scope["actor"] == {"id": "ann", "token": "dsatok", "token_id": ann.record.id}
            assert inner.scope["auth"].token_id == ann.record.id
            assert inner.scope["user"].identity == "ann"
        assert (await ask(app, http([bearer(eve.token)]))).status == 403
    assert [(event.kind, event.actor_id) for event in events] == [
        ("accepted", "ann"),
        ("accepted", "ann"),
        ("forbidden", "eve"),
    ] * 4


async def test_what_an_app_does_to_an_actor_stays_with_it(store: TokenStore) -> None:
    inner = App()
    app = TokenAuthMiddleware(inner, sources=[ManagedTokens(store)])
    issued = await store.issue("ann", restrictions=Restrictions(all=("view-table",)))
    for _ in range(3):
        found = await actor(app, issued.token, inner)
        assert found["_r"] == {"a": ["view-table"]}
        found["id"] = "root"
        found["_r"]["a"].append("drop-table")


@pytest.mark.parametrize("kind", ["static", "managed", "signed"])
async def test_what_an_app_does_to_the_user_is_not_said_of_the_next_request(store: TokenStore, kind: str) -> None:
    sources: list[Source] = [StaticTokens({HARD_CODED: {"id": "ann"}}), ManagedTokens(store), SignedTokens(SECRET)]
    signed = SignedTokens(SECRET).create_token("ann")
    token = {"static": HARD_CODED, "managed": (await store.issue("ann")).token, "signed": signed}[kind]
    inner = App()
    app = TokenAuthMiddleware(inner, sources=sources)
    for _ in range(3):
        inner.scopes.clear()
        assert await status_of(app, token) == 200
        user, auth = inner.scope["user"], inner.scope["auth"]
        assert (user.identity, user.display_name, auth.scopes) == ("ann", "ann", ("authenticated",))
        for shared, name in ((user, "identity"), (user, "display_name"), (auth, "scopes"), (auth, "token_id")):
            with pytest.raises(AttributeError, match=f"{name} is read-only"):
                setattr(shared, name, ("admin",))
            with pytest.raises(AttributeError, match=f"{name} is read-only"):
                delattr(shared, name)
        for copied in (copy.copy(user), copy.deepcopy(user), pickle.loads(pickle.dumps(user))):
            assert (copied.identity, copied.display_name) == ("ann", "ann")
        assert copy.copy(auth).scopes == ("authenticated",)


@pytest.mark.parametrize("name", [b"authorization", b"Authorization", b"AUTHORIZATION"])
async def test_a_second_field_is_noticed_wherever_it_stands(name: bytes) -> None:
    inner = App()
    app = TokenAuthMiddleware(inner, sources=[StaticTokens({HARD_CODED: {"id": "bot"}})])
    field = (name, b"Bearer " + HARD_CODED.encode())
    for _ in range(2):
        assert (await ask(app, http([field]))).status == 200
    for second in (field, bearer("another"), bearer(HARD_CODED), (b"Authorization", b"")):
        for headers in ([field, (b"host", b"x"), second], [second, (b"host", b"x"), field]):
            expected = 200 if second[1] == b"" else 400
            assert (await ask(app, http(headers))).status in {expected, 400}
    # And the name is passed on as it came.
    assert inner.scopes[0]["headers"] == [(name, b"Bearer")]


async def test_the_same_object_in_another_field_is_not_taken_for_the_credential() -> None:
    inner = App()
    app = TokenAuthMiddleware(inner, sources=[StaticTokens({HARD_CODED: {"id": "bot"}})])
    value = b"Bearer " + HARD_CODED.encode()
    for headers in ([(b"authorization", value), (b"x-copy", value)], [(b"x-copy", value), (b"authorization", value)]):
        for _ in range(2):
            inner.scopes.clear()
            assert (await ask(app, http(headers))).status == 200
            assert dict(inner.scope["headers"]) == {b"authorization": b"Bearer", b"x-copy": value}


async def test_a_token_in_the_url_is_looked_for_beside_one_that_is_remembered() -> None:
    inner = App()
    app = TokenAuthMiddleware(inner, sources=[StaticTokens({HARD_CODED: {"id": "bot"}})], parameter="_auth_token")
    for _ in range(2):
        assert (await ask(app, http([bearer(HARD_CODED)], query=b"_size=5"))).status == 200
    for query in (b"_auth_token=x", b"a=b&_auth_token=", b"%5fauth_token=x", b"_auth%5Ftoken=x", b"_auth_token"):
        assert (await ask(app, http([bearer(HARD_CODED)], query=query))).status == 400
    for query in (b"", b"auth_token=x", b"_auth_tokens=x", b"q=_auth_token", b"a=%5f"):
        assert (await ask(app, http([bearer(HARD_CODED)], query=query))).status == 200
        assert inner.scopes[-1]["query_string"] == query


async def test_websockets_and_inner_instances_are_served_from_memory_too(asked: list[str]) -> None:
    inner = App()
    source = StaticTokens({HARD_CODED: {"id": "bot"}})
    app = TokenAuthMiddleware(TokenAuthMiddleware(inner, sources=[source]), sources=[source])
    for scope in (http([bearer(HARD_CODED)]), websocket([bearer(HARD_CODED)])) * 2:
        inner.scopes.clear()
        await ask(app, scope)
        assert inner.scope["actor"] == {"id": "bot"}
    assert asked == ["static"]


async def test_headers_that_are_no_list_or_not_bytes_are_read_as_before() -> None:
    inner = App()
    app = TokenAuthMiddleware(inner, sources=[StaticTokens({HARD_CODED: {"id": "bot"}})])
    name, value = bearer(HARD_CODED)
    for headers in (
        [(name, value)],
        iter([(name, value)]),
        [(name, bytearray(value))],
        [[name, value]],
        ((name, value),),
    ):
        for _ in range(2):
            inner.scopes.clear()
            scope = http()
            scope["headers"] = headers if not hasattr(headers, "__next__") else iter([(name, value)])
            assert (await ask(app, scope)).status == 200
            assert [tuple(header) for header in inner.scope["headers"]] == [(name, b"Bearer")]
    assert list(app._known) == [value]


async def test_a_source_of_somebody_elses_may_answer_the_question_or_not() -> None:
    source = Reusable({"plain": authenticated(), "holding": holding(), "not": holding(False)}, prefixes=("",))
    app = TokenAuthMiddleware(App(), sources=[source])
    for token in ("plain", "holding", "not") * 3:
        assert await status_of(app, token) == 200
    assert source.asked == ["plain", "holding", "not", "plain", "not", "plain", "not"]


async def test_a_question_that_fails_is_a_fault_and_says_nothing_of_the_token(caplog: pytest.LogCaptureFixture) -> None:
    outcome = holding()
    source = Reusable({"token": outcome}, prefixes=("",))
    app = TokenAuthMiddleware(App(), sources=[source])
    for _ in range(2):
        assert await status_of(app, "token") == 200
    outcome.answer = RuntimeError("token")
    assert await status_of(app, "token") == 503
    assert "a token could not be checked: RuntimeError" in caplog.text
    outcome.answer = False
    assert await status_of(app, "token") == 200
    assert len(source.asked) == 2


@pytest.mark.parametrize("before", ["a callable", "an open source"])
async def test_a_source_that_is_asked_first_may_change_its_mind(before: str) -> None:
    changing = Scripted({})
    second = Reusable({"token": holding(actor_id="second")}, name="second")
    first: Source | Any = changing
    sources: list[Any] = [first, second]
    if before == "a callable":

        async def function(token: str) -> Any:
            return None

        sources = [changing, second, function]
    inner = App()
    app = TokenAuthMiddleware(inner, sources=sources)
    for _ in range(2):
        assert (await actor(app, "token", inner))["id"] == "second"
    changing.answers["token"] = authenticated("first")
    assert (await actor(app, "token", inner))["id"] == "first"


async def test_a_source_of_whole_tokens_that_may_learn_new_ones_is_asked_each_time(store: TokenStore) -> None:
    learning = Scripted({})
    learning.exact = True
    inner = App()
    app = TokenAuthMiddleware(inner, sources=[learning, ManagedTokens(store)])
    token = (await store.issue("ann")).token
    for _ in range(2):
        assert (await actor(app, token, inner))["id"] == "ann"
    learning.answers[token] = authenticated("other")
    assert (await actor(app, token, inner))["id"] == "other"


class Around:
    """A source of somebody else's that looks at more than the one that it stands around."""

    def __init__(self, inner: Source) -> None:
        self.ask = inner.authenticate
        self.inner = inner
        self.admits = True
        # From Python 3.12 on, what __getattr__ finds makes nothing a source.
        self.name, self.prefixes, self.exact = inner.name, inner.prefixes, inner.exact

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def authenticate(self, credential: Credential) -> Outcome:
        return await self.ask(credential) if self.admits else Rejected(Reason.SWITCHED_OFF)


@pytest.mark.parametrize("way", ["around", "made from", "replaced"])
@pytest.mark.parametrize("kind", ["static", "managed", "signed"])
async def test_what_stands_between_a_source_and_the_middleware_is_asked_each_time(
    store: TokenStore, kind: str, way: str
) -> None:
    # It may look at the client's address, at the time of the day or at a switch.
    source: Any
    if kind == "static":
        source, token = StaticTokens({HARD_CODED: {"id": "bot"}}), HARD_CODED
    elif kind == "managed":
        source, token = ManagedTokens(store), (await store.issue("ann")).token
    else:
        source = SignedTokens(SECRET)
        token = source.create_token("ann")
    gate = Around(source)
    if way == "around":
        source = gate
    elif way == "replaced":
        source.authenticate = gate.authenticate
    else:

        class Made(type(source)):  # type: ignore[misc]
            async def authenticate(self, credential: Credential) -> Outcome:
                return await gate.authenticate(credential)

        source.__class__ = Made
    app = TokenAuthMiddleware(App(), sources=[source])
    for _ in range(3):
        assert await status_of(app, token) == 200
    gate.admits = False
    assert await status_of(app, token) == 401


async def test_hard_coded_tokens_are_remembered_beside_a_source_that_is_asked_each_time(asked: list[str]) -> None:
    inner = App()
    other = Scripted({"other": holding(actor_id="other")})
    app = TokenAuthMiddleware(inner, sources=[StaticTokens({HARD_CODED: {"id": "bot"}}), other])
    for _ in range(3):
        assert (await actor(app, HARD_CODED, inner))["id"] == "bot"
        assert (await actor(app, "other", inner))["id"] == "other"
    assert other.asked == ["other"] * 3
    # Once for each question of the other, too.
    assert asked == ["static"] * 4


async def test_hard_coded_tokens_that_may_come_later_are_looked_for_each_time(store: TokenStore) -> None:
    class Learning(StaticTokens):
        learned: Outcome = None

        async def authenticate(self, credential: Credential) -> Outcome:
            return self.learned or await super().authenticate(credential)

    learning = Learning({HARD_CODED: {"id": "bot"}})
    inner = App()
    app = TokenAuthMiddleware(inner, sources=[learning, ManagedTokens(store)])
    token = (await store.issue("ann")).token
    for _ in range(2):
        assert (await actor(app, token, inner))["id"] == "ann"
    learning.learned = authenticated("other")
    assert (await actor(app, token, inner))["id"] == "other"


async def test_what_strangers_send_is_never_remembered(store: TokenStore) -> None:
    app = TokenAuthMiddleware(App(), sources=[ManagedTokens(store), StaticTokens({HARD_CODED: {"id": "bot"}})])
    for number in range(200):
        assert await status_of(app, f"junk-{number}") == 401
        assert await status_of(app, f"dsatok_{number}") == 401
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(20_000):
        await ask(app, http([bearer(f"junk-of-some-length-{number:030}")]))
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 50_000
    assert not app._known


async def test_memory_is_bounded_by_count_and_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MOST_TOKENS", 50)
    tokens = {f"token-number-{number:04}-of-many": {"id": "bot"} for number in range(120)}
    app = TokenAuthMiddleware(App(), sources=[StaticTokens(tokens)])
    for token in [*tokens, *tokens]:
        assert await status_of(app, token) == 200
        assert len(app._known) <= 50
    memory = RememberedTokens()
    monkeypatch.setattr(remembered, "MOST_BYTES", 10_000)
    for number in range(500):
        assert memory.remember(b"%04d" % number + b"x" * 96, holding())
        assert memory._bytes == sum(map(len, memory.known)) <= 10_000
    for value in list(memory.known):
        memory.forget(value)
        memory.forget(value)
    assert memory._bytes == 0


async def test_restrictions_count_towards_the_size(store: TokenStore) -> None:
    app = TokenAuthMiddleware(App(), sources=[ManagedTokens(store)])
    long = Restrictions(all=tuple(f"an-action-with-a-long-name-{number:04}" for number in range(400)))
    issued = await store.issue("ann", restrictions=long)
    assert await status_of(app, issued.token) == 200
    assert app._remembered._bytes > 20 * 400 * 27


async def test_a_store_that_was_closed_is_opened_again_before_a_token_is_accepted(tmp_path: Path) -> None:
    store = TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET)
    app = TokenAuthMiddleware(App(), sources=[ManagedTokens(store)])
    async with store:
        token = (await store.issue("ann")).token
        for _ in range(2):
            assert await status_of(app, token) == 200
    assert not store.ready
    with sqlite3.connect(tmp_path / "t.db") as connection:
        connection.execute("update _datasette_auth_tokens set token_status = 'R'")
    connection.close()
    assert await status_of(app, token) == 401
    await store.close()
