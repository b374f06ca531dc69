"""Keys that keep a form, or a request of a script, from being done twice: the hidden field, and ``Idempotency-Key``.

A form's key is no proof of who sent it: forms without one are taken as ever. It tells for whom and for what the form
was made, so that one that lies around in a browser does nothing in the hands of the next person.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from typing import Any, Final

from starlette.datastructures import Headers

from asgi_token_auth.errors import InvalidInput
from asgi_token_auth.storage.idempotency import MAX_KEY, IdempotencyKey
from asgi_token_auth.web.http import HTTPError

#: The hidden field of every form, and the parameter in the address of a form that makes something new.
FORM_KEY: Final = "form_key"
#: Seconds that a form may be used. Its key is remembered for longer, whatever the clocks of servers say, so that no
#: form comes back when nobody knows any more that it was used.
FORM_LIFE: Final = 86_400

_HEADER: Final = "Idempotency-Key"


class FormTooOld(HTTPError):
    """The form may have been used before anything is known of. Nothing was done."""


def new_form_key(actor_id: str, now: float, action: str) -> str:
    """A key for one form: 128 random bits, when it was made, and for whom and for what it is."""
    made = f"{secrets.token_hex(16)}-{int(now):x}"
    return f"{made}-{_purpose(made, actor_id, action)}"


def is_form_key(text: str, actor_id: str, action: str) -> bool:
    """Whether it is a key of a form that was made for this actor and for this, however long ago."""
    made, _, purpose = text.rpartition("-")
    return bool(re.fullmatch(r"[0-9a-f]{32}-[0-9a-f]{1,12}", made)) and purpose == _purpose(made, actor_id, action)


def key_of(
    headers: Headers,
    form_key: str | None,
    actor_id: str,
    action: str,
    sent: Mapping[str, Any],
    token_id: int | None,
    now: float,
) -> IdempotencyKey | None:
    """The key of a request; ``None`` where it has none.

    Args:
        form_key: what stands in the form's field.
        sent: the body, which another request with the same key must equal.
        token_id: the token that the request was made with.

    Raises:
        HTTPError: 400: the header cannot be a key. 409: the form was made for somebody or something else.
        FormTooOld: 409: it was made long ago.
    """
    text = _in_header(headers) if form_key is None else form_key
    if text is None:
        return None
    if form_key is not None:
        if not is_form_key(form_key, actor_id, action):
            raise HTTPError(
                409,
                "This form was made for somebody else, or for something else, so nothing was done. "
                "Load its page again, and send it from there.",
            )
        # What is ended is ended, and an edit names the version that it was made for: neither is done twice anyway.
        if not action.startswith(("revoke ", "edit ")) and now - int(form_key.split("-")[1], 16) >= FORM_LIFE:
            raise FormTooOld(
                409, "This form was loaded more than a day ago, so nothing was done. Load its page again, and send it."
            )
    try:
        return IdempotencyKey(text, json.dumps([token_id, sent], sort_keys=True).encode())
    except InvalidInput as error:
        raise HTTPError(400, str(error)) from error
    except RecursionError as error:
        raise HTTPError(400, "The body is nested too deeply to be read.") from error


def _in_header(headers: Headers) -> str | None:
    values = headers.getlist(_HEADER)
    if not values:
        return None
    if len(values) > 1:
        raise HTTPError(400, f"{_HEADER} was sent twice; send one key with each request.")
    text = values[0]
    # The draft of the IETF has it in quotes; most clients send it without.
    if text.startswith('"'):
        quoted = re.fullmatch(r'"((?:[^"\\]|\\["\\])*)"', text)
        text = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else ""
    if not re.fullmatch(rf"[\x20-\x7e]{{1,{MAX_KEY}}}", text):
        raise HTTPError(
            400,
            f"{_HEADER} must be printable ASCII text of 1 to {MAX_KEY} characters, with or without quotes.",
        )
    return text


def _purpose(made: str, actor_id: str, action: str) -> str:
    text = json.dumps([made, actor_id, action])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
