"""The index of SQLite that searches for a part of a text use: which three characters in a row are in which rows.

It proposes rows, and the rows themselves decide, so it may know more than there is and must never know less. The
triggers that keep it so belong to the table: whoever writes there, by whatever tool, keeps the index true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from asgi_token_auth.databases.protocol import Parameters, ReadingSteps, Row, Search, Steps

_LIKE: Final = "like"
_LENGTH: Final = 3
#: Of a long text so many sequences are asked for, spread over it. Each costs some 15 microseconds.
_ASKED: Final = 8
#: Rows that may be looked up one by one: about half a millisecond of them. And rows that the index may go through.
_FEW: Final = 500
_SOME: Final = 4_000
#: Of sequences that are in so many rows, three together are usually in few.
_TOGETHER: Final = 3
# SQLite may be built without it. Its tokenizer for three characters is older than what the tables need anyway.
_CAN: Final = "select 1 from pragma_module_list where name = 'fts5'"


# FTS5 keeps its content in these tables, as sqlite.org/fts5.html describes them.
_PARTS: Final = {
    "data": "(id integer primary key, block blob)",
    "idx": "(segid, term, pgno, primary key (segid, term)) without rowid",
    "config": "(k primary key, v) without rowid",
}
_TRIGGERS: Final = ("insert", "delete", "update")


def index_tables(table: str) -> tuple[str, ...]:
    """The names of the tables that the index of ``table`` consists of."""
    return (f"{table}_search", *(f"{table}_search_{part}" for part in _PARTS))


class TrigramIndex:
    """A virtual table of FTS5 beside the table, ``{table}_search``, and three triggers."""

    def make(self, table: str, columns: Sequence[str]) -> Steps[None]:
        """Make both anew and fill them. Without FTS5 only take away what would make writing fail."""
        index, *triggers = _objects(table, columns)
        for name in triggers:
            yield f"drop trigger if exists {name}", {}
        if not (yield _CAN, {}):
            return
        if (yield "select 1 from sqlite_master where name = :index", {"index": index}):
            # SQLite cannot open, and so not drop, a virtual table whose own tables somebody took away or damaged.
            for part, content in _PARTS.items():
                yield f"create table if not exists {index}_{part} {content}", {}
            yield f"insert or replace into {index}_config (k, v) values ('version', 4)", {}
            yield f"insert or replace into {index}_data (id, block) values (10, zeroblob(7))", {}
            yield f"drop table {index}", {}
        for sql in _objects(table, columns).values():
            yield sql, {}
        for command in ("rebuild", "optimize"):
            yield f"insert into {index} ({index}) values (:command)", {"command": command}

    def is_whole(self, table: str, columns: Sequence[str]) -> ReadingSteps[bool]:
        """Whether all of it is there, and knows the first and the last row."""
        wanted = _objects(table, columns)
        names = ", ".join(f"'{name}'" for name in wanted)
        present = yield f"select name, sql from sqlite_master where name in ({names})", {}
        if dict(present) != wanted:
            return False
        # As blobs: text that is none could not be read, and says nothing about the index.
        texts = ", ".join(f"cast({column} as blob)" for column in columns)
        for order in ("asc", "desc"):
            rows = yield f"select id, {texts} from {table} order by id {order} limit 1", {}
            for row_id, *values in rows:
                sequences = [sequence for value in values for sequence in _sequences(_decoded(value))]
                found = yield (
                    f"select 1 from {table}_search where {table}_search match :all and rowid = :id",
                    {"all": _all_of(sequences or ["???"]), "id": row_id},
                )
                if sequences and not found:
                    return False
        return True

    def find(self, search: Search) -> ReadingSteps[list[Row]]:
        """Read the rows of whatever is rare: the owner's rows, or those with three characters of the text."""
        sequences = _sequences(search.text)
        if not sequences:
            return (yield search.statement(_LIKE))
        first, triggers, *counts = (yield self._counts(search, sequences, _FEW))[0]
        if first is None or triggers < len(_TRIGGERS):
            return (yield search.statement(_LIKE))
        rarest = min(range(len(counts)), key=counts.__getitem__)
        if counts[rarest] < _FEW:
            return (yield self._among(search, _all_of([sequences[rarest]])))
        # All are frequent, so probably is the text, and the newest rows fill the page.
        rows = yield replace(search, where=[*search.where, f"id >= {int(first)}"]).statement(_LIKE)
        if len(rows) == search.limit:
            return rows
        _, _, *counts = (yield self._counts(search, sequences, _SOME))[0]
        rare = sorted((count, sequence) for count, sequence in zip(counts, sequences, strict=True) if count < _SOME)
        if rare:
            return (yield self._among(search, _all_of([sequence for _, sequence in rare[:_TOGETHER]])))
        newest = _FEW + 4 * search.limit
        rows = yield self._among(search, _all_of(sequences), newest)
        if len(rows) < search.limit:
            candidates, parameters = _candidates(search, _all_of(sequences), newest)
            if (yield f"select count(*) from ({candidates})", parameters)[0][0] == newest:
                rows = yield search.statement(_LIKE)
        return rows

    def _counts(self, search: Search, sequences: Sequence[str], most: int) -> tuple[str, Parameters]:
        """Where the owner's newest rows begin, if there are others; the triggers; the rows with each of ``sequences``.

        Beyond ``most`` nothing is counted.
        """
        table = search.table
        before = "" if search.before is None else " and id < :before"
        triggers = ", ".join(f"'{table}_search_{name}'" for name in _TRIGGERS)
        counted = [
            f"(select id from {table} where {search.where[0]}{before} order by id desc limit 1 offset :newest)",
            # Without them, dropped with a table that a tool made anew, the index knows too little.
            f"(select count(*) from sqlite_master where type = 'trigger' and name in ({triggers}))",
        ]
        parameters: dict[str, Any] = {
            **search.parameters,
            "before": search.before,
            "newest": 4 * (_FEW + search.limit),
            "most": most,
        }
        for number, sequence in enumerate(sequences):
            name = f"sequence_{number}"
            held = f"select 1 from {table}_search where {table}_search match :{name} limit :most"
            counted.append(f"(select count(*) from ({held}))")
            parameters[name] = _all_of([sequence])
        return f"select {', '.join(counted)}", parameters

    def _among(self, search: Search, match: str, newest: int | None = None) -> tuple[str, Parameters]:
        """The search, but only among what the index proposes."""
        candidates, parameters = _candidates(search, match, newest)
        # The order of a cross join is kept: the other way round, every row would be looked up in the index.
        source = f"({candidates}) as candidates cross join {search.table} on id = candidate"
        sql, bound = replace(search, parameters={**search.parameters, **parameters}).statement(_LIKE, source)
        return sql, bound


