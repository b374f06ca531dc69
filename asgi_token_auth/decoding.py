"""Text from files, variables, options and standard input, without what editors, shells and copying put around it.

All that servers and commands read from outside goes through here, so that the same file is the same secret for both.
Taken away is only what cannot be meant: a byte-order mark in front, line ends behind and, where the text is a token, a
key or a secret that signs, what surrounds it.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asgi_token_auth.errors import TokenAuthError

#: Says at level INFO what was left out; ``check`` listens.
logger: Final = logging.getLogger("asgi_token_auth.decoding")

#: Bytes of a file that holds one secret.
MAX_SECRET_FILE: Final = 65_536

_MARK: Final = "\ufeff"
# What nobody sees, and which comes along where text is copied from a page.
_INVISIBLE: Final = "\ufeff\u200b\u200c\u200d\u2060"
_QUOTES: Final = frozenset(("''", '""', "``", "\u201c\u201d", "\u2018\u2019"))
_QUOTE_MARKS: Final = "".join(sorted(_QUOTES))
_WIDER_MARKS: Final = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_SCHEME: Final = "bearer"
_FIELD: Final = "authorization:"


class Undecodable(TokenAuthError):
    """Bytes that are no such text. The message goes on a sentence that begins with what held them."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A text, and what was taken away of it in words."""

    text: str
    dropped: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Cleaned(<hidden>, dropped={self.dropped})"

    def log_dropped(self, where: str) -> str:
        """Log what was dropped, and return the text. ``where`` names the place and begins the sentence."""
        if self.dropped:
            logger.info("%s: %s left out; take it away there", where, listed(self.dropped))
        return self.text


def listed(dropped: tuple[str, ...]) -> str:
    """Words for what was dropped, and their verb."""
    return f"{' and '.join(dropped)} {'is' if len(dropped) == 1 else 'are'}"


def decode(raw: bytes) -> Cleaned:
    """UTF-8 text, without a byte-order mark in front.

    Raises:
        Undecodable: it is none.
    """
    for mark, name in _WIDER_MARKS:
        if raw.startswith(mark):
            raise Undecodable(f"is not valid UTF-8 but {name} (it begins with {_hexadecimal(mark)}); save it as UTF-8.")
    pairs = len(raw) // 2
    if pairs > 1 and (not any(raw[1 : 2 * pairs : 2]) or not any(raw[0 : 2 * pairs : 2])):
        raise Undecodable("is not valid UTF-8 but UTF-16 (every other byte is 0x00); save it as UTF-8.")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
        raise Undecodable(
            f"is not valid UTF-8 (byte {_hexadecimal(raw[error.start : error.start + 1])} at line {line}, byte "
            f"{column}); save it as UTF-8."
        ) from None
    return without_mark(text)


def without_mark(text: str) -> Cleaned:
    """``text`` without a byte-order mark in front."""
    return Cleaned(text[1:], (_IN_FRONT,)) if text.startswith(_MARK) else Cleaned(text)


_IN_FRONT: Final = "a byte-order mark in front"


def value_of(text: str) -> Cleaned:
    """A value of any kind: without a byte-order mark in front and line ends behind.

    Line ends are not reported: every editor and ``echo`` puts one there.
    """
    read = without_mark(text)
    return Cleaned(read.text.rstrip("\r\n"), read.dropped)


def one_line_or_all(text: str) -> str:
    """A secret of any kind: of one line without its end, which ``echo`` puts there; of several as they are."""
    line = re.sub(r"(?:\r\n|\n|\r)\Z", "", text)
    return text if "\n" in line or "\r" in line else line


def secret_of(text: str) -> Cleaned:
    """A secret that signs, or a key: without spaces, invisible characters and quotes around it as well."""
    read = value_of(text)
    value, dropped = read.text, list(read.dropped)
    bare = _stripped(value)
    if len(bare) > 1 and bare[0] + bare[-1] in _QUOTES:
        dropped.append(f"a pair of quotes ({bare[0]}) around it")
        bare = _stripped(bare[1:-1])
        value = bare
    if bare != value:
        around = {*value[: len(value) - len(value.lstrip(_AROUND))], *value[len(value.rstrip(_AROUND)) :]}
        dropped.append(f"white space ({', '.join(sorted(map(_named, around)))}) around it")
    return Cleaned(bare, tuple(dropped))


# As shells, compose files, cmd.exe, forges, templates and YAML's authors write the name of a variable.
_UNFILLED: Final = re.compile(
    r"\s*(?:\$\{[^{}]*\}|\$[A-Z_][A-Z0-9_]*|\$env:\w+|%[A-Z_][A-Z0-9_]*%|\$?\{\{.*\}\}|\$\([^()]*\)|<[A-Z_][A-Z0-9_]*>"
    r"|\{\s*\"\$(?:env|file)\".*\})\s*"
)


def is_unfilled(text: str) -> bool:
    """Whether it is the name of a variable that nothing has put a value in place of: anybody may guess it."""
    return _UNFILLED.fullmatch(text) is not None


def token_of(text: str) -> Cleaned:
    """A token: the same, and without the words that stand before it in a header."""
    read = secret_of(text)
    value, dropped = read.text, read.dropped
    for word in (_FIELD, f"{_SCHEME} ", f"{_SCHEME}\t"):
        if value[: len(word)].lower() == word:
            value = _stripped(value[len(word) :])
            dropped = (*dropped, f"the word {word.strip().capitalize()} in front")
    if value != read.text:
        # curl's --header has quotes around all of it, and people put some around the token.
        inner = secret_of(value)
        value, dropped = inner.text, (*dropped, *inner.dropped)
    return Cleaned(value, dropped)


