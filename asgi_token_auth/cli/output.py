"""Standard output and standard error: tables for people, JSON for scripts, and text that cannot command a terminal."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import select
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any, Final, TextIO, cast

import click

#: A column is never made narrower than this for the sake of others.
_MIN_COLUMN_WIDTH: Final = 8
_GAP: Final = "  "


class OutputError(OSError):
    """Standard output cannot be written. Other files have other errors."""


class StandardOutput(io.FileIO):
    """The process's standard output, whose errors can be told from those of other files."""

    @classmethod
    def wrapping(cls, stream: TextIO) -> TextIO:
        """``stream``, written through this class where it leads to a file as other systems than Windows have them."""
        buffer = getattr(stream, "buffer", None)
        if type(getattr(buffer, "raw", buffer)) is not io.FileIO:
            return stream
        raw = cls(stream.fileno(), "wb", closefd=False)
        return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, line_buffering=stream.isatty())

    def write(self, data: Any, /) -> int:
        """Write all or a part of ``data``, and wait for a reader that is slow, also where the stream would not."""
        while True:
            try:
                written: int | None = super().write(data)
            except OSError as error:
                raise OutputError(error.errno, error.strerror) from error
            if written is not None:
                return written
            select.select([], [self], [])


def wait_for_reader() -> None:
    """Wait until standard output takes text again, where it is full and that can be told."""
    with contextlib.suppress(OSError, ValueError):
        select.select([], [sys.stdout], [])


def discard_buffer(stream: TextIO) -> None:
    """Let what is still buffered for a broken stream go, which would fail once more when the interpreter ends."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_json(value: Any) -> None:
    """Write ``value`` as JSON to standard output."""
    try:
        text = json.dumps(value, indent=2, allow_nan=False)
    except ValueError:
        text = json.dumps(_name_non_finite(value), indent=2, allow_nan=False)
    click.echo(text)


def _name_non_finite(value: Any) -> Any:
    """``value`` with the names in place of the numbers that JSON has not got, such as ``"NaN"``."""
    if isinstance(value, dict):
        return {key: _name_non_finite(inner) for key, inner in cast("dict[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_name_non_finite(inner) for inner in cast("Sequence[Any]", value)]
    return json.dumps(value) if isinstance(value, float) and not math.isfinite(value) else value


def print_to_stderr(sentence: str) -> None:
    """Write a sentence to standard error, where it is in no script's way. Where that is broken, nobody reads it."""
    write_to_stderr(escape_unprintable(sentence))


def write_to_stderr(text: str, *, nl: bool = True) -> None:
    """Write text to standard error as it is."""
    try:
        click.echo(text, err=True, nl=nl)
    except OSError:
        discard_buffer(sys.stderr)


def escape_unprintable(text: str) -> str:
    """``text`` without what could command a terminal: whatever is not printable is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def terminal_width() -> int | None:
    """Columns of the terminal, or of COLUMNS; ``None`` where the output goes elsewhere, which needs no limit."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and int(columns) > 0:
        return int(columns)
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def format_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None, shrinks: Sequence[str]
) -> str:
    """Lines of at most ``width`` columns.

    Where there is no room, the last columns are left out, and then those that ``shrinks`` names are shortened.
    """
    cells = [list(header), *([escape_unprintable(cell) for cell in row] for row in rows)]
    widths = [max(_display_width(row[column]) for row in cells) for column in range(len(header))]
    if width is not None:
        least = [min(w, _MIN_COLUMN_WIDTH) if name in shrinks else w for name, w in zip(header, widths, strict=True)]
        while len(least) > 2 and sum(least) + len(_GAP) * (len(least) - 1) > width:
            least.pop()
        widths = widths[: len(least)]
        while sum(widths) + len(_GAP) * (len(widths) - 1) > width:
            column = max(range(len(widths)), key=lambda index: widths[index] - least[index])
            if widths[column] == least[column]:
                break
            widths[column] -= 1
    lines = [_GAP.join(_pad(cell, width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in cells]
    return "\n".join(line if width is None else _shorten(line, width) for line in lines)


def format_fields(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and values, one pair a line."""
    # Names too: the databases of a token's restrictions are among them, and whoever made it chose those.
    named = [(escape_unprintable(name), escape_unprintable(value)) for name, value in pairs]
    width = max(len(name) for name, _ in named) + 2
    return "\n".join(f"{name + ':':<{width}}{value}".rstrip() for name, value in named)


def _display_width(text: str) -> int:
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in ("W", "F") else 1 for c in text
    )


def _shorten(text: str, width: int) -> str:
    if _display_width(text) <= width:
        return text
    while text and _display_width(text) > max(width - 3, 0):
        text = text[:-1]
    return (text + "...")[:width] if width < 3 else text + "..."


def _pad(text: str, width: int) -> str:
    text = _shorten(text, width)
    return text + " " * (width - _display_width(text))