def _candidates(search: Search, match: str, newest: int | None) -> tuple[str, Parameters]:
    index = f"{search.table}_search"
    sql = f"select rowid as candidate from {index} where {index} match :all"
    parameters: dict[str, Any] = {"all": match}
    if newest is not None:
        if search.before is not None:
            sql += " and rowid < :before"
            parameters["before"] = search.before
        sql += " order by rowid desc limit :newest"
        parameters["newest"] = newest
    return sql, parameters


def _objects(table: str, columns: Sequence[str]) -> dict[str, str]:
    """What there must be, and how it is made, letter by letter as SQLite remembers it."""
    index = f"{table}_search"
    listed = ", ".join(columns)
    new = f"insert into {index} (rowid, {listed}) values (new.id, {', '.join(f'new.{name}' for name in columns)});"
    old = (
        f"insert into {index} ({index}, rowid, {listed}) "
        f"values ('delete', old.id, {', '.join(f'old.{name}' for name in columns)});"
    )
    # Neither places nor lengths are kept: the rows decide, and there is a third of it to write.
    options = f"content='{table}', content_rowid='id', tokenize='trigram', detail=none, columnsize=0"
    bodies = {
        "insert": ("insert", new),
        "delete": ("delete", old),
        "update": (f"update of id, {listed}", f"{old} {new}"),
    }
    return {
        index: f"CREATE VIRTUAL TABLE {index} USING fts5({listed}, {options})",
        **{
            f"{index}_{name}": f"CREATE TRIGGER {index}_{name} after {bodies[name][0]} on {table} "
            f"begin {bodies[name][1]} end"
            for name in _TRIGGERS
        },
    }


def _sequences(text: str) -> list[str]:
    """Some of the three characters in a row that ``text`` holds, all of them if it is short."""
    every = list(dict.fromkeys(text[start : start + _LENGTH] for start in range(len(text) - _LENGTH + 1)))
    if len(every) <= _ASKED:
        return every
    return [every[place * (len(every) - 1) // (_ASKED - 1)] for place in range(_ASKED)]


def _all_of(sequences: Sequence[str]) -> str:
    """In the query language of FTS5."""
    return " AND ".join('"' + sequence.replace('"', '""') + '"' for sequence in sequences)


def _decoded(value: bytes | None) -> str:
    # Everything ends at NUL for SQLite's functions of text.
    try:
        return (value or b"").decode().partition("\0")[0]
    except UnicodeDecodeError:
        return ""
