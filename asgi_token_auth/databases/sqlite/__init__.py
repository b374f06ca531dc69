"""SQLite, for one machine.

Three kinds of connection, each for one purpose. Writes open a connection of their own and close it, so no
lock is ever shared between two of them. Queries run on a few pooled connections off the event loop. Lookups,
which stand in the path of every request, run on the event loop's own thread on a connection that never writes.
"""

from asgi_token_auth.databases.sqlite.database import SQLite

__all__ = ["SQLite"]
