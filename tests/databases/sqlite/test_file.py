"""A SQLite file under everything that happens to files: forks, replacement, damage, full disks, kill -9."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import StorageError, TokenStore
from asgi_token_auth.databases.sqlite import SQLite
from tests.support import ROOT
from tests.support.asgi import SECRET, status_of
from tests.support.sqlite_files import run, served, settle, sql

pytestmark = pytest.mark.anyio

FORK = """
import asyncio, logging, os, sys
logging.disable()
sys.path[:0] = [sys.argv[3]]
from tests.support.asgi import App, bearer, ask, http
from asgi_token_auth import ManagedTokens, StorageError, TokenAuthMiddleware, TokenStore
from asgi_token_auth.databases.sqlite import SQLite

path, secret, mode = sys.argv[1], sys.argv[2], sys.argv[4]
store = TokenStore(SQLite(path), secret=secret)
app = TokenAuthMiddleware(App(), sources=[ManagedTokens(store)])

async def status(token):
    return (await ask(app, http([bearer(token)]))).status

async def parent():
    issued = await store.issue("ann")
    assert await status(issued.token) == 200
    if mode == "opened after the fork":
        await store.close()
    return issued

async def in_child(issued):
    seen = [await status(issued.token)]
    if mode == "opened after the fork":
        await store.revoke(issued.record.id, owner="ann")
        seen.append(await status(issued.token))
    else:
        fresh = SQLite(path)
        for attempt in (
            lambda: store.revoke(issued.record.id, owner="ann"), store.ping, store.open,
            lambda: fresh.query("select 1", {}), fresh.open, lambda: fresh.lookup("t", "id").fetch(1),
        ):
            try:
                await attempt()
            except StorageError as error:
                assert "forked" in str(error), error
                seen.append("refused")
            else:
                seen.append("done")
    await store.close()
    return seen

loop = asyncio.new_event_loop()
issued = loop.run_until_complete(parent())
reading, writing = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(reading)
    try:
        seen = asyncio.run(asyncio.wait_for(in_child(issued), 20))
    except BaseException as error:
        seen = repr(error)
    os.write(writing, repr(seen).encode())
    os._exit(0)
os.close(writing)
with os.fdopen(reading) as pipe:
    print(pipe.read())
os.waitpid(pid, 0)
expected = 401 if mode == "opened after the fork" else 200
assert loop.run_until_complete(status(issued.token)) == expected
loop.run_until_complete(store.close())
loop.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.parametrize(
    ("mode", "expected"),
    [("opened before the fork", repr([503, *["refused"] * 6])), ("opened after the fork", repr([200, 401]))],
)
def test_trap_5_a_file_that_was_open_at_a_fork_is_refused_in_the_child(
    tmp_path: Path, mode: str, expected: str
) -> None:
    output = run(FORK, str(tmp_path / "t.db"), SECRET, str(ROOT), mode)
    assert output.strip() == expected


