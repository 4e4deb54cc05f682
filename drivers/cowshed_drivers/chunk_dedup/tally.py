"""Tally: how often objects occur, more often or less, in two trees.

A tree of a million files has a million objects, and only sums are wanted, in the order in which
the index keeps digests. So digests are laid end to end, by their first byte, and counted a 256th
at a time: 32 bytes for an occurrence instead of some 150.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

_SIZE = 32


class Tally:
    """A signed count of digests."""

    def __init__(self) -> None:
        self._more = [bytearray() for _ in range(256)]
        self._less = [bytearray() for _ in range(256)]

    def add(self, digest: bytes, by: int) -> None:
        """Count ``by`` more occurrences of a digest, or fewer."""
        if by > 0:
            self._more[digest[0]] += digest * by
        else:
            self._less[digest[0]] += digest * -by

    def items(self) -> Iterator[tuple[bytes, int]]:
        """Yield each digest whose sum isn't zero with that sum, in byte order of digests."""
        for more, less in zip(self._more, self._less, strict=True):
            if not more and not less:
                continue
            counts = Counter(_digests(more))
            if less:
                counts.subtract(Counter(_digests(less)))
            for digest in sorted(counts):
                if counts[digest]:
                    yield digest, counts[digest]

    def gained(self) -> Iterator[bytes]:
        """Yield the digests that occur more often, in byte order."""
        return (digest for digest, count in self.items() if count > 0)


def _digests(joined: bytearray) -> Iterator[bytes]:
    data = bytes(joined)
    return (data[at : at + _SIZE] for at in range(0, len(data), _SIZE))
