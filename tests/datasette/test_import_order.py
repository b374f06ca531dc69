"""Datasette loads all plugins when it is first imported, which may be in the middle of our own import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import asgi_token_auth

#: What everybody writes at the head of a module of their own, sorted and not.
ORDERS = {
    "ours first": "from asgi_token_auth.datasette import wrap_datasette\nfrom datasette.app import Datasette",
    "Datasette first": "from datasette.app import Datasette\nfrom asgi_token_auth.datasette import wrap_datasette",
    "a module of ours first": (
        "import asgi_token_auth.datasette.instance\n"
        "from datasette.app import Datasette\nfrom asgi_token_auth.datasette import wrap_datasette"
    ),
    "our hooks first": (
        "import asgi_token_auth.datasette.hooks\n"
        "from datasette.app import Datasette\nfrom asgi_token_auth.datasette import wrap_datasette"
    ),
}

PROGRAM = """
import asyncio
from datasette.plugins import pm

async def main():
    block = {"tokens": [{"token": "a-token-for-tests", "actor": {"id": "bot"}}]}
    app = wrap_datasette(Datasette(), block)
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    path = "/-/actor.json"
    await app({"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
               "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "server": None,
               "client": None, "headers": [(b"host", b"localhost"), (b"authorization", b"Bearer a-token-for-tests")]},
              receive, send)
    print(sent[0]["status"], b"".join(message.get("body", b"") for message in sent).decode())

asyncio.run(main())
print("hooks:", sorted(hook.name for hook in pm.get_hookcallers(pm.get_plugin("asgi_token_auth"))))
other = pm.get_plugin("asks_for_secrets")
print("other:", other and [secret.name for secret in other.register_secrets()])
"""

ASKS = """
from datasette import hookimpl
from asgi_token_auth.datasette import Secret, get_secret

@hookimpl
def register_secrets():
    return [Secret("WEATHER_KEY")]
"""


#: Datasette then loads no entry points.
WITHOUT_ENTRY_POINTS = "import sys\nsys._called_from_test = True\n"

REGISTERED_BEFORE = {
    "nothing": "",
    "the hooks": "from asgi_token_auth.datasette import hooks\npm.register(hooks)\n",
    "the package": "import asgi_token_auth.datasette\npm.register(asgi_token_auth.datasette)\n",
}


@pytest.mark.parametrize("order", ORDERS)
def test_the_plugin_is_whole_whoever_is_imported_first(order: str, tmp_path: Path) -> None:
    # Another installed plugin, which is loaded together with ours.
    (tmp_path / "asks_for_secrets.py").write_text(ASKS)
    installed = tmp_path / "asks_for_secrets-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: asks-for-secrets\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[datasette]\nasks_for_secrets = asks_for_secrets\n")
    actor, hooks, other = printed(ORDERS[order] + PROGRAM, tmp_path)
    assert actor.startswith("200 ")
    assert '"bot"' in actor
    assert "actor_from_request" in hooks
    assert "register_routes" in hooks
    assert other == "other: ['WEATHER_KEY']"


@pytest.mark.parametrize("before", REGISTERED_BEFORE)
def test_wrapping_registers_the_hooks_once_where_no_entry_point_is_loaded(before: str, tmp_path: Path) -> None:
    register = "from datasette.plugins import pm\n" + REGISTERED_BEFORE[before]
    count = "print(sum(each.plugin.__name__.startswith('asgi_token_auth') for each in pm.hook.startup.get_hookimpls()))"
    program = PROGRAM.partition('print("hooks:"')[0] + count
    actor, hooks = printed(WITHOUT_ENTRY_POINTS + ORDERS["Datasette first"] + "\n" + register + program, tmp_path)
    assert actor.startswith("200 ")
    assert '"bot"' in actor
    assert hooks == "1"


def printed(program: str, folder: Path) -> list[str]:
    checkout = Path(asgi_token_auth.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(checkout)])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout.splitlines()
