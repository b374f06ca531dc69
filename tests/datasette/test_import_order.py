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


UNCHANGED = ASKS.replace("from asgi_token_auth.datasette import", "from datasette_secrets import")
#: What the README says to write where such a plugin is loaded before ours.
LINE = "from asgi_token_auth.datasette import Secret, get_secret"


def ask_first(folder: Path) -> None:
    """An installed plugin of datasette-secrets, which Datasette finds before ours."""
    (folder / "asks_for_secrets.py").write_text(UNCHANGED)
    installed = folder / "asks_for_secrets-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: asks-for-secrets\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[datasette]\nasks_for_secrets = asks_for_secrets\n")


FIRST = ORDERS["Datasette first"]
COMMANDS = (
    "\nfrom datasette.cli import cli\nprint('commands:', 'generate-encryption-key' in cli.commands['secrets'].commands)"
)


def test_an_unchanged_plugin_that_is_loaded_before_ours_needs_the_file_of_the_readme(tmp_path: Path) -> None:
    ask_first(tmp_path)
    with pytest.raises(AssertionError, match="No module named 'datasette_secrets'"):
        printed(FIRST + PROGRAM, tmp_path)
    readme = (Path(asgi_token_auth.__file__).parents[1] / "README.md").read_text()
    assert f"`{LINE}`, or put a file `datasette_secrets.py` with that line" in readme
    (tmp_path / "datasette_secrets.py").write_text(LINE)
    actor, hooks, other, commands = printed(FIRST + PROGRAM + COMMANDS, tmp_path)
    assert '"bot"' in actor
    assert "actor_from_request" in hooks
    assert other == "other: ['WEATHER_KEY']"
    assert commands == "commands: True", "the file is not taken for the real one"


def test_a_folder_of_that_name_does_not_hide_what_stands_in(tmp_path: Path) -> None:
    (tmp_path / "datasette_secrets").mkdir()
    program = (
        f"{FIRST}\nimport datasette_secrets\nfrom datasette_secrets import Secret, get_secret\n"
        "from asgi_token_auth.datasette import stand_in\nprint(stand_in.real_one_is_installed(), Secret.__module__)"
    )
    assert printed(program, tmp_path) == ["False asgi_token_auth.secrets.record"]


@pytest.mark.parametrize("imported", [False, True])
def test_the_real_one_is_a_package_with_a_file_however_it_is_found(imported: bool, tmp_path: Path) -> None:
    """An editable install of it comes from a finder of its own, at the end."""
    (tmp_path / "elsewhere" / "datasette_secrets").mkdir(parents=True)
    (tmp_path / "elsewhere" / "datasette_secrets" / "__init__.py").write_text("get_secret = None\nREAL = True")
    (tmp_path / "datasette_secrets").mkdir()
    program = (
        "import sys\nfrom importlib.machinery import PathFinder\n"
        "class Editable:\n    @staticmethod\n    def find_spec(name, path=None, target=None):\n"
        f"        return PathFinder.find_spec(name, [{str(tmp_path / 'elsewhere')!r}])\n"
        "sys.meta_path.append(Editable)\n"
        f"{FIRST}\nfrom asgi_token_auth.datasette import hooks, stand_in\n"
        + ("import datasette_secrets\nprint(datasette_secrets.REAL)\n" if imported else "print(True)\n")
        + "print(stand_in.real_one_is_installed())"
    )
    assert printed(program, tmp_path) == ["True", "True"]


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
