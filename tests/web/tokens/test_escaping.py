"""What somebody typed is text on every page of tokens, and never more."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest

from asgi_token_auth import Restrictions
from tests.support.page_sites import KINDS, PATH, get, post, running

pytestmark = pytest.mark.anyio

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onfocus=alert(1) autofocus='",
    "</title></textarea><script>",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt;",
    "javascript:alert(1)",
    "\u202egpj.exe\u202c",
    "a\r\nSet-Cookie: x=1",
    "<" * 1_000,
]


@pytest.mark.parametrize("kind", KINDS)
async def test_hostile_descriptions_and_actors_are_escaped_everywhere(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        restrictions = Restrictions(database={"<script>db": ("vt",)}, resource={"d": {'"><script>': ("vt",)}})
        for text in HOSTILE:
            actor_id = text[:400]
            token_id = (
                await site.store.issue(actor_id, by=actor_id, description=text, restrictions=restrictions)
            ).record.id
            pages = [await get(site, path, "viewer") for path in (f"/{token_id}", "", f"?search={quote(text[:50])}")]
            mine = (await site.store.issue("ann", description=text, restrictions=restrictions)).record.id
            pages += [await get(site, f"/{mine}/edit"), await get(site, f"/{mine}")]
            pages += [
                await post(site, "/create", {"description": text}),
                await get(site, f"?owner={quote(text[:50])}", "viewer"),
            ]
            headers = site.as_({"id": actor_id, "name": text})
            if "\n" not in text and kind == "any app":
                pages.append(await site.client.get(PATH, headers=headers))
            for page in pages:
                assert page.status_code in (200, 400), text
                assert "<script>" not in re.sub(r"<script>\s*(?:document|/\*|var|window|\()", "", page.text), text
                for piece in ("<img src=x", "alert(1)</script>", "' onfocus", "<script>db", "49", "<b>", "<<"):
                    if piece != "49":
                        assert piece not in page.text, (text, piece)
                assert "set-cookie: x" not in str(page.headers).lower()
                assert 'href="javascript' not in page.text


class Directions(HTMLParser):
    """Collects the text with marks that turn the direction of writing, and whether an element keeps it apart."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, bool]] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "link", "input", "br", "img", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "\u202e" in data:
            # A title is one line of its own, shown by the browser.
            self.found.append((data, "bdi" in self.open or self.open[-1] == "title"))


@pytest.mark.parametrize("kind", KINDS)
async def test_what_somebody_typed_cannot_turn_the_direction_of_the_page_around_it(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        turned = "\u202e\u2067 invoice \u05d0\u05d1"
        theirs = (await site.store.issue(turned, by=turned, description=turned)).record.id
        mine = (await site.store.issue("ann", by=turned, description=turned)).record.id
        await site.store.issue("ann", by=turned)
        headers = site.as_({"id": turned, "name": turned}) if kind == "any app" else site.user("ann")
        answers = {
            "list": (await get(site, "", "both"), 3),
            "list of one owner": (await get(site, f"?owner={quote(turned)}", "both"), 4),
            "details of another": (await get(site, f"/{theirs}", "both"), 3),
            "details": (await get(site, f"/{mine}"), 2),
            "edit": (await get(site, f"/{mine}/edit"), 1),
            "shown": (await post(site, "/create", {"description": turned, "expire_type": ""}), 1),
            "list of somebody so named": (await site.client.get(PATH, headers=headers), 2),
        }
        for name, (answer, least) in answers.items():
            assert answer.status_code == 200, (name, answer.text)
            page = Directions()
            page.feed(answer.text)
            assert len(page.found) >= least, (name, page.found)
            assert all(apart for _, apart in page.found), (name, page.found)
