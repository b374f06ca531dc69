"""Reload, Back and a second click in a real browser do nothing twice."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.test_tokens import status
from tests.support.browser_sites import TABLE, Site
from tests.support.people import NewPage, button, field, heading, link

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
pytest_plugins = ["tests.support.browser_fixtures"]

JAVASCRIPT = pytest.mark.parametrize("scripts", [True, False], ids=["with JavaScript", "without JavaScript"])


#: To a form that creates a token, and to its repeat.
ANSWERS = re.compile("Your new API token|This form was already used")


def rows(site: Site) -> list[Any]:
    """All tokens, but for what use writes."""
    with closing(sqlite3.connect(site.database)) as connection:
        columns = "id, token_status, description, permissions, expires_after_seconds, token_digest, previous_digest"
        return connection.execute(f"select {columns} from {TABLE} order by id").fetchall()


def create(page: Page, site: Site, description: str) -> str:
    page.goto(site.url("/create"))
    field(page, "description").fill(description)
    button(page, "Create token").click()
    heading(page, "Your new API token")
    text: str = page.locator("input.copyable").input_value()
    return text


@JAVASCRIPT
def test_reloading_what_came_of_a_form_does_nothing_more(site: Site, new_page: NewPage, scripts: bool) -> None:
    page = new_page(java_script_enabled=scripts)
    first = create(page, site, "reloaded")
    done = rows(site)
    for _ in range(2):
        # Chromium sends the form again, as it does for a person who says yes to that.
        page.reload()
        heading(page, "This form was already used")
        assert rows(site) == done
    link(page, "Details of this token").click()
    heading(page, "reloaded")

    page.locator("summary", has_text="Rotate").click()
    field(page, "grace").select_option("604800")
    button(page, "Make a new text").click()
    heading(page, "The token has a new text")
    second = page.locator("input.copyable").input_value()
    done = rows(site)
    page.reload()
    heading(page, "This form was already used")
    assert second not in page.content()
    assert rows(site) == done
    assert [status(site, text) for text in (first, second)] == [200, 200]


@JAVASCRIPT
def test_back_and_sending_again_does_nothing_more(site: Site, new_page: NewPage, scripts: bool) -> None:
    page = new_page(java_script_enabled=scripts)
    shown_once = create(page, site, "sent from behind")
    done = rows(site)
    page.go_back()
    heading(page, "Create an API token")
    field(page, "description").fill("sent from behind")
    button(page, "Create token").click()
    heading(page, "This form was already used")
    assert shown_once not in page.content()
    assert rows(site) == done
    page.go_back()
    heading(page, "Create an API token")
    field(page, "description").fill("sent from behind, and changed")
    button(page, "Create token").click()
    page.get_by_text("This form was already used, and made token").wait_for()
    assert rows(site) == done
    # That was said, so now it is meant.
    button(page, "Create token").click()
    heading(page, "Your new API token")
    assert len(rows(site)) == len(done) + 1
    # A page that is come to by a link, or by the address without a key, is another form; loaded again it is the same.
    link(page, "Create another").click()
    heading(page, "Create an API token")
    button(page, "Create token").click()
    heading(page, "Your new API token")
    page.go_back()
    heading(page, "Create an API token")
    page.reload()
    heading(page, "Create an API token")
    button(page, "Create token").click()
    heading(page, "This form was already used")
    assert len(rows(site)) == len(done) + 2
    link(page, "Create another").click()
    heading(page, "Create an API token")
    button(page, "Create token").click()
    heading(page, "Your new API token")
    page.goto(site.url("/create"))
    button(page, "Create token").click()
    heading(page, "Your new API token")
    assert len(rows(site)) == len(done) + 4


@JAVASCRIPT
def test_a_form_that_was_mended_and_used_does_nothing_more_from_behind(
    site: Site, new_page: NewPage, scripts: bool
) -> None:
    page = new_page(java_script_enabled=scripts)
    count = len(rows(site))
    page.goto(site.url("/create"))
    address = page.url
    field(page, "expire_type").select_option("days")
    field(page, "expire_duration").fill("99999")
    button(page, "Create token").click()
    page.get_by_text("Nothing was created").wait_for()
    field(page, "expire_duration").fill("9")
    button(page, "Create token").click()
    heading(page, "Your new API token")
    assert len(rows(site)) == count + 1
    if scripts:
        # The answer that named the fault is between them.
        for _ in range(2):
            page.go_back()
            heading(page, "Create an API token")
    else:
        # Chromium would ask at that answer whether to send the form again.
        page.goto(address)
    field(page, "expire_type").select_option("days")
    field(page, "expire_duration").fill("9")
    button(page, "Create token").click()
    page.get_by_text("This form was already used").wait_for()
    assert len(rows(site)) == count + 1


def test_the_text_of_a_token_comes_from_no_cache(site: Site, new_page: NewPage) -> None:
    from playwright.sync_api import Error

    page = new_page(java_script_enabled=False)
    create(page, site, "kept nowhere")
    page.goto(site.url())
    heading(page, "API tokens")
    # It would have to send the form again, and asks first.
    with pytest.raises(Error, match="ERR_CACHE_MISS"):
        page.go_back()


def test_back_from_a_rotation_with_grace_does_not_end_the_old_text(site: Site, new_page: NewPage) -> None:
    page = new_page()
    first = create(page, site, "rotated once")
    link(page, "Details of this token").click()
    heading(page, "rotated once")
    page.locator("summary", has_text="Rotate").click()
    field(page, "grace").select_option("604800")
    button(page, "Make a new text").click()
    heading(page, "The token has a new text")
    done = rows(site)
    page.go_back()
    heading(page, "rotated once")
    if not field(page, "grace").is_visible():
        page.locator("summary", has_text="Rotate").click()
    field(page, "grace").select_option("604800")
    button(page, "Make a new text").click()
    heading(page, "This form was already used")
    assert rows(site) == done
    assert status(site, first) == 200


@JAVASCRIPT
def test_a_double_click_makes_one_token(site: Site, new_page: NewPage, scripts: bool) -> None:
    page = new_page(java_script_enabled=scripts)
    count, description = len(rows(site)), f"clicked twice, {scripts}"
    page.goto(site.url("/create"))
    field(page, "description").fill(description)
    button(page, "Create token").dblclick()
    page.locator("h1", has_text=ANSWERS).wait_for()
    if scripts:
        # The second click was nothing, so the token is shown.
        assert status(site, page.locator("input.copyable").input_value()) == 200
    assert [row[2] for row in rows(site)].count(description) == 1
    assert len(rows(site)) == count + 1


def test_one_form_that_is_sent_twice_at_once_does_one_thing(site: Site, new_page: NewPage) -> None:
    page = new_page()
    page.goto(site.url("/create"))
    field(page, "description").fill("sent twice at once")
    answers = page.evaluate(
        """async () => {
            const form = document.querySelector(".ata-form");
            const send = () => fetch(form.action, {method: "POST", body: new URLSearchParams(new FormData(form))});
            const answers = await Promise.all([send(), send(), send()]);
            return Promise.all(answers.map((answer) => answer.text()));
        }"""
        # Pages of any app let nothing but forms out.
        if site.kind == "datasette"
        else """async () => {
            const form = document.querySelector(".ata-form");
            const loaded = [];
            for (const name of ["one", "two", "three"]) {
                const frame = window.open("about:blank", name);
                const copy = form.cloneNode(true);
                copy.target = name;
                document.body.append(copy);
                copy.submit();
                loaded.push(name);
            }
            return loaded;
        }"""
    )
    if site.kind == "datasette":
        assert sum("dsatok_" in answer for answer in answers) == 1
    else:
        others = [other for other in page.context.pages if other is not page]
        assert len(others) == 3
        for other in others:
            other.locator("h1", has_text=ANSWERS).wait_for()
        assert sum(other.locator("input.copyable").count() for other in others) == 1
    assert [row[2] for row in rows(site)].count("sent twice at once") == 1


def test_back_and_sending_a_secret_again_stores_one_version(site: Site, new_page: NewPage) -> None:
    page = new_page("grace")

    def versions() -> int:
        with closing(sqlite3.connect(site.secrets)) as connection:
            return len(connection.execute("select id from datasette_secrets where name = 'MAP_KEY'").fetchall())

    def send() -> None:
        page.locator("#secret").fill("a key for maps")
        button(page, "Save").click()

    before = versions()
    page.goto(site.secret_url("/MAP_KEY"))
    send()
    heading(page, "Secrets")
    assert versions() == before + 1
    page.go_back()
    heading(page, "MAP_KEY")
    send()
    heading(page, "Secrets")
    assert versions() == before + 1
