from pathlib import Path

import pytest

from tests.support.terminal import SECRET, Terminal


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    """A shell that knows the secret and the database, neither of which was used yet."""
    return Terminal(tmp_path, DATASETTE_SECRET=SECRET, ASGI_TOKEN_AUTH_DATABASE="tokens.db")
