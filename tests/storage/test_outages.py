"""What fails at every request is said once, then counted, and its end is said."""

from __future__ import annotations

import asyncio
import logging

import httpx
import pytest

from asgi_token_auth import StorageError, TokenAuthMiddleware
from asgi_token_auth.middleware import TokenEvent
from asgi_token_auth.storage.outages import MOST_CAUSES, OutageLog
from tests.support.asgi import Clock

LOGGER = logging.getLogger("asgi_token_auth.tests.outages")


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    caplog.clear()
    return found


def test_one_line_then_counts_then_its_end(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log = OutageLog(LOGGER, "it failed", interval=60, clock=clock)
    for _ in range(1_000):
        log.note("the disk is gone")
    assert lines(caplog) == [("ERROR", "it failed: the disk is gone")]
    clock.now += 60
    log.note("the disk is gone")
    assert lines(caplog) == [("ERROR", "it failed: it goes on, 999 times more, 1000 in all")]
    clock.now += 60
    log.note("the disk is gone")
    assert lines(caplog) == [("ERROR", "it failed: it goes on, 1 times more, 1001 in all")]
    clock.now += 600
    log.note("the disk is gone")
    assert lines(caplog) == [("ERROR", "it failed: it goes on, 1 times more, 1002 in all")]
    log = OutageLog(LOGGER, "it failed", interval=60, clock=clock)
    log.note("the disk is gone")
    clock.now += 60
    log.note("the network is gone")
    assert lines(caplog) == [
        ("ERROR", "it failed: the disk is gone"),
        ("WARNING", "it failed: it has ended, not once in 60 seconds; 1 in all"),
        ("ERROR", "it failed: the network is gone"),
    ]


def test_another_cause_a_moment_ago_is_no_end(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log = OutageLog(LOGGER, "it failed", interval=60, clock=clock)
    log.note("the disk is gone")
    clock.now += 59
    log.note("the network is gone")
    lines(caplog)
    clock.now += 1
    log._count(clock())
    assert lines(caplog) == []
    clock.now += 60
    log._count(clock())
    assert lines(caplog) == [("WARNING", "it failed: it has ended, not once in 60 seconds; 2 in all")]


def test_every_cause_has_its_line_but_no_flood_of_causes(caplog: pytest.LogCaptureFixture) -> None:
    log = OutageLog(LOGGER, "it failed", clock=Clock())
    for number in range(1_000):
        log.note(f"cause {number}")
    assert lines(caplog) == [("ERROR", f"it failed: cause {number}") for number in range(MOST_CAUSES)]


@pytest.mark.anyio
async def test_in_an_event_loop_its_end_is_said_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    log = OutageLog(LOGGER, "it failed", interval=0.01)
    log.note("the disk is gone")
    log.note("the disk is gone")
    async with asyncio.timeout(10):
        while "it has ended" not in caplog.text:
            await asyncio.sleep(0)
    assert [level for level, _ in lines(caplog)] == ["ERROR", "ERROR", "WARNING"]


@pytest.mark.anyio
async def test_a_database_that_is_away_makes_one_line_for_all_requests(caplog: pytest.LogCaptureFixture) -> None:
    events: list[TokenEvent] = []

    async def away(token: str) -> None:
        raise StorageError("tokens.db: it is away.")

    async def nobody(scope: object, receive: object, send: object) -> None:
        raise AssertionError("no request comes so far")

    def on_event(event: TokenEvent) -> None:
        events.append(event)
        raise RuntimeError("the monitor is away too")

    app = TokenAuthMiddleware(nobody, sources=[away], on_event=on_event)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for _ in range(20):
            assert (await client.get("/", headers={"authorization": "Bearer x"})).status_code == 503
    told = [message for level, message in lines(caplog) if level == "ERROR"]
    assert told == [
        "a token could not be checked: tokens.db: it is away.",
        told[1],
    ]
    assert told[1].startswith("on_event failed, which affects no request: RuntimeError")
    assert len(events) == 20, "whoever counts is told of each"


@pytest.mark.anyio
async def test_a_signed_in_that_fails_makes_one_line_for_all_requests(caplog: pytest.LogCaptureFixture) -> None:
    async def nobody(scope: object, receive: object, send: object) -> None:
        raise AssertionError("no request comes so far")

    async def source(token: str) -> None:
        return None

    async def signed_in(scope: object) -> None:
        raise RuntimeError("the sessions are away")

    app = TokenAuthMiddleware(nobody, sources=[source], required=True, signed_in=signed_in)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for _ in range(20):
            assert (await client.get("/")).status_code == 503
    assert [message.partition(",")[0] for _, message in lines(caplog) if "signed_in" in message] == [
        "signed_in failed: RuntimeError"
    ]
