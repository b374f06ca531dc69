"""The pages in a real browser, on a real server: an app that knows nothing of them, and the installed Datasette."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support.browser_sites import Site, running
from tests.support.people import MISSING, PHONE, WAYS, WIDE, NewPage, be, button, field, heading, link, row

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
pytest_plugins = ["tests.support.browser_fixtures"]

HOSTILE = "<script>document.title='owned'</script>" + "W" * 300 + "\u202e'\"&"


def status(site: Site, token: str) -> int:
    """How another client, with that token and without cookies, is answered."""
    headers = {"authorization": f"Bearer {token}"}
    return httpx.get(site.address + "/-/actor.json", headers=headers, trust_env=False).status_code


def log_in(page: Page, site: Site) -> None:
    page.goto(site.login)
    if site.kind == "bare":
        page.get_by_label("Name").fill("ada")
        button(page, "Log in").click()
        heading(page, "API tokens")


@pytest.mark.parametrize("way", WAYS)
def test_the_life_of_a_token(site: Site, new_page: NewPage, way: str) -> None:
    person, scripts = WAYS[way].person, way != "without JavaScript"
    page = new_page(None if way == "pointer" else "ada", **WAYS[way].options)
    if way == "pointer":
        # Datasette's link works once only.
        log_in(page, site)
    page.goto(site.url())
    person.press(link(page, "Create a token"))

    heading(page, "Create an API token")
    person.write(field(page, "description"), f"Made by {way}")
    person.write(field(page, "expire_duration"), "36")
    person.choose(field(page, "expire_type"), "hours")
    restricts = page.locator("input[name=limit]").count() > 0
    assert restricts == (site.kind == "bare" or site.is_1_0)
    if restricts:
        person.press(page.locator("input[name=limit][value=only]"))
        if site.kind == "datasette":
            person.press(page.locator("summary", has_text="Everywhere"))
        person.press(page.locator(f"input[name='all:{'reports:read' if site.kind == 'bare' else 'view-instance'}']"))
    person.press(button(page, "Create token"))

    heading(page, "Your new API token")
    first = page.locator("input.copyable").input_value()
    assert first.startswith("dsatok_")
    assert re.fullmatch(r"in (36|35) hours.*|in 1 day.*|in 2 days.*", row(page, "Expires").inner_text().strip())
    if scripts:
        person.press(button(page, "Copy"))
        page.get_by_text("Copied", exact=True).wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == first
    else:
        assert not page.get_by_text("Copy", exact=True).is_visible()
    assert status(site, first) == 200

    person.press(link(page, "Details of this token"))
    heading(page, f"Made by {way}")
    if restricts:
        assert row(page, "May do").inner_text().split() == (
            ["Everywhere", "reports:read"] if site.kind == "bare" else ["Everywhere", "view-instance"]
        )
    if way == "pointer":
        # It is written some seconds after the use, too long to wait for it every time.
        used = row(page, "Last used")
        for _ in range(60):
            if "ago" in used.inner_text():
                break
            page.wait_for_timeout(250)
            page.reload()
        assert "ago" in used.inner_text()

    person.press(link(page, "Edit"))
    assert field(page, "expire_type").input_value() == "keep"
    if restricts:
        assert page.locator("input[type=checkbox]:checked").count() == 1
        assert page.locator("input[type=checkbox]:checked").is_visible()
    person.write(field(page, "description"), f"Changed by {way}")
    person.press(button(page, "Save"))
    heading(page, f"Changed by {way}")
    details = page.url

    person.press(page.locator("summary", has_text="Rotate"))
    person.choose(field(page, "grace"), "3600")
    person.press(button(page, "Make a new text"))
    heading(page, "The token has a new text")
    second = page.locator("input.copyable").input_value()
    assert [status(site, text) for text in (first, second)] == [200, 200]
    person.press(link(page, "Details of this token"))
    assert page.url == details
    assert "stops working in" in row(page, "Old text").inner_text()
    person.press(page.locator("summary", has_text="Rotate"))
    person.press(button(page, "Make a new text"))
    heading(page, "The token has a new text")
    third = page.locator("input.copyable").input_value()
    assert [status(site, text) for text in (first, second, third)] == [401, 401, 200]

    page.goto(details)
    person.press(page.locator("summary", has_text="Revoke"))
    person.press(button(page, "Revoke this token"))
    page.locator(".ata-status", has_text="Revoked").wait_for()
    assert [status(site, text) for text in (first, second, third)] == [401, 401, 401]
    assert page.locator("button[name=revoke]").count() == 0
    for text in (first, second, third):
        assert text not in page.content()
    page.goto(site.url())
    assert page.locator("tr.token-R", has_text=f"Changed by {way}").count() == 1


def test_a_second_click_sends_nothing_again(site: Site, new_page: NewPage) -> None:
    page = new_page()
    page.goto(site.url("/create"))
    prevented = page.evaluate(
        """() => {
            const form = document.querySelector(".ata-form"), prevented = [];
            window.addEventListener("submit", (event) => {
                prevented.push(event.defaultPrevented);
                event.preventDefault();
            });
            form.requestSubmit();
            form.requestSubmit();
            return prevented;
        }"""
    )
    assert prevented == [False, True]


def test_an_error_is_beside_its_field_and_has_the_focus(site: Site, new_page: NewPage) -> None:
    page = new_page(java_script_enabled=False)
    page.goto(site.url("/create"))
    field(page, "description").fill(HOSTILE)
    field(page, "expire_duration").fill("²")
    button(page, "Create token").click()
    page.get_by_role("alert").wait_for()
    heading(page, "Create an API token")
    number = field(page, "expire_duration")
    assert number.input_value() == "²"
    assert field(page, "description").input_value() == HOSTILE
    assert number.get_attribute("aria-invalid") == "true"
    beside = page.locator(f"#{number.get_attribute('aria-describedby')}")
    assert beside.inner_text() == "Give a whole number, 1 or more."
    below = beside.bounding_box()
    above = number.bounding_box()
    assert below is not None
    assert above is not None
    assert 0 <= below["y"] - (above["y"] + above["height"]) < 24
    assert page.locator(":focus").get_attribute("name") == "expire_duration"
    page.get_by_role("alert").get_by_role("link").click()
    assert page.url.endswith("#expire_duration")


def every_page(page: Page, site: Site) -> Iterator[str]:
    """Each page, one after the other, in all its states."""

    def visit(path: str, who: str = "ada") -> None:
        be(page.context, site, who)
        page.goto(site.url(path))

    visit("")
    yield "list"
    if page.locator(".ata summary").count():
        page.locator(".ata summary").first.click()
        yield "list, about to revoke all"
    visit("?owner=ada&status=active&search=a", "root")
    yield "list, filtered"
    visit("?search=nothing-is-called-so")
    yield "list, nothing found"
    visit("", "linus")
    yield "list, without a right to create"
    visit("/create")
    yield "create"
    field(page, "expire_type").select_option("")
    if page.locator("input[name=limit]").count():
        page.locator("input[name=limit][value=only]").check()
        for summary in page.locator(".ata-grants > details > summary").all():
            summary.click()
        for box in page.locator("input[type=checkbox]:visible").all()[:4]:
            box.check()
        yield "create, ticked"
        for box in reversed(page.locator("input[type=checkbox]:visible:checked").all()):
            box.uncheck()
    field(page, "expire_type").select_option("days")
    field(page, "expire_duration").fill("x" * 60)
    button(page, "Create token").click()
    page.get_by_role("alert").wait_for()
    yield "create, refused"
    visit("/create")
    field(page, "description").fill(HOSTILE)
    button(page, "Create token").click()
    heading(page, "Your new API token")
    yield "shown"
    page.reload()
    heading(page, "This form was already used")
    yield "used already"
    link(page, "Details of this token").click()
    heading(page, HOSTILE)
    yield "details, hostile"
    # No script of a description ran.
    assert page.title() != "owned"
    link(page, "All tokens").click()
    heading(page, "API tokens")
    yield "list, hostile"
    for number, state in {4: "active", 3: "revoked", 1: "expired"}.items():
        visit(f"/{number}")
        yield f"details, {state}"
    visit("/4", "root")
    page.locator("summary", has_text="Revoke").click()
    yield "details, another's"
    visit("/4/edit")
    yield "edit"
    page.locator("input[name=version]").evaluate("input => input.value = 'of another time'")
    button(page, "Save").click()
    page.get_by_role("alert").wait_for()
    yield "edit, changed meanwhile"
    visit("/create", "linus")
    yield "403"
    visit("/999999")
    yield "404"
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
    if screen == "phone":
        # The same elements with the same names; only what depends on colours and on the layout can differ.
        options["runOnly"] = ["color-contrast", "scrollable-region-focusable", "link-in-text-block", "target-size"]
    found: list[str] = []
    seen = 0
    for name in every_page(page, site):
        seen += 1
        # Without the style sheet everything is wide.
        page.wait_for_load_state()
        width = page.evaluate("document.scrollingElement.scrollWidth")
        if width > viewport["width"]:
            found.append(f"{name}: {width} pixels wide")
        for violation in Axe().run(page, context=part, options=options).response["violations"]:
            if violation["impact"] in ("serious", "critical"):
                found.append(f"{name}: {violation['help']}: {violation['nodes'][0]['html'][:200]}")
    assert found == []
    assert seen >= 19


def contrast(first: str, second: str) -> float:
    """As WCAG 2 computes it."""

    def luminance(color: str) -> float:
        channels = [int(channel) / 255 for channel in re.findall(r"\d+", color)[:3]]
        red, green, blue = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    darker, lighter = sorted((luminance(first), luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def test_colours_follow_the_reader_and_can_be_read(site: Site, new_page: NewPage) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        page = new_page(color_scheme=scheme)
        page.goto(site.url("/create"))

        def color(selector: str, name: str = "color", page: Page = page) -> str:
            found: str = page.locator(selector).first.evaluate(f"e => getComputedStyle(e)['{name}']")
            return found

        ground = grounds[scheme] = color("body", "backgroundColor")
        for selector in ("h1", ".ata-field > label", ".ata-hint"):
            assert contrast(color(selector), ground) >= 4.5, (scheme, selector)
        create = ".ata-form button"
        assert contrast(color(create), color(create, "backgroundColor")) >= 4.5
        assert contrast(color("[name=description]", "borderTopColor"), ground) >= 3
    assert contrast(grounds["light"], "rgb(255, 255, 255)") < 1.2
    # Datasette is always light.
    assert contrast(grounds["dark"], "rgb(255, 255, 255)") > 12 or site.kind == "datasette"


def test_times_are_local_and_relative_with_the_exact_one_on_hover(site: Site, new_page: NewPage) -> None:
    page = new_page()
    page.goto(site.url("/2"))
    created = row(page, "Created")
    exact = created.locator("time").get_attribute("datetime")
    assert exact is not None
    assert created.locator("time").inner_text() == "7 months ago"
    assert created.locator(".ata-time").get_attribute("title") == exact
    wanted = page.evaluate(
        "at => new Date(at).toLocaleString('en-GB', {dateStyle: 'medium', timeStyle: 'short', timeZone: 'Asia/Tokyo'})",
        exact,
    )
    assert created.locator(".ata-local").inner_text() == wanted
    plain = new_page(java_script_enabled=False)
    plain.goto(site.url("/2"))
    assert row(plain, "Created").locator(".ata-local").inner_text() == f"{exact[:10]} {exact[11:16]} UTC"


def test_the_form_says_in_words_what_the_token_may_do(site: Site, new_page: NewPage) -> None:
    page = new_page()
    page.goto(site.url("/create"))
    words = page.locator(".ata-summary")
    assert words.inner_text().startswith("It may do everything that you may do. It stops working on ")
    field(page, "expire_type").select_option("")
    assert words.inner_text() == "It may do everything that you may do. It never expires."
    assert not field(page, "expire_duration").is_visible()
    if page.locator("input[name=limit]").count() == 0:
        return
    page.locator("input[name=limit][value=only]").check()
    assert words.inner_text() == "Nothing is ticked yet."
    if site.kind == "bare":
        for action in ("reports:read", "orders:read", "orders:refund"):
            page.locator(f"input[name='all:{action}']").check()
        said = ["It may only:", "read reports, read orders and refund orders", "It never expires."]
        boxes = 3
    else:
        page.locator("summary", has_text="Everywhere").click()
        page.locator("input[name='all:view-instance']").check()
        page.locator("summary", has_text="Database plants").click()
        page.get_by_label("Find a table").fill("MEASURE")
        assert page.locator("[data-ata-table]:visible").count() == 1
        page.locator("summary", has_text="measurements").click()
        page.locator("input[name='resource:plants:measurements:insert-row']").check()
        page.locator("input[name='resource:plants:measurements:update-row']").check()
        said = [
            "It may only:",
            "view Datasette instance everywhere",
            "insert rows and update rows in plants/measurements",
            "It never expires.",
        ]
        boxes = 3
    assert [line for line in words.inner_text().splitlines() if line] == said
    assert next(text for text in page.locator("[data-ata-count]").all_inner_texts() if text).endswith(" ticked")
    # What is ticked and hidden again is neither lost nor sent.
    page.locator("input[name=limit][value=all]").check()
    assert page.locator("input[type=checkbox]:visible").count() == 0
    assert words.inner_text() == "It may do everything that you may do. It never expires."
    page.locator("input[name=limit][value=only]").check()
    assert page.locator("input[type=checkbox]:checked").count() == boxes
    page.locator("input[name=limit][value=all]").check()
    button(page, "Create token").click()
    heading(page, "Your new API token")
    assert row(page, "May do").inner_text() == "Everything that its owner may do"


@pytest.mark.datasette("1.0")
@pytest.mark.parametrize("site", ["datasette"], indirect=True)
def test_hundreds_of_tables_leave_a_short_form(new_page: NewPage, tmp_path: Path) -> None:
    with running("datasette", tmp_path, "--tables", "300") as large:
        page = new_page(None)
        be(page.context, large, "ada")
        page.goto(large.url("/create"))
        page.locator("input[name=limit][value=only]").check()
        assert page.locator("[data-ata-table]").count() == 302
        for summary in page.locator(".ata-grants > details > summary").all():
            summary.click()
        assert page.evaluate("document.scrollingElement.scrollHeight") < 2_500
        page.locator("[data-ata-table=survey_2299] summary").click()
        page.locator("input[name='resource:plants:survey_2299:view-table']").check()
        button(page, "Create token").click()
        heading(page, "Your new API token")
        assert row(page, "May do").inner_text().split() == ["Table:", "plants/survey_2299", "view-table"]


def test_a_form_that_was_open_during_a_change_shows_both_and_lets_decide(site: Site, new_page: NewPage) -> None:
    page, other = new_page(), new_page()
    page.goto(site.url("/create"))
    button(page, "Create token").click()
    heading(page, "Your new API token")
    page.goto(site.url())
    address = page.locator("tr.token-active a").first.get_attribute("href")
    for tab, typed in ((page, "Typed first"), (other, "Saved first")):
        tab.goto(f"{site.address}{address}/edit")
        field(tab, "description").fill(typed)
    button(other, "Save").click()
    heading(other, "Saved first")
    button(page, "Save").click()
    page.locator("[role=alert]", has_text="Nothing was saved").wait_for()
    assert row(page, "Description").inner_text().strip() == "Saved first"
    assert field(page, "description").input_value() == "Typed first"
    button(page, "Save").click()
    heading(page, "Typed first")


def test_all_tokens_of_an_owner_are_ended_at_once(site: Site, new_page: NewPage) -> None:
    page = new_page("grace")
    page.goto(site.url("/create"))
    button(page, "Create token").click()
    heading(page, "Your new API token")
    token = page.locator("input.copyable").input_value()
    assert status(site, token) == 200
    link(page, "All tokens").click()
    page.locator("summary", has_text="Revoke all").click()
    button(page, "Revoke all my tokens").click()
    page.locator(".ata-revoked").first.wait_for()
    assert page.locator("tr.token-active").count() == 0
    assert status(site, token) == 401
    other = new_page("root")
    other.goto(site.url("?owner=linus"))
    other.locator("summary", has_text="Revoke all").click()
    button(other, "Revoke all their tokens").click()
    heading(other, "API tokens")
    other.goto(site.url("?owner=linus"))
    assert other.locator("tr.token-active").count() == 0
    other.goto(site.url("?owner=ada"))
    assert other.locator("tr.token-active").count() >= 4
