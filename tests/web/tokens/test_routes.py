"""The addresses of the pages of tokens: methods, headers, and what is not there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import TokenStore
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.web import TokenPages
from tests.support.asgi import SECRET
from tests.support.page_sites import DAY, KINDS, PATH, get, post, running

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", KINDS)
async def test_every_method_that_an_address_does_not_take_is_405_with_those_it_takes(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        await site.store.issue("ann")
        before = site.rows()
        for path in ("", ".json", "/create", "/1", "/1/edit", "/current.json", "/static/pages.css"):
            for method in ("PUT", "PATCH", "DELETE", "OPTIONS", *(["POST"] if "current" in path else [])):
                answer = await site.client.request(method, PATH + path, headers=site.user("ann"))
                assert answer.status_code == 405, (method, path)
                assert "GET" in answer.headers["allow"]
                assert ("POST" in answer.headers["allow"]) is not ("current" in path or "static" in path)
        assert site.rows() == before


@pytest.mark.parametrize("kind", KINDS)
async def test_head_is_get_without_a_body(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        await site.store.issue("ann")
        for path in ("", "/create", "/1", "/1.json", "/99", "/current.json", "/static/pages.css"):
            seen = await get(site, path)
            head = await site.client.head(PATH + path, headers=site.user("ann"))
            assert (head.status_code, head.content) == (seen.status_code, b"")
            assert head.headers["content-type"] == seen.headers["content-type"]
            # A time on the page may have become longer between two of them.
            lengths = [len(page.content) for page in (seen, await get(site, path))]
            assert int(head.headers["content-length"]) in lengths


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/0001", 200),
        ("/1/", 404),
        ("/create/", 404),
        ("/x", 404),
        ("/1.5", 404),
        ("/-1", 404),
        ("/0", 404),
    ],
)
async def test_an_address_is_found_or_404_and_never_500(tmp_path: Path, kind: str, path: str, status: int) -> None:
    async with running(kind, tmp_path) as site:
        await site.store.issue("ann")
        assert (await get(site, path)).status_code == status


@pytest.mark.parametrize("kind", KINDS)
async def test_every_answer_has_its_headers(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        await site.store.issue("ann")
        answers = [
            *[await get(site, path) for path in ("", ".json", "/create", "/1", "/1/edit", "/1.json", "/9", "/x")],
            await get(site, "?status=x"),
            await site.client.get(PATH),
            await site.client.get(f"{PATH}/current.json"),
            await site.client.put(PATH),
            await post(site, "/create", DAY),
            await post(site, "/create", {}),
            await post(site, "/1", {"rotate": "1"}),
            await post(site, "/1", {"revoke": "1"}),
        ]
        if kind == "any app":
            # Datasette 1.0 refuses other sites itself.
            answers.append(await post(site, "/1", {"revoke": "1"}, origin="https://attacker.net"))
        for answer in answers:
            headers = answer.headers
            assert "no-store" in headers["cache-control"], answer.request.url
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "same-origin"
            if headers.get("content-type", "").startswith("text/html"):
                policy = headers["content-security-policy"]
                assert "frame-ancestors 'none'" in policy
                assert "form-action 'self'" in policy
                if kind == "any app":
                    assert "default-src 'none'" in policy
                    assert "unsafe" not in policy
                    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=", answer.text)


async def test_a_websocket_to_the_pages_is_closed(tmp_path: Path) -> None:
    pages = TokenPages(TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET))
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await pages({"type": "websocket", "path": PATH}, None, send)
    assert sent[0]["type"] == "websocket.close"
