"""Every error that Cowshed raises on purpose, drawn first.

    CowshedError                      one clear line; exit status 1
    ├── UsageError                    the call itself is wrong; exit status 2
    │   └── ConfigError               a setting has an unknown name or a bad value
    ├── NotFoundError                 no such image, layer, container, driver …
    ├── AmbiguousError                a prefix fits several
    ├── ConflictError                 the name or key is taken
    ├── InUseError                    something else still needs it
    │   └── BusyError                 another process holds it just now
    ├── VetoError                     a policy plugin said no
    ├── SourceError                   what we were given to import is not acceptable
    │   ├── DigestMismatchError       its bytes are not what their digest says
    │   ├── UnsupportedError          a media type, platform or feature we don't read
    │   └── ArchiveError              a layer's tar is malformed …
    │       ├── UnsafeEntryError      … or tries to reach outside its root
    │       └── LimitExceededError    … or is larger than the configured bounds
    ├── StoreError                    the shed itself can't do it
    │   ├── FormatTooNewError         written by a newer Cowshed
    │   ├── ReadOnlyError             the disk or the shed can't be written
    │   ├── NoSpaceError              the disk or quota is full
    │   └── CorruptError              stored bytes are not what was stored
    ├── DriverError                   a driver can't run here or broke its contract
    └── PluginError                   a plugin failed to import or to register

Operations on a ``Tree`` raise the ``OSError`` subclasses that the same call in
``os`` would raise (``FileNotFoundError``, ``NotADirectoryError`` …), because
code that handles files already knows those.

Errors carry fields; the message is composed in ``__str__`` and says what is
wrong and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable


class CowshedError(Exception):
    """Base of all errors raised on purpose. ``message`` is one clear line."""

    exit_status = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` or ``""``, ready to end a message."""
    import difflib  # 5 ms, and most calls are right

    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


class UsageError(CowshedError):
    """The call is wrong in itself, whatever the shed holds."""

    exit_status = 2


class ConfigError(UsageError):
    """A setting has an unknown name or an unusable value; ``where`` says which file or variable."""

    def __init__(self, message: str, where: str = "") -> None:
        super().__init__(message)
        self.where = where

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class NotFoundError(CowshedError):
    """Nothing of that ``kind`` answers to ``reference``."""

    def __init__(self, kind: str, reference: str, known: Iterable[str] = ()) -> None:
        super().__init__(f"no such {kind}: {reference}")
        self.kind = kind
        self.reference = reference
        self.known = tuple(known)

    def __str__(self) -> str:
        return f"{self.message}{nearest(self.reference, self.known)}"


class AmbiguousError(CowshedError):
    """``reference`` is a prefix of several IDs."""

    def __init__(self, kind: str, reference: str, matches: Iterable[str]) -> None:
        self.kind = kind
        self.reference = reference
        self.matches = tuple(matches)
        shown = ", ".join(match[:16] for match in self.matches[:4])
        more = ", …" if len(self.matches) > 4 else ""
        super().__init__(
            f"{reference!r} fits {len(self.matches)} {kind}s ({shown}{more}); give more of the ID"
        )


class ConflictError(CowshedError):
    """The name or key is already taken."""


class InUseError(CowshedError):
    """Something else still needs it; the message names what."""


class BusyError(InUseError):
    """Another process holds it just now; trying again later may succeed."""


class VetoError(CowshedError):
    """A policy plugin refused the operation."""

    def __init__(self, operation: str, reason: str) -> None:
        super().__init__(f"{operation} refused: {reason}")
        self.operation = operation
        self.reason = reason


class SourceError(CowshedError):
    """What was given to import can't be accepted."""


class DigestMismatchError(SourceError):
    """Bytes don't match the digest or size that their descriptor promises."""

    def __init__(self, what: str, expected: str, actual: str) -> None:
        super().__init__(
            f"{what}: expected {expected}, found {actual}; the source is damaged or was altered"
        )
        self.what = what
        self.expected = expected
        self.actual = actual


class UnsupportedError(SourceError):
    """A media type, platform, compression or archive feature that isn't read."""


class ArchiveError(SourceError):
    """A layer's tar is malformed, truncated or damaged."""


class UnsafeEntryError(ArchiveError):
    """An entry of a tar tries to reach outside the root or to abuse a whiteout name."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"unsafe entry {path!r} in layer: {reason}")
        self.path = path
        self.reason = reason


class LimitExceededError(ArchiveError):
    """A bound on bytes, ratio, entries, depth or JSON size was passed."""

    def __init__(self, what: str, limit: int, option: str = "") -> None:
        raise_it = f"; raise {option} to allow it" if option else ""
        super().__init__(f"{what} exceeds the limit of {limit:,}{raise_it}")
        self.what = what
        self.limit = limit
        self.option = option


class StoreError(CowshedError):
    """The shed itself can't do what was asked."""


class FormatTooNewError(StoreError):
    """The shed was written by a newer Cowshed."""

    def __init__(self, root: str, found: int, supported: int) -> None:
        super().__init__(
            f"shed {root} has format {found}, this Cowshed reads up to {supported}; "
            "upgrade Cowshed or choose another --root"
        )
        self.found = found
        self.supported = supported


class ReadOnlyError(StoreError):
    """The disk, the shed or the tree can't be written."""


class NoSpaceError(StoreError):
    """The disk or quota is full; nothing was changed."""


class CorruptError(StoreError):
    """Stored bytes are not what was stored; ``where`` names image, layer or container and path."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}; run 'cowshed check --deep' for the whole extent")
        self.where = where
        self.problem = problem


class DriverError(CowshedError):
    """A driver can't run here, or broke the interface; ``driver`` names it."""

    def __init__(self, driver: str, reason: str) -> None:
        super().__init__(f"driver {driver}: {reason}")
        self.driver = driver
        self.reason = reason


class PluginError(CowshedError):
    """A plugin failed to import, to register, or clashes with another."""

    def __init__(self, plugin: str, reason: str) -> None:
        super().__init__(f"plugin {plugin}: {reason}")
        self.plugin = plugin
        self.reason = reason
