"""Whether anything was committed to a WAL file, without a system call.

``PRAGMA data_version`` answers the same question with two system calls, for a lock and its release. SQLite itself
compares the first 48 bytes of the wal-index, which all connections to the file share in memory, with those that it
saw last, and raises ``data_version`` if and only if they differ. This module finds those bytes in the mapping that
SQLite has already made, so that they can be compared without asking SQLite. It may be deleted: everything then
asks the pragma.

Sources: https://www.sqlite.org/walformat.html for the layout, two copies of 48 bytes at the offsets 0 and 48;
``walIndexTryHdr``, ``walIndexWriteHdr`` and ``walTryBeginRead`` in SQLite's ``wal.c``; ``pager_reset`` and
``sqlite3PagerDataVersion`` in ``pager.c``; ``unixShmMap`` and ``unixShmUnmap`` in ``os_unix.c``.

Why it is sound:

- A writer stores the second copy, a memory barrier, and the first copy, and only then does its COMMIT return. Whoever
  has heard of the commit therefore sees another first copy. What is rolled back does not touch it.
- A copy that is read while it is being written differs from the one before: the row is read again, by SQLite, which
  waits for a whole one.
- The bytes are compared with those seen last, as SQLite does, and not with those of long ago.
- They are read before the row, so a commit between the two costs one more read and never makes a stale answer.
- The mapping stays as long as the connection that it was found for is open: SQLite unmaps it when the last one closes.
  Whoever uses it must let go of it before that connection closes.
- The file is never opened here: closing a descriptor of it would take away the locks of this process (POSIX).

Whatever is odd has no header, and the pragma is asked: no WAL, no ``/proc`` (systems other than Linux), an index in
heap memory (``locking_mode=exclusive``) or one mapped read-only, a file that was deleted or replaced, two mappings
of it (a second SQLite in the process could remove the one that is not ours), a version of the format that is not known.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from typing import Final, Protocol

_MAPS: Final = Path("/proc/self/maps")
_HEADER_BYTES: Final = 48
#: The only version there has been since SQLite 3.7.0 (2010).
_VERSION: Final = 3_007_000
_IS_INITIALIZED: Final = 12
_SHARED_AND_WRITABLE: Final = "rw-s"


class Header(Protocol):
    """The shared bytes; :attr:`raw` copies them as they are at this moment."""

    @property
    def raw(self) -> bytes:
        """48 bytes."""
        ...


def find(shm: tuple[int, int]) -> Header | None:
    """The header in SQLite's only mapping of the file with the device and inode ``shm``, or ``None``. Never raises.

    To be asked just after a read in WAL mode, and not to be used after the connection that read was closed.
    """
    found: list[int] = []
    try:
        with _MAPS.open(encoding="utf-8", errors="replace") as maps:
            for line in maps:
                # Address, rights, offset, device, inode and path: proc_pid_maps(5).
                address, rights, offset, device, inode, *_ = line.split(maxsplit=5)
                # What lies behind the first 32 kB is mapped by itself.
                if inode == "0" or int(offset, 16) != 0 or (_device(device), int(inode)) != shm:
                    continue
                if rights != _SHARED_AND_WRITABLE:
                    return None
                found.append(int(address.partition("-")[0], 16))
    except (OSError, ValueError):
        return None
    if len(found) != 1:
        return None
    both = (ctypes.c_char * (2 * _HEADER_BYTES)).from_address(found[0]).raw
    # One that is being written at this very moment is found at the next opportunity.
    if both[:_HEADER_BYTES] != both[_HEADER_BYTES:] or not _is_known(both[:_HEADER_BYTES]):
        return None
    return (ctypes.c_char * _HEADER_BYTES).from_address(found[0])


def _device(text: str) -> int:
    major, _, minor = text.partition(":")
    return os.makedev(int(major, 16), int(minor, 16))


def _is_known(header: bytes) -> bool:
    """Whether it has the version, the mark and the checksum that it should."""
    words = struct.unpack("=12I", header)
    first = second = 0
    for one, other in zip(words[0:10:2], words[1:10:2], strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return words[0] == _VERSION and header[_IS_INITIALIZED] == 1 and words[10:] == (first, second)
