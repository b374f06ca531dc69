"""Requests that another site makes a browser send: the table of Go's CrossOriginProtection, and all our routes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth.access.origins import check_origins
from asgi_token_auth.web.cross_origin import cross_origin_reason
from tests.support import secret_sites
from tests.support.page_sites import KINDS, PATH, running

HOST = {"host": "example.com"}

#: Of csrf_test.go: method, headers, whether it is let through.
TABLE: dict[str, tuple[str, dict[str, str], bool]] = {
    "same-origin allowed": ("POST", {"sec-fetch-site": "same-origin"}, True),
    "none allowed": ("POST", {"sec-fetch-site": "none"}, True),
    "cross-site blocked": ("POST", {"sec-fetch-site": "cross-site"}, False),
    "same-site blocked": ("POST", {"sec-fetch-site": "same-site"}, False),
    "no header with no origin": ("POST", {}, True),
    "no header with matching origin": ("POST", {"origin": "https://example.com"}, True),
    "no header with mismatched origin": ("POST", {"origin": "https://attacker.example"}, False),
    "no header with null origin": ("POST", {"origin": "null"}, False),
    "GET allowed": ("GET", {"sec-fetch-site": "cross-site"}, True),
    "HEAD allowed": ("HEAD", {"sec-fetch-site": "cross-site"}, True),
    "OPTIONS allowed": ("OPTIONS", {"sec-fetch-site": "cross-site"}, True),
    "PUT cross-site blocked": ("PUT", {"sec-fetch-site": "cross-site"}, False),
    "DELETE cross-site blocked": ("DELETE", {"sec-fetch-site": "cross-site"}, False),
    "PATCH cross-site blocked": ("PATCH", {"sec-fetch-site": "cross-site"}, False),
    "an unknown method is not safe": ("get", {"sec-fetch-site": "cross-site"}, False),
    "garbage blocked": ("POST", {"sec-fetch-site": "garbage"}, False),
    "another case blocked": ("POST", {"sec-fetch-site": "Same-Origin"}, False),
    "garbage blocked whatever the origin": ("POST", {"sec-fetch-site": "x", "origin": "https://example.com"}, False),
    "cross-site with matching origin": (
        "POST",
        {"sec-fetch-site": "cross-site", "origin": "https://example.com"},
        False,
    ),
    "same-origin with mismatched origin": ("POST", {"sec-fetch-site": "same-origin", "origin": "https://x.net"}, True),
    "empty header, matching origin": ("POST", {"sec-fetch-site": "", "origin": "https://example.com"}, True),
    "empty header, mismatched origin": ("POST", {"sec-fetch-site": "", "origin": "https://x.net"}, False),
    "empty headers": ("POST", {"sec-fetch-site": "", "origin": ""}, True),
    "http origin behind a proxy": ("POST", {"origin": "http://example.com"}, True),
    "another port": ("POST", {"origin": "https://example.com:8443"}, False),
    "a port of the host": ("POST", {"origin": "https://example.com:8443", "host": "example.com:8443"}, True),
    "a missing port": ("POST", {"origin": "https://example.com", "host": "example.com:8443"}, False),
    "a subdomain": ("POST", {"origin": "https://sub.example.com"}, False),
    "a longer name": ("POST", {"origin": "https://example.com.attacker.net"}, False),
    "a user in front": ("POST", {"origin": "https://example.com@attacker.net"}, False),
    "the host as a user": ("POST", {"origin": "https://attacker.net/example.com"}, False),
    "no scheme": ("POST", {"origin": "example.com"}, False),
    "no host": ("POST", {"origin": "https://"}, False),
    "no host anywhere": ("POST", {"origin": "https://", "host": ""}, False),
    "an invalid address": ("POST", {"origin": "https://[::1"}, False),
    "an IPv6 host": ("POST", {"origin": "http://[::1]:8001", "host": "[::1]:8001"}, True),
    "another case of the host": ("POST", {"origin": "https://example.com", "host": "Example.COM"}, True),
    "a port that goes without saying": ("POST", {"origin": "https://example.com", "host": "example.com:443"}, True),
    "the port inside of a proxy that ends TLS": (
        "POST",
        {"origin": "https://example.com", "host": "example.com:80"},
        True,
    ),
    "an IPv6 host with such a port": ("POST", {"origin": "http://[::1]", "host": "[::1]:80"}, True),
    "https on the port of http": ("POST", {"origin": "https://example.com:80", "host": "example.com:80"}, True),
    "https on the port of http, of another": ("POST", {"origin": "https://example.com:80"}, False),
    "a blank": ("POST", {"origin": " "}, False),
    "two origins": ("POST", {"origin": "https://example.com https://attacker.net"}, False),
}


@pytest.mark.parametrize("name", TABLE)
def test_go_table(name: str) -> None:
    method, headers, passes = TABLE[name]
    reason = cross_origin_reason(method, {**HOST, **headers})
    assert (reason is None) is passes
    assert reason is None or reason.endswith(".")


def test_a_request_without_a_host_has_no_origin_of_its_own() -> None:
    assert cross_origin_reason("POST", {"origin": "https://example.com"}) is not None


def test_forms_of_trusted_origins_are_taken_whatever_host_says() -> None:
    trusted = check_origins(["https://app.example.com", "http://intranet:8080"])
    rewritten = {"host": "127.0.0.1:8001"}
    for origin in ("https://app.example.com", "http://intranet:8080"):
        assert cross_origin_reason("POST", {**rewritten, "origin": origin}, trusted=trusted) is None
        for site in ("cross-site", "same-site"):
            headers = {**rewritten, "origin": origin, "sec-fetch-site": site}
            assert cross_origin_reason("POST", headers, trusted=trusted) is None
    for origin in (
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com.attacker.net",
        "https://intranet:8080",
        "null",
    ):
        assert cross_origin_reason("POST", {**rewritten, "origin": origin}, trusted=trusted) is not None, origin
    assert cross_origin_reason("POST", {**rewritten, "sec-fetch-site": "cross-site"}, trusted=trusted) is not None


def test_a_refusal_names_both_hosts_and_the_option() -> None:
    headers = {"origin": "http://intranet.example", "host": "127.0.0.1:8001"}
    reason = cross_origin_reason("POST", headers)
    assert reason is not None
    for words in ("http://intranet.example", "127.0.0.1:8001", "Host header", "trusted_origins"):
        assert words in reason
    reason = cross_origin_reason("POST", {**headers, "sec-fetch-site": "same-site"})
    assert reason is not None
    assert "http://intranet.example" in reason
    assert "trusted_origins" in reason
    assert len(cross_origin_reason("POST", {"origin": "http://" + "x" * 5_000}) or "") < 600


@pytest.mark.anyio
async def test_a_proxy_that_rewrites_host_is_named_in_the_configuration(tmp_path: Path) -> None:
    sent = {"origin": "https://app.example.com", "host": "127.0.0.1:8001"}
    for trusted, status in ((["https://other.example"], 403), (["https://APP.example.com:443/"], 302)):
        (tmp_path / str(status)).mkdir()
        async with secret_sites.running("any app", tmp_path / str(status), trusted_origins=trusted) as site:
            headers = {**site.user("ann"), **sent}
            answer = await site.client.post(PATH, headers=headers, data={"revoke_all": "1"})
            assert answer.status_code == status
            answer = await site.client.post(secret_sites.PATH + "/A", headers=headers, data={"secret": "x"})
            assert answer.status_code == status
            if status == 403:
                assert "trusted_origins" in answer.text


BODIES = [
    ("/create", "description=x&expire_type=days&expire_duration=1", "application/x-www-form-urlencoded"),
    ("/create.json", "{}", "application/json"),
    ("/1", "revoke=1", "application/x-www-form-urlencoded"),
    ("/1.json", '{"revoke": true}', "application/json"),
    ("/1/edit", "description=x&expire_type=keep", "application/x-www-form-urlencoded"),
    ("/1/edit.json", '{"description": "x"}', "application/json"),
    ("", "revoke_all=1", "application/x-www-form-urlencoded"),
    (".json", '{"revoke_all": true}', "application/json"),
]

ON_ROUTES: list[tuple[dict[str, str], bool]] = [
    ({}, True),
    ({"sec-fetch-site": "same-origin"}, True),
    ({"sec-fetch-site": "none"}, True),
    ({"origin": "http://localhost"}, True),
    ({"sec-fetch-site": "same-site"}, False),
    ({"sec-fetch-site": "cross-site"}, False),
    ({"sec-fetch-site": "garbage"}, False),
    ({"origin": "http://localhost:81"}, False),
    ({"origin": "https://attacker.net"}, False),
    ({"origin": "null"}, False),
]


@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS)
async def test_another_site_changes_nothing_on_any_route(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        for headers, passes in ON_ROUTES:
            for path, body, content_type in BODIES:
                site.run_sql(f"update {site.store.table} set token_status = 'A', ended_timestamp = null")
                if not site.rows()[0]:
                    await site.store.issue("ann")
                before = site.rows()
                sent = {**site.user("ann"), "content-type": content_type, **headers}
                answer = await site.client.post(PATH + path, headers=sent, content=body)
                if passes:
                    assert answer.status_code < 400, (path, headers, answer.text)
                else:
                    assert answer.status_code == 403, (path, headers)
                    assert site.rows() == before
                    assert "location" not in answer.headers


@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS)
async def test_following_a_link_from_another_site_is_no_crime(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        headers: dict[str, Any] = {**site.user("ann"), "sec-fetch-site": "cross-site", "origin": "https://x.net"}
        for method in ("GET", "HEAD"):
            assert (await site.client.request(method, PATH, headers=headers)).status_code == 200


SECRET_BODIES = [
    ("/A%2FB", "secret=x&note=y", "application/x-www-form-urlencoded"),
    ("/A%2FB.json", '{"value": "x"}', "application/json"),
    ("/SET", "secret=&note=y", "application/x-www-form-urlencoded"),
    ("/SET.json", '{"note": "y"}', "application/json"),
    ("/SET", "delete=1", "application/x-www-form-urlencoded"),
    ("/SET.json", '{"delete": true}', "application/json"),
]


@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS)
async def test_another_site_changes_no_secret(tmp_path: Path, kind: str) -> None:
    async with secret_sites.running(kind, tmp_path) as site:
        for headers, passes in ON_ROUTES:
            for path, body, content_type in SECRET_BODIES:
                site.run_sql(f"delete from {site.store.table}")
                await site.store.set("SET", "the value")
                before = site.rows()
                sent = {**site.user("ann"), "content-type": content_type, **headers}
                answer = await site.client.post(secret_sites.PATH + path, headers=sent, content=body)
                if passes:
                    assert answer.status_code < 400, (path, headers, answer.text)
                    assert site.rows() != before
                else:
                    assert answer.status_code == 403, (path, headers)
                    assert site.rows() == before
                    assert "location" not in answer.headers
        for method in ("GET", "HEAD"):
            sent = {**site.user("ann"), "sec-fetch-site": "cross-site", "origin": "https://x.net"}
            assert (await site.client.request(method, secret_sites.PATH, headers=sent)).status_code == 200
