"""What other plugins do wrong at every request is said once, then counted, and never with what it was given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth.datasette import Secret
from tests.support import page_sites, secret_sites
from tests.support.sites import bearer, bot_block, make, needs_1_0, registered, serving

pytestmark = pytest.mark.anyio

TIMES = 20


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert "hunter2" not in caplog.text
    return [record.getMessage() for record in caplog.records if record.name == "asgi_token_auth"]


async def test_a_wrapper_that_fails_at_every_refusal(caplog: pytest.LogCaptureFixture) -> None:
    def asgi_wrapper(datasette: Any) -> Callable[[Any], Any]:
        def wrap(app: Any) -> Any:
            async def wrapped(scope: Any, receive: Any, send: Any) -> None:
                if scope["type"] == "http":
                    raise RuntimeError("hunter2")
                await app(scope, receive, send)

            return wrapped

        return wrap

    with registered(asgi_wrapper=asgi_wrapper):
        async with serving(make(block=bot_block()).app()) as client:
            for _ in range(TIMES):
                assert (await client.get("/", headers=bearer("nobody-knows-this"))).status_code == 401
    [line] = errors(caplog)
    assert line.startswith("an ASGI wrapper of another plugin failed on a refused request, which is refused all the")
    assert "RuntimeError, raised at" in line


@needs_1_0
async def test_names_that_fail_at_every_page(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def actors_from_ids() -> Any:
        raise RuntimeError("hunter2")

    with registered(actors_from_ids=actors_from_ids):
        async with page_sites.running("Datasette", tmp_path) as site:
            await site.store.issue("ann")
            for _ in range(TIMES):
                page = await site.client.get(f"{page_sites.PATH}/1", headers=site.user("viewer"))
                assert page.status_code == 200
    [line] = [line for line in errors(caplog) if "actors_from_ids" in line]
    assert line.startswith("ids are shown in place of names, because actors_from_ids failed: RuntimeError, raised at")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            RuntimeError("hunter2"),
            "not all secrets are known: A plugin's register_secrets failed: RuntimeError, raised",
        ),
        ([Secret("a\0b")], "a plugin registered a secret that cannot be: "),
    ],
)
async def test_secrets_that_cannot_be_at_every_page(
    answer: Any, says: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def register_secrets() -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    with registered(register_secrets=register_secrets):
        async with secret_sites.running("Datasette", tmp_path) as site:
            for _ in range(TIMES):
                page = await site.client.get(secret_sites.PATH, headers=site.user("ann"))
                assert page.status_code == 200
    [line] = [line for line in errors(caplog) if "a secret that cannot" in line or "not all secrets" in line]
    assert line.startswith(says)
