"""What the package offers to the tests of others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_token_auth import ManagedTokens, Restrictions, TokenAuthMiddleware, TokenStore
from asgi_token_auth.testing import acting_as, token_store

__all__ = ["token_store"]

pytestmark = pytest.mark.anyio


@requires("reports")
async def reports(request: Request) -> JSONResponse:
    return JSONResponse(request.scope["actor"])


async def test_a_test_acts_as_anybody_without_a_token(token_store: TokenStore) -> None:
    app = TokenAuthMiddleware(
        Starlette(routes=[Route("/", reports)]), sources=[ManagedTokens(token_store)], required=True
    )
    alice = acting_as(app, {"id": "alice", "scopes": ["reports"]})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=alice), base_url="http://test") as client:
        assert (await client.get("/")).json() == {"id": "alice", "scopes": ["reports"]}
    limited = acting_as(app, {"id": "bob"}, restrictions=Restrictions().allow_all("reports"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=limited), base_url="http://test") as client:
        assert (await client.get("/")).json() == {"id": "bob", "_r": {"a": ["reports"]}}
    nobody = acting_as(app, {"id": "carol"})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=nobody), base_url="http://test") as client:
        assert (await client.get("/")).status_code == 403


STRICT = """
import pytest

@pytest.mark.asyncio
async def test_async(token_store):
    assert (await token_store.issue("alice")).token

def test_sync(token_store):
    assert token_store.table
"""


def test_the_fixture_works_with_pytest_asyncio_as_it_comes(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from asgi_token_auth.testing import token_store\n")
    (tmp_path / "test_it.py").write_text(STRICT)
    plugins = ["-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider", "-W", "error::ResourceWarning"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(tmp_path), *plugins, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    assert "2 passed" in ran.stdout, ran.stdout + ran.stderr


async def test_the_store_works_and_is_thrown_away(token_store: TokenStore) -> None:
    issued = await token_store.issue("alice")
    assert (await token_store.get(issued.record.id, owner="alice")).status == "active"
