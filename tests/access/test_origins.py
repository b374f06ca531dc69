"""Origins in a configuration: read as browsers send them, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_token_auth.access.origins import check_origins
from asgi_token_auth.errors import ConfigurationError


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("https://example.com", "https://example.com"),
        ("https://example.com/", "https://example.com"),
        ("HTTPS://Example.COM:443", "https://example.com"),
        ("http://example.com:80", "http://example.com"),
        ("http://example.com:443", "http://example.com:443"),
        ("http://[::1]:8001", "http://[::1]:8001"),
    ],
)
def test_an_origin_is_read_as_browsers_send_it(written: str, sent: str) -> None:
    assert check_origins([written]) == {sent}


@pytest.mark.parametrize(
    "value",
    [
        "example.com",
        "//example.com",
        "https://",
        "https://example.com/app",
        "https://example.com?x",
        "https://example.com#",
        "https://user@example.com",
        "https://*.example.com",
        "https://b\u00fccher.example",
        "https://example.com:x",
        "https://example.com:99999",
        "https://[::1",
        "https://exa mple.com",
        "ftp://example.com",
        "null",
        "*",
        "",
        5,
        None,
    ],
)
def test_what_is_no_origin_is_refused_by_name(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="is no origin") as caught:
        check_origins(["https://example.com", value])
    # An address may hold a password, or a token behind a question mark.
    shown = repr(value) if isinstance(value, str) and not set(value) & set("@?#") else "number 2"
    assert f"trusted_origins: {shown} is no origin" in str(caught.value)


@pytest.mark.parametrize("value", ["https://example.com", None, 5, {"https://example.com": True}])
def test_what_is_no_list_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="trusted_origins: give a list"):
        check_origins(value)
