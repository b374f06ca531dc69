"""Real servers: every kind of token over real sockets, nothing of them in a log, and a clean end."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.processes import Server, Tokens, asked, running, uvicorn
from tests.support.sites import BOT, SENSOR, demo_files, signed

APPS = pytest.mark.parametrize("app", ["datasette", "starlette"])


@pytest.fixture(
    params=[("datasette", "h11"), ("datasette", "httptools"), ("starlette", "h11"), ("starlette", "httptools")],
    ids="-".join,
)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    app, http = request.param
    demo_files(tmp_path)
    with running(uvicorn(app, "--http", http), tmp_path) as started:
        yield started


def test_every_kind_of_token_works_and_none_is_ever_logged(server: Server, tmp_path: Path) -> None:
    with Tokens(tmp_path) as tokens, server.client() as client:
        issued = tokens.issue()
        good = {BOT: "bot", issued.token: "alice", SENSOR: "sensor-1", signed(): "carol"}
        for token, actor_id in good.items():
            assert asked(client, token)["id"] == actor_id
            assert asked(client, params={"_auth_token": token})["id"] == actor_id
            percent = "".join(f"%{ord(character):02x}" for character in "_auth_token")
            assert asked(client, params=f"a=1&{percent}={token}")["id"] == actor_id
        assert asked(client) is None
        bad = ["nobody-knows-this", "1-wrong-secret", issued.token[:-2] + "xx", signed() + "x", "x" * 8193]
        for token in bad:
            expected = 400 if len(token) > 8192 else 401
            assert asked(client, token) == expected
            assert asked(client, params={"_auth_token": token}) == expected
        refused = client.get("/-/actor.json", headers={"authorization": "Bearer nobody-knows-this"})
        assert refused.headers["www-authenticate"].startswith('Bearer realm="api", error="invalid_token"')
        assert refused.json()["status"] == 401
        both = client.get("/-/actor.json", params={"_auth_token": BOT}, headers={"authorization": f"Bearer {BOT}"})
        assert both.status_code == 400
        posted = client.post("/-/actor.json", params={"_auth_token": BOT})
        assert posted.status_code == 400
        tokens.revoke(issued.record.id)
        assert asked(client, issued.token) == 401
    server.stop()
    written = server.written()
    assert b'"GET /-/actor.json?a=1 HTTP/1.1" 200' in written, "requests are logged, without the parameter"
    for token in (*good, *bad):
        assert token.encode() not in written
    assert b"Traceback" not in written


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize("sockets", ["websockets", "websockets-sansio"])
def test_a_websocket_client_is_accepted_or_sees_a_true_401(http: str, sockets: str, tmp_path: Path) -> None:
    demo_files(tmp_path)
    with running(uvicorn("starlette", "--http", http, "--ws", sockets), tmp_path) as server:
        address = server.address.replace("http://", "ws://") + "/talk"
        with connect(address, additional_headers={"authorization": f"Bearer {BOT}"}) as socket:
            assert json.loads(socket.recv())["actor"]["id"] == "bot"
        with connect(f"{address}?_auth_token={BOT}") as socket:
            assert json.loads(socket.recv())["actor"]["id"] == "bot"
        with connect(address) as socket:
            assert json.loads(socket.recv())["actor"] is None
        for path, headers, status in (
            ("", {"authorization": "Bearer nobody-knows-this"}, 401),
            ("?_auth_token=nobody-knows-this", {}, 401),
            ("", {"authorization": "Bearer"}, 400),
        ):
            with pytest.raises(InvalidStatus) as refused:
                connect(address + path, additional_headers=headers)
            assert refused.value.response.status_code == status
            assert refused.value.response.headers["www-authenticate"].startswith("Bearer ")
            assert json.loads(refused.value.response.body or b"{}")["status"] == status
        server.stop()
        assert BOT.encode() not in server.written()
        assert b"nobody-knows-this" not in server.written()


@APPS
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("lifespan", ["on", "off"])
def test_a_signal_ends_the_server(app: str, number: signal.Signals, lifespan: str, tmp_path: Path) -> None:
    demo_files(tmp_path)
    with running(uvicorn(app, "--lifespan", lifespan), tmp_path) as server:
        with Tokens(tmp_path) as tokens, server.client() as client:
            issued = tokens.issue()
            for token in (issued.token, SENSOR, BOT):
                assert isinstance(asked(client, token), dict)
        assert server.stop(number) in (0, -number, 128 + number)
        assert b"Traceback" not in server.written()


@APPS
def test_last_uses_are_written_at_a_clean_stop(app: str, tmp_path: Path) -> None:
    demo_files(tmp_path)
    with running(uvicorn(app), tmp_path) as server, Tokens(tmp_path) as tokens:
        used, unused = tokens.issue(), tokens.issue()
        with server.client() as client:
            assert asked(client, used.token)["id"] == "alice"
        server.stop()
        assert tokens.get(used.record.id).last_used_at is not None
        assert tokens.get(unused.record.id).last_used_at is None
