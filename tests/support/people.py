"""People who use a page, with a mouse, a finger or keys, and how they find what is on it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tests.support.browser_sites import Site

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Locator, Page

MISSING = "install chromium to look at the pages in a real browser (and pip install 'asgi-token-auth[test]')"
WIDE = {"width": 1280, "height": 800}
PHONE = {"width": 360, "height": 740}


class NewPage(Protocol):
    def __call__(self, who: str | None = "ada", **options: Any) -> Page: ...


def be(context: BrowserContext, site: Site, who: str) -> None:
    context.clear_cookies()
    context.add_cookies([{"name": site.cookies[who]["name"], "value": site.cookies[who]["value"], "url": site.address}])


class Person(Protocol):
    """One way to use a page."""

    def press(self, target: Locator) -> None: ...
    def write(self, target: Locator, text: str) -> None: ...
    def choose(self, target: Locator, value: str) -> None: ...


class Pointer:
    """With a mouse, or a finger."""

    def press(self, target: Locator) -> None:
        target.click()

    def write(self, target: Locator, text: str) -> None:
        target.fill(text)

    def choose(self, target: Locator, value: str) -> None:
        target.select_option(value)


class Keyboard:
    """With nothing but keys, as they are on every keyboard."""

    def press(self, target: Locator) -> None:
        kind = target.get_attribute("type") or target.evaluate("e => e.localName")
        if kind == "radio":
            # One radio of a group can be reached with Tab, the others from there.
            group = target.page.locator(f"input[name={target.get_attribute('name')}]")
            self._reach(target.page, lambda: group.evaluate_all("all => all.includes(document.activeElement)"))
            for _ in range(group.count()):
                if not target.is_checked():
                    target.page.keyboard.press("ArrowDown")
            assert target.is_checked()
            return
        self._reach_one(target)
        target.page.keyboard.press("Space" if kind == "checkbox" else "Enter")

    def write(self, target: Locator, text: str) -> None:
        self._reach_one(target)
        target.page.keyboard.press("Control+A")
        target.page.keyboard.type(text)

    def choose(self, target: Locator, value: str) -> None:
        self._reach_one(target)
        target.page.keyboard.press("Home")
        for _ in range(target.locator("option").count()):
            if target.input_value() != value:
                target.page.keyboard.press("ArrowDown")
        assert target.input_value() == value

    def _reach_one(self, target: Locator) -> None:
        target.wait_for()
        self._reach(target.page, lambda: bool(target.evaluate("e => e === document.activeElement")))
        # Whoever uses keys must see where they are.
        assert target.evaluate("e => getComputedStyle(e).outlineStyle") != "none"

    def _reach(self, page: Page, there: Callable[[], bool]) -> None:
        for _ in range(120):
            if there():
                return
            page.keyboard.press("Tab")
        raise AssertionError("it cannot be reached with Tab")


@dataclass(frozen=True)
class Way:
    person: Person
    options: dict[str, Any]


WAYS = {
    "pointer": Way(Pointer(), {}),
    "keyboard": Way(Keyboard(), {}),
    "without JavaScript": Way(Pointer(), {"java_script_enabled": False}),
    "phone": Way(Pointer(), {"viewport": PHONE, "has_touch": True, "is_mobile": True}),
}


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def link(page: Page, name: str) -> Locator:
    return page.locator(".ata").get_by_role("link", name=name, exact=True)


def heading(page: Page, name: str) -> None:
    page.get_by_role("heading", level=1, name=name, exact=True).wait_for()


def field(page: Page, name: str) -> Locator:
    return page.locator(f"[name={name}]")


def row(page: Page, label: str) -> Locator:
    """What a page says beside ``label``."""
    return page.locator("dt", has_text=re.compile(f"^{label}$")).locator("xpath=following-sibling::dd[1]")
