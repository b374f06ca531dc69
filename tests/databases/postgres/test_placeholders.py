"""``:name`` becomes ``$1`` exactly where PostgreSQL sees code: each text is also given to a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_token_auth.databases.postgres.placeholders import numbered
from tests.support import postgres

#: Where a parameter is meant. Every other ":x" is part of a text, a name, a comment or a cast.
MARK = "\u25c6"

# Pieces that mean something each by itself, in which no parameter is.
OTHERS = [
    "':x'",
    "''",
    "'it''s :x'",
    "'ends in a backslash\\'",
    "E'it\\'s :x'",
    "e'\\\\'",
    "E'it''s \\\\\\':x'",
    "'one'\n  ':x'",
    "E'one'\n'it\\'s :x'",
    "E'one' -- what ' is not a string\n",
    "U&':x'",
    "B'01'",
    "X'1e'",
    "N':x'",
    "$$:x$$",
    "$$it's :x$$",
    "$tag$ :x $$ :x $other$ :x $tag$",
    "$_t1$:x$_t1$",
    "$\N{LATIN SMALL LETTER E WITH ACUTE}$ :x ' $\N{LATIN SMALL LETTER E WITH ACUTE}$",
    "/* :x */ 1",
    "/* one /* two :x */ ' :x */ 1",
    "/* -- */ 1",
    "1 -- :x",
    "1 -- it's :x",
    "1 --/* :x",
    '1 as ":x"',
    '1 as "it""s \' :x"',
    "1::text",
    "'1'::integer",
    "1 :: integer",
    "(array[1, 2, 3])[1:2]",
    "(array[1, 2, 3])[:2]",
    "(array[1, 2, 3])[2:]",
    "1e3",
    "1.5e-3",
    "1 as one$x",
    "1 as \N{LATIN SMALL LETTER E WITH ACUTE}e",
    "make_interval(days := 1)",
    "jsonb '{\"a\": 1}' ? ':x'",
    "2*-1",
]

# With parameters.
MEANT = [
    "\u25c6",
    "\u25c6::text",
    "\u25c6 :: text",
    "(\u25c6)",
    "-\u25c6::integer",
    "'a'||\u25c6||':x'",
    "\u25c6||\u25c6",
    "date'2020-01-01' = date'2020-01-02' or \u25c6 = 'x'",
    "case when 1=1 then\u25c6 else'x' end",
    "case when true then 'e'else\u25c6 end",
    "E'\\\\'||\u25c6",
    "'\\'||\u25c6",
    "$$'$$||\u25c6",
    "$a$ $b$ $a$||\u25c6||$b$ $b$",
    "/*'*/\u25c6/*'*/",
    "/*/**/'*/\u25c6",
    "1--'\n+\u25c6::integer",
    "1--\r+\u25c6::integer",
    "\u25c6 -- :x",
    "array[\u25c6, ':x']",
    "(array[1,2,3])[1: \u25c6::integer]",
    "(array[1,2,3])[\u25c6::integer:2]",
    "make_interval(days :=\u25c6::integer)",
    "1+\u25c6::integer",
    "1=\u25c6::integer",
    "3*/* :x */\u25c6::integer",
    "'a'<>\u25c6",
    '\u25c6 as "x:x"',
    "coalesce(\u25c6,\u25c6,':x')",
    "'one'\n'two:x'||\u25c6",
    "E'one'\n  'it\\'s'||\u25c6",
    "E'one' -- it's\n 'it\\'s'||\u25c6",
    "E'one'--\n--\n'\\''||\u25c6",
    "1e0+\u25c6::integer",
    "\u25c6::integer%2",
    "$$$$||\u25c6",
]


def check(template: str) -> None:
    text, names = numbered(template.replace(MARK, ":x"), ("x", "y"))
    assert text == template.replace(MARK, "$1")
    assert names == (("x",) if MARK in template else ())


@pytest.mark.parametrize("template", [*OTHERS, *MEANT])
def test_a_parameter_is_found_in_code_only(template: str) -> None:
    check(f"select {template}")


@pytest.mark.parametrize(
    ("sql", "names", "text", "used"),
    [
        (":a :b :a", ("a", "b"), "$1 $2 $1", ("a", "b")),
        (":b :a", ("a", "b"), "$1 $2", ("b", "a")),
        (":a", (), ":a", ()),
        (":a :ab :a_b :a1", ("a",), "$1 :ab :a_b :a1", ("a",)),
        (":A", ("a",), ":A", ()),
        (":token_id", ("token_id", "token"), "$1", ("token_id",)),
        ("x:a", ("a",), "x$1", ("a",)),
        ("1:a", ("a",), "1$1", ("a",)),
        (": a", ("a",), ": a", ()),
        (":", ("a",), ":", ()),
        ("", ("a",), "", ()),
        (":a\N{LATIN SMALL LETTER E WITH ACUTE}", ("a",), "$1\N{LATIN SMALL LETTER E WITH ACUTE}", ("a",)),
        ("typee':a'", ("a",), "typee':a'", ()),
        ("type$e':a'", ("a",), "type$e':a'", ()),
        ("a$b$:a$b$", ("a",), "a$b$$1$b$", ("a",)),
        ("\u2192e'a\\':a", ("a",), "\u2192e'a\\'$1", ("a",)),
        ("$1 $2:a", ("a",), "$1 $2$1", ("a",)),
        ("*/ :a /*", ("a",), "*/ $1 /*", ("a",)),
        ("/* :a", ("a",), "/* :a", ()),
        ("/* /* */ :a", ("a",), "/* /* */ :a", ()),
        ("-- :a", ("a",), "-- :a", ()),
    ],
)
def test_what_is_written_and_in_which_order(sql: str, names: tuple[str, ...], text: str, used: tuple[str, ...]) -> None:
    assert numbered(sql, names) == (text, used)


@pytest.mark.parametrize(
    "sql", ["'", "E'", "E'\\", '"', "$$", "$a$ $b$", "'''", '"""', "/*/", "$", "e", ":", "::", "\\"]
)
def test_what_does_not_end_is_left_to_the_server_to_refuse(sql: str) -> None:
    assert numbered(f"select :x, {sql}", ("x",)) == (f"select $1, {sql}", ("x",))


