"""The pages below ``root_path`` on real servers: where their links lead, and that nothing else leads to them."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support import ROOT
from tests.support.processes import PATIENCE, Server

ROOT_PATH = "/api/v1"
PAGES = "/-/api/tokens"

APP = """
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Mount

from asgi_token_auth import from_config

BLOCK = {"manage_tokens": True, "permissions": {"auth-tokens-create": {"id": "*"}}}

def wrapped(name: str) -> Any:
    return from_config(
        Starlette(), BLOCK, databases={"tokens": Path(__file__).with_name(name)}, secret="a secret of real servers",
        signed_in=lambda scope: {"id": "ann"},
    )

alone = wrapped("alone.db")
inside = Starlette(routes=[Mount("/sub", wrapped("inside.db"))])
"""

ARGUMENTS = {
    "uvicorn": ["--host", "127.0.0.1", "--port", "{port}", "--root-path", ROOT_PATH, "--app-dir", "{folder}"],
    "hypercorn": ["--bind", "127.0.0.1:{port}", "--root-path", ROOT_PATH],
    "daphne": ["-b", "127.0.0.1", "-p", "{port}", "--root-path", ROOT_PATH],
}

#: Other spellings: a part of root_path, its parts in another order, all of it twice or more.
OTHERS = ["/v1", "/api", "/v1/api", "/i/v1", "//api/v1", "/api/v1/", "/api//v1", "/api/v1/api/v1/api/v1"]


@contextmanager
def served(kind: str, app: str, folder: Path) -> Generator[str]:
    """The address of a real server that tells :data:`ROOT_PATH`."""
    if importlib.util.find_spec(kind) is None:
        pytest.skip(f"{kind} is not installed: pip install {kind}")
    (folder / "below_root_path.py").write_text(APP)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    more = [each.format(port=port, folder=folder) for each in ARGUMENTS[kind]]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", kind, *more, f"below_root_path:{app}"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    address = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            return bool(httpx.get(address, timeout=PATIENCE).status_code)
        except httpx.TransportError:
            return False

    try:
        Server(process, log).wait_until(ready)
        yield address
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)


@pytest.mark.parametrize("kind", ARGUMENTS)
@pytest.mark.parametrize(("app", "mount"), [("alone", ""), ("inside", "/sub")], ids=["alone", "mounted"])
def test_each_page_has_its_own_address_and_no_other(kind: str, app: str, mount: str, tmp_path: Path) -> None:
    with served(kind, app, tmp_path) as address, httpx.Client(base_url=address, timeout=PATIENCE) as client:
        # As a proxy passes it on that strips root_path, which every server takes.
        page = client.get(mount + PAGES)
        assert page.status_code == 200, page.text
        links = re.findall(r'(?:href|src|action)="([^"]*)"', page.text)
        assert links
        assert all(link.startswith(ROOT_PATH + mount + PAGES) for link in links), links
        # As one passes it on that does not: where the server leaves the path as it came.
        whole = client.get(ROOT_PATH + mount + PAGES)
        assert whole.status_code == (404 if kind == "uvicorn" else 200)
        for other in OTHERS:
            for path in {other + mount + PAGES, mount + other + PAGES} - {mount + PAGES}:
                assert client.get(path).status_code == 404, path
