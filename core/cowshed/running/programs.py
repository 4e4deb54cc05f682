"""Programs: where they are installed."""

from __future__ import annotations

import os


def find_program(name: str) -> str | None:
    """Return the path of a program on ``PATH``; None: it isn't installed.

    ``shutil.which`` would bring bz2 and lzma, and 2 ms.
    """
    for directory in os.get_exec_path():
        path = os.path.join(directory, name)
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    return None
