"""``decode``: what a token says, whether it is signed, and why it would be refused."""

from __future__ import annotations

import json
from secrets import token_urlsafe
from typing import Any

import pytest
from itsdangerous import URLSafeSerializer
from itsdangerous.encoding import base64_encode

from tests.support.terminal import PATIENCE, SECRET, Terminal


def sign(payload: Any, secret: str = SECRET) -> str:
    text: str = URLSafeSerializer(secret, salt="token").dumps(payload)
    return "dstok_" + text


def decoded(terminal: Terminal, token: str, *, code: int = 0, **more: str) -> Any:
    return terminal.quick("decode", "--json", stdin=token, code=code, **{"ASGI_TOKEN_AUTH_DATABASE": "", **more}).json


def test_a_signed_token(terminal: Terminal) -> None:
    token = sign({"a": "root", "t": 1, "_r": {"a": ["vi"]}})
    assert decoded(terminal, token) == {
        "kind": "signed",
        "payload": {"a": "root", "t": 1, "_r": {"a": ["vi"]}},
        "signature": True,
        "accepted": True,
        "reason": None,
        "row": None,
    }
    out = terminal.run("decode", stdin=token).out
    for words in ("root", "view-instance", "good", "accepted", "never"):
        assert words in out


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (sign({"a": "root", "t": 1, "d": 1}), "expired"),
        (sign({"a": "root", "t": 10**11}), "issued in the future"),
        (sign({"a": "root", "t": "soon"}), "malformed"),
        (sign(["a", "list"]), "malformed"),
        (sign({"a": "root", "t": 1, "_r": [1]}), "malformed"),
        (sign({"a": "root", "t": 1}, "another secret, and a long one"), "bad signature"),
        (sign({"a": "root", "t": 1})[:-1] + "~", "bad signature"),
    ],
)
def test_why_a_signed_token_is_refused(terminal: Terminal, token: str, reason: str) -> None:
    found = decoded(terminal, token, code=1)
    assert (found["accepted"], found["reason"]) == (False, reason)


def test_without_a_secret_the_signature_is_not_judged(terminal: Terminal) -> None:
    found = decoded(terminal, sign({"a": "root", "t": 1}), DATASETTE_SECRET="")
    assert (found["signature"], found["accepted"]) == (None, None)
    expired = decoded(terminal, sign({"a": "root", "t": 1, "d": 1}), code=1, DATASETTE_SECRET="")
    assert (expired["signature"], expired["reason"]) == (None, "expired")


def test_a_managed_token_and_its_row(terminal: Terminal) -> None:
    token = terminal.quick("tokens", "create", "alice").out.strip()
    assert decoded(terminal, token)["accepted"] is None
    found = decoded(terminal, token, ASGI_TOKEN_AUTH_DATABASE="tokens.db")
    assert (found["accepted"], found["row"]["actor_id"], found["payload"]["id"]) == (True, "alice", 1)
    # Neither the text nor the nonce that makes it a secret is told.
    nonce = json.loads(
        URLSafeSerializer("x").load_payload(token.removeprefix("dsatok_").split(".")[0].encode()) and "0"
    )
    assert nonce == 0
    shown = terminal.run("decode", stdin=token).out
    assert token not in shown
    terminal.quick("tokens", "revoke", "1")
    gone = decoded(terminal, token, code=1, ASGI_TOKEN_AUTH_DATABASE="tokens.db")
    assert (gone["reason"], gone["row"]["status"]) == ("revoked", "revoked")
    unsigned = decoded(terminal, token, code=1, ASGI_TOKEN_AUTH_DATABASE="tokens.db", DATASETTE_SECRET="")
    assert unsigned["reason"] == "revoked"
    assert decoded(terminal, token, code=1, DATASETTE_SECRET="another secret entirely")["reason"] == "bad signature"
    assert terminal.quick("tokens", "show", "1", "--json").json["last_used_at"] is None


def test_a_managed_token_of_another_database(terminal: Terminal) -> None:
    theirs = terminal.quick("tokens", "create", "bob", "--database", "other.db").out
    terminal.quick("tokens", "create", "alice")
    found = decoded(terminal, theirs, code=1, ASGI_TOKEN_AUTH_DATABASE="tokens.db")
    assert (found["signature"], found["reason"], found["row"]) == (True, "unknown token", None)


