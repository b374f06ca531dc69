"""The index of SQLite that searches for a part of a text use: which three characters in a row are in which rows.

It proposes rows, and the rows themselves decide, so it may know more than there is and must never know less. The
triggers that keep it so belong to the table: whoever writes there, by whatever tool, keeps the index true.

Every text is indexed with two characters more at its end. So each of its characters begins three in a row, each two in
a row do too, and a search for one or two characters is one for what begins with them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

from asgi_token_auth.databases.protocol import Parameters, ReadingSteps, Row, Search, Steps

_LIKE: Final = "like"
_LENGTH: Final = 3
#: Of a long text so many sequences are asked for, spread over it. Each costs some 40 microseconds.
_MAX_SEQUENCES: Final = 6
#: Rows that may be looked up one by one: about a millisecond of them. And rows that the index may go through.
_FEW: Final = 1_000
_SOME: Final = 4_000
#: Rows that are read before the index is gone through, and for each that the page may hold four more.
_NEWEST: Final = 2_000
#: Of sequences that are in so many rows, three together are usually in few.
_MAX_TOGETHER: Final = 3
# SQLite may be built without it. Its tokenizer for three characters is older than what the tables need anyway.
_HAS_FTS5: Final = "select 1 from pragma_module_list where name = 'fts5'"
_ENCODING: Final = "(select encoding from pragma_encoding)"

# FTS5 keeps its content in these tables, as sqlite.org/fts5.html describes them.
_PARTS: Final = {
    "data": "(id integer primary key, block blob)",
    "idx": "(segid, term, pgno, primary key (segid, term)) without rowid",
    "config": "(k primary key, v) without rowid",
}
_TRIGGERS: Final = ("insert", "delete", "update")
# A character that hardly any text holds, twice at the end of each.
_PAD: Final = "\x01"
# A row that is not in the table, whose id hardly any row has. Its text begins with what comes first in the index, and
# ends with what comes last.
_FIRST: Final = _PAD * 3
_LAST: Final = "\U0010fffd" * 3
_MARK_ID: Final = 0
#: What proposes rows, as a query for ``candidate``, and its parameters.
_Proposal: TypeAlias = tuple[str, Parameters]


def index_tables(table: str) -> tuple[str, ...]:
    """The names of the tables that the index of ``table`` consists of."""
    return (f"{table}_search", f"{table}_search_terms", *(f"{table}_search_{part}" for part in _PARTS))


class TrigramIndex:
    """A virtual table of FTS5 beside the table, ``{table}_search``, one that reads it by terms, and three triggers."""

    def make(self, table: str, columns: Sequence[str]) -> Steps[None]:
        """Make all of it anew and fill it. Without FTS5 only take away what would make writing fail."""
        objects = _objects(table, columns)
        index, terms, *triggers = objects
        for name in triggers:
            yield f"drop trigger if exists {name}", {}
        if not (yield _HAS_FTS5, {}):
            return
        yield f"drop table if exists {terms}", {}
        if (yield "select 1 from sqlite_master where name = :index", {"index": index}):
            # SQLite cannot open, and so not drop, a virtual table whose own tables somebody took away or damaged.
            for part, content in _PARTS.items():
                yield f"create table if not exists {index}_{part} {content}", {}
            yield f"insert or replace into {index}_config (k, v) values ('version', 4)", {}
            yield f"insert or replace into {index}_data (id, block) values (10, zeroblob(7))", {}
            yield f"drop table {index}", {}
        for sql in objects.values():
            yield sql, {}
        # FTS5's own command 'rebuild' would fill it with the texts as they are, and take the mark away.
        listed = ", ".join(columns)
        yield f"insert into {index} (rowid, {columns[0]}) values (:id, :text)", {"id": _MARK_ID, "text": _FIRST + _LAST}
        yield f"insert into {index} (rowid, {listed}) select id, {_padded(columns)} from {table}", {}
        yield f"insert into {index} ({index}) values ('optimize')", {}

    def is_complete(self, table: str, columns: Sequence[str]) -> ReadingSteps[bool]:
        """Whether all of it is there, and knows the first and the last row."""
        wanted = _objects(table, columns)
        names = ", ".join(f"'{name}'" for name in wanted)
        present = yield f"select name, sql from sqlite_master where name in ({names})", {}
        if dict(present) != wanted or not (yield f"select {_marked(table)}", {})[0][0]:
            return False
        # As blobs: text that is none could not be read, and says nothing about the index.
        texts = ", ".join(f"cast({column} as blob)" for column in columns)
        encoding = (yield f"select {_ENCODING}", {})[0][0]
        for order in ("asc", "desc"):
            rows = yield f"select id, {texts} from {table} order by id {order} limit 1", {}
            for row_id, *values in rows:
                sequences = [sequence for value in values for sequence in _sequences(_decoded(value, encoding))]
                found = yield (
                    f"select 1 from {table}_search where {table}_search match :all and rowid = :id",
                    {"all": _all_of(sequences or ["???"]), "id": row_id},
                )
                if sequences and not found:
                    return False
        return True

    def find(self, search: Search) -> ReadingSteps[list[Row]]:
        """Read the rows of whatever is rare: the owner's rows, or those with some characters of the text."""
        if not search.text:
            return (yield search.statement(_LIKE))
        sequences = _sequences(search.text)
        first, complete, *counts = (yield self._counts(search, sequences, _FEW))[0]
        if first is None or not complete:
            return (yield search.statement(_LIKE))
        if not all(counts):
            return []
        if (rare := _rare(search, sequences, counts, _FEW)) is not None:
            return (yield self._among(search, rare))
        # All are frequent, so probably is the text, and the newest rows fill the page.
        rows = yield replace(search, where=[*search.where, f"id >= {int(first)}"]).statement(_LIKE)
        if len(rows) == search.limit:
            return rows
        _, _, *counts = (yield self._counts(search, sequences, _SOME))[0]
        if (rare := _rare(search, sequences, counts, _SOME)) is not None:
            return (yield self._among(search, rare))
        if not sequences:
            return (yield search.statement(_LIKE))
        newest = _newest(search, sequences)
        rows = yield self._among(search, newest)
        if len(rows) < search.limit:
            sql, parameters = newest
            if (yield f"select count(*) from ({sql})", parameters)[0][0] == parameters["newest"]:
                rows = yield search.statement(_LIKE)
        return rows

    def _counts(self, search: Search, sequences: Sequence[str], most: int) -> tuple[str, Parameters]:
        """Where the owner's newest rows begin, if there are others; whether the index is complete; what it proposes.

        Beyond ``most`` nothing is counted.
        """
        table = search.table
        before = "" if search.before is None else " and id < :before"
        triggers = ", ".join(f"'{table}_search_{name}'" for name in _TRIGGERS)
        counted = [
            f"(select id from {table} where {search.where[0]}{before} order by id desc limit 1 offset :newest)",
            # Without them, dropped with a table that a tool made anew, the index knows too little.
            # Nor do they follow when another table takes the name of theirs.
            f"(select count(*) from sqlite_master where type = 'trigger' and name in ({triggers}) "
            f"and lower(tbl_name) = '{table.lower()}') = {len(_TRIGGERS)} and {_marked(table)}",
        ]
        parameters: dict[str, Any] = {
            **search.parameters,
            "before": search.before,
            "newest": _NEWEST + 4 * search.limit,
            "most": most,
        }
        if sequences:
            proposals = [_holding(table, [each], f"sequence_{number}") for number, each in enumerate(sequences)]
        else:
            proposals = [_beginning(table, search.text)]
            # The bounds are in the order of UTF-8, and SQLite compares texts in the encoding of the file.
            counted[-1] += f" and {_ENCODING} = 'UTF-8'"
        for sql, bound in proposals:
            counted.append(f"(select count(*) from ({sql} limit :most))")
            parameters.update(bound)
        return f"select {', '.join(counted)}", parameters

    def _among(self, search: Search, proposal: _Proposal) -> tuple[str, Parameters]:
        """The search, but only among what the index proposes."""
        candidates, parameters = proposal
        # The order of a cross join is kept: the other way round, every row would be looked up in the index.
        source = f"(select distinct candidate from ({candidates})) as candidates cross join {search.table} "
        source += "on id = candidate"
        return replace(search, parameters={**search.parameters, **parameters}).statement(_LIKE, source)


