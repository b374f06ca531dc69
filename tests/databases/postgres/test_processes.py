"""Processes, forks, threads and event loops that share a PostgreSQL database."""

from __future__ import annotations

import asyncio
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from asgi_token_auth import SQLTokens, TokenAuthMiddleware, TokenStore
from asgi_token_auth.databases.postgres import Postgres
from tests.support import postgres
from tests.support.asgi import SECRET, App, status_of
from tests.support.postgres_outages import SOON, application, finish, script, sessions, soon, until

pytestmark = pytest.mark.anyio


def test_eight_processes_that_start_at_once_on_an_empty_schema_all_migrate(
    server: postgres.Server, schema: str
) -> None:
    text = """
async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    async with new_store() as store:
        issued = await store.issue("ann")
        assert await status_of(application(store), issued.token) == 200
asyncio.run(main())
"""
    processes = [script(text, server.dsn(), schema) for _ in range(8)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        finish(process)
    assert server.run(f"select count(*) from {schema}._datasette_auth_tokens") == [(8,)]
    assert server.run(f"select count(distinct name) = count(*) from {schema}._datasette_auth_tokens_migrations") == [
        (True,)
    ]


def test_a_forked_process_leaves_the_connections_to_its_parent(server: postgres.Server, schema: str) -> None:
    text = """
async def main():
    async with new_store() as store:
        issued = await store.issue("ann")
        app = application(store)
        assert await status_of(app, issued.token) == 200
        query = "select pg_backend_pid()"
        before = (await store.database.query(query, {})).rows
        child = os.fork()
        if child == 0:
            async def again():
                assert await status_of(app, issued.token) == 200
                assert (await store.database.query(query, {})).rows != before
                await store.revoke(issued.record.id, owner="ann")
                await store.close()
            asyncio.run(again())
            gc.collect()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert await status_of(app, issued.token) == 401
        assert (await store.database.query(query, {})).rows == before
asyncio.run(main())
"""
    finish(script(text, server.dsn(), schema))


def test_a_forked_process_that_goes_on_with_the_event_loop_has_connections_of_its_own(
    server: postgres.Server, schema: str
) -> None:
    """A server may open what it serves before it forks its workers."""
    text = """
loop = asyncio.new_event_loop()
store = new_store()
app = application(store)
issued = loop.run_until_complete(store.issue("ann"))
def verifies():
    assert loop.run_until_complete(status_of(app, issued.token)) == 200
    return app._chain.sources[0].lookup._latest().connection.get_server_pid()
session = verifies()
child = os.fork()
if child == 0:
    assert verifies() != session
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert verifies() == session
# Nor does this one go on with what it has closed itself.
loop.run_until_complete(store.close())
assert verifies() != session
loop.run_until_complete(store.close())
loop.close()
"""
    finish(script(text, server.dsn(), schema))


def test_an_event_loop_that_ends_without_closing_leaves_no_session_and_no_warning(
    server: postgres.Server, schema: str
) -> None:
    text = """
store = new_store()
app = application(store)
async def main():
    issued = await store.issue("ann")
    assert await status_of(app, issued.token) == 200
    await asyncio.gather(*(store.list(owner="ann") for _ in range(3)))
async def waits():
    task = asyncio.create_task(store.database.query("select pg_sleep(60)", {}, timeout=60))
    await asyncio.sleep(0.2)
for _ in range(3):
    asyncio.run(main())
asyncio.run(waits())
print((gc.collect(), "done")[1], flush=True)
sys.stdin.readline()
"""
    process = script(text, server.dsn(), schema)
    assert process.stdout is not None
    assert process.stdout.readline() == "done\n"
    deadline = time.monotonic() + SOON
    while left := sessions(server):
        assert time.monotonic() < deadline, left
    assert server.run(
        f"select count(*) from {schema}._datasette_auth_tokens where last_used_timestamp is not null"
    ) == [(3,)]
    finish(process)


def test_event_loops_of_several_threads_share_one_database(server: postgres.Server, schema: str) -> None:
    database = Postgres(server.dsn(), schema=schema)
    store = TokenStore(database, secret=SECRET)
    app = application(store)

    async def used() -> None:
        issued = await store.issue("ann")
        for _ in range(30):
            assert await status_of(app, issued.token) == 200
            assert (await store.get(issued.record.id, owner="ann")).status == "active"
        await store.revoke(issued.record.id, owner="ann")
        assert await status_of(app, issued.token) == 401
        await database.close()

    asyncio.run(store.ensure_ready())
    with ThreadPoolExecutor(3) as threads:
        for running in [threads.submit(asyncio.run, used()) for _ in range(3)]:
            running.result(timeout=postgres.PATIENCE)
    assert sessions(server) == []


async def test_what_is_closed_can_be_opened_again(server: postgres.Server, database: Postgres) -> None:
    store = TokenStore(database, secret=SECRET)
    app = application(store)
    token = ""
    for _ in range(3):
        async with store:
            token = (await store.issue("ann")).token
            assert await status_of(app, token) == 200
        assert sessions(server) == []
    # Without a lifespan it opens itself.
    assert await status_of(app, token) == 200
    await store.close()
    assert sessions(server) == []


async def test_a_thousand_clients_that_hang_up_leave_nothing_behind(server: postgres.Server, store: TokenStore) -> None:
    issued = await store.issue("ann")
    app = application(store)
    custom = TokenAuthMiddleware(
        App(),
        sources=[SQLTokens(store.database, "select 's' as token_secret, :token_id::text as actor_id, pg_sleep(0.001)")],
    )

    async def client(number: int) -> None:
        which = number % 4
        if which == 0:
            await store.edit(issued.record.id, owner="ann", description=f"{number}")
        else:
            await status_of(*((custom, "4-s") if which == 1 else (app, issued.token)))

    for start in range(0, 1000, 50):
        clients = [asyncio.create_task(client(start + number)) for number in range(50)]
        for number, task in enumerate(clients):
            # At every point of what they do.
            if number % 5 == 0:
                await asyncio.sleep(0.001 * (start % 7))
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    assert await soon(status_of(app, issued.token)) == 200
    assert await soon(status_of(custom, "4-s")) == 200
    await soon(store.edit(issued.record.id, owner="ann", description="the last"))
    await until(lambda: len(sessions(server)) <= 5)
    await until(lambda: not sessions(server, "state <> 'idle'"))


def test_processes_that_write_the_same_last_uses_write_forward_and_once_a_minute(
    server: postgres.Server, schema: str
) -> None:
    tokens, rounds = 50, 200
    server.run(f"create table {schema}.written (id bigint, before bigint, after bigint)")
    text = f"""
import random
async def main():
    async with new_store() as store:
        if sys.argv[3] == "0":
            for number in range({tokens}):
                await store.issue("ann")
        print("ready", flush=True)
        sys.stdin.readline()
        ids = list(range(1, {tokens + 1}))
        for number in range({rounds}):
            random.shuffle(ids)
            for token_id in ids:
                store._usage.note(token_id, 1_700_000_000 + 20 * number + random.randrange(60), None)
            await store.flush()
            assert not store._usage._waiting
asyncio.run(main())
"""
    processes: list[subprocess.Popen[str]] = []
    for number in range(4):
        process = script(text, server.dsn(), schema, str(number))
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    table = f"{schema}._datasette_auth_tokens"
    server.run(
        f"create function {schema}.note() returns trigger language plpgsql as $$ begin insert into {schema}.written "
        "values (old.id, old.last_used_timestamp, new.last_used_timestamp); return new; end $$; "
        f"create trigger note after update on {table} for each row execute function {schema}.note()"
    )
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        # What could not be written would be told here, as a warning.
        finish(process)
    assert server.run(f"select count(*) from {schema}.written where after < before + 60") == [(0,)]
    [(fewest, most, written)] = server.run(
        f"select min(count), max(count), count(*) from (select count(*) from {schema}.written group by id) as each"
    )
    minutes = 20 * rounds // 60 + 2
    assert (written, fewest > 0, most <= minutes) == (tokens, True, True)
    assert server.run(f"select min(last_used_timestamp) >= {1_700_000_000 + 20 * rounds - 80} from {table}") == [
        (True,)
    ]
