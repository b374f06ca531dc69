"""Every name that a secret may have leads to its own page, and no other does."""

from __future__ import annotations

import html
import re
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_token_auth.web.secrets import link_to
from tests.support.page_sites import KINDS
from tests.support.secret_sites import PATH, TABLE, assert_error, error_of, get, post, running, send

pytestmark = pytest.mark.anyio

NAMES = [
    "plain",
    "with spaces",
    "a/b",
    "/a/b/",
    "a//b",
    "100% & more?",
    "#x;y=z+w",
    "日本語 ключ",
    "\U0001f511",
    "e\u0301",
    "x.json",
    ".json",
    "a/b.json.json",
    "static/pages.css",
    "..a",
    "a/../b",
    "%2F",
    "%2Ejson",
    "a\\b",
    "'\"<b>",
    "~2E",
    "x" * 200,
    "日" * 200,
]


@pytest.mark.parametrize("kind", KINDS)
async def test_every_name_has_its_own_page_and_its_own_json(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        for name in NAMES:
            path = f"/{link_to(name)}"
            page = await get(site, path)
            assert page.status_code == 200, name
            title = re.search(r"<h1><bdi>(.*?)</bdi></h1>", page.text, re.DOTALL)
            assert title is not None
            assert html.unescape(title[1]) == name
            assert (await post(site, path, {"secret": f"form of {name}"})).status_code == 302, name
            assert await site.store.get_secret(name) == f"form of {name}"
            made = await send(site, f"/{quote(name, safe='')}.json", {"value": f"JSON of {name}"})
            assert made.json()["details"]["name"] == name
            assert await site.store.get_secret(name) == f"JSON of {name}"
            assert (await get(site, f"/{quote(name, safe='')}.json")).json()["details"]["version"] == 2
            found = await site.client.get(PATH, params={"name": name}, headers=site.user("ann"))
            assert (found.status_code, found.headers["location"]) == (302, PATH + path)
        listed = (await get(site)).text
        links = {html.unescape(link) for link in re.findall(rf'href="({PATH}/[^"]*)"', listed)}
        assert links >= {f"{PATH}/{link_to(name)}" for name in NAMES}
        stored = {one["name"] for one in (await get(site, ".json")).json()["secrets"]}
        assert stored >= set(NAMES)
        for name in NAMES:
            assert (await send(site, f"/{quote(name, safe='')}.json", {"delete": True})).status_code == 200, name


@given(st.text(min_size=1, max_size=200))
def test_a_link_means_its_name_and_never_json(name: str) -> None:
    link = link_to(name)
    assert unquote(link) == name
    assert re.fullmatch(r"[A-Za-z0-9_.~%-]+", link)
    assert not link.endswith(".json")


BAD_NAMES = ["x" * 201, "x" * 10_000, "a%00b", "a%0Ab", "%7F", "%1B%5B31m"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_name_that_cannot_be_is_refused(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        before = site.rows()
        for name in BAD_NAMES:
            page = await get(site, f"/{name}")
            assert page.status_code == 400, name[:20]
            assert "name of a secret" in error_of(page)
            assert len(page.content) < 20_000
            refused = await post(site, f"/{name}", {"secret": "x"})
            assert refused.status_code == 400
            assert_error(await send(site, f"/{name}.json", {"value": "x"}), 400)
            assert_error(await get(site, f"/{name}.json"), 404)
            assert (await get(site, f"?name={name}")).status_code == 400
        # What is no UTF-8 is read as if it were, and nothing of that name is there.
        assert (await get(site, "/%FF%FE.json")).status_code == 404
        assert (await get(site, "?name=")).status_code == 200
        assert (await get(site, ".json?name=x")).json()["ok"] is True
        assert site.rows() == before


@pytest.mark.parametrize("kind", KINDS)
async def test_a_name_that_only_datasette_secrets_took_has_a_page_to_delete_it(tmp_path: Path, kind: str) -> None:
    name = "x" * 201
    async with running(kind, tmp_path) as site:
        await site.store.set("x", "value")
        site.run_sql(f"update {TABLE} set name = ?", name)
        assert f'href="{PATH}/{name}"' in (await get(site)).text
        page = await get(site, f"/{name}")
        assert page.status_code == 200
        assert "Delete this secret" in page.text
        assert "1 to 200 characters" in error_of(await post(site, f"/{name}", {"secret": "y"}))
        assert (await post(site, f"/{name}", {"delete": "1"})).status_code == 302
        assert name not in (await get(site)).text
        assert (await get(site, f"/{name}")).status_code == 400
