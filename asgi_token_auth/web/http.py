"""Bodies in and answers out, the same for every page of this package."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, ParamSpec, TypeVar, cast
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from asgi_token_auth.errors import is_without_threads

P = ParamSpec("P")
T = TypeVar("T")

#: The longest body that is read, in bytes: the longest secret, should JSON spell each byte as ``\u0001``.
MAX_BODY: Final = 409_600
#: The most fields of a form: as many as a token's restrictions may name.
MAX_FIELDS: Final = 4_000
# Bytes beyond which a form is taken apart in a thread, because others wait meanwhile.
_LONG: Final = 16_384

#: Some apps add it to every form.
CSRF_FIELD: Final = "csrftoken"

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


class HTTPError(Exception):
    """An answer of 4xx or 5xx, with a sentence for whoever asked."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        errors: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.errors: dict[str, str] = dict(errors or {})
        self.headers: dict[str, str] = dict(headers or {})


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``function`` returns, without holding up others; with holding them up where no thread can be started."""
    try:
        return await run_in_threadpool(function, *args, **kwargs)
    except RuntimeError as error:
        if not is_without_threads(error):
            raise
    return function(*args, **kwargs)


async def read_form_body(request: Request) -> dict[str, str]:
    """The fields of a form as a browser sends it, each once.

    Raises:
        HTTPError: 413, 415 or 400.
    """
    _check_type(request, "application/x-www-form-urlencoded", "Send the form as application/x-www-form-urlencoded.")
    body = await _read(request, MAX_BODY)
    return _parse_form(body) if len(body) <= _LONG else await in_thread(_parse_form, body)


async def read_json_body(request: Request, *, longest: int = MAX_BODY) -> dict[str, Any]:
    """The JSON object in the body.

    Args:
        longest: the most bytes that are read.

    Raises:
        HTTPError: 413, 415 or 400.
    """
    _check_type(request, "application/json", "Send a JSON object with Content-Type: application/json.")
    body = await _read(request, longest)
    try:
        value = json.loads(body, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise HTTPError(400, f"The body is not valid JSON in UTF-8{_place(error)}.") from error
    if not isinstance(value, dict):
        raise HTTPError(400, "The body must be a JSON object, which stands in braces.")
    return cast("dict[str, Any]", value)


def _parse_form(body: bytes) -> dict[str, str]:
    try:
        fields = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, encoding="utf-8", errors="strict", max_num_fields=MAX_FIELDS
        )
    except (ValueError, UnicodeError) as error:
        raise HTTPError(
            400, f"The form cannot be read; it must be in UTF-8, and have at most {MAX_FIELDS:,} fields."
        ) from error
    return _without_repeats(fields, "A field of the form was sent twice; send each once.")


def _place(error: Exception) -> str:
    """Where the fault is; what stands there may be a secret."""
    if isinstance(error, json.JSONDecodeError):
        return f": see line {error.lineno}, column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return f": see its byte {error.start + 1:,}"
    return ": it is nested too deeply" if isinstance(error, RecursionError) else ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return _without_repeats(pairs, "A name stands twice in one object of the body; send each once.")


def _without_repeats(pairs: Sequence[tuple[str, T]], sentence: str) -> dict[str, T]:
    # Which of two counts, nobody could tell by looking, and one of them may lift a limit that the other one sets.
    read = dict(pairs)
    if len(read) != len(pairs):
        raise HTTPError(400, sentence)
    return read


def html(text: str, *, policy: str, status: int = 200) -> Response:
    """A page that no cache keeps and nobody frames."""
    headers = {**_HEADERS, "Content-Security-Policy": policy}
    # Rows written by hand can hold what is no text; a page without it is better than none.
    return Response(text.encode(errors="replace"), status, media_type="text/html", headers=headers)


def json_answer(value: Mapping[str, Any], *, status: int = 200) -> Response:
    """A JSON answer that no cache keeps."""
    # A plain function's actor need not be JSON.
    return Response(json.dumps(value, default=str), status, media_type="application/json", headers=_HEADERS)


async def long_json_answer(value: Mapping[str, object]) -> Response:
    """The same for long lists: each iterator in ``value`` becomes one, item by item in a thread, and others go on."""
    body = await run_in_threadpool(_piece_by_piece, value)
    return Response(body, media_type="application/json", headers=_HEADERS)


def _piece_by_piece(value: Mapping[str, object]) -> bytes:
    fields: list[str] = []
    for name, part in value.items():
        if isinstance(part, Iterator):
            # The encoder lets no other thread run before it is done with what it was given.
            text = f"[{', '.join(map(_dump, cast('Iterator[object]', part)))}]"
        else:
            text = _dump(part)
        fields.append(f"{_dump(name)}: {text}")
    return f"{{{', '.join(fields)}}}".encode()


def _dump(value: object) -> str:
    return json.dumps(value, default=str)


def json_error(status: int, message: str, errors: Mapping[str, str] | None = None) -> Response:
    """An error in Datasette's shape, with the sentences per field where there are any."""
    body: dict[str, Any] = {"ok": False, "error": message, "errors": [message], "status": status}
    if errors:
        body["errors"] = list(errors.values())
        body["fields"] = dict(errors)
    return json_answer(body, status=status)


def redirect(path: str) -> Response:
    """The answer to a form that changed something: the browser shows the outcome with a request of its own."""
    return Response(status_code=302, headers={**_HEADERS, "Location": path})


async def _read(request: Request, longest: int) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > longest:
                raise HTTPError(413, f"The body is larger than {longest:,} bytes, the most that is read here.")
    except ClientDisconnect as error:
        raise HTTPError(400, "The body ended too early, so nothing was done; send it again.") from error
    return bytes(body)


def _check_type(request: Request, wanted: str, sentence: str) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != wanted:
        raise HTTPError(415, sentence)