@given(st.text(st.sampled_from("'\"$:exE-/*\\ \n1a:x\u00e9\u2192;[]"), max_size=60))
def test_any_text_keeps_all_but_the_parameters(sql: str) -> None:
    assert numbered(sql, ()) == (sql, ())
    text, used = numbered(sql, ("x",))
    # Nothing but some of the ":x" differs.
    assert text.replace("$1", ":x") == sql.replace("$1", ":x")
    assert bool(used) == (text != sql)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("end", ["", "'", "\n", "\n'", "--", " :x"])
@pytest.mark.parametrize("piece", ["-", "-- ", "' ", "''", "E'\\", "$", "$a$", "/*", "*/", '"', " \n", "\n--"])
def test_no_text_takes_long(piece: str, end: str) -> None:
    numbered(f"select E'x'{piece * 1_000}{end}", ("x",))


# As PostgreSQL has it


class Asked:
    """One session of the real server."""

    def __init__(self, dsn: str) -> None:
        self._runner = asyncio.Runner()
        self._connection = self._runner.run(asyncpg.connect(dsn))

    def __call__(self, sql: str, *parameters: object) -> Any:
        """The rows, with the names of their columns."""
        found = self._runner.run(self._connection.fetch(sql, *parameters))
        return [(tuple(row.keys()), tuple(row.values())) for row in found]

    def close(self) -> None:
        self._runner.run(self._connection.close())
        self._runner.close()


@pytest.fixture(scope="module")
def asked(postgres_server: postgres.Server) -> Iterator[Asked]:
    asked = Asked(postgres_server.dsn())
    yield asked
    asked.close()


def check_with(asked: Asked, template: str) -> None:
    check(template)
    text, names = numbered(template.replace(MARK, ":x"), ("x",))
    # A cast says what the server would otherwise take from the literal's place. It changes no name of a column.
    text = text.replace("$1", "($1::text)")
    assert asked(text, *["1" for _ in names]) == asked(template.replace(MARK, "('1'::text)"))


@pytest.mark.parametrize("template", [*OTHERS, *MEANT])
def test_the_server_sees_the_parameter_where_it_is_meant(asked: Asked, template: str) -> None:
    check_with(asked, f"select {template}")


@given(
    st.lists(st.sampled_from([*OTHERS, *MEANT]), min_size=1, max_size=6), st.sampled_from([",", ", ", "\n,", " ,\n "])
)
def test_the_server_sees_it_in_any_company(asked: Asked, pieces: list[str], between: str) -> None:
    # What ends in a comment to the end of the line takes the comma with it.
    ended = [f"{piece}\n" if "--" in piece.splitlines()[-1] else piece for piece in pieces]
    check_with(asked, f"select {between.join(ended)}")
