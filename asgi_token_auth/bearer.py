"""Bearer tokens on the wire: RFC 6750, with RFC 9110 for everything about headers. Pure; nothing is awaited.

What is read here comes from strangers: lengths are known before anything is copied or decoded, and nothing
raises on any bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias
from urllib.parse import unquote_to_bytes

from asgi_token_auth.errors import ConfigurationError

HeaderList: TypeAlias = list[tuple[bytes, bytes]]

_SCHEME: Final = b"bearer"
# RFC 6750 section 2.1 has b64token; all visible ASCII but the comma is accepted, because tokens with ":" are
# in use, while a comma means that a proxy joined two headers (RFC 9110 section 5.3).
_TOKEN_CHARACTERS: Final = bytes(c for c in range(0x21, 0x7F) if c != ord(","))
# What may follow "bearer" in the name of another scheme (RFC 9110 section 5.6.2). Anything else, a missing
# space included, is an attempt at this one.
_SCHEME_CHARACTERS: Final = frozenset(
    bytes([c]) for c in b"!#$%&'*+-.^_`|~0123456789" + bytes(range(65, 91)) + bytes(range(97, 123))
)
# RFC 9110 section 5.6.4: what stands in quotes is one parameter's value and no credential. One that nobody closes
# reaches to the end, and nothing is tried twice, so a long field costs no more than its length.
_QUOTED: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
# A comma, an attempt as _is_attempt() knows it, and something behind it. Nothing is tried twice here either.
_JOINED: Final = re.compile(
    rb",[ \t]*+bearer(?![%b])[^,\s]*+\s++[^,]" % re.escape(b"".join(sorted(_SCHEME_CHARACTERS))), re.IGNORECASE
)
#: Bytes of a field beyond which it is not searched for a second credential, and refused if it holds a comma.
_LONGEST_SEARCHED: Final = 65_536
#: Fields that a reader remembers at once, and the bytes of the longest of them.
_REMEMBERED: Final = 1_000
_MEMORABLE: Final = 512
_PARAMETER_NAME = re.compile(r"[A-Za-z0-9_.~-]{1,64}")


class Fault(StrEnum):
    """Why a credential cannot be read. All of them are ``invalid_request``."""

    TOO_LONG = "The access token is too long."
    REPEATED = "Send exactly one access token: one Authorization header or one query parameter."
    MALFORMED = "The access token is malformed: send `Authorization: Bearer <token>`."
    WRONG_METHOD = "An access token in the query string is accepted on GET and HEAD only."


@dataclass(slots=True)
class Reading:
    """What a request carries: a token, a fault, or neither. Never changed once made."""

    token: str | None = field(default=None, repr=False)
    fault: Fault | None = None
    #: Where in the header list the Authorization field stands, if the token came from there.
    header: int | None = None
    #: The query string without the parameter, when the parameter was there in any spelling.
    query: bytes | None = None


#: Of a request without a credential.
NO_CREDENTIAL: Final = Reading()


class QueryParameter:
    """The one query parameter that may carry a token, found in every spelling without decoding the rest."""

    __slots__ = ("_pair", "_plain", "name")

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not _PARAMETER_NAME.fullmatch(name):
            raise ConfigurationError(
                "parameter: give the name of a query parameter, at most 64 letters, digits, - . _ ~, for example "
                "_auth_token."
            )
        self.name: str = name
        self._plain = name.encode()
        spelled = b"".join(b"(?:%b|%%%b)" % (re.escape(c.encode()), _hex(c)) for c in name)
        self._pair = re.compile(b"(?:^|&)" + spelled + b"(?:=([^&]*))?(?=&|\\Z)")

    def may_be_in(self, query: bytes) -> bool:
        """Whether :meth:`find` could find anything; told in a fraction of the time."""
        return b"%" in query or self._plain in query

    def find(self, query: bytes) -> list[bytes]:
        """The raw values of the parameter, in order, at most two."""
        values: list[bytes] = []
        for match in self._pair.finditer(query):
            values.append(match[1] or b"")
            if len(values) == 2:
                break
        return values

    def remove(self, query: bytes) -> bytes:
        """``query`` without the parameter; every other byte stays."""
        cleaned = self._pair.sub(b"", query)
        return cleaned[1:] if cleaned.startswith(b"&") and not query.startswith(b"&") else cleaned


class CredentialReader:
    """Reads the credential of one request after another.

    Args:
        parameter: where a token may stand in the query string; ``None``: nowhere.
        max_token_bytes: the longest token, in bytes as sent.
    """

    def __init__(self, *, parameter: QueryParameter | None = None, max_token_bytes: int = 8192) -> None:
        self._parameter = parameter
        self._max_token_bytes = max_token_bytes
        # What was read of fields that came lately, because most come again. Strangers cannot put anything in here.
        self._known: dict[bytes, Reading] = {}

    def read(
        self, headers: Iterable[tuple[bytes, bytes]], *, query: bytes = b"", parameter_allowed: bool = True
    ) -> Reading:
        """Read one request. Never raises. What is returned may be returned again.

        Args:
            headers: names in any case, duplicates kept, as ASGI delivers them.
            query: the raw query string.
            parameter_allowed: whether the method permits the parameter.
        """
        fields = 0
        found: bytes | None = None
        position = -1
        for index, (name, value) in enumerate(headers):
            if len(name) == 13 and name.lower() == b"authorization":
                fields += 1
                if value[:7] == b"Bearer " or _is_attempt(value):
                    found, position = value, index
                elif b"," in value and _joins_an_attempt(value):
                    # A proxy made one field of two; the app must not be shown the second.
                    fields, found = 2, value
        if query and (parameter := self._parameter) is not None and (values := parameter.find(query)):
            cleaned = parameter.remove(query)
            if found is not None or len(values) > 1:
                return Reading(fault=Fault.REPEATED, query=cleaned)
            if not parameter_allowed:
                return Reading(fault=Fault.WRONG_METHOD, query=cleaned)
            return _read_value(values[0], cleaned, self._max_token_bytes)
        if found is None:
            # Several headers, none of them Bearer, are not for us to judge.
            return NO_CREDENTIAL
        if fields > 1:
            return Reading(fault=Fault.REPEATED)
        if type(found) is not bytes:
            # A bytearray has no hash.
            found = bytes(found)
        reading = self._known.get(found)
        if reading is None or reading.header != position:
            return _read_field(found, position, self._max_token_bytes)
        return reading

    def remember(self, value: bytes, reading: Reading) -> None:
        """Keep what was read of the Authorization field ``value``, whose token was accepted, for the next time."""
        if type(value) is bytes and len(value) <= _MEMORABLE:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[value] = reading


def _read_field(value: bytes, position: int, max_token_bytes: int) -> Reading:
    """The token in the value of an Authorization field."""
    value = value.lstrip(b" \t")
    if len(value) > max_token_bytes + 7:
        return Reading(fault=Fault.TOO_LONG)
    token = value[7:].lstrip(b" ").rstrip(b" \t")
    if value[6:7] != b" " or not _is_well_formed(token):
        return Reading(fault=Fault.MALFORMED)
    return Reading(token.decode(), None, position)


def _is_well_formed(token: bytes) -> bool:
    return token != b"" and not token.translate(None, _TOKEN_CHARACTERS)


def _is_attempt(value: bytes) -> bool:
    """Whether the value of an Authorization field means a bearer token, well-formed or not."""
    # RFC 9110 section 5.5: whitespace around a field value is no part of it.
    value = value.lstrip(b" \t")
    return value[:6].lower() == _SCHEME and value[6:7] not in _SCHEME_CHARACTERS


def _joins_an_attempt(value: bytes) -> bool:
    """Whether a bearer token follows the credentials of another scheme in one field (RFC 9110 section 5.3)."""
    if len(value) > _LONGEST_SEARCHED:
        return True
    return _JOINED.search(_QUOTED.sub(b"", value) if b'"' in value else value) is not None


def _read_value(value: bytes, cleaned: bytes, max_token_bytes: int) -> Reading:
    """The token in the parameter's raw value."""
    if len(value) > max_token_bytes:
        return Reading(fault=Fault.TOO_LONG, query=cleaned)
    token = unquote_to_bytes(value.replace(b"+", b" "))
    if not _is_well_formed(token):
        return Reading(fault=Fault.MALFORMED, query=cleaned)
    return Reading(token=token.decode(), query=cleaned)


