"""Changes of many rows as several transactions, between which others write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeAlias

from asgi_token_auth.databases.protocol import Database, Steps
from asgi_token_auth.errors import StorageError

#: Rows that one transaction changes: some milliseconds, on every database.
PART: Final = 500
#: Seconds between two of them. A process that waits for a SQLite file looks again within less than that.
_PAUSE: Final = 0.01

#: What became of one part: how many rows were changed; and the last id that was looked at, ``None``: it was the end.
Part: TypeAlias = tuple[int, int | None]


class PartlyDone(StorageError):
    """Some of the transactions were made before one failed."""


async def run_in_parts(
    database: Database, part: Callable[[int], Steps[Part]], *, is_open: Callable[[], bool]
) -> list[int]:
    """Run the transactions of ``part`` one after the other to their end, even if the caller is cancelled.

    Args:
        part: makes the steps of the next one, of ids above the one that it is given.
        is_open: whether to go on. A caller that was cancelled may have left the database closed.

    Returns:
        How many rows each of them changed.

    Raises:
        PartlyDone: one of them failed, or ``is_open`` is false. What was done before stays done.
        StorageError: the first one failed, and nothing was changed.
    """
    return await asyncio.shield(asyncio.ensure_future(_run(database, part, is_open)))


async def _run(database: Database, part: Callable[[int], Steps[Part]], is_open: Callable[[], bool]) -> list[int]:
    counts: list[int] = []
    after: int | None = 0
    while after is not None:
        if counts:
            await asyncio.sleep(_PAUSE)
        try:
            if counts and not is_open():
                raise StorageError(f"{database.name} was closed meanwhile.")
            count, after = await database.transaction(part(after))
        except StorageError as error:
            if not counts:
                raise
            raise PartlyDone(f"{error} {sum(counts):,} were done before that; ask again for the others.") from error
        counts.append(count)
    return counts