def keys_of(text: str) -> tuple[list[str], tuple[str, ...]]:
    """The keys in ``text``, which white space or commas separate, and what was dropped."""
    read = value_of(text)
    dropped = dict.fromkeys(read.dropped)
    keys: list[str] = []
    for part in re.split(r"[\s,]+", read.text):
        key = part.strip(_AROUND + _QUOTE_MARKS)
        if key != part:
            dropped["quotes or invisible characters around it"] = None
        if key:
            keys.append(key)
    return keys, tuple(dropped)


def read_bytes(path: str | os.PathLike[str], most: int = MAX_SECRET_FILE, *, besides: int = 0) -> bytes:
    """All of a file.

    Args:
        besides: bytes that it may have more, for what is no part of the text.

    Raises:
        Undecodable: it cannot be read, or is longer than ``most`` bytes.
    """
    try:
        with Path(path).open("rb") as file:
            raw = file.read(most + besides + 1)
    except (OSError, ValueError) as error:
        # Not from the error, which has the path: a report would show it where a secret stands in its place.
        raise Undecodable(f"cannot be read: {why_unreadable(error, path)}.") from None
    if len(raw) > most + besides:
        raise Undecodable(f"is longer than {most:,} bytes.")
    return raw


def read_value(path: str | os.PathLike[str], *, lines: bool = False, signs: bool = False) -> Cleaned:
    """The text that a file holds: one line, unless ``lines``.

    Args:
        signs: a byte-order mark in front stays, because tokens may have been signed with it.

    Raises:
        Undecodable: it cannot be read, or holds something else.
    """
    decoded = decode(read_bytes(path, besides=len(_MARK.encode()) + len("\r\n")))
    read = value_of(decoded.text)
    if not read.text:
        raise Undecodable("is empty.")
    if len(read.text.encode()) > MAX_SECRET_FILE:
        raise Undecodable(f"is longer than {MAX_SECRET_FILE:,} bytes.")
    if not lines and ("\n" in read.text or "\r" in read.text):
        raise Undecodable("holds more than one line.")
    if "\0" in read.text:
        raise Undecodable("holds the byte 0x00, which is no text; write it again.")
    if signs and decoded.dropped:
        return Cleaned(_MARK + read.text)
    return Cleaned(read.text, (*decoded.dropped, *read.dropped))


def why_unreadable(error: OSError | ValueError, path: str | os.PathLike[str]) -> str:
    """Why a file cannot be opened, in words; a folder that is missing is named."""
    if not isinstance(error, OSError):
        return "that is no path"
    missing = isinstance(error, FileNotFoundError) and looks_like_path(path)
    folder = missing_folder(path) if missing else None
    return f"there is no folder {folder}" if folder is not None else str(error.strerror or error)


def looks_like_path(path: str | os.PathLike[str]) -> bool:
    """Whether a message may repeat it. Anything else may be a secret that stands where a path belongs."""
    text = os.fspath(path)
    try:
        if Path(text).exists():
            return True
        if not text.isprintable() or _WITH_PASSWORD.search(text):
            return False
        if re.search(r"[^/\\.][.][A-Za-z]\w{0,6}$", text) or text.startswith(("./", "../", "~/")):
            return True
        # A folder other than the root, and nothing but words.
        if re.fullmatch(r"(?:[a-z_.-]*/)+[a-z_.-]+", text[1:]):
            return True
        # What is base64 may begin with a slash, too.
        first = Path(text).parts[: 2 if Path(text).is_absolute() else 1]
        return len(Path(text).parts) > len(first) and Path(*first).is_dir()
    except (OSError, ValueError):
        return False


_WITH_PASSWORD: Final = re.compile(r"[^/\\\s:@]+:[^/\\\s@][^\s@]*@")


def shown_path(path: str | os.PathLike[str]) -> str:
    """What a message says of a file: its path, unless that may be a secret."""
    return os.fspath(path) if looks_like_path(path) else "(its path is not repeated, because it may be a secret)"


def shown_variable(name: str) -> str:
    """What a message says of an environment variable: its name, unless the value may stand in its place."""
    plain = re.fullmatch(r"[A-Z][A-Z0-9_]{0,79}", name) and ("_" in name or len(name) < 16)
    return name if plain or name in os.environ else "(its name is not repeated, because it may be a secret)"


def shown_key(key: object) -> str:
    """What a message says of a key that nobody knows: its name, unless it is none."""
    plain = not isinstance(key, str) or re.fullmatch(r"[A-Za-z$][A-Za-z_-]{0,39}", key)
    return str(key) if plain else "(a key that is not repeated, because it may be a secret)"


def missing_folder(path: str | os.PathLike[str]) -> Path | None:
    """The first folder on the way to ``path`` that is not there."""
    try:
        folders = [*reversed(Path(path).absolute().parents)]
        return next((folder for folder in folders if not folder.exists()), None)
    except (OSError, ValueError):
        return None


#: What is taken away at both ends of a secret. Every white space of Unicode, by which str.strip() goes.
_AROUND: Final = "".join(chr(code) for code in range(0x3001) if chr(code).isspace()) + _INVISIBLE


def _stripped(text: str) -> str:
    return text.strip(_AROUND)


def _named(character: str) -> str:
    return _hexadecimal(character.encode()) if character.isascii() else f"U+{ord(character):04X}"


def _hexadecimal(raw: bytes) -> str:
    return " ".join(f"0x{byte:02X}" for byte in raw)
