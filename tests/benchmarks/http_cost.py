"""Requests a second over HTTP: managed tokens in SQLite and PostgreSQL, Starlette's dict, and no middleware at all.

Every round visits all servers in a new random order, and only numbers of one round are compared with each other: one
core is the server's and the other one is that of wrk, which asks with a hundred tokens in rotation.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import secrets
import shutil
import statistics
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from itsdangerous import URLSafeSerializer

from asgi_token_auth import TokenStore
from asgi_token_auth.databases.postgres import Postgres
from asgi_token_auth.databases.protocol import Database
from asgi_token_auth.databases.sqlite import SQLite
from tests.benchmarks.apps import SECRET
from tests.benchmarks.http_servers import BARE, IN_POSTGRES, IN_SQLITE, SELECT, SHORTEST, STARLETTE, Server
from tests.benchmarks.machine import installed
from tests.benchmarks.report import Report, Table
from tests.benchmarks.sizes import Size
from tests.benchmarks.stores import IN_ROTATION
from tests.support import postgres

#: A goal that must hold in each of so many runs, which are parts of this one.
RUNS: Final = 5

# wrk runs it once for each of its threads, of which there is one.
_ROTATE: Final = """
local requests = {}
for number, token in ipairs(TOKENS) do
  requests[number] = wrk.format("GET", "/", {["Authorization"] = "Bearer " .. token, ["Accept"] = "application/json"})
end
local at = 0
request = function()
  at = at % #requests + 1
  return requests[at]
