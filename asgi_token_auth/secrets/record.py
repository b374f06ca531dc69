"""A secret as it is registered and as it is shown, and what may be said of one. Pure; no statement is run here."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final, Literal

from asgi_token_auth.errors import InvalidInput
from asgi_token_auth.storage.values import is_text

MAX_NAME: Final = 200
MAX_NOTE: Final = 100
#: Bytes of UTF-8.
MAX_VALUE: Final = 65_536


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret that an app or plugin needs, as it is shown to whoever shall set it.

    ``obtain_url`` leads to where people get one, and ``obtain_label`` is the text of that link.
    """

    name: str
    description: str | None = None
    obtain_url: str | None = None
    obtain_label: str | None = None


@dataclass(frozen=True, slots=True)
class SecretRecord:
    """What is known of a secret, never its value. Times are seconds since the epoch.

    ``source`` is where the value comes from, ``None`` where it is not set. What follows it is of the version that
    is stored now, also if an environment variable goes before it.
    """

    name: str
    description: str | None
    obtain_url: str | None
    obtain_label: str | None
    registered: bool
    source: Literal["environment", "stored"] | None
    note: str | None
    version: int | None
    created_at: int | None
    created_by: str | None
    #: The last change of this version: that of its note, if it was changed.
    updated_at: int | None
    updated_by: str | None
    last_used_at: int | None
    last_used_by: str | None


@dataclass(frozen=True, slots=True)
class SecretVersion:
    """One value that a secret has or had, without the value. Times are seconds since the epoch."""

    version: int | None
    note: str | None
    created_at: int | None
    created_by: str | None
    updated_at: int | None
    updated_by: str | None
    deleted_at: int | None
    deleted_by: str | None
    last_used_at: int | None
    last_used_by: str | None


@dataclass(frozen=True, slots=True)
class ValueShape:
    """What may be told of a value to whoever gave it, so that they see whether all of it arrived."""

    characters: int
    lines: int
    #: Blanks and line ends around it, which are part of it: their name, or ``None``.
    begins_with: str | None
    ends_with: str | None

    def __str__(self) -> str:
        """``164 characters in 4 lines. It ends with a line end.``"""
        text = f"{self.characters:,} character{'s' * (self.characters != 1)} in {_counted(self.lines)}."
        edges = [
            f"{verb} with {what}" for verb, what in (("begins", self.begins_with), ("ends", self.ends_with)) if what
        ]
        return f"{text} It {' and '.join(edges)}." if edges else text


def shape_of(value: str) -> ValueShape:
    """The shape of a value."""
    ends = re.findall(r"\r\n|\r|\n", value)
    lines = len(ends) + (not value.endswith(("\r", "\n")))
    return ValueShape(len(value), lines, _blank(value[:1]), _blank(value[-1:]))


def _blank(character: str) -> str | None:
    if not character.isspace():
        return None
    return {" ": "a space", "\t": "a tab", "\r": "a line end", "\n": "a line end"}.get(character, "a blank")


def _counted(lines: int) -> str:
    return "1 line" if lines == 1 else f"{lines:,} lines"


@dataclass(frozen=True, slots=True)
class Rotation:
    """How many stored values were encrypted anew, and how many were so already."""

    rewritten: int
    unchanged: int


def check_secret_name(value: object) -> str:
    """The name of a secret.

    Raises:
        InvalidInput: it is not text, empty, too long, holds control characters, or cannot stand in a URL.
    """
    if not isinstance(value, str) or not value or len(value) > MAX_NAME:
        raise InvalidInput(f"The name of a secret must be text of 1 to {MAX_NAME} characters.")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise InvalidInput("The name of a secret must not hold control characters.")
    if value in (".", ".."):
        raise InvalidInput("The name of a secret cannot be . or .., which mean something else in a URL.")
    return value


def check_value(value: object) -> str:
    """The value of a secret.

    Raises:
        InvalidInput: it is not text, empty or too long. It is not quoted.
    """
    if not isinstance(value, str) or not value.strip():
        raise InvalidInput("A secret must be text, and not empty.")
    # Asked before it is encoded, because Python's own error would have the value in it.
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidInput("A secret must be valid text, and this one holds half of a character (a lone surrogate).")
    if len(value.encode()) > MAX_VALUE:
        raise InvalidInput(f"A secret must have at most {MAX_VALUE:,} bytes.")
    return value


def check_note(note: object) -> str | None:
    """A note.

    Raises:
        InvalidInput: it is not text or too long.
    """
    if note is not None and (not isinstance(note, str) or len(note) > MAX_NOTE or not is_text(note)):
        raise InvalidInput(f"A note must be text of at most {MAX_NOTE} characters.")
    return note