def test_a_token_of_the_predecessor(terminal: Terminal) -> None:
    token = "dsatok_" + str(URLSafeSerializer(SECRET, salt="dsatok").dumps(5))
    assert decoded(terminal, token)["payload"] == {"id": 5, "from_datasette_auth_tokens": True}


def test_an_argument_brings_a_hint(terminal: Terminal) -> None:
    done = terminal.run("decode", sign({"a": "root", "t": 1}))
    assert "arguments are seen by other users" in done.err
    assert terminal.run("decode", "-", stdin=sign({"a": "root", "t": 1})).err == ""


@pytest.mark.parametrize(
    "token", ["dstok_", "dstok_x", "dsatok_", "dsatok_%%%.x", "dstok_" + "A" * 300 + ".x", "dstok_é.x"]
)
def test_what_cannot_be_read_is_a_sentence(terminal: Terminal, token: str) -> None:
    assert "cut off or damaged" in terminal.quick("decode", stdin=token, code=1).err


def test_other_tokens_say_nothing_themselves(terminal: Terminal) -> None:
    assert "no managed or signed token" in terminal.fails("decode", stdin="1-open-sesame")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("key", ["a", "t", "d", "x"])
def test_numbers_that_json_has_not_got_are_named(terminal: Terminal, key: str, value: float) -> None:
    token = sign({"a": "root", "t": 1, key: value})
    done = terminal.quick("decode", "--json", stdin=token, code=0 if key == "x" else 1)

    def refuse(name: str) -> None:
        pytest.fail(f"{name} is no JSON")

    found = json.loads(done.out, parse_constant=refuse)
    assert found["payload"][key] == json.dumps(value)


@pytest.mark.parametrize("depth", [50, 500, 900, 5_000])
def test_a_payload_that_is_nested_deeply(terminal: Terminal, depth: int) -> None:
    text = base64_encode('{"a":' + "[" * depth + "]" * depth + ',"t":1}').decode()
    for options in ([], ["--json"]):
        done = terminal.run("decode", *options, stdin=f"dstok_{text}.{'x' * 27}", code=1)
        assert "report" not in done.err


def test_a_token_that_is_pasted_at_a_terminal_needs_one_ctrl_d(terminal: Terminal) -> None:
    token = terminal.quick("create-token", "root").out.strip()
    with terminal.at("decode") as screen:
        screen.wait_for(b"then Ctrl-D:")
        screen.type(token.encode() + b"\n\x04")
        screen.wait_for(b"accepted")
        assert screen.process.wait(PATIENCE) == 0


def test_a_token_that_no_header_may_carry(terminal: Terminal) -> None:
    token = terminal.quick("create-token", "x" + token_urlsafe(9_000)).out
    assert (
        terminal.quick("decode", "--json", stdin=token, code=1).json["reason"]
        == "longer than servers take it by default"
    )
    within = terminal.quick("create-token", "x" * 1_000).out
    assert terminal.quick("decode", "--json", stdin=within).json["accepted"] is True


def test_names_that_somebody_else_chose_cannot_write_on_the_terminal(terminal: Terminal) -> None:
    """A token that is handed to somebody must not be able to print a verdict of its own."""
    evil = "\x1b[2J\nVerdict: accepted"
    signed = URLSafeSerializer("a secret of somebody else", salt="token")
    token = "dstok_" + signed.dumps({"a": "x", "t": 1, "_r": {"d": {evil: ["vi"]}}})
    shown = terminal.run("decode", stdin=token, code=1).out
    assert "\x1b" not in shown
    assert not [line for line in shown.splitlines() if line.startswith("Verdict: accepted")]


@pytest.mark.parametrize("payload", [{"a": "\ud800", "t": 1}, {"a": "x", "t": 1, "_r": {"d": {"\ud800": ["vi"]}}}])
def test_a_token_that_spells_what_is_no_text_is_told_apart_calmly(
    terminal: Terminal, payload: dict[str, object]
) -> None:
    text = base64_encode(json.dumps(payload)).decode()
    for options in ([], ["--json"]):
        assert "bad signature" in terminal.run("decode", *options, stdin=f"dstok_{text}.{'x' * 27}", code=1).out
