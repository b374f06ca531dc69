"""The benchmarks still run, and every case in them answers as it should. Nothing is said about time."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.support import ROOT


def run(name: str, *arguments: str, seconds: str = "0.001") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", "--rounds", "1", "--seconds", seconds, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=ROOT)


def test_every_case_of_a_request_answers_as_expected() -> None:
    ran = run("request_cost", "--rows", "2000")
    assert ran.returncode == 0, ran.stderr
    assert "bytes per remembered token" in ran.stdout


def test_every_server_answers_over_http() -> None:
    if shutil.which("wrk") is None:
        assert "CI" not in os.environ, "wrk is missing"
        pytest.skip("needs wrk: install Debian's package wrk")
    ran = run("http_cost", "--connections", "4", seconds="1")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("managed tokens in PostgreSQL against") == 2


def test_the_largest_tokens_are_served_and_measured() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.size_cost", "--tokens", "5"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=ROOT)
    assert ran.returncode == 0 or ran.stderr.strip() == "A goal was missed.", ran.stderr
    assert ran.stdout.count("met") + ran.stdout.count("MISSED") == 12


def test_every_page_of_few_and_of_many_tokens_answers_as_expected() -> None:
    ran = run("list_cost", "--many", "2000")
    # Of numbers this small anything may be measured.
    assert ran.returncode == 0 or ran.stderr.strip() == "A goal was missed.", ran.stderr
    assert ran.stdout.count("met") + ran.stdout.count("MISSED") == 37
