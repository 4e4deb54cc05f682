"""Format: what all processes that use a store must agree on.

ROOT/overlay.json    {"format": 1, "xattrs": "trusted" or "user", "key": hex}
"""

from __future__ import annotations

import json
import os
from typing import NamedTuple

from cowshed.errors import DriverError, FormatTooNewError

_FORMAT = 1


class Format(NamedTuple):
    """``user``: overlayfs keeps its attributes as ``user.``, which a user namespace may; ``key``
    signs records."""

    user: bool
    key: bytes


def open_format(root: str, driver: str) -> Format:
    """Read the format of the store at ``root``, or choose it.

    Raises:
        FormatTooNewError: a newer Cowshed wrote it.
        DriverError: it can't be read.
    """
    path = os.path.join(root, "overlay.json")
    try:
        with open(path, "rb") as file:
            found = json.load(file)
        if found["format"] > _FORMAT:
            raise FormatTooNewError(path, found["format"], _FORMAT)
        return Format(user=found["xattrs"] == "user", key=bytes.fromhex(found["key"]))
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError) as error:
        raise DriverError(
            driver, f"{path} is damaged ({error}); restore it from a backup"
        ) from error
    xattrs = "trusted" if can_be_trusted(root) else "user"
    aside = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    with open(aside, "x", encoding="ascii") as file:
        os.fchmod(file.fileno(), 0o600)  # whatever the umask
        json.dump({"format": _FORMAT, "xattrs": xattrs, "key": os.urandom(32).hex()}, file)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(aside, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(aside)
    return open_format(root, driver)


def can_be_trusted(directory: str) -> bool:
    """Say whether this process may set attributes that users can't see."""
    try:
        os.setxattr(directory, "trusted.cowshed.tried", b"")
        os.removexattr(directory, "trusted.cowshed.tried")
    except OSError:
        return False
    return True
