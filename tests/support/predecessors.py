"""The plugins whose tables and configuration we take over, run for real.

They cannot be installed beside us, so they have an interpreter of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "ASGI_TOKEN_AUTH_PREDECESSOR_PYTHON"
HOW = (
    f"set {VARIABLE} to the python of a virtual environment with datasette==1.0a41, datasette-auth-tokens==0.4a13 and "
    "datasette-secrets==0.3a0 to run the real predecessors"
)


def interpreter() -> str:
    """The interpreter, or the end of the test: a failure where all tests must run."""
    found = os.environ.get(VARIABLE)
    if not found:
        if os.environ.get("CI"):
            pytest.fail(HOW)
        pytest.skip(HOW)
    return found


def ran(python: str, program: str, *arguments: str, folder: Path) -> Any:
    """What ``program`` printed after RESULT, as JSON."""
    # It must not find our package, which is a plugin too.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [python, "-c", program, *arguments],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=60,
        check=False,
        env=environment,
        cwd=folder,
    )
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert done.returncode == 0, done.stderr[-2_000:]
    return json.loads(results[0].removeprefix("RESULT"))
