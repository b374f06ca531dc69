"""When a token was last used: written rarely, in batches, and never able to change an answer."""

from __future__ import annotations

import asyncio
import gc
import logging
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import ANY_OWNER, ManagedTokens, StorageError, TokenAuthMiddleware, TokenStore
from asgi_token_auth.errors import ValueRefused
from asgi_token_auth.storage.usage import BATCH, UsageLog, Use
from tests.support.asgi import SECRET, App, Clock, ask, bearer, http
from tests.support.places import Place, only_sqlite, run_sql

pytestmark = pytest.mark.anyio


class Writes:
    """Notes what it is told to write, and fails while told to."""

    def __init__(self, *failures: Exception) -> None:
        self.batches: list[list[Use]] = []
        self.failures = list(failures)
        self.happened = asyncio.Event()

    async def __call__(self, uses: Sequence[Use]) -> None:
        self.happened.set()
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append(list(uses))


async def test_uses_are_collected_and_the_latest_of_each_is_written() -> None:
    writes = Writes()
    log = UsageLog(writes)
    for when, address in ((10, "a"), (12, "b"), (11, "c")):
        log.note(1, when, address)
    log.note(2, 5)
    await log.close()
    assert writes.batches == [[(1, 12, "b"), (2, 5, None)]]


async def test_a_transaction_holds_at_most_500_uses() -> None:
    writes = Writes()
    log = UsageLog(writes)
    for row_id in range(1_201):
        log.note(row_id, 1)
    await log.close()
    assert BATCH == 500
    assert [len(batch) for batch in writes.batches] == [500, 500, 201]


async def test_uses_are_written_without_being_asked_for() -> None:
    writes = Writes()
    log = UsageLog(writes, interval=0.001)
    log.note(1, 1)
    await writes.happened.wait()
    await log.close()
    assert writes.batches == [[(1, 1, None)]]


@pytest.mark.parametrize(("failures", "written"), [((), [[(1, 1, None)]]), ((StorageError("locked"),), [])], ids=repr)
async def test_a_close_waits_for_what_is_being_written_and_does_not_write_it_again(
    failures: tuple[Exception, ...], written: list[list[Use]]
) -> None:
    writes = Writes(*failures)
    started, go_on = asyncio.Event(), asyncio.Event()

    async def write(uses: Sequence[Use]) -> None:
        started.set()
        # As a transaction in its thread, which goes on when its caller is cancelled.
        await asyncio.shield(asyncio.ensure_future(finish(uses)))

    async def finish(uses: Sequence[Use]) -> None:
        await go_on.wait()
        await writes(uses)

    log = UsageLog(write, interval=0)
    log.note(1, 1)
    await started.wait()
    closing = asyncio.ensure_future(log.close())
    # Each runs as far as it can before the write is let go on.
    for _ in range(10):
        await asyncio.sleep(0)
    assert not closing.done()
    go_on.set()
    await closing
    assert writes.batches == written
    assert writes.failures == []


