"""Files open for writing that keep what write(2) strips: setuid, setgid and file capabilities.

The kernel takes these from a file that is written to; a tree's file keeps every attribute until
somebody sets another, as an image is edited and not executed here.
"""

from __future__ import annotations

import errno
import io
import os
import stat as stat_module
from typing import BinaryIO, cast

from ..tree import OpenMode
from .syscalls import CAPABILITY


class Privileges:
    """What a write would strip from the open file ``descriptor``."""

    def __init__(self, descriptor: int) -> None:
        self._mode = stat_module.S_IMODE(os.fstat(descriptor).st_mode)
        self._capability: bytes | None = None
        try:
            self._capability = os.getxattr(descriptor, CAPABILITY)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                raise

    @property
    def any(self) -> bool:
        """Say whether there is anything to keep."""
        special = stat_module.S_ISUID | stat_module.S_ISGID
        return self._capability is not None or bool(self._mode & special)

    def restore(self, descriptor: int) -> None:
        """Put back what was stripped meanwhile."""
        if stat_module.S_IMODE(os.fstat(descriptor).st_mode) != self._mode:
            os.fchmod(descriptor, self._mode)
        if self._capability is not None:
            os.setxattr(descriptor, CAPABILITY, self._capability)


class _Keeping(io.FileIO):
    def __init__(self, descriptor: int, mode: str, privileges: Privileges) -> None:
        super().__init__(descriptor, mode)
        self._privileges = privileges

    def close(self) -> None:
        if not self.closed:
            try:
                self._privileges.restore(self.fileno())
            finally:
                super().close()


def open_to_write(descriptor: int, mode: OpenMode, privileges: Privileges | None) -> BinaryIO:
    """Return a buffered file over ``descriptor``, which it will close."""
    if privileges is None or not privileges.any:
        return os.fdopen(descriptor, mode)
    raw = _Keeping(descriptor, mode, privileges)
    buffered = io.BufferedRandom(raw) if mode == "r+b" else io.BufferedWriter(raw)
    return cast(BinaryIO, buffered)
