"""Servers, browsers and their pages, for the tests in this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.browser_sites import CHROMIUM_ARGUMENTS, Site, find_chromium, running
from tests.support.people import MISSING, WIDE, NewPage, be

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = find_chromium()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        if os.environ.get("CI"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(scope="module", params=["bare", "datasette"])
def site(request: pytest.FixtureRequest, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(request.param, tmp_path_factory.mktemp(request.param), "--seed", "--tables", "10") as started:
        yield started


@pytest.fixture
def new_page(browser: Browser, site: Site) -> Iterator[NewPage]:
    """Pages of a browser that nobody used before; what goes wrong in one fails the test."""
    contexts: list[BrowserContext] = []
    wrong: list[str] = []

    def make(who: str | None = "ada", **options: Any) -> Page:
        context = browser.new_context(**{"viewport": WIDE, "locale": "en-GB", "timezone_id": "Asia/Tokyo", **options})
        contexts.append(context)
        context.set_default_timeout(10_000)
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=site.address)
        if who is not None:
            be(context, site, who)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        # Statuses of 400 and more are reported there too, and meant.
        # The second comes where Back restores a page with the field that was in use.
        harmless = ("Failed to load", "Autofocus processing was blocked")
        page.on("console", lambda told: None if told.text.startswith(harmless) else wrong.append(told.text))
        return page

    yield make
    for context in contexts:
        context.close()
    assert wrong == []
