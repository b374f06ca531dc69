"""Two workers: what is revoked anywhere is refused everywhere, by the very next request."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from asgi_token_auth import TokenStore
from asgi_token_auth.databases.sqlite import SQLite
from tests.support.processes import PATIENCE, Server, running, uvicorn
from tests.support.sites import SECRET, bearer, demo_files

pytestmark = pytest.mark.anyio

REVOCATIONS = 1_000
#: Side by side, because an answer in two packets may wait 40 ms for the client's acknowledgement of the first.
LANES = 20


async def _one_client_per_worker(server: Server, stack: AsyncExitStack) -> dict[str, httpx.AsyncClient]:
    """Two clients that keep their connections, one to each worker. Which one takes a connection is chance."""
    clients: dict[str, httpx.AsyncClient] = {}
    for _ in range(500):
        client = httpx.AsyncClient(base_url=server.address, timeout=PATIENCE, limits=httpx.Limits(keepalive_expiry=600))
        pid = (await client.get("/-/actor.json")).headers["x-pid"]
        if pid in clients:
            await client.aclose()
        else:
            stack.push_async_callback(client.aclose)
            clients[pid] = client
        if len(clients) == 2:
            return dict(sorted(clients.items()))
    raise AssertionError("only one worker ever answered")


async def _lane(server: Server, store: TokenStore, numbers: range, answers: Counter[tuple[str, int]]) -> list[str]:
    async with AsyncExitStack() as stack:
        clients = await _one_client_per_worker(server, stack)
        pids = list(clients)
        for number in numbers:
            issued = await store.issue("alice")
            headers = bearer(issued.token)
            for pid in pids:
                accepted = await clients[pid].get("/-/actor.json", headers=headers)
                assert (accepted.status_code, accepted.headers["x-pid"]) == (200, pid)
            if number % 3 == 2:
                await store.revoke(issued.record.id, owner="alice")
            else:
                # By the app itself, in one worker or in the other.
                answer = await clients[pids[number % 3]].post(f"/revoke/{issued.record.id}")
                assert (answer.status_code, answer.headers["x-pid"]) == (200, pids[number % 3])
            # Whoever is asked first must know; which one that is alternates.
            for pid in pids if number % 2 else reversed(pids):
                answer = await clients[pid].get("/-/actor.json", headers=headers)
                answers[answer.headers["x-pid"], answer.status_code] += 1
        return pids


async def test_a_revoked_token_is_refused_by_the_next_request_to_either_worker(tmp_path: Path) -> None:
    demo_files(tmp_path)
    answers: Counter[tuple[str, int]] = Counter()
    arguments = uvicorn("starlette", "--workers", "2", "--no-access-log", "--timeout-keep-alive", "600")
    with running(arguments, tmp_path, workers=2) as server:
        async with TokenStore(SQLite(tmp_path / "tokens.db"), secret=SECRET) as store:
            lanes = [_lane(server, store, range(lane, REVOCATIONS, LANES), answers) for lane in range(LANES)]
            pids, *others = await asyncio.gather(*lanes)
        assert all(other == pids for other in others)
        server.stop()
    assert dict(answers) == {(pid, 401): REVOCATIONS for pid in pids}
