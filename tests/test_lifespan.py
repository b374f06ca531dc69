"""The start and the end of a server: what is opened before the app, flushed with it and closed after it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from asgi_token_auth import ConfigurationError, ManagedTokens, SQLTokens, StorageError, TokenAuthMiddleware, TokenStore
from asgi_token_auth.databases.sqlite import SQLite
from tests.support import ROOT
from tests.support.asgi import SECRET, App, Message, Scripted, ask, authenticated, bearer, http, status_of

pytestmark = pytest.mark.anyio


class Resource:
    """Notes when it is opened, flushed and closed, and fails where it is told to."""

    def __init__(self, diary: list[str], name: str = "store", *, fails: tuple[str, ...] = ()) -> None:
        self.diary = diary
        self.name = name
        self.fails = fails

    async def open(self) -> None:
        self._note("open")

    async def flush(self) -> None:
        self._note("flush")

    async def close(self) -> None:
        self._note("close")

    def _note(self, what: str) -> None:
        self.diary.append(f"{what} {self.name}")
        if what in self.fails:
            raise StorageError(f"the {self.name} cannot {what}: mend it")


class Server:
    """Sends the two events of a lifespan and notes what comes back."""

    def __init__(self, diary: list[str]) -> None:
        self.diary = diary
        self.sent: list[Message] = []
        self._events = iter(["startup", "shutdown"])

    async def receive(self) -> Message:
        event = next(self._events)
        # As a server does: the second event waits until the first is answered.
        if event == "shutdown":
            assert [message["type"] for message in self.sent] == ["lifespan.startup.complete"]
        self.diary.append(f"server: {event}")
        return {"type": f"lifespan.{event}"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        self.diary.append(f"sent: {message['type'].removeprefix('lifespan.')}")


async def live(app: Any, *resources: Any, diary: list[str] | None = None, server: Server | None = None) -> Server:
    server = server or Server([] if diary is None else diary)
    source = Scripted({"token": authenticated()})
    wrapped = TokenAuthMiddleware(app, sources=[source], resources=resources)
    await wrapped({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, server.receive, server.send)
    return server


def well_behaved(diary: list[str]) -> Any:
    async def app(scope: Message, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        diary.append("app: started")
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        diary.append("app: ended")
        await send({"type": "lifespan.shutdown.complete"})

    return app


async def test_what_is_ours_opens_before_the_app_and_closes_after_it() -> None:
    diary: list[str] = []
    await live(well_behaved(diary), Resource(diary, "a"), Resource(diary, "b"), diary=diary)
    assert diary == [
        "server: startup",
        "open a",
        "open b",
        "app: started",
        "sent: startup.complete",
        "server: shutdown",
        "flush a",
        "flush b",
        "app: ended",
        "close b",
        "close a",
        "sent: shutdown.complete",
    ]


async def test_what_cannot_be_opened_fails_the_start_with_a_sentence_and_the_app_is_not_started() -> None:
    diary: list[str] = []
    server = Server([])
    with pytest.raises(StorageError, match="mend it"):
        await live(
            well_behaved(diary),
            Resource(diary, "a"),
            Resource(diary, "b", fails=("open",)),
            Resource(diary, "c"),
            server=server,
        )
    assert server.sent == [{"type": "lifespan.startup.failed", "message": "the b cannot open: mend it"}]
    assert diary == ["open a", "open b", "close a"]


def test_another_event_loop_than_that_of_asyncio_is_named() -> None:
    diary: list[str] = []
    server = Server([])
    # As trio does: step by step, with no loop of asyncio around it.
    with pytest.raises(StorageError, match=r"need asyncio, .* such as trio; have it use asyncio"):
        live(well_behaved(diary), Resource(diary, "a"), server=server).send(None)
    assert [message["type"] for message in server.sent] == ["lifespan.startup.failed"]
    assert "need asyncio" in server.sent[0]["message"]
    assert diary == []


def test_a_store_on_another_event_loop_says_so(tmp_path: Path) -> None:
    store = TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET)
    with pytest.raises(StorageError, match="need asyncio"):
        store.open().send(None)


async def test_a_flush_or_a_close_that_fails_does_not_keep_the_others_from_theirs() -> None:
    diary: list[str] = []
    broken = Resource(diary, "b", fails=("flush", "close"))
    server = await live(well_behaved(diary), Resource(diary, "a"), broken, Resource(diary, "c"))
    assert diary[-4:] == ["app: ended", "close c", "close b", "close a"]
    assert {"flush a", "flush b", "flush c"} <= set(diary)
    assert server.sent[-1] == {"type": "lifespan.shutdown.complete"}


async def test_an_app_that_raises_at_lifespan_still_gets_its_resources() -> None:
    diary: list[str] = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        assert scope["type"] == "http", "only http here"

    server = await live(app, Resource(diary))
    assert [message["type"] for message in server.sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert diary == ["open store", "close store"]


async def test_an_app_that_returns_at_once_still_gets_its_resources() -> None:
    diary: list[str] = []
    server = await live(App(), Resource(diary))
    assert [message["type"] for message in server.sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert diary == ["open store", "close store"]


async def test_an_app_that_fails_after_it_has_asked_for_the_event_is_not_served_as_if_it_had_started() -> None:
    diary: list[str] = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        raise OSError("the app's own database is away")

    server = Server([])
    with pytest.raises(OSError, match="is away"):
        await live(app, Resource(diary), server=server)
    assert [message["type"] for message in server.sent] == ["lifespan.startup.failed"]
    # Its kind and place, without its words, which may quote anything.
    assert "OSError, raised at" in server.sent[0]["message"]
    assert diary == ["open store", "close store"]


@pytest.mark.parametrize("fault", ["ours", "the app's"])
def test_a_test_client_sees_a_failed_start_as_an_exception(fault: str, tmp_path: Path) -> None:
    @asynccontextmanager
    async def fails(app: Starlette) -> AsyncIterator[None]:
        raise StorageError("the app's own database is away")
        yield

    folder = tmp_path if fault == "the app's" else tmp_path / "missing"
    store = TokenStore(SQLite(folder / "t.db"), secret=SECRET)
    app = TokenAuthMiddleware(
        Starlette(lifespan=fails if fault == "the app's" else None), sources=[ManagedTokens(store)]
    )
    with pytest.raises(StorageError), TestClient(app):
        pytest.fail("the tests of the app would go on")


async def test_an_app_that_says_that_it_cannot_start_is_believed() -> None:
    diary: list[str] = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no cake"})

    server = await live(app, Resource(diary))
    assert server.sent == [{"type": "lifespan.startup.failed", "message": "no cake"}]
    assert diary == ["open store", "close store"]


async def test_starlettes_failing_start_closes_what_was_opened() -> None:
    diary: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        raise RuntimeError("no cake")
        yield

    with pytest.raises(RuntimeError, match="no cake"):
        await live(Starlette(lifespan=lifespan), Resource(diary))
    assert diary == ["open store", "close store"]


async def test_an_app_that_fails_at_its_end_does_not_keep_us_from_ours() -> None:
    diary: list[str] = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise RuntimeError("spilt milk")

    with pytest.raises(RuntimeError, match="spilt milk"):
        await live(app, Resource(diary))
    assert diary == ["open store", "flush store", "close store"]


async def test_an_app_that_does_not_wait_for_the_end_is_waited_for() -> None:
    diary: list[str] = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})

    server = await live(app, Resource(diary))
    assert [message["type"] for message in server.sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert diary == ["open store", "close store"]


async def test_an_app_that_forgets_to_say_that_it_has_ended_is_helped() -> None:
    diary: list[str] = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()

    server = await live(app, Resource(diary))
    assert server.sent[-1] == {"type": "lifespan.shutdown.complete"}
    assert diary == ["open store", "flush store", "close store"]


# With real stores


def test_a_server_with_lifespan_opens_migrates_and_closes_the_store(tmp_path: Path) -> None:
    database = SQLite(tmp_path / "t.db")
    store = TokenStore(database, secret=SECRET)
    seen: list[bool] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        seen.append((tmp_path / "t.db").exists())
        issued = await store.issue("ann")
        yield
        seen.append((await store.get(issued.record.id, owner="ann")).status == "active")

    with TestClient(TokenAuthMiddleware(Starlette(lifespan=lifespan), sources=[ManagedTokens(store)])) as client:
        assert client.get("/", headers={"authorization": "Bearer dsatok_x.y"}).status_code == 401
    assert seen == [True, True]
    assert not database._pools
    assert not (tmp_path / "t.db-wal").exists()


def test_a_store_that_cannot_be_opened_fails_the_start_with_what_to_mend(tmp_path: Path) -> None:
    (tmp_path / "t.db").write_bytes(b"no database" * 1_000)
    store = TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET)
    failed: list[Message] = []

    async def main() -> None:
        async def receive() -> Message:
            return {"type": "lifespan.startup"}

        async def send(message: Message) -> None:
            failed.append(message)

        with pytest.raises(StorageError):
            await TokenAuthMiddleware(App(), sources=[ManagedTokens(store)])({"type": "lifespan"}, receive, send)

    asyncio.run(main())
    assert failed[0]["type"] == "lifespan.startup.failed"
    assert "restore it from a backup" in failed[0]["message"]


def test_a_query_that_cannot_work_fails_the_start(tmp_path: Path) -> None:
    (tmp_path / "app.db").touch()
    source = SQLTokens(SQLite(tmp_path / "app.db"), "select 1 as actor_id, :token_id as x")
    failed: list[Message] = []

    async def main() -> None:
        async def receive() -> Message:
            return {"type": "lifespan.startup"}

        async def send(message: Message) -> None:
            failed.append(message)

        with pytest.raises(ConfigurationError):
            await TokenAuthMiddleware(App(), sources=[source])({"type": "lifespan"}, receive, send)

    asyncio.run(main())
    assert failed == [
        {"type": "lifespan.startup.failed", "message": "query.sql: the query must return a column token_secret."}
    ]


async def test_two_middlewares_share_a_store_and_the_last_one_closes_it(tmp_path: Path) -> None:
    database = SQLite(tmp_path / "t.db")
    store = TokenStore(database, secret=SECRET)
    apps = [TokenAuthMiddleware(App(), sources=[ManagedTokens(store)]) for _ in range(2)]
    ends = [asyncio.Event() for _ in apps]
    started = asyncio.Semaphore(0)

    async def serve(app: TokenAuthMiddleware, end: asyncio.Event) -> None:
        events = iter(["lifespan.startup", "lifespan.shutdown"])

        async def receive() -> Message:
            event = next(events)
            if event == "lifespan.shutdown":
                await end.wait()
            return {"type": event}

        async def send(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                started.release()

        await app({"type": "lifespan"}, receive, send)

    serving = [asyncio.ensure_future(serve(app, end)) for app, end in zip(apps, ends, strict=True)]
    for _ in apps:
        await started.acquire()
    issued = await store.issue("ann")
    await store.get(issued.record.id, owner="ann")
    ends[0].set()
    await serving[0]
    assert database._pools
    assert await status_of(apps[1], issued.token) == 200
    ends[1].set()
    await serving[1]
    assert not database._pools
    assert all(not lookup._readers for lookup in database._lookups)


async def test_a_server_that_sends_no_lifespan_events_is_served_from_the_first_request(tmp_path: Path) -> None:
    async with TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET) as elsewhere:
        issued = await elsewhere.issue("ann")
    store = TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET)
    app = TokenAuthMiddleware(App(), sources=[ManagedTokens(store)])
    answers = await asyncio.gather(*(ask(app, http([bearer(issued.token)])) for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    await store.close()


async def test_a_store_that_could_not_be_opened_is_tried_again_by_the_next_request(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "t.db"
    store = TokenStore(SQLite(path), secret=SECRET)
    app = TokenAuthMiddleware(App(), sources=[ManagedTokens(store)])
    token = store.text.build(1, "n" * 22)
    assert await status_of(app, token) == 503
    path.parent.mkdir()
    assert await status_of(app, token) == 401
    await store.close()


IN_PROCESS = """
import asyncio, sqlite3, sys
sys.path[:0] = [sys.argv[3]]
from tests.support.asgi import App, bearer, ask, http
from asgi_token_auth import ManagedTokens, SQLTokens, TokenAuthMiddleware, TokenStore
from asgi_token_auth.databases.sqlite import SQLite

async def main():
    database = SQLite(sys.argv[1])
    store = TokenStore(database, secret=sys.argv[2])
    issued = await store.issue("ann")
    sql = SQLTokens(database, "select 'bob' as actor_id, 'secret' as token_secret where :token_id = '1'")
    app = TokenAuthMiddleware(App(), sources=[ManagedTokens(store), sql])
    for token in (issued.token, "1-secret"):
        assert (await ask(app, http([bearer(token)]))).status == 200

for _ in range(2):
    asyncio.run(main())
connection = sqlite3.connect(sys.argv[1])
print(connection.execute("select count(*) from _datasette_auth_tokens where last_used_timestamp > 0").fetchall())
"""


def test_use_in_process_without_lifespan_lets_the_interpreter_end_and_loses_no_use(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_PROCESS, str(tmp_path / "t.db"), SECRET, str(ROOT)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[(2,)]\n", "")
