"""How many system calls a remembered request makes. A count needs no quiet machine, so this is a test."""

import os

import pytest

from tests.benchmarks import call_count


def calls(kind: str, requests: int = call_count.REQUESTS) -> float:
    try:
        return call_count.count(kind, requests)
    except call_count.NotPossible as error:
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))


@pytest.mark.parametrize("kind", ["bare app", "hard-coded", "signed"])
def test_a_request_without_a_database_makes_no_system_call(kind: str) -> None:
    assert calls(kind) < 0.01


def test_calls_are_counted() -> None:
    # The question for the version of a file in a rollback journal takes several, and nobody can make it take none.
    assert calls("managed, rollback journal", requests=200) >= 2


def test_a_remembered_managed_token_makes_no_system_call() -> None:
    # Every tenth of a second the file is looked at.
    assert calls(call_count.MANAGED) < 0.01
