"""The index of PostgreSQL that searches for a part of a text use: GIN, over the three characters in a row of pg_trgm.

PostgreSQL keeps it true and decides itself when to use it, so a search is one statement, with the index or without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from asgi_token_auth.databases.protocol import Parameters, ReadingSteps, Row, Search, Steps

# What there is, and what this role may add to it. A standby and a read-only session may add nothing.
_STATE: Final = """
    select
        exists (select from pg_index where indexrelid = found.oid and indisvalid),
        found.oid is not null,
        not pg_is_in_recovery() and current_setting('transaction_read_only') = 'off'
            and pg_has_role(owned.relowner, 'usage') and has_schema_privilege(owned.relnamespace, 'create'),
        (
            select quote_ident(nspname) from pg_opclass
            join pg_am on pg_am.oid = opcmethod and amname = 'gin'
            join pg_namespace on pg_namespace.oid = opcnamespace and has_schema_privilege(pg_namespace.oid, 'usage')
            where opcname = 'gin_trgm_ops' limit 1
        ),
        has_database_privilege(current_database(), 'create')
            and exists (select from pg_available_extensions where name = 'pg_trgm' and installed_version is null),
        coalesce((select 'public' from pg_namespace where nspname = 'public'), quote_ident(namespace.nspname)),
        quote_ident(namespace.nspname)
    from pg_class as owned
    join pg_namespace as namespace on namespace.oid = owned.relnamespace
    left join pg_class as found
        on found.relnamespace = owned.relnamespace and found.relname = cast(owned.relname as text) || '_search'
    where owned.oid = to_regclass(:table)
"""


class _State(NamedTuple):
    complete: bool
    present: bool
    may_change: bool
    #: The schema of the operators for the index, if this role may use them.
    operators: str | None
    may_install: bool
    #: Where pg_trgm would be installed, and where the table is.
    shared_schema: str
    schema: str


class GinIndex:
    """``{table}_search``, where pg_trgm is installed or may be. Everything works without it."""

    def make(self, table: str, columns: Sequence[str]) -> Steps[None]:
        """Make it anew where this role may."""
        for row in (yield _state(table)):
            state = _State(*row)
            if not state.may_change or not (state.operators or state.may_install):
                return
            if state.operators is None:
                # Whether it may be installed is known for certain only when it is. The block is a transaction within
                # this one, which goes on if that fails, or if somebody else installs it at this moment.
                yield (
                    "do $install$ begin "
                    f"create extension if not exists pg_trgm schema {state.shared_schema}; "
                    "exception when others then null; end $install$",
                    {},
                )
                state = _State(*(yield _state(table))[0])
            if state.operators is None:
                return
            name = f"{table.rpartition('.')[2]}_search"
            if state.present:
                yield f"drop index {state.schema}.{name}", {}
            columns_and_operators = ", ".join(f"{column} {state.operators}.gin_trgm_ops" for column in columns)
            # Tokens are written seldom, and a search would have to read through all that waits to be sorted in.
            yield f"create index {name} on {table} using gin ({columns_and_operators}) with (fastupdate = off)", {}

    def is_complete(self, table: str, columns: Sequence[str]) -> ReadingSteps[bool]:
        """Whether it is there, or cannot be."""
        for row in (yield _state(table)):
            state = _State(*row)
            return state.complete or not (state.may_change and (state.operators or state.may_install))
        return False

    def find(self, search: Search) -> ReadingSteps[list[Row]]:
        """The rows that ``search`` asks for."""
        return (yield search.statement("ilike"))


def _state(table: str) -> tuple[str, Parameters]:
    return _STATE, {"table": table}
