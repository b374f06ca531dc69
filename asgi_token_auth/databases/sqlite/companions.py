"""The ``-wal`` and ``-shm`` files of a file in WAL mode, and what to do when somebody takes them away.

SQLite goes on with the files that it has open, so a process whose companions were deleted or replaced reads what was
true before, and writes where others have written. Nothing tells it. When its last connection closes it even copies
into the database what it takes for the newest, and so undoes what other processes have committed in the meantime
(https://www.sqlite.org/howtocorrupt.html, section 1.4 and 2.4).
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

if sys.platform == "linux":
    import fcntl

logger: Final = logging.getLogger("asgi_token_auth")

#: Device and inode of the -shm file and of the -wal file; ``None``: there is none.
Companions: TypeAlias = tuple[tuple[int, int] | None, tuple[int, int] | None]

NONE: Final[Companions] = (None, None)

# The bytes on which SQLite puts its shared locks: https://www.sqlite.org/src/file/src/os.h
_SHARED_FIRST: Final = 0x40000002
_SHARED_SIZE: Final = 510
#: Seconds between two looks at whether the deleted files are closed by now.
_LOOK_INTERVAL: Final = 0.1


def companions_of(path: Path) -> Companions:
    """What stands beside the file ``path`` now."""
    # SQLite puts them beside the file itself and not beside a link to it.
    if path.is_symlink():
        path = path.resolve()
    return _identity(f"{path}-shm"), _identity(f"{path}-wal")


def were_replaced(before: Companions, now: Companions) -> bool:
    """Whether one that was there is gone or is another. One that was not there may have come."""
    return any(old is not None and old != new for old, new in zip(before, now, strict=True))


def is_open(files: set[tuple[int, int]]) -> bool:
    """Whether this process has one of ``files`` open, whatever it is called by now; true where it cannot be told."""
    try:
        for descriptor in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                status = descriptor.stat()
                if (status.st_dev, status.st_ino) in files:
                    return True
    except OSError:
        return True
    return False


class Watch:
    """What this process knows of the companions of one file. There is one for all that open the same path."""

    def __init__(self, path: Path) -> None:
        self._path = path
        #: How often they were found replaced. Connections of another count are to be closed.
        self.losses: int = 0
        # Those that connections of this process may still have open.
        self._lost: set[tuple[int, int]] = set()
        self._look_again_at = 0.0
        # The garbage collector closes connections at any moment, and in the thread that has this.
        self._lock = threading.RLock()
        self._closers: list[weakref.WeakMethod[Callable[[], None]]] = []
        self._guard = _ClosingGuard(path)
        self._unclosable: list[object] = []

    def on_loss(self, closer: Callable[[], None]) -> None:
        """Call the method ``closer`` when connections are to be closed. It is not kept alive."""
        with self._lock:
            self._closers = [known for known in self._closers if known() is not None] + [weakref.WeakMethod(closer)]

    def note_loss(self, losses: int, lost: Companions) -> bool:
        """Say that a connection that was opened at the count ``losses`` has companions that are no longer there.

        Returns whether it may be closed.
        """
        with self._lock:
            # What was kept open and the lock outlive those who use this path now.
            _with_losses[self._path] = self
            self._lost.update(file for file in lost if file is not None)
            closable = self._guard.hold()
            if losses != self.losses:
                return closable
            self.losses += 1
        logger.error(
            "%s: its -wal or -shm file was deleted or replaced while it was in use; tokens cannot be checked until it "
            "is open anew%s",
            self._path,
            "" if closable else ", for which this process has to be started again",
        )
        if closable:
            for closer in self._closers:
                if (close := closer()) is not None:
                    close()
        return closable

    def keep_open(self, connection: object) -> None:
        """Keep a connection that must not be closed until the process ends."""
        self._unclosable.append(connection)

    def is_usable(self) -> bool:
        """Whether a new connection would see what other processes see."""
        if not self._lost:
            return True
        with self._lock:
            now = time.monotonic()
            if now < self._look_again_at:
                return False
            self._look_again_at = now + _LOOK_INTERVAL
            if not self._lost:
                return True
            looked_for = self._lost.copy()
            # The number of a file that is closed may be given to the next one.
            if is_open(looked_for.difference(companions_of(self._path))):
                return False
            self._lost -= looked_for
            if self._lost:
                return False
            self._guard.release()
        logger.warning("%s: it is open anew, with the -wal and -shm files that are there now", self._path)
        return True


class _ClosingGuard:
    """Keeps SQLite from copying an outdated ``-wal`` into the database when this process closes its connections.

    It does so only with an exclusive lock, which a shared one of another open file of the same process can prevent
    (Linux, fcntl_locking(2): open file description locks).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Of each file that was found under the path. They are never closed: that would take away all the locks that
        # SQLite has in this process (POSIX).
        self._descriptors: dict[tuple[int, int], int] = {}

    def hold(self) -> bool:
        """Put up the lock on the file that is there now, and say whether that could be done."""
        file = _identity(str(self._path))
        return file is not None and self._lock(file, shared=True)

    def release(self) -> None:
        """Take the lock away again."""
        for file in self._descriptors:
            self._lock(file, shared=False)

    def _lock(self, file: tuple[int, int], *, shared: bool) -> bool:
        if sys.platform != "linux":
            return False
        kind = fcntl.F_RDLCK if shared else fcntl.F_UNLCK
        try:
            if (descriptor := self._descriptors.get(file)) is None:
                descriptor = self._descriptors[file] = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            # struct flock: type, whence, start, length, process.
            lock = struct.pack("hhqqi4x", kind, os.SEEK_SET, _SHARED_FIRST, _SHARED_SIZE, 0)
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
        except OSError:
            return False
        return True


def watch(path: Path) -> Watch:
    """The one of ``path`` in this process."""
    with _lock:
        if (known := _watches.get(path)) is None:
            known = _watches[path] = Watch(path)
        return known


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


_lock = threading.Lock()
_watches: weakref.WeakValueDictionary[Path, Watch] = weakref.WeakValueDictionary()
_with_losses: dict[Path, Watch] = {}
