"""The benchmarks still run, and every case in them answers as it should. Nothing is said about time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.goals import GOALS
from tests.benchmarks.http_servers import BARE, IN_POSTGRES, IN_SQLITE, SELECT, SHORTEST, STARLETTE
from tests.benchmarks.peers import PEERS
from tests.benchmarks.runner import BENCHMARKS
from tests.support import ROOT


def run(name: str, folder: Path) -> Any:
    """The report of one benchmark."""
    file = folder / "run.json"
    command = [sys.executable, "-m", "tests.benchmarks", "--only", name, "--size", "smoke", "--json", str(file)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    kept = json.loads(file.read_text())
    assert kept["machine"]["processor"]
    return kept["reports"][name]


@pytest.mark.parametrize("name", sorted(BENCHMARKS.keys() - {"http", "peers"}))
def test_every_case_answers_and_every_goal_is_measured(name: str, tmp_path: Path) -> None:
    report = run(name, tmp_path)
    if report["missing"]:
        assert "CI" not in os.environ, report["missing"]
        pytest.skip(report["missing"][0])
    assert report["tables"]
    assert {goal.value for goal in GOALS if goal.benchmark == name} <= report["values"].keys()


def test_every_server_answers_over_http(tmp_path: Path) -> None:
    if shutil.which("wrk") is None:
        assert "CI" not in os.environ, "wrk is missing"
        pytest.skip("needs wrk: install Debian's package wrk")
    (table,) = run("http", tmp_path)["tables"]
    assert [row[0] for row in table["rows"]] == [BARE, STARLETTE, IN_SQLITE, IN_POSTGRES, SELECT, SHORTEST]


def test_peers_take_part_or_are_said_to_be_missing(tmp_path: Path) -> None:
    report = run("peers", tmp_path)
    measured = {row[0] for row in report["tables"][0]["rows"]}
    for name in PEERS:
        said = [sentence for sentence in report["missing"] if sentence.startswith(f"{name} is not installed: pip ")]
        assert bool(said) != (name in measured)
