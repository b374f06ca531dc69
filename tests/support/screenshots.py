"""Makes the pictures in the README anew: the pages on a throw-away server, with made-up tokens and secrets.

    python -m tests.support.screenshots [FOLDER]

FOLDER is .github unless another is given.
"""

from __future__ import annotations

import struct
import sys
import tempfile
import zlib
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.support import ROOT
from tests.support.browser_sites import CHROMIUM_ARGUMENTS, find_chromium, running
from tests.support.people import be


def main(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    chromium = find_chromium()
    if chromium is None:
        sys.exit("There is no Chromium; install one, or name it in ASGI_TOKEN_AUTH_CHROMIUM.")
    with (
        tempfile.TemporaryDirectory() as temporary,
        running("bare", Path(temporary), "--seed") as site,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        context = browser.new_context(viewport={"width": 1100, "height": 600}, locale="en-GB", timezone_id="UTC")
        be(context, site, "ada")
        page = context.new_page()

        def take(name: str) -> None:
            _keep(page, folder / f"{name}.png")

        page.goto(site.url())
        take("list")
        page.goto(site.url("/4"))
        take("details")
        page.goto(site.url("/4/edit"))
        take("edit")
        page.goto(site.url("/create"))
        page.locator("[name=description]").fill("Weather station in the garden")
        page.locator("input[name=limit][value=only]").check()
        page.locator("input[name='all:reports:read']").check()
        page.locator("input[name='all:orders:read']").check()
        page.locator("h1").click()
        take("create")
        page.locator(".ata-form button").click()
        page.locator("input.copyable").wait_for()
        take("shown")
        be(context, site, "grace")
        page.goto(site.secret_url())
        take("secrets")
        page.goto(site.secret_url("/WEATHER_KEY"))
        take("secret")
        browser.close()


def _keep(page: Page, file: Path) -> None:
    page.wait_for_load_state()
    file.write_bytes(_smaller(page.screenshot(full_page=True)))
    print(f"{file} {file.stat().st_size:,} bytes")


def _smaller(png: bytes) -> bytes:
    """The same picture, packed as tightly as PNG can, without the chunks that no viewer needs."""
    kept, packed, at = [], b"", 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        name, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        if name == b"IDAT":
            packed += data
        elif name == b"IHDR":
            kept.append((name, data))
        at += length + 12
    again = min((zlib.compress(zlib.decompress(packed), 9), packed), key=len)
    kept += [(b"IDAT", again), (b"IEND", b"")]
    chunks = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in kept)
    return png[:8] + b"".join(chunks)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".github")