@pytest.mark.parametrize("error", [StorageError("locked"), OSError("io"), ValueError("bug")], ids=repr)
async def test_what_cannot_be_written_is_kept_for_the_next_time(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    writes = Writes(error, error)
    log = UsageLog(writes)
    log.note(1, 1)
    await log.flush()
    await log.flush()
    assert writes.batches == []
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    await log.close()
    assert writes.batches == [[(1, 1, None)]]


async def test_what_the_database_refuses_keeps_nothing_else_from_being_written(
    caplog: pytest.LogCaptureFixture,
) -> None:
    written: list[int] = []
    calls = 0

    async def write(uses: Sequence[Use]) -> None:
        nonlocal calls
        calls += 1
        if any(row_id % 600 == 7 for row_id, _, _ in uses):
            raise ValueRefused("no text")
        written.extend(row_id for row_id, _, _ in uses)

    log = UsageLog(write)
    for row_id in range(1_700):
        log.note(row_id, 1)
    await log.flush()
    assert sorted(written) == [row_id for row_id in range(1_700) if row_id % 600 != 7]
    # Each batch and its rows, and no more.
    assert calls <= 1_700 + 4
    assert [record.getMessage() for record in caplog.records] == [
        "one last used time cannot be written and is dropped: no text"
    ] * 3
    await log.close()
    assert calls <= 1_700 + 4


async def test_a_use_that_the_table_itself_refuses_is_the_only_one_that_is_lost(place: Place, clock: Clock) -> None:
    async with TokenStore(place.database(), secret=SECRET, clock=clock, record_addresses=True) as store:
        first, second = await store.issue("ann"), await store.issue("bob")
        # As an operator might, on any kind of database.
        run_sql(store, f"create unique index one_use on {store.table} (last_used_address)")
        store.note_use(first.record.id, 5, "192.0.2.7")
        store.note_use(second.record.id, 5, "192.0.2.7")
        third = await store.issue("eve")
        store.note_use(third.record.id, 5, "192.0.2.8")
        await store.flush()
        uses = [(await store.get(n, owner=ANY_OWNER)).last_used_at for n in (1, 2, 3)]
        assert uses == [5, None, 5]


async def test_a_use_that_comes_while_an_older_one_is_written_is_not_lost() -> None:
    batches: list[list[Use]] = []

    async def write(uses: Sequence[Use]) -> None:
        batches.append(list(uses))
        if len(batches) == 1:
            log.note(1, 20)

    log = UsageLog(write)
    log.note(1, 10)
    await log.close()
    assert batches == [[(1, 10, None)], [(1, 20, None)]]


async def test_the_memory_of_uses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgi_token_auth.storage.usage.MOST_WAITING", 3)
    writes = Writes()
    log = UsageLog(writes)
    for row_id in range(10):
        log.note(row_id, 1)
    log.note(2, 9)
    await log.close()
    assert writes.batches == [[(0, 1, None), (1, 1, None), (2, 9, None)]]


def test_uses_are_written_when_the_event_loop_ends_without_a_close() -> None:
    batches: list[list[Use]] = []

    async def write(uses: Sequence[Use]) -> None:
        await asyncio.sleep(0)
        batches.append(list(uses))

    async def main() -> None:
        log.note(1, 1)
        await asyncio.sleep(0)

    log = UsageLog(write)
    asyncio.run(main())
    assert batches == [[(1, 1, None)]]


def test_a_write_that_hangs_does_not_hold_up_the_end_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgi_token_auth.storage.usage.LAST_CHANCE", 0.01)

    async def write(uses: Sequence[Use]) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        log.note(1, 1)
        await asyncio.sleep(0)

    log = UsageLog(write)
    asyncio.run(main())


def test_a_second_event_loop_writes_what_the_first_could_not() -> None:
    async def main(write: Callable[[Sequence[Use]], Awaitable[None]]) -> None:
        log._write = write
        log.note(len(batches) + 1, 1)
        await asyncio.sleep(0)

    async def fail(uses: Sequence[Use]) -> None:
        raise StorageError("locked")

    async def write(uses: Sequence[Use]) -> None:
        batches.append(list(uses))

    batches: list[list[Use]] = []
    log = UsageLog(fail)
    asyncio.run(main(fail))
    asyncio.run(main(write))
    assert batches == [[(1, 1, None)]]
    gc.collect()


# Through the store


async def use(store: TokenStore, token: str, *, source: ManagedTokens | None = None) -> int:
    app = TokenAuthMiddleware(App(), sources=[source or ManagedTokens(store)])
    return (await ask(app, http([bearer(token)]))).status


async def test_a_use_is_seen_after_it_is_flushed(store: TokenStore, clock: Clock) -> None:
    issued = await store.issue("ann")
    await use(store, issued.token)
    await store.flush()
    record = await store.get(issued.record.id, owner="ann")
    assert (record.last_used_at, record.last_used_address) == (clock.now, None)


async def test_a_token_is_noted_at_most_once_a_minute(store: TokenStore, clock: Clock) -> None:
    issued = await store.issue("ann")
    source = ManagedTokens(store)
    start = clock.now
    seen = []
    for after in (0, 1, 59, 60, 61, 119, 120):
        clock.now = start + after
        # A second source, as in a second worker, must not write more often either.
        await use(store, issued.token, source=source)
        await use(store, issued.token)
        await store.flush()
        seen.append((await store.get(issued.record.id, owner="ann")).last_used_at)
    assert [when - start for when in seen if when is not None] == [0, 0, 0, 60, 60, 60, 120]


async def test_the_time_of_last_use_never_goes_backwards(store: TokenStore, clock: Clock) -> None:
    issued = await store.issue("ann")
    clock.now += 1_000
    await use(store, issued.token)
    await store.flush()
    clock.now -= 500
    await use(store, issued.token)
    await store.flush()
    assert (await store.get(issued.record.id, owner="ann")).last_used_at == clock.now + 500


async def test_the_address_is_kept_only_where_that_is_asked_for(place: Place, clock: Clock) -> None:
    for record_addresses, expected in ((False, None), (True, "192.0.2.7")):
        async with TokenStore(place.database(), secret=SECRET, record_addresses=record_addresses) as store:
            issued = await store.issue("ann")
            await use(store, issued.token)
            await store.flush()
            assert (await store.get(issued.record.id, owner="ann")).last_used_address == expected


@pytest.mark.parametrize("address", ["a\0b", "\ud800", "x" * 101, 7, b"1", None], ids=lambda value: repr(value)[:9])
async def test_an_address_that_cannot_be_kept_is_left_out(place: Place, clock: Clock, address: Any) -> None:
    async with TokenStore(place.database(), secret=SECRET, clock=clock, record_addresses=True) as store:
        app = TokenAuthMiddleware(App(), sources=[ManagedTokens(store)])
        for owner, client in (("ann", address), ("bob", "x" * 100)):
            issued = await store.issue(owner)
            assert (await ask(app, {**http([bearer(issued.token)]), "client": (client, 1)})).status == 200
        await store.flush()
        kept = [await store.get(n, owner=ANY_OWNER) for n in (1, 2)]
        assert [(r.last_used_at, r.last_used_address) for r in kept] == [(clock.now, None), (clock.now, "x" * 100)]


@pytest.mark.parametrize("value", ["\ud800", 2**64, [1]], ids=repr)
async def test_databases_tell_a_value_that_they_refuse_from_a_fault(store: TokenStore, value: Any) -> None:
    issued = await store.issue("ann")
    uses = [(issued.record.id, 5, "192.0.2.7"), (issued.record.id, 5, value)]
    with pytest.raises(ValueRefused, match="a value cannot be written; nothing was changed"):
        await store._write_usage(uses)
    assert (await store.get(1, owner="ann")).last_used_at is None
    with pytest.raises(StorageError) as fault:
        await store.database.run_many("update no_such_table set id = :id", [{"id": 1}])
    assert not isinstance(fault.value, ValueRefused)


async def test_uses_are_flushed_when_the_store_is_closed(place: Place, clock: Clock) -> None:
    async with TokenStore(place.database(), secret=SECRET, clock=clock) as store:
        issued = await store.issue("ann")
        await use(store, issued.token)
    async with TokenStore(place.database(), secret=SECRET, clock=clock) as store:
        assert (await store.get(issued.record.id, owner="ann")).last_used_at == clock.now


async def test_a_refused_token_is_not_used(store: TokenStore) -> None:
    issued = await store.issue("ann")
    await store.revoke(issued.record.id, owner="ann")
    assert await use(store, issued.token) == 401
    await store.flush()
    assert (await store.get(issued.record.id, owner="ann")).last_used_at is None


@only_sqlite
async def test_a_database_that_cannot_be_written_changes_no_answer_and_loses_no_use(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_token_auth.databases.sqlite.database.WRITE_TIMEOUT", 0.05)
    issued = await store.issue("ann")
    blocker = sqlite3.connect(tmp_path / "t.db", isolation_level=None)
    blocker.execute("begin immediate")
    assert await use(store, issued.token) == 200
    await store.flush()
    assert await use(store, issued.token) == 200
    blocker.execute("rollback")
    blocker.close()
    await store.flush()
    assert (await store.get(issued.record.id, owner="ann")).last_used_at is not None


async def test_a_note_of_use_writes_nothing_on_the_path_of_the_request(
    store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = await store.issue("ann")

    async def transaction(steps: object) -> None:
        raise AssertionError("something was written")

    monkeypatch.setattr(store.database, "transaction", transaction)
    for _ in range(20):
        await use(store, issued.token)
    monkeypatch.undo()


def test_event_loops_of_several_threads_share_one_task_that_writes() -> None:
    written: list[Use] = []

    async def write(batch: Sequence[Use]) -> None:
        written.extend(batch)

    log = UsageLog(write, interval=0.01)
    turn = threading.Barrier(2)
    tasks: list[int] = []

    async def note(first: int) -> None:
        before = len(asyncio.all_tasks())
        for number in range(first, 40, 2):
            await asyncio.to_thread(turn.wait)
            log.note(number, 1)
        tasks.append(len(asyncio.all_tasks()) - before)
        while log._waiting:
            await asyncio.sleep(0.001)

    threads = [threading.Thread(target=asyncio.run, args=(note(first),)) for first in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(tasks) <= 2
    assert sorted(number for number, _, _ in written) == list(range(40))
