"""The pages of secrets wherever they are mounted, and an app without the packages that they need."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest

from asgi_token_auth import ConfigurationError, ManagedTokens, TokenAuthMiddleware, TokenStore, from_config
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.secrets.store import SecretStore
from asgi_token_auth.web import SecretPages
from tests.support.asgi import App, ask, http
from tests.support.page_sites import signed_in
from tests.support.secret_sites import KEY, PATH, PERMISSIONS
from tests.support.sites import IS_1_0, SECRET, cookie, make, serving

pytestmark = pytest.mark.anyio


def _configured(folder: Path, **more: Any) -> Any:
    block = {"secrets": {"encryption_key": KEY, "database": "secrets"}, "permissions": PERMISSIONS, **more}
    databases = {"secrets": folder / "s.db", "tokens": folder / "t.db"}
    secret = SECRET if "manage_tokens" in more else None
    return from_config(App(), block, databases=databases, secret=secret, signed_in=signed_in)


async def test_the_pages_follow_the_root_path(tmp_path: Path) -> None:
    app = _configured(tmp_path)
    headers = {"x-user": '{"id": "ann"}'}
    async with serving(app):
        for root, base in (("", ""), ("/app", "/app"), ("/app/", "/app"), ("/\u65e5", "/%E6%97%A5")):
            transport = httpx.ASGITransport(app, root_path=root)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                done = await client.post(f"{root}{PATH}/a%2Fb", headers=headers, data={"secret": "x"})
                assert (done.status_code, done.headers["location"]) == (302, base + PATH)
                page = await client.get(f"{root}{PATH}", headers=headers)
                assert f'href="{base}{PATH}/a%2Fb"' in page.text
                assert (await client.get(f"{root}{PATH}/static/pages.css")).status_code == 200
        assert (await ask(app, http(path=PATH + "x"))).body == b"served"


async def test_the_pages_can_be_mounted_anywhere(tmp_path: Path) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    tokens = TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET)
    store = SecretStore(SQLite(tmp_path / "s.db"), encryption_key=KEY)
    pages = SecretPages(store, signed_in=signed_in, permissions=PERMISSIONS)
    inner = Starlette(routes=[Mount("/admin/secrets", pages)])
    app: Any = TokenAuthMiddleware(inner, sources=[ManagedTokens(tokens)], resources=[store])
    async with serving(app) as client:
        headers = {"x-user": '{"id": "ann"}'}
        page = await client.get("/admin/secrets/A%2FB", headers=headers)
        assert 'action="/admin/secrets/A%2FB"' in page.text
        assert 'href="/admin/secrets/static/pages.css"' in page.text
        assert (await client.get("/admin/secrets/static/pages.css")).status_code == 200
        done = await client.post("/admin/secrets/A%2FB", headers=headers, data={"secret": "x"})
        assert done.headers["location"] == "/admin/secrets"
        assert await store.get_secret("A/B") == "x"


async def test_the_pages_follow_the_base_url_of_datasette(tmp_path: Path) -> None:
    kept = tmp_path / "secrets.db"
    sqlite3.connect(kept).close()
    block: dict[str, Any] = {"secrets": {"encryption_key": KEY, "database": "secrets"}}
    config = {"permissions": PERMISSIONS} if IS_1_0 else {}
    if not IS_1_0:
        block["permissions"] = PERMISSIONS
    datasette = make([kept], block, config=config, settings={"base_url": "/data/"})
    headers = cookie(datasette, {"id": "ann"})
    async with serving(datasette.app()) as client:
        done = await client.post(f"/data{PATH}/a%2Fb", headers=headers, data={"secret": "x"})
        assert (done.status_code, done.headers["location"]) == (302, f"/data{PATH}")
        page = await client.get(f"/data{PATH}", headers=headers)
        assert f'href="/data{PATH}/a%2Fb"' in page.text
        # A proxy may take the prefix away.
        done = await client.post(f"{PATH}/a%2Fb", headers=headers, data={"secret": "y"})
        assert (done.status_code, done.headers["location"]) == (302, f"/data{PATH}")


async def test_each_of_the_pages_leads_to_the_others_that_one_may_see(tmp_path: Path) -> None:
    app = _configured(tmp_path, manage_tokens=True, manage_tokens_database="tokens")
    tokens, secrets = 'href="/-/api/tokens"', f'href="{PATH}"'
    async with serving(app) as client:
        for path in (PATH, f"{PATH}/A", "/-/api/tokens", "/-/api/tokens/create"):
            page = (await client.get(path, headers={"x-user": '{"id": "ann"}'})).text
            header = page[page.index("<header") : page.index("</header>")]
            assert tokens in header
            assert secrets in header
            assert header.count("aria-current") == (path in (PATH, "/-/api/tokens"))
        page = (await client.get("/-/api/tokens/create", headers={"x-user": '{"id": "eve"}'})).text
        assert tokens in page
        assert secrets not in page
        limited = {"x-user": '{"id": "ann", "_r": {"a": ["auth-tokens-create"]}}'}
        assert secrets not in (await client.get("/-/api/tokens", headers=limited)).text
        assert secrets not in (await client.get(PATH)).text.replace(f'<a href="{PATH}">Secrets</a>', "")
    alone = _configured(tmp_path)
    async with serving(alone) as client:
        page = (await client.get(PATH, headers={"x-user": '{"id": "ann"}'})).text
        assert tokens not in page
        assert (await client.get("/-/api/tokens")).text == "served"


async def test_without_the_extra_everything_but_the_pages_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith("asgi_token_auth.web")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ConfigurationError, match=r"asgi-token-auth\[web\]"):
        _configured(tmp_path)
    block = {"secrets": {"encryption_key": KEY}}
    app: Any = from_config(App(), block, databases={"s": tmp_path / "s.db"})
    assert (await ask(app, http(path=PATH))).body == b"served"
