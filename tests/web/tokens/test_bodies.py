"""Bodies that the pages of tokens cannot read: nothing is changed, and the answer says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import TokenStore
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.web import TokenPages
from tests.support.asgi import SECRET, http
from tests.support.page_sites import KINDS, PATH, PERMISSIONS, error_of, running, signed_in

pytestmark = pytest.mark.anyio

FORM = "application/x-www-form-urlencoded"

BODIES: dict[str, tuple[bytes, str, int]] = {
    "no content type": (b"revoke=1", "", 415),
    "text": (b"revoke=1", "text/plain", 415),
    "multipart": (
        b'--x\r\ncontent-disposition: form-data; name="revoke"\r\n\r\n1\r\n--x--',
        "multipart/form-data; boundary=x",
        415,
    ),
    "JSON on the page": (b'{"revoke": true, "expire_type": ""}', "application/json", 415),
    "JSON called a form": (b'{"revoke": true}', FORM, 400),
    "not UTF-8": (b"description=%ff&expire_type=", FORM, 400),
    "raw bytes": (b"description=\xff&expire_type=", FORM, 400),
    "surrogates": (b"description=%ED%A0%80&expire_type=", FORM, 400),
    "oversized": (b"description=" + b"x" * 409_600, FORM, 413),
    "too many fields": (b"&".join(b"a%d=1" % n for n in range(4_001)), FORM, 400),
    "empty": (b"", FORM, 400),
    "a field twice": (b"revoke=1&revoke=1", FORM, 400),
    "an expiry and none": (b"expire_type=days&expire_duration=1&expire_type=", FORM, 400),
    "an unknown action": (b"delete=1", FORM, 400),
    "an empty action": (b"revoke=&rotate=", FORM, 400),
    "one empty action": (b"revoke=", FORM, 400),
    "two actions": (b"revoke=1&rotate=1", FORM, 400),
    "an action and more": (b"revoke=1&grace=5", FORM, 400),
    "a grace that is none": (b"rotate=1&grace=%C2%B2", FORM, 400),
    "a huge grace": (b"rotate=1&grace=999999999", FORM, 400),
    "a negative grace": (b"rotate=1&grace=-1", FORM, 400),
    "an empty owner": (b"revoke_all=1&owner=", FORM, 400),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_body_that_cannot_be_read_changes_nothing(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        await site.store.issue("ann")
        before = site.rows()
        for name, (body, content_type, status) in BODIES.items():
            for path in ("", "/create", "/1", "/1/edit"):
                sent = {**site.user("ann"), **({"content-type": content_type} if content_type else {})}
                answer = await site.client.post(PATH + path, headers=sent, content=body)
                assert answer.status_code == status, (name, path)
                error_of(answer)
        assert site.rows() == before


async def test_a_client_that_hangs_up_in_the_body_changes_nothing(tmp_path: Path) -> None:
    store = TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET)
    pages = TokenPages(store, signed_in=signed_in, permissions=PERMISSIONS)
    scope = http([(b"x-user", b'{"id": "ann"}'), (b"content-type", FORM.encode())], method="POST", path="/create")
    messages = iter([{"type": "http.request", "body": b"expire_type=", "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    async with store:
        await pages(scope, receive, send)
        assert sent[0]["status"] == 400
        assert (await store.list(owner="ann")).items == []