end
"""


class Load(NamedTuple):
    """What was measured in one round; milliseconds in which so many of a hundred requests were answered."""

    rate: float
    p50: float
    p99: float
    #: Microseconds of the server's processor for each request.
    cpu: float


def load(server: Server, script: Path, *, connections: int, seconds: int) -> Load:
    """Ask as often as possible. Every answer must be 200."""
    command = ["wrk", "-t1", "--latency", f"-c{connections}", f"-d{seconds}s", "-s", str(script)]
    before = server.cpu()
    said = subprocess.run(
        [*command, f"http://127.0.0.1:{server.port}/"], capture_output=True, text=True, check=True
    ).stdout
    cpu = server.cpu() - before
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", said)
    answered = re.search(r"(\d+) requests in", said)
    late = {at: re.search(rf"{at}%\s+([0-9.]+)(us|ms|s)", said) for at in (50, 99)}
    if "Non-2xx" in said or "Socket errors" in said or rate is None or answered is None:
        raise RuntimeError(said)
    p50, p99 = (float(found[1]) * {"us": 0.001, "ms": 1, "s": 1000}[found[2]] for found in late.values() if found)
    return Load(float(rate[1]), p50, p99, cpu / int(answered[1]) * 1e6)


class Loads:
    """All rounds with one number of connections."""

    def __init__(self, found: dict[str, list[Load]]) -> None:
        self.found = found

    def times(self, name: str, other: str, part: str, rounds: slice = slice(None)) -> float:
        """The median of what one server has of the other, round by round."""
        pairs = zip(self.found[name][rounds], self.found[other][rounds], strict=True)
        ratios: list[float] = [getattr(a, part) / max(getattr(b, part), 1e-9) for a, b in pairs]
        return statistics.median(ratios)

    def worst(self, name: str, other: str, part: str) -> float:
        """The least of ``RUNS`` runs."""
        count = len(self.found[name])
        size = max(1, count // RUNS)
        return min(self.times(name, other, part, slice(at, at + size)) for at in range(0, count - size + 1, size))

    def table(self, title: str) -> Table:
        rows = [
            (
                name,
                f"{statistics.median(load.rate for load in loads):,.0f}",
                f"{self.times(name, BARE, 'rate'):.2f}",
                f"{statistics.median(load.p50 for load in loads):.2f}",
                f"{statistics.median(load.p99 for load in loads):.2f}",
                f"{self.times(name, BARE, 'p99'):.2f}",
                f"{statistics.median(load.cpu for load in loads):.1f}",
            )
            for name, loads in self.found.items()
        ]
        return Table(title, ("", "requests/s", "of bare", "p50 ms", "p99 ms", "of bare", "CPU us"), rows)


async def issue(database: Database) -> list[str]:
    async with TokenStore(database, secret=SECRET) as store:
        return [(await store.issue(f"actor {number}")).token for number in range(IN_ROTATION)]


def start(stack: ExitStack, folder: Path, dsn: str | None) -> tuple[dict[str, Server], dict[str, Path]]:
    """Every server that can be started here, and what wrk is told about its tokens."""
    known = folder / "known.txt"
    plain = [secrets.token_urlsafe(32) for _ in range(IN_ROTATION)]
    known.write_text("\n".join(plain))
    file = str(folder / "tokens.db")
    places = {BARE: (str(known), plain), STARLETTE: (str(known), plain)}
    places[IN_SQLITE] = (file, asyncio.run(issue(SQLite(file))))
    if dsn is not None:
        kept = asyncio.run(issue(Postgres(dsn)))
        serializer = URLSafeSerializer(SECRET)
        places[IN_POSTGRES] = places[SELECT] = (dsn, kept)
        places[SHORTEST] = (dsn, [str(serializer.dumps(number)) for number in range(1, IN_ROTATION + 1)])
    scripts = {}
    for number, (name, (_, tokens)) in enumerate(places.items()):
        scripts[name] = folder / f"{number}.lua"
        listed = ", ".join(json.dumps(token) for token in tokens)
        scripts[name].write_text(_ROTATE.replace("TOKENS", "{" + listed + "}"))
    return {name: Server(stack, name, place, tokens[0]) for name, (place, tokens) in places.items()}, scripts


def measure(servers: dict[str, Server], scripts: dict[str, Path], connections: int, size: Size) -> Loads:
    found: dict[str, list[Load]] = {name: [] for name in servers}
    for _ in range(size.http_rounds):
        for name in random.sample(list(servers), len(servers)):
            found[name].append(load(servers[name], scripts[name], connections=connections, seconds=size.http_seconds))
    return Loads(found)


def benchmark(size: Size) -> Report:
    """Measure."""
    report = Report()
    if shutil.which("wrk") is None:
        report.missing.append("Requests over HTTP need wrk: apt-get install wrk.")
        return report
    loop = "uvloop" if installed("uvloop") else "asyncio"
    parser = "httptools" if installed("httptools") else "h11"
    if (loop, parser) != ("uvloop", "httptools"):
        report.missing.append(
            f"The goals are for uvloop and httptools; this is {loop} and {parser}: pip install uvloop."
        )
    with ExitStack() as stack:
        dsn = None
        if postgres.programs() is None:
            report.missing.append(f"PostgreSQL over HTTP: {postgres.NEEDED}.")
        else:
            dsn = stack.enter_context(postgres.running()).dsn()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers, scripts = start(stack, folder, dsn)
        loads = {count: measure(servers, scripts, count, size) for count in size.connections}
    for count, found in loads.items():
        report.tables.append(found.table(f"Over HTTP, uvicorn with {loop} and {parser}, {count} connections"))
    most = loads[max(size.connections)]
    if (loop, parser) == ("uvloop", "httptools"):
        report.values = values(most, with_postgres=dsn is not None)
    return report


def values(loads: Loads, *, with_postgres: bool) -> dict[str, float]:
    """For the goals."""
    found = {
        "managed / bare, rate": loads.times(IN_SQLITE, BARE, "rate"),
        "managed / Starlette's dict, rate": loads.times(IN_SQLITE, STARLETTE, "rate"),
        "managed / bare, p99": loads.times(IN_SQLITE, BARE, "p99"),
        "managed / bare, CPU": loads.times(IN_SQLITE, BARE, "cpu"),
    }
    if with_postgres:
        found["PostgreSQL / bare, rate, worst of five runs"] = loads.worst(IN_POSTGRES, BARE, "rate")
    return found
