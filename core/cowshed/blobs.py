"""Content store: blobs by digest, verified on the way in, resumable, shared by processes.

    ROOT/blobs/sha256/HEX       a blob, whole and verified; never changes
    ROOT/blobs/partial/HEX      one on its way in, kept when a transfer breaks off
    ROOT/blobs/partial/HEX-parts  ranges of one that is wanted in part, see ``arrivals``
    ROOT/blobs/partial/HEX.RND  the same, where another process holds the former
    ROOT/blobs/partial/new.RND  one whose digest isn't known before its end

Below ROOT this is image-spec's image layout, so the same code fills a shed and an ``oci:``
directory. Whoever writes a partial file holds flock(2) on it, which vanishes with the process:
a partial file without a holder is a broken transfer, to be resumed or swept.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Container, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .context import Closing
from .errors import (
    CorruptError,
    DigestMismatchError,
    LimitExceededError,
    NotFoundError,
)
from .oci import MAX_DOCUMENT, Digest
from .partials import Claim, Partials, allocated, storing, sync_directory

if TYPE_CHECKING:
    from .oci import Descriptor

_PIECE = 1 << 20
#: A transfer that broke off a week ago is no longer worth its space.
PARTIAL_AGE = 7 * 24 * 3600.0


class BlobStore:
    """The blobs below ``root``/blobs. Any number of processes and threads may use it at once."""

    def __init__(self, root: Path, durable: bool = True) -> None:
        self._blobs = root / "blobs"
        self.partials = Partials(self._blobs / "partial")
        self.durable = durable

    def path(self, digest: str) -> Path:
        """Return where the blob is or would be. Raises SourceError for an invalid digest."""
        parsed = Digest.parse(digest)
        return self._blobs / parsed.algorithm / parsed.hex

    def has(self, digest: str) -> bool:
        """Say whether the blob is here."""
        return self.path(digest).is_file()

    def size(self, digest: str) -> int:
        """Return the blob's size in bytes. Raises NotFoundError."""
        with _known(digest):
            return self.path(digest).stat().st_size

    def open(self, digest: str) -> BinaryIO:
        """Open the blob as it lies on disk; the caller verifies what it reads."""
        with _known(digest):
            return self.path(digest).open("rb")

    def read(self, digest: str, limit: int = MAX_DOCUMENT) -> bytes:
        """Return a whole small blob, verified.

        Raises:
            NotFoundError: it isn't here.
            LimitExceededError: it has more than ``limit`` bytes.
            CorruptError: it isn't any more what was stored.
        """
        with self.open(digest) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise LimitExceededError(f"blob {digest}", limit)
        if not Digest.parse(digest).is_of(data):
            raise CorruptError(f"blob {digest}", "its bytes don't match its digest")
        return data

    def verify(self, digest: str) -> bool:
        """Read the blob to its end and say whether it still is what was stored."""
        parsed = Digest.parse(digest)
        hasher = parsed.hasher()
        with self.open(digest) as file:
            while piece := file.read(_PIECE):
                hasher.update(piece)
        return hasher.hexdigest() == parsed.hex

    def put(self, data: bytes) -> str:
        """Store ``data`` and return its digest."""
        with self.writer() as writer:
            writer.write(data)
            return writer.commit()

    def writer(self, expected: Descriptor | None = None) -> BlobWriter:
        """Begin writing a blob, where the last attempt at it broke off; see ``BlobWriter``."""
        return BlobWriter(self, expected)

    def delete(self, digest: str) -> None:
        """Remove a blob; who has it open can go on reading. Raises NotFoundError."""
        with _known(digest), storing():
            self.path(digest).unlink()

    def iter(self) -> Iterator[str]:
        """Yield the digests of all blobs."""
        for algorithm in ("sha256", "sha512"):
            with contextlib.suppress(FileNotFoundError):
                for name in sorted(os.listdir(self._blobs / algorithm)):
                    yield f"{algorithm}:{name}"

    def disk_usage(self) -> int:
        """Return all bytes on disk (allocated), partial transfers included."""
        return sum(
            allocated(Path(directory, name))
            for directory, _, names in os.walk(self._blobs)
            for name in names
        )

    def sweep(
        self,
        keep: Container[str],
        partial_age: float = PARTIAL_AGE,
        partial_bytes: int | None = None,
    ) -> int:
        """Remove all blobs but ``keep``, and what dead or old transfers left; see ``Partials``.

        Returns the bytes freed. Who brings blobs in at the same time has to have them in ``keep``.
        """
        freed = 0
        for digest in list(self.iter()):
            if digest not in keep:
                path = self.path(digest)
                size = allocated(path)
                with contextlib.suppress(FileNotFoundError), storing():
                    path.unlink()
                    freed += size
        return freed + self.partials.sweep(partial_age, partial_bytes)

    def adopt(self, claim: Claim, digest: str) -> None:
        """Make a whole partial file, which the caller has verified, a blob."""
        if self.durable:
            with storing():
                os.fsync(claim.descriptor)
        path = self._room_for(digest)
        claim.move(path)
        if self.durable:
            sync_directory(path.parent)

    def publish(self, partial: Path, digest: str) -> None:
        """Move a complete, synced partial file to its place. Internal to this module."""
        path = self._room_for(digest)
        with storing():
            # Over an existing blob, too: what was just verified replaces what might be damaged.
            partial.replace(path)
            if self.durable:
                sync_directory(path.parent)

    def _room_for(self, digest: str) -> Path:
        path = self.path(digest)
        if not path.parent.is_dir():
            with storing():
                path.parent.mkdir(parents=True, exist_ok=True)
                if self.durable:
                    sync_directory(path.parent.parent)
        return path