def _rare(search: Search, sequences: Sequence[str], counts: Sequence[int], most: int) -> _Proposal | None:
    """Fewer than ``most`` rows, if that can be."""
    if not sequences:
        return _beginning(search.table, search.text) if counts[0] < most else None
    rare = sorted((count, sequence) for count, sequence in zip(counts, sequences, strict=True) if count < most)
    return _holding(search.table, [sequence for _, sequence in rare[:_MAX_TOGETHER]]) if rare else None


def _newest(search: Search, sequences: Sequence[str]) -> _Proposal:
    """The newest rows that hold all of ``sequences``."""
    sql, parameters = _holding(search.table, sequences)
    before = "" if search.before is None else " and rowid < :before"
    return (
        f"{sql}{before} order by rowid desc limit :newest",
        {**parameters, "before": search.before, "newest": _FEW + 4 * search.limit},
    )


def _holding(table: str, sequences: Sequence[str], name: str = "all") -> _Proposal:
    index = f"{table}_search"
    return f"select rowid as candidate from {index} where {index} match :{name}", {name: _all_of(sequences)}


def _beginning(table: str, text: str) -> _Proposal:
    """The rows with one or two characters, some of them several times."""
    ranges: list[str] = []
    parameters: dict[str, str] = {}
    for number, beginning in enumerate(map("".join, itertools.product(*map(_folded, text)))):
        condition = f"term >= :from_{number}"
        parameters[f"from_{number}"] = beginning
        if (end := _after(beginning)) is not None:
            condition += f" and term < :to_{number}"
            parameters[f"to_{number}"] = end
        ranges.append(f"select doc as candidate from {table}_search_terms where {condition}")
    return " union all ".join(ranges), parameters


