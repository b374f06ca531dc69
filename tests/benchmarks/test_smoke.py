"""The benchmark still runs, and every case in it answers as it should. Nothing is said about time."""

import subprocess
import sys
from pathlib import Path

_BENCHMARK = Path(__file__).with_name("request_cost.py")


def test_every_case_answers_as_expected() -> None:
    command = [sys.executable, str(_BENCHMARK), "--rounds", "1", "--seconds", "0.001", "--rows", "2000"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr
    assert "bytes per remembered token" in ran.stdout