class BlobWriter(Closing):
    """One blob on its way in. Leave the context after ``commit``, or the blob isn't stored.

    ``offset`` bytes are here already; write what follows them, or call ``restart``. A transfer
    that ends too short stays and can be resumed, by any process; bytes that turn out wrong are
    thrown away, since nobody can tell which of them are right. Where two write one blob at once,
    the second doesn't resume, and both succeed.
    """

    def __init__(self, store: BlobStore, expected: Descriptor | None) -> None:
        self._store = store
        self._expected = expected
        self._digest = Digest.parse(expected.digest) if expected else None
        self._hasher = (
            Digest("sha256", "").hasher() if self._digest is None else (self._digest.hasher())
        )
        self.offset = 0
        self._keep = expected is not None
        self._published = False
        self._descriptor, self._path = store.partials.open(
            self._digest.hex if self._digest else None
        )
        try:
            self._resume()
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Bytes that are here."""
        return self.offset

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append ``data``.

        Raises:
            DigestMismatchError: that is more than the descriptor promised.
            NoSpaceError, ReadOnlyError: the disk refuses.
        """
        view = memoryview(data).cast("B")
        if self._expected is not None and self.offset + len(view) > self._expected.size:
            self._keep = False
            raise DigestMismatchError(
                f"blob {self._expected.digest}", f"{self._expected.size:,} bytes", "more"
            )
        with storing():
            rest = view
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        self._hasher.update(view)
        self.offset += len(view)
        return len(view)

    def restart(self) -> None:
        """Forget what is here and begin at the first byte, for sources that can't seek."""
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self.offset = 0
        self._hasher = (self._digest or Digest("sha256", "")).hasher()

    def commit(self) -> str:
        """Verify, make durable and publish; return the digest.

        Raises:
            DigestMismatchError: the size or the digest isn't what the descriptor promised.
        """
        found = Digest(
            self._digest.algorithm if self._digest else "sha256", self._hasher.hexdigest()
        )
        if self._expected is not None and self._digest is not None:
            if self.offset != self._expected.size:
                raise DigestMismatchError(
                    f"blob {self._digest}", f"{self._expected.size:,} bytes", f"{self.offset:,}"
                )
            if found != self._digest:
                self._keep = False
                raise DigestMismatchError("blob", str(self._digest), str(found))
        if self._store.durable:
            with storing():
                os.fsync(self._descriptor)
        self._store.publish(self._path, str(found))
        self._published = True
        self.close()
        return str(found)

    def close(self) -> None:
        """Let go. What isn't committed stays only if it can be resumed. Twice is fine."""
        if self._descriptor < 0:
            return
        resumable = self._keep and self.offset > 0 and "." not in self._path.name
        # Once published, the old name may belong to another writer.
        if not self._published and not resumable:
            with contextlib.suppress(OSError):
                self._path.unlink()
        os.close(self._descriptor)
        self._descriptor = -1

    def _resume(self) -> None:
        """Hash what an earlier transfer left; its digest is checked with the rest at the end."""
        if self._expected is None or os.fstat(self._descriptor).st_size > self._expected.size:
            self.restart()
            return
        while piece := os.read(self._descriptor, _PIECE):
            self._hasher.update(piece)
            self.offset += len(piece)


@contextlib.contextmanager
def _known(digest: str) -> Generator[None]:
    try:
        yield
    except FileNotFoundError:
        raise NotFoundError("blob", digest) from None