def is_token(text: str, *, max_token_bytes: int = 8192) -> bool:
    """Whether ``text`` could be sent as a bearer token at all."""
    return 0 < len(text) <= max_token_bytes and text.isascii() and _is_well_formed(text.encode())


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer given instead of calling the app: RFC 6750 section 3."""

    status: int
    message: str
    #: RFC 6750's error code; none where no credential was given or the fault is ours.
    error: str | None = None
    retry_after: int | None = None
    scope: str | None = None

    def headers(self, realm: str, extra: HeaderList | None = None) -> HeaderList:
        """The response headers but for Content-Length."""
        headers: HeaderList = [
            (b"content-type", b"application/json; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"referrer-policy", b"no-referrer"),
        ]
        if self.status in (400, 401, 403):
            headers.append((b"www-authenticate", challenge(realm, self.error, self.message, self.scope).encode()))
        if self.retry_after is not None:
            headers.append((b"retry-after", str(self.retry_after).encode()))
        return headers + (extra or [])

    def body(self) -> bytes:
        """The error in Datasette's JSON shape."""
        return json.dumps(
            {"ok": False, "error": self.message, "errors": [self.message], "status": self.status}
        ).encode()


def challenge(realm: str, error: str | None = None, description: str | None = None, scope: str | None = None) -> str:
    """A WWW-Authenticate value. Without ``error`` it is the bare invitation of RFC 6750 section 3.1."""
    parts = [f"realm={_quoted(realm)}"]
    if error is not None:
        parts.append(f'error="{error}"')
        if description is not None:
            parts.append(f"error_description={_quoted(description)}")
        if scope is not None:
            parts.append(f"scope={_quoted(scope)}")
    return "Bearer " + ", ".join(parts)


