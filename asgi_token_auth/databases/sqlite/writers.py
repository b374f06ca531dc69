"""Writers of one event loop take turns at a file: first come, first served.

SQLite has no queue. Whoever finds the file locked sleeps, longer each time, and looks again; so of many that come at
once nearly all sleep while nobody writes, and who is next is chance. Other processes, and event loops of other threads,
are still waited for in that way: by one writer of each loop, whose turn it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from functools import partial

from asgi_token_auth.databases.forks import watch


class _Line:
    """Those who write to one file in one event loop."""

    __slots__ = ("people", "turn")

    def __init__(self) -> None:
        # It serves them in the order in which they came, and forgets who is cancelled.
        self.turn = asyncio.Lock()
        self.people = 0


class Turns:
    """Whose turn it is to write, for every file and event loop of this process."""

    def __init__(self) -> None:
        # An entry is there only while somebody writes or waits. Each event loop touches its own alone, in one step.
        self._lines: dict[tuple[asyncio.AbstractEventLoop, Hashable], _Line] = {}
        watch(self)

    async def take(self, file: Hashable, *, patience: float) -> Callable[[], None]:
        """Wait for a turn at ``file``, whatever that is called by, and return what ends it.

        Args:
            patience: seconds to wait for it.

        Raises:
            TimeoutError: it did not come.
        """
        place = asyncio.get_running_loop(), file
        if (line := self._lines.get(place)) is None:
            self._forget_ended()
            line = self._lines[place] = _Line()
        line.people += 1
        try:
            async with asyncio.timeout(patience):
                await line.turn.acquire()
        except BaseException:
            self._leave(place, line)
            raise
        return partial(self._end, place, line)

    def leave_to_parent(self) -> list[object]:
        """In a forked child: nobody writes here. The threads of those who did are the parent's."""
        inherited: list[object] = list(self._lines.values())
        self._lines.clear()
        return inherited

    def _end(self, place: tuple[asyncio.AbstractEventLoop, Hashable], line: _Line) -> None:
        line.turn.release()
        self._leave(place, line)

    def _leave(self, place: tuple[asyncio.AbstractEventLoop, Hashable], line: _Line) -> None:
        line.people -= 1
        # In a forked child another line may stand there by now.
        if line.people == 0 and self._lines.get(place) is line:
            del self._lines[place]

    def _forget_ended(self) -> None:
        # Who was left behind in a loop that was closed under them never ends a turn.
        for place in [place for place in list(self._lines) if place[0].is_closed()]:
            self._lines.pop(place, None)


#: One for all, because several databases may have the same file.
TURNS = Turns()
