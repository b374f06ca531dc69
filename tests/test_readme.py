"""What the README says is tried: its Python blocks run, and its tables name what is really there."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from asgi_token_auth.config import block
from asgi_token_auth.errors import ConfigurationError
from asgi_token_auth.secrets.encryption import generate_key

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

pytestmark = pytest.mark.skipif(not BLOCKS, reason="the README has no examples")


def test_the_tests_that_it_shows_pass(tmp_path: Path) -> None:
    (tmp_path / "protected.py").write_text(next(block for block in BLOCKS if "ManagedTokens(store)]" in block))
    (tmp_path / "test_protected.py").write_text(next(block for block in BLOCKS if "acting_as" in block))
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", ".", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={
            **os.environ,
            "BOT_TOKEN": "a-token-from-the-environment",
            "DATASETTE_SECRET": "a-secret-from-the-environment",
            "PYTEST_ADDOPTS": "",
        },
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert "2 passed" in ran.stdout, ran.stdout + ran.stderr


@pytest.mark.parametrize("number", [number for number, block in enumerate(BLOCKS) if "from protected" not in block])
def test_every_python_example_runs(number: int, tmp_path: Path) -> None:
    for name in ("data.db", "tokens.db", "app.db"):
        subprocess.run(
            [sys.executable, "-c", f"import sqlite3; sqlite3.connect({name!r}).execute('vacuum')"], cwd=tmp_path
        )
    environment = {
        "BOT_TOKEN": "a-token-from-the-environment",
        "DATASETTE_SECRET": "a-secret-from-the-environment",
        "ASGI_TOKEN_AUTH_ENCRYPTION_KEY": generate_key(),
    }
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", BLOCKS[number]],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_the_requires_example_answers_as_it_says() -> None:
    block = next(block for block in BLOCKS if '@requires("reports")' in block)
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), names)

    async def ask(token: str) -> httpx.Response:
        transport = httpx.ASGITransport(app=names["app"])
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/", headers={"Authorization": f"Bearer {token}"})

    answer = asyncio.run(ask("a-long-random-string"))
    assert (answer.status_code, answer.text) == (200, "Reports for bot")
    assert asyncio.run(ask("another-random-string")).status_code == 401


def test_the_from_config_example_greets_strangers_and_the_bot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOT_TOKEN", "a-token-from-the-environment")
    names: dict[str, Any] = {}
    exec(compile(next(block for block in BLOCKS if "Hello {" in block), "README.md", "exec"), names)
    with closing(sqlite3.connect("app.db")) as connection:
        connection.execute("create table keys (id text, token_secret text, actor_id text)")
    with TestClient(names["app"]) as client:
        assert client.get("/").text == "Hello stranger"
        headers = {"Authorization": "Bearer a-token-from-the-environment"}
        assert client.get("/", headers=headers).text == "Hello bot"


def test_the_secrets_example_finds_a_secret_that_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASGI_TOKEN_AUTH_ENCRYPTION_KEY", generate_key())
    names: dict[str, Any] = {}
    exec(compile(next(block for block in BLOCKS if "key_is_set" in block), "README.md", "exec"), names)
    with TestClient(names["app"]) as client:
        assert client.get("/forecast").json() == {"key_is_set": False}
        assert client.portal is not None
        client.portal.call(names["secrets"].set, "WEATHER_KEY", "value")
        assert client.get("/forecast", headers={"Authorization": "Bearer of-the-app"}).json() == {"key_is_set": True}


def test_every_key_that_the_readme_lists_is_read() -> None:
    table = README.split("## Options")[1].split("## Operating it")[0]
    listed = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert len(listed) >= 12
    for key in listed:
        with pytest.raises(ConfigurationError) as refused:
            block.read_configuration({key: object()})
        assert "there is no such key" not in str(refused.value)


def test_every_setting_that_works_is_in_the_readme() -> None:
    flattened = {
        "query_sql": "query",
        "query_database": "query",
        "query_timeout": "query",
        "encryption_keys": "secrets",
        "secrets_database": "secrets",
    }
    for field in fields(block.Configuration):
        assert f"`{flattened.get(field.name, field.name)}`" in README


def test_the_two_commands_stand_in_the_readme_once_each() -> None:
    commands = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith("example_app.py")
    assert commands[1].endswith("-m pytest")