def invalid_request(fault: Fault) -> Refusal:
    """400: the request cannot be understood."""
    return Refusal(400, str(fault), error="invalid_request")


INVALID_TOKEN: Final = Refusal(401, "The access token is not valid.", error="invalid_token")
EXPIRED_TOKEN: Final = Refusal(401, "The access token has expired.", error="invalid_token")
REVOKED_TOKEN: Final = Refusal(401, "The access token has been revoked.", error="invalid_token")
CREDENTIAL_REQUIRED: Final = Refusal(401, "An access token is required: send `Authorization: Bearer <token>`.")
UNAVAILABLE: Final = Refusal(503, "The access token cannot be checked at the moment. Try again soon.", retry_after=5)


def insufficient_scope(message: str, scope: str | None = None) -> Refusal:
    """403: the token is good and does not reach this far."""
    return Refusal(403, message, error="insufficient_scope", scope=scope)


def _quoted(text: str) -> str:
    # RFC 6750 section 3 allows %x20-21 / %x23-5B / %x5D-7E inside the quotes.
    return '"' + "".join(c if " " <= c <= "~" and c not in '"\\' else "'" for c in text) + '"'


def _hex(character: str) -> bytes:
    digits = f"{ord(character):02x}"
    return b"".join(b"[%b%b]" % (d.encode(), d.upper().encode()) if d.isalpha() else d.encode() for d in digits)
