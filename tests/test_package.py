"""The names of the package itself, each imported when it is first asked for."""

from __future__ import annotations

import contextlib
import inspect
import pydoc
import subprocess
import sys
import time
from pathlib import Path

import pytest

import asgi_token_auth
from asgi_token_auth.databases.sqlite import SQLite

EARLY = """
import sys
before = set(sys.modules)
import asgi_token_auth
assert set(sys.modules) - before == {"asgi_token_auth"}
assert not [name for name in sys.modules if name.startswith("asgi_token_auth.")]
from asgi_token_auth import *
assert TokenStore is asgi_token_auth.TokenStore
"""


def test_importing_the_package_imports_nothing_else() -> None:
    subprocess.run([sys.executable, "-c", EARLY], check=True, timeout=60)


def test_no_signature_shows_a_value_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASGI_TOKEN_AUTH_TEST_VALUE", "hunter2")
    for name in asgi_token_auth.__all__:
        value = getattr(asgi_token_auth, name)
        assert "hunter2" not in pydoc.render_doc(value)
        if callable(value):
            with contextlib.suppress(ValueError):
                assert "hunter2" not in str(inspect.signature(value))


def test_a_clock_that_a_test_froze_is_seen_by_what_was_made_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = asgi_token_auth.TokenStore(SQLite(tmp_path / "t.db"), secret="a-long-random-string")
    secrets = asgi_token_auth.SecretStore(SQLite(tmp_path / "t.db"), encryption_key=None)
    signed = asgi_token_auth.SignedTokens("a-long-random-string")
    monkeypatch.setattr(time, "time", lambda: 1_234.0)
    assert (store.clock(), secrets.clock(), signed.clock()) == (1_234.0,) * 3


def test_every_name_is_there_and_no_other() -> None:
    for name in asgi_token_auth.__all__:
        assert getattr(asgi_token_auth, name) is not None
        assert name in dir(asgi_token_auth)
    placed = [name for names in asgi_token_auth._PLACES.values() for name in names]
    assert sorted(placed) == sorted(asgi_token_auth.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        asgi_token_auth.Nothing  # type: ignore[attr-defined]  # noqa: B018
