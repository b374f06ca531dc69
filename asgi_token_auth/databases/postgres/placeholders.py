"""``:name`` parameters as PostgreSQL's ``$1``, found where PostgreSQL itself would see code and not text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

# What PostgreSQL reads as one word, so that nothing inside of it is taken for a parameter (its manual, 4.1 "Lexical
# Structure"). Words and numbers are here because they may end in what would otherwise begin a quotation. Whatever is
# not ASCII is a letter to it. A string that goes on after a line break keeps its kind.
_WORD: Final = re.compile(
    r"""
      --[^\r\n]*
    | [eE]'(?:[^'\\]|\\.|'')*'
      (?:(?:[ \t\f\v]|--[^\r\n]*+)*+[\r\n](?:[ \t\f\v\r\n]|--[^\r\n]*+[\r\n])*+'(?:[^'\\]|\\.|'')*')*
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | \$(?P<tag>(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)?)\$.*?\$(?P=tag)\$
    | \$[0-9]+
    | [A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*
    | [0-9][A-Za-z0-9_\x80-\U0010ffff]*
    | ::
    | :(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    """,
    re.DOTALL | re.VERBOSE,
)
_COMMENT: Final = re.compile(r"/\*|\*/")


@lru_cache(maxsize=1024)
def numbered(sql: str, names: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """``sql`` with ``$1``, ``$2`` ... for those of ``names`` that occur in it as ``:name``, and these in their order.

    Strings, quoted names, casts, comments and dollar quotes stay as they are; a name that is not in ``names`` too.
    """
    written: list[str] = []
    used: list[str] = []
    for piece, name in _pieces(sql):
        if name is None or name not in names:
            written.append(piece)
            continue
        if name not in used:
            used.append(name)
        written.append(f"${used.index(name) + 1}")
    return "".join(written), tuple(used)


def _pieces(sql: str) -> Iterator[tuple[str, str | None]]:
    """The text in pieces, in order, each with the name of the parameter that it is."""
    place = 0
    while place < len(sql):
        if sql.startswith("/*", place):
            end = _end_of_comment(sql, place)
            yield sql[place:end], None
        elif (found := _WORD.match(sql, place)) is not None:
            end = found.end()
            yield found.group(), found["name"]
        else:
            end = place + 1
            yield sql[place], None
        place = end


def _end_of_comment(sql: str, place: int) -> int:
    # Comments nest, unlike those of the SQL standard.
    depth = 0
    for mark in _COMMENT.finditer(sql, place):
        depth += 1 if mark.group() == "/*" else -1
        if depth == 0:
            return mark.end()
    return len(sql)
