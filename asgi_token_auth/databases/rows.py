"""What a lookup answers: a row, and its fingerprint in few bytes."""

from __future__ import annotations

import hashlib
import marshal
import os
from typing import Final

from asgi_token_auth.databases.protocol import Found, Row

#: Of a fingerprint, in bytes. Nobody can choose rows, and a second one of the same fingerprint would take 2**64 tries.
_LENGTH: Final = 16


def answer(version: object | None, row: Row | None) -> Found:
    """The answer of a lookup that read ``version`` and then ``row``."""
    return version, row, b"" if row is None else _fingerprint(row)


def _fingerprint(row: Row) -> bytes:
    try:
        # marshal writes values and types and nothing else; its version 2 writes equal values alike.
        written = marshal.dumps(tuple(row), 2)
    except ValueError:
        # A type that no column of ours has. Such a row never has the same fingerprint, so it is judged each time.
        return os.urandom(_LENGTH)
    # Every token that is remembered keeps one, so it is short.
    return hashlib.blake2b(written, digest_size=_LENGTH).digest()
