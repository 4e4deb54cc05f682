"""OverlayHosting: what overlayfs keeps for itself, files of an overlay can't hold."""

from __future__ import annotations

import attrs

from cowshed.entry import Kind
from cowshed.native.hosting import Hosting

#: The name, in the namespace that the store uses, of the attribute that is a file's record.
RECORD = "cowshed"

#: An ext4 inode has 4 KiB for all its attributes, and copying a file up adds one.
_LARGEST = 1024


@attrs.frozen
class OverlayHosting(Hosting):
    """``user``: overlayfs, and we, keep our own attributes as ``user.``, not as ``trusted.``: the
    store is a user namespace's."""

    user: bool = False

    @property
    def namespace(self) -> str:
        """The namespace of those attributes."""
        return "user" if self.user else "trusted"

    @property
    def record_name(self) -> str:
        """The attribute that is a file's record."""
        return f"{self.namespace}.{RECORD}"

    @property
    def opaque_name(self) -> str:
        """The attribute that makes a directory hide those below it."""
        return f"{self.namespace}.overlay.opaque"

    def may_be(self, kind: Kind, rdev: int) -> bool:
        # A character device 0/0 is a whiteout.
        return super().may_be(kind, rdev) and not (kind is Kind.CHAR and rdev == 0)

    def may_hold(self, kind: Kind, xattr: str, size: int) -> bool:
        ours = xattr == self.record_name or xattr.startswith(("trusted.overlay.", "user.overlay."))
        return not ours and size <= _LARGEST and super().may_hold(kind, xattr, size)
