"""What somebody typed is text on every page of secrets, and never more."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.secrets.record import Secret
from asgi_token_auth.secrets.store import SecretStore
from asgi_token_auth.web import SecretPages
from asgi_token_auth.web.secrets import link_to
from tests.support.page_sites import signed_in
from tests.support.secret_sites import KEY
from tests.support.sites import serving

pytestmark = pytest.mark.anyio

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onfocus=alert(1) autofocus='",
    "</title></textarea><script>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "\u202egpj.exe\u202c",
]


async def test_hostile_names_notes_and_descriptions_are_escaped(tmp_path: Path) -> None:
    asked = [Secret(f"A{number}", text, text, text) for number, text in enumerate(HOSTILE)]
    store = SecretStore(SQLite(tmp_path / "s.db"), encryption_key=KEY, secrets=asked)
    pages: Any = SecretPages(store, signed_in=signed_in, permissions={"manage-secrets": True})
    async with store, serving(pages, lifespan=False) as client:
        for number, text in enumerate(HOSTILE):
            headers = {"x-user": '{"id": "ann", "name": "<script>alert(1)</script>"}'}
            await store.set(text, "v", note=text[:100], by=text)
            await store.set(f"A{number}", "v", note=text[:100], by=text)
            for path in ("/", f"/{link_to(text)}", f"/A{number}"):
                page = await client.get(path, headers=headers)
                assert page.status_code == 200, (text, path)
                for piece in ("<script>", "<img", "' onfocus", 'href="javascript', "{{ 49", ">49"):
                    assert piece not in page.text, (text, path, piece)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://example.com/?a=1&b=2", True),
        ("http://example.com", True),
        ("HTTPS://EXAMPLE.COM", True),
        ("javascript:alert(1)", False),
        ("JavaScript://example.com/%0Aalert(1)", False),
        (" https://example.com", True),
        ("data:text/html,x", False),
        ("//example.com", False),
        ("/keys", False),
        ("https:", False),
        ("https://[", False),
        ("file:///etc/passwd", False),
    ],
)
async def test_only_addresses_of_the_web_become_links(tmp_path: Path, address: str, shown: bool) -> None:
    store = SecretStore(SQLite(tmp_path / "s.db"), encryption_key=KEY, secrets=[Secret("A", None, address, "Get it")])
    pages: Any = SecretPages(store, signed_in=signed_in, permissions={"manage-secrets": True})
    async with store, serving(pages, lifespan=False) as client:
        for path in ("/", "/A"):
            page = await client.get(path, headers={"x-user": '{"id": "ann"}'})
            assert (f'<a href="{html.escape(address)}" rel="noreferrer"><bdi>Get it</bdi></a>' in page.text) is shown
            assert ("Get it" in page.text) is shown
