"""The pages of tokens when storage, or the app's own way to say who is asking, does not work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import TokenStore
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.errors import StorageError
from asgi_token_auth.tokens import changes
from asgi_token_auth.web import TokenPages
from tests.support.asgi import SECRET
from tests.support.failing import Failing
from tests.support.page_sites import DAY, PERMISSIONS, SCOPES, signed_in
from tests.support.sites import serving

pytestmark = pytest.mark.anyio


async def test_a_fault_of_storage_is_503_and_says_that_nothing_was_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "t.db"
    async with TokenStore(SQLite(path), secret=SECRET) as outside:
        await outside.issue("ann")
        database = Failing(SQLite(path), -1, StorageError("cannot"))
        store = TokenStore(database, secret=SECRET)
        pages: Any = TokenPages(store, signed_in=signed_in, permissions=PERMISSIONS, scopes=SCOPES)
        async with serving(pages, lifespan=False) as client:
            headers = {"x-user": '{"id": "ann"}'}
            assert (await client.get("/", headers=headers)).status_code == 200
            requests: list[tuple[str, str, dict[str, Any]]] = [
                ("GET", "/", {}),
                ("GET", "/1", {}),
                ("GET", "/1.json", {}),
                ("POST", "/create", {"data": DAY}),
                ("POST", "/create.json", {"json": {}}),
                ("POST", "/1/edit", {"data": {"description": "x", "expire_type": "keep"}}),
                ("POST", "/1.json", {"json": {"rotate": True}}),
                ("POST", "/1", {"data": {"revoke": "1"}}),
                ("POST", "/", {"data": {"revoke_all": "1"}}),
            ]
            for method, address, body in requests:
                before = await outside.list(owner="ann")
                for nth in range(1, 50):
                    database.fails_at = database.calls + nth
                    answer = await client.request(method, address, headers=headers, **body)
                    if answer.status_code != 503:
                        break
                    assert "nothing was changed" in answer.text
                    assert answer.headers["retry-after"] == "5"
                    # The sentence is true.
                    assert await outside.list(owner="ann") == before, (method, address, nth)
                assert nth > 1
                assert answer.status_code < 400, (method, address)
        await store.close()
    # All of these had one cause, which is logged once.
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors == ["a page of tokens could not be served: cannot"]


async def test_a_fault_in_the_middle_of_many_revocations_is_not_called_no_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "PART", 1)
    database = Failing(SQLite(tmp_path / "t.db"), -1, StorageError("cannot"))
    store = TokenStore(database, secret=SECRET)
    async with TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET) as outside:
        await outside.issue("ann")
        await outside.issue("ann")
        pages: Any = TokenPages(store, signed_in=signed_in, permissions=PERMISSIONS, scopes=SCOPES)
        async with serving(pages, lifespan=False) as client:
            headers = {"x-user": '{"id": "ann"}'}
            await client.get("/", headers=headers)
            database.fails_at = database.calls + 5
            answer = await client.post("/", headers=headers, data={"revoke_all": "1"})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert "Not all was done" in answer.text
            assert "nothing was changed" not in answer.text
            assert len((await outside.list(owner="ann", status="active")).items) == 1
            assert (await client.post("/", headers=headers, data={"revoke_all": "1"})).status_code < 400
            assert (await outside.list(owner="ann", status="active")).items == []
        await store.close()


@pytest.mark.parametrize("error", [RuntimeError("no session store"), KeyError("x")], ids=repr)
async def test_a_fault_of_signed_in_is_503_and_lets_nobody_in(tmp_path: Path, error: Exception) -> None:
    async def failing(scope: Any) -> Any:
        raise error

    pages: Any = TokenPages(TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET), signed_in=failing)
    async with serving(pages, lifespan=False) as client:
        for path in ("/", "/1.json"):
            assert (await client.get(path)).status_code == 503


@pytest.mark.parametrize(
    "answer", [True, "ann", 5, ["ann"], {}, {"id": None}, {"id": "\ud800"}, {"id": "a\0b"}], ids=repr
)
async def test_who_is_no_actor_is_nobody(tmp_path: Path, answer: Any) -> None:
    async def odd(scope: Any) -> Any:
        return answer

    store = TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET)
    pages: Any = TokenPages(store, signed_in=odd, permissions={"auth-tokens-create": True})
    async with store, serving(pages, lifespan=False) as client:
        for path in ("/", "/1.json"):
            assert (await client.get(path)).status_code in (400, 403)
        assert (await client.post("/create.json", json={})).status_code in (400, 403)
        assert (await client.post("/1", data={"revoke": "1"})).status_code in (400, 403)
