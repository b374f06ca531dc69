"""``tokens revoke``: by number, by text, or all of an actor; every worker refuses them at its next request."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.support.processes import Tokens, running, uvicorn
from tests.support.sites import bearer, demo_files
from tests.support.terminal import Terminal, create, environment, verdict

REVOCATIONS = 200
#: So many of them start a process of their own; starting one takes longer than all else.
PROCESSES = 20

# The command line again and again in one process: a line in is one command, a line out is its exit code.
AGAIN = """
import contextlib, io, sys
from asgi_token_auth.cli.commands import root
for line in sys.stdin:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            root.main(line.split(), prog_name="asgi-token-auth")
    except SystemExit as end:
        print(end.code, flush=True)
"""


@pytest.mark.timeout(120)
def test_the_next_request_is_refused(terminal: Terminal, tmp_path: Path) -> None:
    demo_files(tmp_path)
    with (
        ExitStack() as stack,
        running(uvicorn("starlette", "--workers", "2"), tmp_path, workers=2) as server,
        Tokens(tmp_path) as tokens,
        subprocess.Popen(
            [sys.executable, "-c", AGAIN],
            cwd=tmp_path,
            env=environment(**terminal.variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as again,
    ):
        assert again.stdin is not None
        assert again.stdout is not None
        clients: dict[str, httpx.Client] = {}
        while len(clients) < 2:
            client = stack.enter_context(server.client())
            clients.setdefault(client.get("/-/actor.json").headers["x-pid"], client)
        answers: Counter[tuple[str, int]] = Counter()
        for number in range(REVOCATIONS):
            issued = tokens.issue()
            headers = bearer(issued.token)
            for client in clients.values():
                assert client.get("/-/actor.json", headers=headers).status_code == 200
            if number % (REVOCATIONS // PROCESSES) == 0:
                terminal.run("tokens", "revoke", "-", stdin=issued.token)
            else:
                again.stdin.write(f"tokens revoke {issued.record.id}\n")
                again.stdin.flush()
                assert again.stdout.readline() == "0\n"
            for pid, client in clients.items() if number % 2 else reversed(clients.items()):
                answers[pid, client.get("/-/actor.json", headers=headers).status_code] += 1
    assert answers == {(pid, 401): REVOCATIONS for pid in clients}


def test_revoke_by_id(terminal: Terminal) -> None:
    token = create(terminal, "alice")["token"]
    assert "is revoked" in terminal.run("tokens", "revoke", "1").out
    assert verdict(terminal, token) == "revoked"
    assert "had ended before" in terminal.run("tokens", "revoke", "1").out
    assert terminal.run("tokens", "revoke", "1", "--json").json["status"] == "revoked"


def test_a_leaked_token_needs_no_id(terminal: Terminal) -> None:
    tokens = [create(terminal, "alice")["token"] for _ in range(3)]
    assert "Token 2 is revoked" in terminal.run("tokens", "revoke", "-", stdin=f"  {tokens[1]}\n").out
    assert [verdict(terminal, token) for token in tokens][1] == "revoked"
    assert [verdict(terminal, token)["id"] for token in (tokens[0], tokens[2])] == ["alice", "alice"]
    assert "stopped working before; token 2" in terminal.fails("tokens", "revoke", "-", stdin=tokens[1])
    # Nobody used them by asking.
    assert terminal.quick("tokens", "show", "2", "--json").json["last_used_at"] is None


def test_a_token_of_another_instance_ends_no_token_here(terminal: Terminal) -> None:
    create(terminal, "alice")
    theirs = terminal.run("tokens", "create", "bob", "--database", "other.db").out
    assert "or the text is of another database" in terminal.fails("tokens", "revoke", "-", stdin=theirs)
    theirs = terminal.run("tokens", "create", "bob", "--database", "other.db").out
    assert "not in this database" in terminal.fails("tokens", "revoke", "-", stdin=theirs)
    wrong = "was signed with this secret"
    assert wrong in terminal.fails("tokens", "revoke", "-", stdin=theirs, DATASETTE_SECRET="another secret entirely")
    assert wrong in terminal.fails("tokens", "revoke", "-", stdin="dsatok_garbage")
    assert wrong in terminal.fails("tokens", "revoke", "-", stdin="something else")
    assert terminal.quick("tokens", "show", "1", "--json").json["status"] == "active"


def test_a_leaked_text_that_was_rotated_away_is_told_from_the_token(terminal: Terminal) -> None:
    first = create(terminal, "alice")["token"]
    second = terminal.quick("tokens", "rotate", "1").out
    for text, sentence in ((first, "token 1 has had a new one since it was rotated"), (first, "`tokens revoke 1`")):
        assert sentence in terminal.fails("tokens", "revoke", "-", stdin=text)
    third = terminal.quick("tokens", "rotate", "1", "--grace", "1h").out
    terminal.sql("update _datasette_auth_tokens set previous_until = 1")
    told = terminal.fails("tokens", "revoke", "-", stdin=second)
    assert "since it was rotated. The token itself, of alice, is active" in told
    assert verdict(terminal, third)["id"] == "alice"
    # While the old text works, it is the token.
    fourth = terminal.quick("tokens", "rotate", "1", "--grace", "1h").out
    assert "Token 1 is revoked" in terminal.run("tokens", "revoke", "-", stdin=third).out
    assert verdict(terminal, fourth) == "revoked"
    assert "token 1, which it names, is revoked" in terminal.fails("tokens", "revoke", "-", stdin=first)


def test_revoking_what_others_end_with_asks_first(terminal: Terminal) -> None:
    tokens = [create(terminal, "alice")["token"] for _ in range(3)]
    terminal.sql("update _datasette_auth_tokens set parent_id = 1 where id > 1")
    for arguments, stdin in ((["1"], "n\n"), (["1"], ""), (["-"], tokens[0])):
        assert "nobody said yes" in terminal.fails("tokens", "revoke", *arguments, stdin=stdin)
    assert verdict(terminal, tokens[2])["id"] == "alice"
    done = terminal.run("tokens", "revoke", "1", stdin="yes\n")
    assert "End token 1 and 2 active tokens created through it?" in done.err
    assert {verdict(terminal, token) for token in tokens} == {"revoked"}
    assert terminal.run("tokens", "revoke", "1").err == ""


def test_the_token_itself_with_others_below_it(terminal: Terminal) -> None:
    tokens = [create(terminal, "alice")["token"] for _ in range(2)]
    terminal.sql("update _datasette_auth_tokens set parent_id = 1 where id = 2")
    terminal.run("tokens", "revoke", "-", "--yes", stdin=tokens[0])
    assert {verdict(terminal, token) for token in tokens} == {"revoked"}


def test_revoking_all_of_an_actor_asks_first(terminal: Terminal) -> None:
    tokens = [create(terminal, owner)["token"] for owner in ("alice", "alice", "bob")]
    for answer in ("", "n\n", "\n"):
        assert "nobody said yes" in terminal.fails("tokens", "revoke", "--all-of", "alice", stdin=answer)
    done = terminal.run("tokens", "revoke", "--all-of", "alice", stdin="y\n")
    assert "End 2 active tokens of alice?" in done.err
    assert done.out == "Revoked 2 tokens.\n"
    assert [verdict(terminal, token) for token in tokens[:2]] == ["revoked", "revoked"]
    assert verdict(terminal, tokens[2])["id"] == "bob"
    assert terminal.run("tokens", "revoke", "--all-of", "bob", "--yes", "--json").json == {"revoked": 1}
    assert terminal.run("tokens", "revoke", "--all-of", "nobody").out == "Revoked 0 tokens.\n"
    assert "--all-of" in terminal.fails("tokens", "revoke", code=2)
    assert "--all-of" in terminal.fails("tokens", "revoke", "1", "--all-of", "alice", code=2)
