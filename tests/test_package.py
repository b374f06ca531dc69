"""The names of the package itself, each imported when it is first asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import asgi_token_auth

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


def test_every_name_is_there_and_no_other() -> None:
    for name in asgi_token_auth.__all__:
        assert getattr(asgi_token_auth, name) is not None
        assert name in dir(asgi_token_auth)
    placed = [name for names in asgi_token_auth._PLACES.values() for name in names]
    assert sorted(placed) == sorted(asgi_token_auth.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        asgi_token_auth.Nothing  # type: ignore[attr-defined]  # noqa: B018
