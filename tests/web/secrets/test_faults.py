"""The pages of secrets without a key, and when storage does not work."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.errors import StorageError
from asgi_token_auth.secrets.store import SecretStore
from asgi_token_auth.web import SecretPages
from tests.support.failing import Failing
from tests.support.page_sites import signed_in
from tests.support.secret_sites import ASKED, KEY, PERMISSIONS, error_of, get, post, running
from tests.support.sites import serving

pytestmark = pytest.mark.anyio


async def test_without_a_key_the_pages_say_so_and_set_nothing(tmp_path: Path) -> None:
    store = SecretStore(SQLite(tmp_path / "s.db"), encryption_key=None, secrets=ASKED)
    pages: Any = SecretPages(store, signed_in=signed_in, permissions=PERMISSIONS)
    headers = {"x-user": '{"id": "ann"}'}
    async with store, serving(pages, lifespan=False) as client:
        assert "no encryption key" in (await client.get("/", headers=headers)).text
        page = (await client.get("/OPENAI_KEY", headers=headers)).text
        assert "no encryption key" in page
        assert 'name="secret"' not in page
        for path, body in (("/OPENAI_KEY", {"data": {"secret": "x"}}), ("/OPENAI_KEY.json", {"json": {"value": "x"}})):
            answer = await client.post(path, headers=headers, **body)  # type: ignore[arg-type]
            assert (answer.status_code, "no encryption key" in answer.text) == (400, True)


async def test_a_fault_of_storage_is_503_and_says_that_nothing_was_changed(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with SecretStore(SQLite(path), encryption_key=KEY) as outside:
        await outside.set("KEPT", "the value")
        database = Failing(SQLite(path), -1, StorageError("cannot"))
        store = SecretStore(database, encryption_key=KEY)
        pages: Any = SecretPages(store, signed_in=signed_in, permissions=PERMISSIONS)
        async with serving(pages, lifespan=False) as client:
            headers = {"x-user": '{"id": "ann"}'}
            assert (await client.get("/", headers=headers)).status_code == 200
            requests: list[tuple[str, str, dict[str, Any]]] = [
                ("GET", "/", {}),
                ("GET", "/KEPT", {}),
                ("GET", "/KEPT.json", {}),
                ("POST", "/KEPT", {"data": {"secret": "x"}}),
                ("POST", "/KEPT.json", {"json": {"note": "x"}}),
                ("POST", "/KEPT", {"data": {"delete": "1"}}),
            ]
            for method, address, body in requests:
                before = await outside.history("KEPT")
                for nth in range(1, 50):
                    database.fails_at = database.calls + nth
                    answer = await client.request(method, address, headers=headers, **body)
                    if answer.status_code != 503:
                        break
                    assert "nothing was changed" in answer.text
                    assert answer.headers["retry-after"] == "5"
                    assert await outside.history("KEPT") == before, (method, address, nth)
                assert nth > 1
                assert answer.status_code < 400, (method, address)
        await store.close()


async def test_a_locked_database_is_told_and_loses_nothing(tmp_path: Path) -> None:
    async with running("any app", tmp_path) as site:
        await site.store.set("KEPT", "the value")
        before = site.rows()
        with closing(sqlite3.connect(site.file, isolation_level=None)) as other:
            other.execute("begin immediate")
            refused = await post(site, "/KEPT", {"secret": "x"})
            assert refused.status_code == 503
            assert "nothing was changed" in error_of(refused)
            assert (await get(site)).status_code == 200
            other.execute("rollback")
        assert site.rows() == before
        assert (await post(site, "/KEPT", {"secret": "x"})).status_code == 302