AS_NOBODY = """
import asyncio, logging, os, sys
logging.disable()
sys.path[:0] = [sys.argv[3]]
from tests.support.asgi import App, bearer, ask, http
from asgi_token_auth import ManagedTokens, StorageError, TokenAuthMiddleware, TokenStore
from asgi_token_auth.databases.sqlite import SQLite

# Not earlier: the packages may lie where only their owner reads.
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)

async def main():
    store = TokenStore(SQLite(sys.argv[1]), secret=sys.argv[2])
    app = TokenAuthMiddleware(App(), sources=[ManagedTokens(store)])
    print((await ask(app, http([bearer(sys.argv[4])]))).status)
    try:
        await store.revoke(1, owner="ann")
    except StorageError as error:
        print(str(error).partition(": ")[2])
    await store.close()

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="there are no such rights on this system")
@pytest.mark.parametrize("journal_mode", ["wal", None], ids=["wal", "rollback journal"])
async def test_trap_10_a_file_that_can_only_be_read_authenticates_or_fails_closed(journal_mode: Any) -> None:
    here = str(ROOT)
    # Not in tmp_path, whose parents are closed to the user without rights.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "t.db"
        async with TokenStore(SQLite(path, journal_mode=journal_mode), secret=SECRET) as store:
            issued = await store.issue("ann")
        path.chmod(0o444)
        folder.chmod(0o555)
        try:
            lines = run(AS_NOBODY, str(path), SECRET, here, issued.token).splitlines()
        finally:
            folder.chmod(0o755)
    # Without the -shm file, which this user may not make there, WAL cannot be read.
    said = "it can only be read; give this process the right to write the file and its folder."
    if journal_mode == "wal":
        assert lines[0] == "503"
        assert lines[1].startswith(f"{said} Its journal is in WAL mode")
        assert "pragma journal_mode = delete" in lines[1]
    else:
        assert lines == ["200", said]


async def test_a_deleted_file_is_503_and_never_made_again(store: TokenStore, tmp_path: Path) -> None:
    issued = await store.issue("ann")
    with served(store) as app:
        assert await status_of(app, issued.token) == 200
        for file in tmp_path.glob("tokens.db*"):
            file.unlink()
        await settle(app, issued.token, 503)
        for attempt in (store.issue("bob"), store.revoke(1, owner="ann"), store.get(1, owner="ann"), store.ping()):
            with pytest.raises(StorageError):
                await attempt
        await store.flush()
        assert await status_of(app, issued.token) == 503
        assert list(tmp_path.iterdir()) == []


async def test_a_file_replaced_under_load_counts_from_then_on(store: TokenStore, tmp_path: Path) -> None:
    issued = await store.issue("ann")
    async with TokenStore(SQLite(tmp_path / "new.db"), secret=SECRET) as new:
        other_token = await new.issue("bob")
    with served(store) as app:
        answers: list[int] = []
        stop = False

        async def load() -> None:
            while not stop:
                answers.append(await status_of(app, issued.token))
                await asyncio.sleep(0)

        loading = asyncio.ensure_future(load())
        while len(answers) < 100:
            await asyncio.sleep(0)
        # A journal that stayed would be taken for the new file's own.
        (tmp_path / "tokens.db-wal").unlink()
        (tmp_path / "tokens.db-shm").unlink()
        (tmp_path / "new.db").replace(tmp_path / "tokens.db")
        await settle(app, other_token.token, 200)
        await settle(app, issued.token, 401)
        stop = True
        await loading
        assert set(answers) <= {200, 401, 503}
        last_good = len(answers) - 1 - answers[::-1].index(200)
        assert 401 not in answers[:last_good]


async def test_a_missing_table_is_503_and_heals(store: TokenStore, tmp_path: Path) -> None:
    issued = await store.issue("ann")
    with served(store) as app:
        assert await status_of(app, issued.token) == 200
        sql(tmp_path / "tokens.db", f"alter table {store.table} rename to hidden")
        assert await status_of(app, issued.token) == 503
        sql(tmp_path / "tokens.db", f"alter table hidden rename to {store.table}")
        assert await status_of(app, issued.token) == 200


async def test_an_emptied_file_is_503(store: TokenStore, tmp_path: Path) -> None:
    issued = await store.issue("ann")
    await store.close()
    (tmp_path / "tokens.db").write_bytes(b"")
    store.ready = True
    with served(store) as app:
        assert await status_of(app, issued.token) == 503
    assert (tmp_path / "tokens.db").stat().st_size == 0


@pytest.mark.parametrize("where", ["header", "pages"])
async def test_a_damaged_file_is_503_and_neither_repaired_nor_served(tmp_path: Path, where: str) -> None:
    path = tmp_path / "tokens.db"
    async with TokenStore(SQLite(path), secret=SECRET) as store:
        issued = await store.issue("ann")
    content = bytearray(path.read_bytes())
    start, end = (0, 100) if where == "header" else (4096, len(content))
    content[start:end] = os.urandom(end - start)
    path.write_bytes(content)
    store = TokenStore(SQLite(path), secret=SECRET)
    with served(store) as app:
        assert await status_of(app, issued.token) == 503
        # As a worker sees it that had started before.
        store.ready = True
        assert await status_of(app, issued.token) == 503
    await store.close()
    assert path.read_bytes() == bytes(content)


FULL = """
import asyncio, resource, sys
sys.path[:0] = [sys.argv[3]]
from tests.support.asgi import App, bearer, ask, http
from asgi_token_auth import ManagedTokens, StorageError, TokenAuthMiddleware, TokenStore
from asgi_token_auth.databases.sqlite import SQLite

