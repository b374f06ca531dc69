"""Whether a query answers the same as long as its file stays the same, as its compiled program shows.

SQLite compiles a query, with all views and subqueries in it, into a program that EXPLAIN prints
(https://www.sqlite.org/opcode.html). Whatever it reads but the tables of the file it reads with a function, such as the
time, or through a virtual table. What is not known here counts as not repeatable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from asgi_token_auth.databases.protocol import Row

# https://www.sqlite.org/lang_corefunc.html, lang_aggfunc.html and json1.html: those of their arguments alone.
_FUNCTIONS: Final = frozenset(
    "-> ->> abs avg char coalesce concat concat_ws count format glob group_concat hex ifnull iif instr json json_array "
    "json_array_length json_extract json_group_array json_group_object json_object json_quote json_type json_valid "
    "length like lower ltrim max min nullif octet_length printf quote replace round rtrim sign string_agg substr "
    "substring sum total trim typeof unhex unicode upper".split()
)
_CALL: Final = re.compile(r"(\S+)\(-?\d+\)")
_VIRTUAL: Final = re.compile(r"V(?:Open|Filter|Column|Next|Update|InitIn|Check|Begin|Create|Destroy|Rename)")
#: The number of the file itself; others are temporary or attached.
_MAIN: Final = 0


def is_repeatable(program: Iterable[Row]) -> bool:
    """Whether the rows of ``explain <query>`` depend on the file and the parameters alone."""
    for _, opcode, _, _, database, argument, *_ in program:
        if opcode in ("String", "String8"):
            # A text that stands in the query, whatever it looks like.
            continue
        if not isinstance(opcode, str) or _VIRTUAL.match(opcode):
            return False
        if opcode.startswith("Open") and opcode != "OpenEphemeral" and opcode != "OpenPseudo" and database != _MAIN:
            return False
        called = _CALL.fullmatch(argument) if isinstance(argument, str) else None
        if called is not None and called[1] not in _FUNCTIONS:
            return False
        if called is None and ("Func" in opcode or opcode.startswith("Agg")):
            return False
    return True
