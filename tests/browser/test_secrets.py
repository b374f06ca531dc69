"""The pages of secrets in a real browser, on a real server, and the app that uses what is set there."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from asgi_token_auth.secrets.encryption import generate_key
from tests.support.browser_sites import KEY, Site, running
from tests.support.people import MISSING, PHONE, WAYS, WIDE, NewPage, be, button, field, heading, link, row

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
pytest_plugins = ["tests.support.browser_fixtures"]

PEM = "\n".join(
    ["-----BEGIN TEST KEY-----", "MIIEvQIBADANBgkqhkiG", "BKcwggSjAgEAAoIBAQC7", "-----END TEST KEY-----", ""]
)
HOSTILE = "<script>document.title='owned'</script> \u202e'\"&/" + "W" * 90


def used(site: Site, name: str) -> str | None:
    """The digest of the value that the app gets."""
    answer = httpx.get(site.address + "/-/use.json", params={"name": name}, trust_env=False)
    digest: str | None = answer.raise_for_status().json()["digest"]
    return digest


def digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


@pytest.mark.parametrize("way", WAYS)
def test_the_life_of_a_secret(site: Site, new_page: NewPage, way: str) -> None:
    person = WAYS[way].person
    page = new_page("grace", **WAYS[way].options)
    page.goto(site.secret_url())
    heading(page, "Secrets")
    listed = page.locator("tr", has_text="MAP_KEY")
    assert "Not set" in listed.inner_text()
    assert listed.get_by_role("link", name="Sign up").get_attribute("href") == "https://maps.example/"
    assert used(site, "MAP_KEY") is None

    person.press(link(page, "MAP_KEY"))
    heading(page, "MAP_KEY")
    # Nobody who looks over a shoulder reads it, and no browser offers to keep it or fills it in.
    shown_as = "style => getComputedStyle(document.getElementById('secret')).webkitTextSecurity === style"
    # The style sheet may come after the page.
    page.wait_for_function(shown_as, arg="disc")
    assert page.locator("input[type=password]").count() == 0
    person.press(page.get_by_label("Show what I type"))
    page.wait_for_function(shown_as, arg="none")
    person.write(field(page, "secret"), f"map-{way}-1")
    person.write(field(page, "note"), f"By {way}")
    person.press(button(page, "Save"))

    heading(page, "Secrets")
    told = listed.inner_text()
    assert f"By {way}" in told
    assert "Not set" not in told
    # Only Datasette 1.0 knows how people are called.
    assert f"by {'Grace Hopper' if site.is_1_0 else 'grace'}" in told
    assert used(site, "MAP_KEY") == digest(f"map-{way}-1")

    person.press(link(page, "MAP_KEY"))
    assert field(page, "secret").input_value() == ""
    assert field(page, "note").input_value() == f"By {way}"
    person.write(field(page, "secret"), f"map-{way}-2")
    person.press(button(page, "Save"))
    heading(page, "Secrets")
    assert used(site, "MAP_KEY") == digest(f"map-{way}-2")

    person.press(link(page, "MAP_KEY"))
    person.write(field(page, "note"), "Changed")
    person.press(button(page, "Save"))
    heading(page, "Secrets")
    assert "Changed" in listed.inner_text()
    assert used(site, "MAP_KEY") == digest(f"map-{way}-2")

    person.press(link(page, "MAP_KEY"))
    assert page.locator(".ata-events li").first.inner_text().startswith("Version ")
    assert f"map-{way}" not in page.content()
    if way == "pointer":
        # It is written some seconds after the use, too long to wait for it every time.
        last = row(page, "Last used")
        for _ in range(60):
            if "linus" in last.inner_text().lower():
                break
            page.wait_for_timeout(250)
            page.reload()
        assert "linus" in last.inner_text().lower()
    person.press(page.locator("summary", has_text="Delete"))
    person.press(button(page, "Delete this secret"))
    heading(page, "Secrets")
    assert "Not set" in listed.inner_text()
    assert used(site, "MAP_KEY") is None


def test_a_key_of_several_lines_that_is_pasted_is_kept_to_the_last_line_end(site: Site, new_page: NewPage) -> None:
    page = new_page("grace")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=site.address)
    for pasted, said in ((PEM, "4 lines. It ends with a line end."), (PEM.strip(), "4 lines.")):
        page.goto(site.secret_url("/WEATHER_KEY"))
        # A clipboard of another system has CR LF, and a browser gives them as one line end.
        for ends in (pasted, pasted.replace("\n", "\r\n")):
            page.evaluate("text => navigator.clipboard.writeText(text)", ends)
            field(page, "secret").fill("")
            field(page, "secret").focus()
            page.keyboard.press("Control+V")
            assert field(page, "secret").input_value() == pasted
        button(page, "Save").click()
        heading(page, "Secrets")
        told = page.locator(".ata-stored").inner_text()
        assert told == f"WEATHER_KEY is stored: {len(pasted)} characters in {said}"
        assert used(site, "WEATHER_KEY") == digest(pasted)


def test_what_an_app_uses_outlives_a_rotation_of_the_key(
    site: Site, browser: Browser, new_page: NewPage, tmp_path: Path
) -> None:
    """Set in the page, used by the app, changed, the key rotated, still used."""

    def visit(server: Site) -> Page:
        page = new_page(None)
        be(page.context, server, "grace")
        page.goto(server.secret_url("/WEATHER_KEY"))
        heading(page, "WEATHER_KEY")
        return page

    keys = [KEY, generate_key()]
    with running(site.kind, tmp_path) as server:
        for value in ("first", "second"):
            page = visit(server)
            field(page, "secret").fill(value)
            button(page, "Save").click()
            heading(page, "Secrets")
            assert used(server, "WEATHER_KEY") == digest(value)
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    with running(site.kind, tmp_path) as server:
        assert used(server, "WEATHER_KEY") == digest("second")

        rotated = subprocess.run(
            [sys.executable, "-m", "asgi_token_auth", "secrets", "rotate", "--database", str(server.secrets), "--json"],
            env={**os.environ, "ASGI_TOKEN_AUTH_ENCRYPTION_KEY": " ".join(keys)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(rotated.stdout)["rewritten"] == 2
        assert used(server, "WEATHER_KEY") == digest("second")
    (tmp_path / "keys.json").write_text(json.dumps(keys[1]))
    with running(site.kind, tmp_path) as server:
        assert used(server, "WEATHER_KEY") == digest("second")
        page = visit(server)
        assert page.locator(".ata-events li").count() == 2
    with closing(sqlite3.connect(tmp_path / "secrets.db")) as connection:
        assert connection.execute("select count(distinct encryption_key_name) from datasette_secrets").fetchone() == (
            1,
        )


def test_every_name_leads_to_its_page(site: Site, new_page: NewPage) -> None:
    page = new_page("grace")
    for name in (HOSTILE, "a/b c", "日本語?#%", "config.json", "static/pages.css", "~2F%2F"):
        if site.kind == "bare":
            page.goto(site.secret_url())
            field(page, "name").fill(name)
            button(page, "Continue").click()
        else:
            page.goto(site.secret_url(f"?{httpx.QueryParams({'name': name})}"))
        heading(page, name)
        assert page.title() != "owned"
        field(page, "secret").fill("x")
        button(page, "Save").click()
        heading(page, "Secrets")
        link(page, name).click()
        heading(page, name)
        page.locator("summary", has_text="Delete").click()
        button(page, "Delete this secret").click()
        heading(page, "Secrets")
        assert link(page, name).count() == 0


def every_page(page: Page, site: Site) -> Iterator[str]:
    """Each page, one after the other, in all its states."""

    def visit(path: str, who: str = "grace") -> None:
        be(page.context, site, who)
        page.goto(site.secret_url(path))

    visit("")
    yield "list"
    visit("/MAP_KEY")
    yield "not set"
    page.evaluate("document.querySelector('[name=note]').removeAttribute('maxlength')")
    field(page, "secret").fill("x" * 500)
    field(page, "note").fill(HOSTILE)
    button(page, "Save").click()
    page.get_by_role("alert").wait_for()
    assert page.locator(":focus").get_attribute("name") == "note"
    yield "refused"
    visit("/WEATHER_KEY")
    page.locator("summary", has_text="Delete").click()
    yield "set"
    visit("/MAIL_PASSWORD")
    yield "from the environment"
    visit(f"?{httpx.QueryParams({'name': HOSTILE})}")
    field(page, "secret").fill("x")
    field(page, "note").fill("W" * 100)
    button(page, "Save").click()
    heading(page, "Secrets")
    yield "list, hostile"
    link(page, HOSTILE).click()
    heading(page, HOSTILE)
    yield "hostile"
    page.locator("summary", has_text="Delete").click()
    button(page, "Delete this secret").click()
    visit("/" + "x" * 300)
    yield "400"
    visit("", "linus")
    yield "403"
    with site.broken():
        visit("")
        yield "503"


@pytest.mark.parametrize(("screen", "scheme"), [("wide", "light"), ("phone", "dark")])
def test_every_page_is_fit_for_everybody(site: Site, new_page: NewPage, screen: str, scheme: str) -> None:
    """Nothing that axe-core calls serious, nothing wider than the screen; no complaint of the CSP (see the fixture)."""
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        if os.environ.get("CI"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    viewport = WIDE if screen == "wide" else PHONE
    page = new_page(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
    # Around our part of the page it is Datasette's.
    part = ".ata" if site.kind == "datasette" else None
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    found: list[str] = []
    seen = 0
    for name in every_page(page, site):
        seen += 1
        page.wait_for_load_state()
        if folder := os.environ.get("ASGI_TOKEN_AUTH_PICTURES"):
            page.screenshot(path=Path(folder) / f"{site.kind} {screen} {name}.png", full_page=True)
        width = page.evaluate("document.scrollingElement.scrollWidth")
        if width > viewport["width"]:
            found.append(f"{name}: {width} pixels wide")
        for violation in Axe().run(page, context=part, options=options).response["violations"]:
            if violation["impact"] in ("serious", "critical"):
                found.append(f"{name}: {violation['help']}: {violation['nodes'][0]['html'][:200]}")
    assert found == []
    assert seen == 10


def test_the_menu_leads_there(site: Site, new_page: NewPage) -> None:
    page = new_page("grace")
    if site.kind == "bare":
        page.goto(site.url())
        page.get_by_role("navigation").get_by_role("link", name="Secrets", exact=True).click()
        heading(page, "Secrets")
        page.get_by_role("navigation").get_by_role("link", name="API tokens", exact=True).click()
        heading(page, "API tokens")
        be(page.context, site, "ada")
        page.reload()
        assert page.get_by_role("link", name="Secrets", exact=True).count() == 0
    else:
        page.goto(site.address)
        page.locator(".nav-menu summary").click()
        page.get_by_role("link", name="Manage secrets").click()
        heading(page, "Secrets")
