"""Plugins written for datasette-secrets run unchanged, and its command is there; never beside the real one."""

from __future__ import annotations

import importlib
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from datasette.plugins import pm

from asgi_token_auth.datasette import Secret, get_secret, hooks, stand_in
from asgi_token_auth.datasette.version import IS_1_0
from asgi_token_auth.secrets.encryption import Encryption, generate_key

UNCHANGED = """
from datasette import hookimpl, Response
from datasette_secrets import Secret, get_secret

@hookimpl
def register_secrets():
    return [Secret("WEATHER_KEY", "For the weather service")]

async def page(datasette, request):
    return Response.text(str(await get_secret(datasette, "WEATHER_KEY")))

@hookimpl
def register_routes():
    return [(r"^/-/weather$", page)]
"""


def environment(*folders: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "DATASETTE_SECRET"}
    path = os.pathsep.join([str(folder) for folder in folders] + [os.environ.get("PYTHONPATH", "")])
    return {**kept, "PYTHONPATH": path, "DATASETTE_LOAD_PLUGINS": "", **more}


def datasette(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    # As the entry point does, which a checkout that is on the path only has not.
    program = (
        "import sys; from datasette.plugins import pm; import asgi_token_auth.datasette.hooks as hooks\n"
        "pm.is_registered(hooks) or pm.register(hooks, name='asgi_token_auth')\n"
        "from datasette.cli import cli; cli(sys.argv[1:])"
    )
    del env["DATASETTE_LOAD_PLUGINS"]
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], env=env, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("section", ["asgi-token-auth", "datasette-secrets"])
def test_an_unchanged_plugin_gets_its_secret(section: str, tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "weather.py").write_text(UNCHANGED)
    with closing(sqlite3.connect(tmp_path / "secrets.db")) as connection:
        connection.execute("create table x (a)")
    if section == "asgi-token-auth":
        block: dict[str, Any] = {"secrets": {"encryption_key": generate_key(), "database": "secrets"}}
    else:
        block = {"encryption-key": generate_key(), "database": "secrets"}
    (tmp_path / "c.json").write_text(json.dumps({"plugins": {section: block}}))
    arguments = [str(tmp_path / "secrets.db"), "--plugins-dir", str(tmp_path / "plugins"), "--get", "/-/weather"]
    option = "-c" if IS_1_0 else "-m"
    done = datasette(
        *arguments, option, str(tmp_path / "c.json"), env=environment(DATASETTE_SECRETS_WEATHER_KEY="sunny")
    )
    assert done.stdout.strip() == "sunny", done.stderr


def test_the_module_has_what_is_ours() -> None:
    datasette_secrets = importlib.import_module("datasette_secrets")
    assert datasette_secrets.Secret is Secret
    assert datasette_secrets.get_secret is get_secret
    assert "asgi-token-auth" in (datasette_secrets.__doc__ or "")
    assert not hasattr(datasette_secrets, "get_config")
    assert not stand_in.real_one_is_installed()
    stand_in.install()
    assert sum(isinstance(finder, stand_in.StandIn) for finder in sys.meta_path) == 1
    assert stand_in.StandIn().find_spec("datasette_secrets.hookspecs") is None


@pytest.mark.parametrize("first", ["datasette_secrets", "asgi_token_auth.datasette.hooks"])
def test_the_real_one_goes_before(first: str, tmp_path: Path) -> None:
    (tmp_path / "datasette_secrets.py").write_text("REAL = True")
    program = (
        f"import {first}, datasette_secrets\nfrom asgi_token_auth.datasette import stand_in, hooks\n"
        "print(datasette_secrets.REAL, stand_in.real_one_is_installed())\nimport click\n"
        "cli = click.Group(); hooks.register_commands(cli=cli); print(list(cli.commands))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split("\n")[:2] == ["True True", "[]"], done.stderr


def test_datasette_makes_a_key() -> None:
    done = datasette("secrets", "generate-encryption-key", env=environment())
    assert done.returncode == 0, done.stderr
    Encryption(done.stdout.strip())
    assert "generate-encryption-key" in datasette("secrets", "--help", env=environment()).stdout


def test_every_hook_is_one_that_this_datasette_knows() -> None:
    callers = pm.get_hookcallers(pm.get_plugin("asgi_token_auth") or hooks)
    names = {caller.name for caller in callers or ()}
    assert {caller.name for caller in callers or () if not caller.has_spec()} == set()
    assert ("register_actions" in names, "permission_allowed" in names) == (IS_1_0, not IS_1_0)
    pm.check_pending()
