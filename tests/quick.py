"""Lint, format, types, layers and the quick tests, in under a minute: ``python -m tests.quick``.

Left out is what needs a server, a browser, another process or PostgreSQL; ``.ci/run`` runs everything. Arguments are
handed to pytest; ``-k rotate`` runs those of the quick tests that match.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from typing import Final

from tests.support import ROOT

_NEEDED: Final = ("ruff", "mypy", "importlinter", "xdist")
_CHECKS: Final = {
    "lint": ["-m", "ruff", "check", "."],
    "format": ["-m", "ruff", "format", "--check", "."],
    "types": ["-m", "mypy"],
    "layers": ["-c", "from importlinter.cli import lint_imports_command as run; run()"],
}
_TESTS: Final = [
    "tests/access",
    "tests/config",
    "tests/secrets",
    "tests/sources",
    "tests/storage",
    "tests/tokens",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob("test_*.py")),
]
#: Each takes longer than a second, or starts a process of its own.
_NOT_QUICK: Final = "not postgres and not strictness and not lets_the_interpreter_end and not any_block"


def main(arguments: list[str]) -> int:
    """Run all of it at the same time and print what failed; 0 if nothing did."""
    began = time.monotonic()
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        print(f"{', '.join(missing)} cannot be imported: pip install -e '.[all,test]' --group lint", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-k", dest="chosen")
    options, others = parser.parse_known_args(arguments)
    # pytest would take the last -k alone, and run what is not quick.
    chosen = f"{_NOT_QUICK} and ({options.chosen})" if options.chosen else _NOT_QUICK
    workers = ["-n", str(os.cpu_count() or 1)]
    commands = {**_CHECKS, "tests": ["-m", "pytest", "-q", *workers, "-k", chosen, *_TESTS, *others]}
    running = {
        name: subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for name, command in commands.items()
    }
    failed = []
    for name, process in running.items():
        output, _ = process.communicate()
        if process.returncode:
            failed.append(name)
            print(f"== {name}\n{output}")
        else:
            print(f"== {name}: {output.strip().splitlines()[-1] if output.strip() else 'fine'}")
    verdict = f"Failed: {', '.join(failed)}" if failed else "All is well"
    print(f"{verdict}, after {time.monotonic() - began:.0f} seconds.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
