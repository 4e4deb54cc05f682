"""Digests, validated before anybody makes a path of one.

image-spec, descriptor.md, "Digests": ``algorithm ":" encoded``. Only the two registered
algorithms are taken, in their exact length and lower case, so that a digest is always safe as a
file name (CVE-2024-3727).
"""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from ..errors import SourceError

if TYPE_CHECKING:
    from hashlib import _Hash  # pyright: ignore[reportPrivateUsage]  # its only name

_LENGTHS = {"sha256": 64, "sha512": 128}
#: Bytes of a document up to which loading something faster doesn't pay.
_SMALL = 256 << 10
_HEX = re.compile(r"[0-9a-f]+\Z")


class Digest(NamedTuple):
    """A valid digest; ``str`` gives its canonical form back."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Check ``text`` whole.

        Raises:
            SourceError: unknown algorithm, wrong length, or anything but lower hex digits.
        """
        algorithm, colon, encoded = text.partition(":")
        length = _LENGTHS.get(algorithm)
        if not colon or length is None:
            raise SourceError(f"invalid digest {_shown(text)}: it should read sha256:… or sha512:…")
        if len(encoded) != length or not _HEX.match(encoded):
            raise SourceError(
                f"invalid digest {_shown(text)}: {algorithm} has {length} lower-case hex digits"
            )
        return cls(algorithm, encoded)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    def hasher(self) -> _Hash:
        """Return a fresh hash object of this algorithm."""
        import hashlib  # 3 ms, and most only look whether a digest is one

        return hashlib.new(self.algorithm)

    def is_of(self, data: bytes) -> bool:
        """Say whether it is the digest of ``data``, a document."""
        if self.algorithm == "sha256":
            return _sha256(data) == self.hex
        hasher = self.hasher()
        hasher.update(data)
        return hasher.hexdigest() == self.hex


def parse_digest(text: str) -> str:
    """Return ``text`` if it is a valid digest in canonical form, else raise SourceError."""
    return str(Digest.parse(text))


def digest_bytes(data: bytes) -> str:
    """Return the canonical ``sha256:…`` digest of ``data``."""
    return f"sha256:{_sha256(data)}"


def _sha256(data: bytes) -> str:
    if len(data) < _SMALL and "_hashlib" not in sys.modules:
        # CPython's own: hashlib loads OpenSSL's, which is faster but takes 2 ms.
        with suppress(ImportError):
            name = "_sha2" if sys.version_info >= (3, 12) else "_sha256"
            found: str = import_module(name).sha256(data).hexdigest()
            return found
    import hashlib

    return hashlib.sha256(data).hexdigest()


def _shown(text: str) -> str:
    return repr(text if len(text) <= 140 else f"{text[:140]}…")
