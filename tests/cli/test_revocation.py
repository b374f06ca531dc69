"""A token that is revoked on the command line is refused by the next request of every worker."""

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
from tests.support.terminal import Terminal, environment

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
