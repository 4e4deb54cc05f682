"""Whether overlayfs can work in a directory, found out by doing it."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from cowshed.native.overlays import mount, open_root
from cowshed.native.removal import remove_directory
from cowshed.native.syscalls import OPEN_DIRECTORY, exchange

from .format import can_be_trusted

_WAY_OUT = "; run as root, or in a user namespace with mounts of its own (unshare -Urm)"


def probe(root: Path) -> str | None:
    """Mount an overlay of directories below ``root``, which exists or could be made, and try what
    the driver relies on; say in one sentence what doesn't work."""
    existing = root
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        place = Path(tempfile.mkdtemp(prefix=".cowshed-probe-", dir=existing))
    except OSError as error:
        return f"{existing} can't be written: {error.strerror}"
    try:
        return _try(place)
    finally:
        remove_directory(str(place.parent), place.name)


def _try(place: Path) -> str | None:
    lower, nothing, upper, work = (place / name for name in ("lower", "none", "upper", "work"))
    for directory in (lower, nothing, upper, work):
        directory.mkdir()
    (lower / "gone").touch()
    (lower / "changed").touch()
    user = not can_be_trusted(str(lower))
    try:
        os.setxattr(lower / "changed", f"{'user' if user else 'trusted'}.cowshed", b"kept")
        exchange(str(lower), str(nothing))
        exchange(str(lower), str(nothing))
    except OSError as error:
        return f"the file system at {place.parent} can't: {error.strerror}"
    descriptors: list[int] = []
    try:
        descriptors.extend(os.open(one, OPEN_DIRECTORY) for one in (lower, upper, work))
        below, above, at = descriptors
        try:
            mounted = mount([below], upper=above, work=at, user_xattrs=user)
        except OSError as error:
            return _why_not(error, place.parent)
        root = open_root(mounted)
        try:
            os.unlink("gone", dir_fd=root)
            os.chmod("changed", 0o600, dir_fd=root)
            names = os.listdir(root)
        finally:
            os.close(root)
    except OSError as error:
        return f"an overlay at {place.parent} doesn't work: {error.strerror}"
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    kept = os.listxattr(upper / "changed")
    if names != ["changed"] or f"{'user' if user else 'trusted'}.cowshed" not in kept:
        return f"an overlay at {place.parent} loses what is written into it"
    return None


def _why_not(error: OSError, place: Path) -> str:
    if error.errno in (errno.EPERM, errno.EACCES):
        return f"mounting needs privilege{_WAY_OUT}"
    if error.errno in (errno.ENODEV, errno.ENOSYS):
        return "this kernel has no overlayfs"
    if "lowerdir+" in str(error):
        return "this kernel's overlayfs is too old; Linux 6.7 is the first that can"
    return f"the kernel mounts no overlay at {place}: {error.strerror}"
