"""PostgreSQL, for many machines.

A few pooled connections serve queries and writes, one at a time each. Verification has a connection of its own, on
which all requests of an event loop share their reads. Whatever fails on a connection ends it, so that nothing which
went wrong for one request is met by the next.
"""

from asgi_token_auth.databases.postgres.database import Postgres

__all__ = ["Postgres"]