def _folded(character: str) -> list[str]:
    """What the tokenizer may have made of a character that LIKE takes for ``character``."""
    if character.isascii():
        return [character.lower()]
    # No character at all, to SQLite; it reads this one.
    if character in "\ufffe\uffff":
        return ["\ufffd"]
    return [each for each in {character, character.lower(), character.casefold()} if len(each) == 1]


def _after(beginning: str) -> str | None:
    """The first text after all that start with ``beginning``; ``None``: there is none."""
    before, last = beginning[:-1], beginning[-1]
    if last == "\U0010ffff":
        return _after(before) if before else None
    # Surrogates are no characters.
    return before + chr(0xE000 if last == "\ud7ff" else ord(last) + 1)


def _marked(table: str) -> str:
    """Whether the index was filled as it must be, and by nothing else."""
    index = f"{table}_search"
    return f"exists (select 1 from {index} where {index} match '{_all_of([_FIRST, _LAST])}' and rowid = {_MARK_ID})"


def _padded(columns: Sequence[str], row: str = "") -> str:
    """The texts to be indexed. Everything ends at NUL for SQLite's functions of text, and this takes the NUL away."""
    return ", ".join(f"printf('%s' || char(1, 1), {row}{column})" for column in columns)


def _objects(table: str, columns: Sequence[str]) -> dict[str, str]:
    """What there must be, and how it is made, letter by letter as SQLite remembers it."""
    index = f"{table}_search"
    listed = ", ".join(columns)
    new = f"insert into {index} (rowid, {listed}) values (new.id, {_padded(columns, 'new.')});"
    old = f"insert into {index} ({index}, rowid, {listed}) values ('delete', old.id, {_padded(columns, 'old.')});"
    # Neither places nor lengths are kept: the rows decide, and there is a third of it to write.
    options = f"content='{table}', content_rowid='id', tokenize='trigram', detail=none, columnsize=0"
    bodies = {
        "insert": ("insert", new),
        "delete": ("delete", old),
        "update": (f"update of id, {listed}", f"{old} {new}"),
    }
    return {
        index: f"CREATE VIRTUAL TABLE {index} USING fts5({listed}, {options})",
        f"{index}_terms": f"CREATE VIRTUAL TABLE {index}_terms USING fts5vocab({index}, 'instance')",
        **{
            f"{index}_{name}": f"CREATE TRIGGER {index}_{name} after {bodies[name][0]} on {table} "
            f"begin {bodies[name][1]} end"
            for name in _TRIGGERS
        },
    }


def _sequences(text: str) -> list[str]:
    """Some of the three characters in a row that ``text`` holds, all of them if it is short."""
    every = list(dict.fromkeys(text[start : start + _LENGTH] for start in range(len(text) - _LENGTH + 1)))
    if len(every) <= _MAX_SEQUENCES:
        return every
    return [every[place * (len(every) - 1) // (_MAX_SEQUENCES - 1)] for place in range(_MAX_SEQUENCES)]


def _all_of(sequences: Sequence[str]) -> str:
    """In the query language of FTS5."""
    return " AND ".join('"' + sequence.replace('"', '""') + '"' for sequence in sequences)


def _decoded(value: bytes | None, encoding: str) -> str:
    """``value`` as it is indexed; nothing where that is not certain."""
    try:
        text = (value or b"").decode(encoding).partition("\0")[0]
    except UnicodeDecodeError:
        return ""
    return text and text + 2 * _PAD