async def main():
    store = TokenStore(SQLite(sys.argv[1]), secret=sys.argv[2])
    app = TokenAuthMiddleware(App(), sources=[ManagedTokens(store)])
    async with store:
        acknowledged = [await store.issue("ann")]
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        refused = 0
        while not refused:
            try:
                acknowledged.append(await store.issue("ann", description="x" * 1000))
            except StorageError:
                refused += 1
        for issued in acknowledged:
            assert (await ask(app, http([bearer(issued.token)]))).status == 200
        try:
            await store.revoke(acknowledged[0].record.id, owner="ann")
            revoked = True
        except StorageError:
            revoked = False
        status = (await ask(app, http([bearer(acknowledged[0].token)]))).status
        assert status == (401 if revoked else 200), status
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await store.revoke(acknowledged[0].record.id, owner="ann")
        assert (await ask(app, http([bearer(acknowledged[0].token)]))).status == 401
        print(len(acknowledged), (await store.database.query("pragma integrity_check", {})).rows)

asyncio.run(main())
"""


def test_a_disk_that_is_full_refuses_changes_honestly_and_keeps_authenticating(tmp_path: Path) -> None:
    output = run(FULL, str(tmp_path / "t.db"), SECRET, str(ROOT))
    number, _, integrity = output.strip().partition(" ")
    assert int(number) > 1
    assert integrity == "[('ok',)]"


KILLED = """
import asyncio, sys
from asgi_token_auth import TokenStore
from asgi_token_auth.databases.sqlite import SQLite

async def main():
    async with TokenStore(SQLite(sys.argv[1]), secret=sys.argv[2]) as store:
        before = None
        while True:
            issued = await store.issue("ann")
            print("issued", issued.record.id, issued.token, flush=True)
            if before is not None:
                await store.revoke(before, owner="ann")
                print("revoked", before, "-", flush=True)
            before = issued.record.id

asyncio.run(main())
"""


async def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    rounds = int(os.environ.get("TEST_KILL9_ROUNDS", "30"))
    tokens: dict[int, str] = {}
    revoked: set[int] = set()
    for number in range(rounds):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(path), SECRET], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if len(lines) == 1 + number % 13:
                process.send_signal(signal.SIGKILL)
                break
        lines += process.stdout.readlines()
        process.wait(timeout=30)
        process.stdout.close()
        for line in lines:
            if not line.endswith("\n"):
                continue
            word, number_of_row, text = line.split()
            if word == "issued":
                tokens[int(number_of_row)] = text
            else:
                revoked.add(int(number_of_row))
    assert len(tokens) >= rounds
    async with TokenStore(SQLite(path), secret=SECRET) as store:
        # The last of a round may have been revoked without having been told so.
        with served(store) as app:
            for row_id, token in tokens.items():
                status = await status_of(app, token)
                record = await store.get(row_id, owner="ann")
                if row_id in revoked:
                    assert (status, record.status) == (401, "revoked")
                else:
                    assert (status, record.status) in ((200, "active"), (401, "revoked"))
        assert (await store.database.query("pragma integrity_check", {})).rows == [("ok",)]
        untold = [row_id for row_id in tokens if row_id not in revoked]
        ended = [row_id for row_id in untold if (await store.get(row_id, owner="ann")).status == "revoked"]
        assert len(ended) <= rounds
        events = await store.database.query(
            f"select count(*) from {store.table} t where not exists (select 1 from {store.table}_events e "
            "where e.token_id = t.id and e.event = 'created')",
            {},
        )
        assert events.rows == [(0,)]
