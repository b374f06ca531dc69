"""Work of pages that others need not wait for."""

from __future__ import annotations

import threading

import pytest

from asgi_token_auth.web import http

pytestmark = pytest.mark.anyio


async def test_it_is_done_in_a_thread_and_here_where_none_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await http.in_thread(threading.get_ident) != threading.get_ident()

    async def no_more(function: object, *args: object, **kwargs: object) -> object:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(http, "run_in_threadpool", no_more)
    assert await http.in_thread(threading.get_ident) == threading.get_ident()
    assert await http.in_thread(int, "ff", base=16) == 255


async def test_what_the_work_itself_raises_is_raised() -> None:
    def fail() -> None:
        raise RuntimeError("of its own")

    with pytest.raises(RuntimeError, match="of its own"):
        await http.in_thread(fail)
