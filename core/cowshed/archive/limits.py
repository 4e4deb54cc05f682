"""Limits: how much an untrusted layer may ask of us before it is refused."""

from __future__ import annotations

import attrs

from ..errors import LimitExceededError

_positive = attrs.validators.ge(1)


@attrs.frozen(kw_only=True)
class Limits:
    """Bounds for one layer. Passing one raises ``LimitExceededError(option="limits.NAME")``.

    The defaults are far above what images need and stop the bombs of CVE-2017-14992 and its kin.
    """

    #: Bytes of the unpacked tar, and of all file content once holes are filled.
    bytes: int = attrs.field(default=1 << 39, validator=_positive)
    #: Unpacked bytes for each compressed one, judged beyond ``ratio_floor``. Deflate can't pass
    #: 1,032.
    ratio: int = attrs.field(default=1000, validator=_positive)
    #: Unpacked bytes below which no ratio is suspicious: a layer may be a file of zeros.
    ratio_floor: int = attrs.field(default=256 << 20, validator=_positive)
    #: Members of the archive. Beyond some 30,000, what has to be known of each is on disk.
    entries: int = attrs.field(default=10_000_000, validator=_positive)
    #: Components of a path, after links are resolved.
    depth: int = attrs.field(default=1024, validator=_positive)
    #: Bytes of one extended header, long name or sparse map; Go's archive/tar stops there too.
    header: int = attrs.field(default=1 << 20, validator=_positive)
    #: Bytes of a path, after links are resolved. PATH_MAX binds one system call, not a tree.
    path: int = attrs.field(default=32_768, validator=_positive)
    #: Bytes of all extended attributes of one entry, names included.
    xattrs: int = attrs.field(default=256 << 10, validator=_positive)

    def exceeded(self, name: str, what: str) -> LimitExceededError:
        """Return the error for passing the limit called ``name``, ready to raise."""
        return LimitExceededError(what, int(getattr(self, name)), f"limits.{name}")


DEFAULT_LIMITS = Limits()
