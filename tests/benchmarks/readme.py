"""The table of a run, where the README has room for it: between two comments that nobody sees."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Final

from tests.benchmarks.report import Report, Table

BEGIN: Final = "<!-- The table of one run, written by python -m tests.benchmarks --readme README.md -->"
END: Final = "<!-- End of that table -->"

#: Cases of the benchmark ``requests`` that the README shows, and what it calls them.
_SHOWN: Final = {
    "no-op middleware": "a middleware that does nothing",
    "no credential": "**no credential**",
    "Starlette's AuthenticationMiddleware, a dict": "Starlette's `AuthenticationMiddleware` with a dict",
    "hard-coded, 100 tokens": "**hard-coded**, 100 tokens",
    "hard-coded, 10,000 tokens": "**hard-coded**, 10,000 tokens",
    "managed, WAL": "**managed**, SQLite in WAL mode",
    "managed, rollback journal": "**managed**, SQLite with a rollback journal",
    "signed (dstok_)": "**signed**",
    "custom SQL": "**custom SQL**, SQLite in WAL mode",
    "bad signature, refused": "**a bad signature**, refused",
    "itsdangerous, then a SELECT": "itsdangerous, then a SELECT on the event loop",
    "itsdangerous, then an aiosqlite SELECT": "itsdangerous, then a SELECT through aiosqlite",
}


def filled(text: str, reports: Mapping[str, Report], machine: Mapping[str, str]) -> str:
    """``text`` with the table of this run.

    Raises:
        SystemExit: there is no room for it, or nothing to write.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"--readme: the file has no lines {BEGIN} and {END}")
    if "requests" not in reports:
        raise SystemExit("--readme: there is nothing to write without the benchmark requests.")
    measured = {row[0]: row for row in reports["requests"].tables[0].rows}
    rows = [(title, measured[name][1], measured[name][2]) for name, title in _SHOWN.items() if name in measured]
    table = Table("", ("in front of the bare app", "us more", "in Starlette's dicts"), rows)
    lines = [str(table).replace(" us more", " µs more"), ""]
    if "http" in reports and reports["http"].tables:
        lines += [str(reports["http"].tables[0]), ""]
    told = "; ".join(machine[name] for name in ("processor", "Python", "packages") if name in machine)
    lines.append(textwrap.fill(f"On {told}.", 140))
    return before + BEGIN + "\n\n" + "\n".join(lines) + "\n" + END + after
