"""Bodies that the pages of secrets cannot read: nothing is changed, and the answer says why."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.page_sites import KINDS
from tests.support.secret_sites import KEY, PATH, assert_error, error_of, running

pytestmark = pytest.mark.anyio

FORM = "application/x-www-form-urlencoded"

BODIES: dict[str, tuple[str, bytes, str, int]] = {
    "no content type": ("/KEPT", b"secret=x", "", 415),
    "text": ("/KEPT", b"secret=x", "text/plain", 415),
    "multipart": ("/KEPT", b"--x--", "multipart/form-data; boundary=x", 415),
    "JSON on the page": ("/KEPT", b'{"value": "x"}', "application/json", 415),
    "JSON called a form": ("/KEPT", b'{"value": "x"}', FORM, 400),
    "not UTF-8": ("/KEPT", b"secret=%ff", FORM, 400),
    "raw bytes": ("/KEPT", b"secret=\xff", FORM, 400),
    "surrogates": ("/KEPT", b"secret=%ED%A0%80", FORM, 400),
    "oversized": ("/KEPT", b"secret=" + b"x" * 409_600, FORM, 413),
    "a value beyond its limit": ("/KEPT", b"secret=" + b"x" * 65_537, FORM, 400),
    "an unknown field": ("/KEPT", b"secret=x&value=y", FORM, 400),
    "delete and more": ("/KEPT", b"delete=1&secret=x", FORM, 400),
    "an empty delete": ("/KEPT", b"delete=", FORM, 400),
    "a note too long": ("/KEPT", b"secret=x&note=" + b"n" * 101, FORM, 400),
    "a note with a line": ("/KEPT", b"secret=x&note=a%00b", FORM, 400),
    "no value for a new one": ("/NEW", b"secret=&note=n", FORM, 400),
    "blanks for a new one": ("/NEW", b"secret=+%0D%0A&note=n", FORM, 400),
    "nothing for a new one": ("/NEW", b"", FORM, 400),
    "nothing for a stored one": ("/KEPT", b"", FORM, 400),
    "blanks and no note for a stored one": ("/KEPT", b"secret=+", FORM, 400),
    "not JSON": ("/KEPT.json", b"{", "application/json", 400),
    "empty JSON": ("/KEPT.json", b"{}", "application/json", 400),
    "a list": ("/KEPT.json", b"[]", "application/json", 400),
    "nested": ("/KEPT.json", b"[" * 200_000, "application/json", 400),
    "JSON that is not UTF-8": ("/KEPT.json", b'{"value": "\xff"}', "application/json", 400),
    "a lone surrogate": ("/KEPT.json", b'{"value": "\\ud800"}', "application/json", 400),
    "a lone surrogate in the note": ("/KEPT.json", b'{"note": "\\ud800"}', "application/json", 400),
    "an empty value": ("/KEPT.json", b'{"value": ""}', "application/json", 400),
    "a blank value": ("/KEPT.json", b'{"value": " "}', "application/json", 400),
    "null": ("/KEPT.json", b'{"value": null}', "application/json", 400),
    "a number": ("/KEPT.json", b'{"value": 5}', "application/json", 400),
    "a value and a bad note": ("/KEPT.json", b'{"value": "x", "note": 5}', "application/json", 400),
    "a long note": ("/KEPT.json", b'{"note": "' + b"n" * 101 + b'"}', "application/json", 400),
    "the name of a form's field": ("/KEPT.json", b'{"secret": "x"}', "application/json", 400),
    "a version": ("/KEPT.json", b'{"value": "x", "version": 7}', "application/json", 400),
    "delete as text": ("/KEPT.json", b'{"delete": "true"}', "application/json", 400),
    "delete as a number": ("/KEPT.json", b'{"delete": 1}', "application/json", 400),
    "delete that is false": ("/KEPT.json", b'{"delete": false}', "application/json", 400),
    "delete and a value": ("/KEPT.json", b'{"delete": true, "value": "x"}', "application/json", 400),
    "oversized JSON": ("/KEPT.json", b'{"value": "' + b"x" * 409_600 + b'"}', "application/json", 413),
    "a form to the API": ("/KEPT.json", b"secret=x", FORM, 415),
    "a note for a new one": ("/NEW.json", b'{"note": "n"}', "application/json", 400),
    "the encryption key itself": ("/KEPT", b"secret=" + quote(KEY).encode(), FORM, 400),
    "the encryption key as a note": ("/KEPT.json", b'{"note": "' + KEY.encode() + b'"}', "application/json", 400),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_body_that_cannot_be_read_changes_nothing_and_says_why(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        await site.store.set("KEPT", "the value", note="the note", by="ann")
        before = site.rows()
        for name, (path, body, content_type, status) in BODIES.items():
            headers = {**site.user("ann"), **({"content-type": content_type} if content_type else {})}
            answer = await site.client.post(PATH + path, headers=headers, content=body)
            assert answer.status_code == status, (name, answer.text[-500:])
            if path.endswith(".json"):
                assert_error(answer, status)
                assert len(answer.content) < 2_000, name
            else:
                error_of(answer)
                assert len(answer.content) < 20_000, name
            assert KEY not in answer.text
        assert site.rows() == before
