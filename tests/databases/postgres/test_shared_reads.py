"""Reads that requests share: what becomes of them when an event loop ends or somebody cancels everything."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

import pytest

from asgi_token_auth.databases.postgres.shared_reads import SharedReads
from asgi_token_auth.errors import StorageError

pytestmark = pytest.mark.anyio


async def test_a_read_that_is_cancelled_before_it_begins_holds_up_nobody() -> None:
    async def read(ids: Collection[int], deadline: float) -> Mapping[int, str]:
        return {row_id: f"row {row_id}" for row_id in ids}

    reads = SharedReads[str | None](read, None)
    waiting = asyncio.ensure_future(reads.ask(1))
    assert reads._task is not None
    reads._task.cancel()
    late = asyncio.ensure_future(reads.ask(2))
    for answer in (waiting, late):
        with pytest.raises(StorageError, match="stopped"):
            await asyncio.wait_for(answer, 5)
    assert await asyncio.wait_for(reads.ask(3), 5) == "row 3"
