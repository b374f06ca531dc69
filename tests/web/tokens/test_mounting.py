"""The pages of tokens wherever they are mounted, and an app without the packages that they need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from asgi_token_auth import ConfigurationError, ManagedTokens, TokenAuthMiddleware, TokenStore, from_config
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.web import TokenPages
from tests.support.asgi import SECRET, App, ask, http
from tests.support.page_sites import DAY, PATH, PERMISSIONS, SCOPES, signed_in
from tests.support.sites import IS_1_0, demo_files, full_block, make, serving

pytestmark = pytest.mark.anyio


async def test_the_pages_follow_the_root_path(tmp_path: Path) -> None:
    block = {"manage_tokens": True, "permissions": PERMISSIONS}
    app: Any = from_config(App(), block, databases={"tokens": tmp_path / "t.db"}, secret=SECRET, signed_in=signed_in)
    headers = {"x-user": '{"id": "ann"}'}
    async with serving(app):
        for root, base in (("", ""), ("/app", "/app"), ("/app/", "/app"), ("/\u65e5", "/%E6%97%A5")):
            transport = httpx.ASGITransport(app, root_path=root)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                page = await client.get(f"{root}{PATH}", headers=headers)
                assert page.status_code == 200, root
                assert f'href="{base}{PATH}/create"' in page.text
                assert (await client.get(f"{root}{PATH}/static/pages.css")).status_code == 200
                assert (await client.get("/application" + PATH)).text == "served"
                ended = await client.post(f"{root}{PATH}", headers=headers, data={"revoke_all": "1"})
                assert ended.headers["location"] == base + PATH
        assert (await ask(app, http(path=PATH + "x"))).body == b"served"


async def test_the_pages_can_be_mounted_anywhere(tmp_path: Path) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    store = TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET)
    pages = TokenPages(store, signed_in=signed_in, permissions=PERMISSIONS, scopes=["read"])
    app: Any = TokenAuthMiddleware(Starlette(routes=[Mount("/account/tokens", pages)]), sources=[ManagedTokens(store)])
    async with serving(app, lifespan=False) as client:
        headers = {"x-user": '{"id": "ann"}'}
        assert (
            'href="/account/tokens/create"'
            in (await client.get("/account/tokens", headers=headers, follow_redirects=True)).text
        )
        answer = await client.post("/account/tokens/create", headers=headers, data=DAY)
        assert 'href="/account/tokens/1"' in answer.text
        ended = await client.post("/account/tokens/1", headers=headers, data={"revoke": "1"})
        assert ended.headers["location"] == "/account/tokens/1"
    await store.close()


async def test_the_pages_follow_the_base_url_of_datasette(tmp_path: Path) -> None:
    files = demo_files(tmp_path)
    block = full_block(**({} if IS_1_0 else {"permissions": PERMISSIONS}))
    config = {"permissions": PERMISSIONS} if IS_1_0 else {}
    datasette = make(files, block, config=config, settings={"base_url": "/data/"})
    headers = {"cookie": "ds_actor=" + datasette.sign({"a": {"id": "ann"}}, "actor")}
    async with serving(datasette.app()) as client:
        page = await client.get(f"/data{PATH}", headers=headers)
        assert page.status_code == 200
        assert f'href="/data{PATH}/create"' in page.text
        await client.post(f"/data{PATH}/create", headers=headers, data=DAY)
        ended = await client.post(f"/data{PATH}/1", headers=headers, data={"revoke": "1"})
        assert ended.headers["location"] == f"/data{PATH}/1"


async def test_without_the_extra_everything_but_the_pages_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith("asgi_token_auth.web")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    block: dict[str, Any] = {"manage_tokens": True}
    for more in ({"permissions": PERMISSIONS}, {"scopes": SCOPES}, {"tokens_may_manage_tokens": True}):
        with pytest.raises(ConfigurationError, match=r"asgi-token-auth\[web\]"):
            from_config(App(), {**block, **more}, databases={"tokens": tmp_path / "t.db"}, secret=SECRET)
    app: Any = from_config(App(), block, databases={"tokens": tmp_path / "t.db"}, secret=SECRET)
    assert (await ask(app, http(path=PATH))).body == b"served"
