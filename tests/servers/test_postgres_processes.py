"""Several processes, as on several machines, with the tokens in one PostgreSQL.

TEST_POSTGRES_REVOCATIONS makes it more than the usual number of rounds.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from typing import Any

from tests.support import postgres

ROUNDS = int(os.environ.get("TEST_POSTGRES_REVOCATIONS", "200"))

PROCESS = """
import asyncio, json, os, sys

from asgi_token_auth import Authenticated, Credential, ManagedTokens, TokenStore
from asgi_token_auth.databases.postgres import Postgres

async def main():
    async with TokenStore(Postgres(sys.argv[1]), secret="a secret of three processes") as store:
        source = ManagedTokens(store)
        for line in sys.stdin:
            what, given = json.loads(line)
            if what == "issue":
                issued = await store.issue("ann")
                answer = [issued.record.id, issued.token]
            elif what == "revoke":
                await store.revoke(given, owner="ann")
                answer = True
            else:
                answer = isinstance(await source.authenticate(Credential(given)), Authenticated)
            print(json.dumps([os.getpid(), answer]), flush=True)

asyncio.run(main())
"""


class Process:
    def __init__(self, dsn: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, dsn], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, what: str, given: object = None) -> tuple[int, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([what, given]) + "\n")
        self.process.stdin.flush()
        pid, answer = json.loads(self.process.stdout.readline())
        return pid, answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(30) == 0
        assert self.process.stdout is not None
        self.process.stdout.close()


def test_a_revocation_by_one_process_is_known_to_all_of_them(postgres_server: postgres.Server) -> None:
    postgres_server.run("create schema processes")
    processes = [Process(f"{postgres_server.dsn()}&search_path=processes") for _ in range(3)]
    refused: Counter[int] = Counter()
    for _ in range(ROUNDS):
        issuer, revoker = random.choices(processes, k=2)
        token_id, token = issuer.ask("issue")[1]
        # Each of them has it at hand when it is revoked.
        assert all(process.ask("use", token)[1] for process in processes)
        revoker.ask("revoke", token_id)
        pid, accepted = random.choice(processes).ask("use", token)
        assert not accepted
        refused[pid] += 1
    for process in processes:
        process.close()
    postgres_server.run("drop schema processes cascade")
    print(dict(refused))
    assert sum(refused.values()) == ROUNDS
    assert len(refused) == len(processes)
