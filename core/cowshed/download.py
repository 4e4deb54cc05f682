"""Download: one blob on its way into its partial file, or in part into one of ranges.

One thread runs it; whoever unpacks the blob reads right behind.
"""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from .errors import CowshedError, NoSpaceError, NotFoundError, SourceError
from .oci import Descriptor
from .partials import Claim, parts_of, storing
from .transport import AlreadyHereError

if TYPE_CHECKING:
    from .archive import Limits
    from .archive.chunked import Contents
    from .assembling import Assembly
    from .blobs import BlobStore
    from .holdings import Holdings

_PIECE = 256 << 10
_BUFFER = 1 << 20
#: Between two looks at a file that another process is writing.
_LOOK = 0.05
_TELL = 0.1
#: How long a process that brings a blob in part may show nothing before another does, too.
_PATIENCE = 10.0

#: Told of a layer's position, the bytes of it that are here and whether it is complete.
Told = Callable[[int, int, bool], None]


class Download:
    """One blob on its way into its partial file."""

    def __init__(
        self,
        descriptor: Descriptor,
        open_at: Callable[[int], BinaryIO],
        blobs: BlobStore,
        wanted: Callable[[int], bool],
        index: int,
        told: Told,
        assembly: Assembly | None,
        holdings: Callable[[], Holdings] | None,
        limits: Limits,
    ) -> None:
        self._descriptor = descriptor
        self._open_at = open_at
        self._blobs = blobs
        self._wanted = wanted
        self._index = index
        self._told = told
        #: What may bring it in part, and whether it does.
        self._assembly = assembly
        self._assembling = False
        self._gave_up = False
        self._holdings = holdings
        self._limits = limits
        self._changed = threading.Condition()
        self._claim: Claim | None = None
        self._source: BinaryIO | None = None
        self._error: BaseException | None = None
        self._state = "waiting"
        self._demanded = False
        self._awaited = False
        self._stopped = False
        self._closed = False
        #: The blob is in the store: it was kept when another driver's layer was made of it.
        self._stored = False
        #: Bytes in the file.
        self.available = 0
        self._received = 0
        #: Bytes that an earlier run or another process left.
        self._earlier = 0

    @property
    def received(self) -> int:
        """Bytes that came from the source."""
        return self._received + (0 if self._assembly is None else self._assembly.received)

    # -- the fetching thread ------------------------------------------------------------------

    def run(self) -> None:
        """Bring the blob here, unless it is here or nobody needs it any more."""
        state = "failed"
        try:
            state = self._bring()
        except BaseException as error:
            self._error = error
        with self._changed:
            self._state = state
            self._changed.notify_all()
            claim = None
            if self._closed and self._claim is not None:  # nobody waited for this thread
                claim, self._claim = self._claim, None
        if claim is not None:
            claim.close()
        elif state == "complete":
            self._told(self._index, self.available, True)
        elif state == "assembled":
            self._told(self._index, self.received, True)

    def _bring(self) -> str:
        with self._changed:
            self._state = "running"
        if self._blobs.has(self._descriptor.digest):
            self.available = self._descriptor.size
            self._stored = True
            return "complete"
        claim = self._claim or self._claimed()  # it has one where it was to come in part
        if claim is None:
            return "idle"
        size = self._descriptor.size
        here = size if claim.whole else os.fstat(claim.descriptor).st_size
        # Half of it is here from an earlier run: the rest is fetched as it is.
        if here * 2 < size and self._planned(claim):
            assert self._assembly is not None
            with suppress(CowshedError):  # the reader is told, too, and takes the plain way
                self._assembly.fetch()
            return "assembled"
        if here > size:
            os.ftruncate(claim.descriptor, 0)
            here = 0
        with self._changed:
            self._claim = claim
            self._earlier = self.available = here
            self._changed.notify_all()
        if not claim.whole:
            if here < size:
                self._receive(claim, here)
            claim.share()
        return "complete"

    def _planned(self, claim: Claim) -> bool:
        """Find out whether the blob can come in part; then it does."""
        assembly, holdings = self._assembly, self._holdings
        if assembly is None or holdings is None:
            return False
        claim.touch()
        next_word, last = 0.0, -1

        def alive(done: int) -> None:
            nonlocal next_word, last
            if self._stopped:
                raise SourceError("the import was given up")
            now = time.monotonic()
            if now >= next_word:
                next_word = now + _TELL
                claim.touch()
                if done != last and self._state == "running":
                    last = done
                    self._told(self._index, done, False)

        try:
            plans = assembly.plan(holdings(), self._blobs, alive)
        except NoSpaceError:
            claim.close()
            raise
        except CowshedError:
            plans = False  # what is wrong with it doesn't matter to a whole download
        except BaseException:
            claim.close()
            raise
        with self._changed:
            if not plans:
                self._holdings = None
                return False
            self._claim = claim
            self._assembling = True
            self._changed.notify_all()
        return True

    def _claimed(self) -> Claim | None:
        """Wait for whoever is bringing the same blob; None: it isn't needed any more."""
        name = self._descriptor.digest.partition(":")[2]
        while True:
            if self._stopped:
                raise SourceError("the import was given up")
            if not self._demanded and not self._wanted(self._index):
                return None
            partials = self._blobs.partials
            claim = partials.claim(name, self._descriptor.size)
            if claim is None and self._awaited and partials.is_idle(name, _PATIENCE):
                # Its holder brings it in part and can't go on, perhaps because it waits for us.
                claim = Claim(*partials.open(None), whole=False)
            if claim is None:
                time.sleep(_LOOK)
                continue
            fresh = not claim.whole and os.fstat(claim.descriptor).st_size == 0
            # Whoever brought it may have unpacked it since we looked.
            if fresh and not self._demanded and not self._wanted(self._index):
                claim.remove()
                claim.close()
                return None
            return claim

    def _receive(self, claim: Claim, offset: int) -> None:
        size = self._descriptor.size
        next_word = 0.0
        source = self._source = self._open_at(offset)
        with source:
            while data := source.read(_PIECE):
                if self._stopped:
                    raise SourceError("the import was given up")
                # More than was promised is the reader's to refuse; one byte shows it.
                at = self.available
                rest = memoryview(data)[: size + 1 - at]
                with storing():
                    while rest:
                        count = os.pwrite(claim.descriptor, rest, at)
                        at += count
                        rest = rest[count:]
                with self._changed:
                    self._received += len(data)
                    self.available = at
                    self._changed.notify_all()
                now = time.monotonic()
                if now >= next_word:
                    next_word = now + _TELL
                    self._told(self._index, self.available, False)
                if self.available > size:
                    return

    # -- the reader ---------------------------------------------------------------------------

    def demand(self) -> bool:
        """Wait until its file is there; return whether it has to be run for that once more.

        Raises:
            AlreadyHereError: it wasn't wanted any more. The next call brings it in any case.
        """
        with self._changed:
            self._awaited = True
            while self._state in ("waiting", "running") and self._claim is None:
                self._changed.wait(_LOOK)
            if self._state != "idle":
                return False
            if not self._demanded:
                self._demanded = True
                raise AlreadyHereError(self._descriptor.digest)
            self._state = "waiting"
            return True

    def open_tar(self) -> BinaryIO | None:
        """Open the layer's tar if it comes in part; None: it comes whole."""
        if not self._assembling:
            return None
        assert self._assembly is not None
        return self._assembly.open()

    def give_up(self) -> None:
        """Bring it whole after all. ``open`` will."""
        assert self._assembly is not None
        self._assembly.give_up()
        with self._changed:
            while self._state == "running":
                self._changed.wait(_LOOK)
            self._assembling = False
            self._gave_up = True
            self._holdings = None
            self._state, self._demanded = "idle", True

    def contents(self) -> Contents | None:
        """Return the table of contents of a blob that was read, unless it has lied."""
        if self._assembly is None or self._gave_up:
            return None
        if self._assembling:
            return self._assembly.contents

        def fetch(start: int, end: int) -> bytes:
            with self.open() as file:
                file.seek(start)
                return file.read(end - start)

        return self._assembly.read_contents(fetch)

    def open(self) -> BinaryIO:
        """Return the blob's bytes from the first on, as they come."""
        if self._stored:
            return self._blobs.open(self._descriptor.digest)
        return io.BufferedReader(_Behind(self), _BUFFER)

    def read_into(self, view: memoryview, offset: int) -> int:
        """Read what is here at ``offset``; wait for it if it is still to come."""
        with self._changed:
            while self.available <= offset and self._state in ("waiting", "running"):
                self._changed.wait(1)
            available, error, claim = self.available, self._error, self._claim
        if available > offset and claim is not None:
            return os.preadv(claim.descriptor, [view[: available - offset]], offset)
        if error is not None:
            raise error
        return 0

    # -- the end ------------------------------------------------------------------------------

    def keep(self) -> None:
        """Make the blob, which was right, one of the store's own."""
        if self._claim is not None and not self._blobs.has(self._descriptor.digest):
            self._blobs.adopt(self._claim, self._descriptor.digest)

    def discard(self) -> bool:
        """Throw the bytes away, which were wrong; return whether others may come.

        They may where a part of these was left by an earlier run.
        """
        with self._changed:
            claim, self._claim = self._claim, None
            again = (self._earlier > 0 or self._stored) and not self._stopped
            self._state, self._demanded = "idle", True
            self._error = None
            self.available = self._earlier = 0
            stored, self._stored = self._stored, False
        if stored:
            with suppress(NotFoundError):
                self._blobs.delete(self._descriptor.digest)
        if claim is not None:
            claim.remove()
            claim.close()
        return again

    def stop(self) -> None:
        """Make the fetching thread end soon."""
        self._stopped = True
        if self._assembling and self._assembly is not None:
            self._assembly.stop()
        source = self._source
        if source is not None:
            with suppress(OSError, ValueError):
                source.close()

    def close(self, *, done: bool) -> None:
        """Let go; ``done``: the blob isn't needed again."""
        if self._assembly is not None:
            self._assembly.close(done=done)
            if done:  # an earlier run's
                self._blobs.partials.remove(parts_of(self._descriptor.digest))
        with self._changed:
            self._closed = True
            claim = self._claim
            running = self._state == "running"
            if not running:
                self._claim = None
        if claim is None:
            if done:  # a killed run's, whose layer was sealed before that
                self._blobs.partials.remove(self._descriptor.digest.partition(":")[2])
            return
        if done or not os.fstat(claim.descriptor).st_size:
            claim.remove()
        if not running:  # else its thread may be writing
            claim.close()


class _Behind(io.RawIOBase):
    """A file that is read while it grows."""

    def __init__(self, download: Download) -> None:
        super().__init__()
        self._download = download
        self._offset = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence != os.SEEK_SET:
            raise io.UnsupportedOperation("a file that grows is sought from its start only")
        self._offset = offset
        return offset

    def tell(self) -> int:
        return self._offset

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = self._download.read_into(view, self._offset)
        self._offset += count
        return count
