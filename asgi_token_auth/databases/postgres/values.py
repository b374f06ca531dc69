"""Values on their way to PostgreSQL and back."""

# A row of asyncpg may hold lists of anything.
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import datetime as dt
import decimal
import math
import re
from typing import Any, Final

# Texts that stand for a number. To the database '007' and '7 ' would be numbers too, but as ids they are other texts.
_INTEGER: Final = (re.compile(r"0|-?[1-9][0-9]{0,18}"), int)
_DECIMAL: Final = (re.compile(r"(0|-?[1-9][0-9]{0,99})(\.[0-9]{1,99})?"), decimal.Decimal)
_NUMBERS: Final = {"int2": _INTEGER, "int4": _INTEGER, "int8": _INTEGER, "numeric": _DECIMAL}


def convert_numbers(values: list[Any], types: tuple[str, ...]) -> list[Any]:
    """``values`` with numbers in place of texts that stand for one, where PostgreSQL wants these ``types``."""
    if not types:
        return values
    converted: list[Any] = []
    for value, kind in zip(values, types, strict=True):
        wanted = _NUMBERS.get(kind)
        if wanted is not None and isinstance(value, str) and wanted[0].fullmatch(value):
            converted.append(wanted[1](value))
        else:
            converted.append(value)
    return converted


def plain(value: Any) -> Any:
    """A value as SQLite would have it, since actors are written as JSON."""
    if isinstance(value, (float, decimal.Decimal)) and not math.isfinite(value):
        # JSON has no such numbers.
        return None
    if value is None or isinstance(value, (str, int, float, bytes)):
        return value
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return str(value)
