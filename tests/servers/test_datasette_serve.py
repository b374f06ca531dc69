"""``datasette serve`` with nothing but a configuration file, and programs that use Datasette without a server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from tests.support.processes import PATIENCE, Tokens, asked, running
from tests.support.sites import BOT, IS_1_0, SECRET, SENSOR, bot_block, demo_files, full_block, signed


def serve(folder: Path, block: dict[str, Any], *, section: str = "asgi-token-auth") -> list[str]:
    configuration = folder / "datasette.json"
    configuration.write_text(json.dumps({"plugins": {section: block}}))
    option = "--config" if IS_1_0 else "--metadata"
    files = [str(folder / "demo.db"), str(folder / "tokens.db")]
    return ["-m", "datasette", "serve", *files, option, str(configuration), "--port", "0", "--secret", SECRET]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("section", ["asgi-token-auth", "datasette-auth-tokens"])
def test_a_configuration_file_is_all_that_it_takes(section: str, number: signal.Signals, tmp_path: Path) -> None:
    demo_files(tmp_path)
    with running(serve(tmp_path, full_block(), section=section), tmp_path) as server:
        with Tokens(tmp_path) as tokens:
            with server.client() as client:
                issued = tokens.issue()
                expected = {BOT: "bot", issued.token: "alice", SENSOR: "sensor-1", signed(): "carol"}
                for token, actor_id in expected.items():
                    assert asked(client, token)["id"] == actor_id
                    assert asked(client, params={"_auth_token": token})["id"] == actor_id
                tokens.revoke(issued.record.id)
                assert asked(client, issued.token) == 401
                again = tokens.issue()
                assert asked(client, again.token)["id"] == "alice"
            server.stop(number)
            assert tokens.get(again.record.id).last_used_at is not None
        written = server.written()
        assert b"GET /-/actor.json" in written
        for token in (*expected, again.token):
            assert token.encode() not in written
        assert b"Traceback" not in written


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": (bot_block(tokns=1), "tokns: there is no such key; did you mean tokens?"),
    "unset variable": (
        {"tokens": [{"token": {"$env": "ASGI_TOKEN_AUTH_UNSET"}, "actor": {"id": "bot"}}]},
        "tokens[0].token: the environment variable ASGI_TOKEN_AUTH_UNSET is not set; set it or change $env.",
    ),
    "missing database": (
        full_block(manage_tokens_database="elsewhere"),
        "manage_tokens_database: no database 'elsewhere' is attached",
    ),
    "query without a secret": (
        {"query": {"sql": "select name as actor_id from sensors where id = :token_id", "database": "demo"}},
        "query.sql: the query must return a column token_secret.",
    ),
}


@pytest.mark.parametrize(("block", "sentence"), BROKEN.values(), ids=BROKEN)
def test_a_broken_block_prints_one_sentence_and_exits_with_1(
    block: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    demo_files(tmp_path)
    ran = subprocess.run(
        [sys.executable, *serve(tmp_path, block)],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    said = [line for line in ran.stderr.splitlines() if line]
    assert said[-1].startswith("Error: asgi-token-auth: ")
    assert sentence in said[-1]
    assert "Traceback" not in ran.stderr
    assert len(said) == 1, said


PROGRAM = """
import asyncio, sys
import httpx
sys.path.insert(0, sys.argv[1])
from tests.support import apps
from asgi_token_auth.datasette import token_store

async def main():
    app = getattr(apps, sys.argv[2])()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for token in sys.argv[3:]:
            answer = await client.get("/-/actor.json", headers={"authorization": "Bearer " + token})
            print(answer.json()["actor"]["id"])

asyncio.run(main())
"""


@pytest.mark.parametrize("app", ["datasette", "starlette"])
def test_a_program_that_uses_the_app_without_lifespan_ends_and_writes_last_uses(app: str, tmp_path: Path) -> None:
    demo_files(tmp_path)
    with Tokens(tmp_path) as tokens:
        issued = tokens.issue()
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(ROOT), app, BOT, issued.token, SENSOR, signed()],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=PATIENCE,
            check=False,
            env={**os.environ, "ASGI_TOKEN_AUTH_TEST_FOLDER": str(tmp_path)},
        )
        assert ran.stdout.split() == ["bot", "alice", "sensor-1", "carol"], ran.stderr
        assert ran.returncode == 0
        assert tokens.get(issued.record.id).last_used_at is not None
