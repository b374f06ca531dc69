"""The addresses of the pages of secrets: methods and headers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.page_sites import KINDS
from tests.support.secret_sites import PATH, get, post, running

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", KINDS)
async def test_every_answer_has_its_headers(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        answers = [
            *[await get(site, path) for path in ("", ".json", "/OPENAI_KEY", "/OPENAI_KEY.json", "/NEW.json")],
            await get(site, "/" + "x" * 300),
            await get(site, "", "eve"),
            await site.client.put(PATH),
            await post(site, "/OPENAI_KEY", {"secret": "x"}),
            await post(site, "/OPENAI_KEY", {}),
        ]
        if kind == "any app":
            answers.append(await post(site, "/OPENAI_KEY", {"secret": "x"}, origin="https://attacker.net"))
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
        style = await site.client.get(f"{PATH}/static/pages.css")
        assert style.headers["content-type"].startswith("text/css")
        # A secret of that name is another address.
        assert (await get(site, "/static%2Fpages.css")).headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("kind", KINDS)
async def test_every_method_that_an_address_does_not_take_is_405(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        before = site.rows()
        for path in ("", ".json", "/OPENAI_KEY", "/OPENAI_KEY.json", "/static/pages.css"):
            for method in ("PUT", "PATCH", "DELETE", "OPTIONS", *([] if "OPENAI" in path else ["POST"])):
                answer = await site.client.request(method, PATH + path, headers=site.user("ann"))
                assert answer.status_code == 405, (method, path)
                assert ("POST" in answer.headers["allow"]) is ("OPENAI" in path)
            head = await site.client.head(PATH + path, headers=site.user("ann"))
            assert (head.status_code, head.content) == (200, b"")
        assert site.rows() == before
