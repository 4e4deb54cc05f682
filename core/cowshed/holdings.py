"""Holdings: contents that the shed holds already, found by their digests.

Nothing is hashed for this when a layer is imported. A layer that came with a table of contents has
its digests from there, kept beside its recipe: ``MAGIC``, the number of files, then for each file
``<32sI`` its digest and its number among the layer's contents, then for each chunk of a larger file
``<32sIQ`` digest, number and offset. In other layers a file that is wanted is looked for where it
most likely is: under its own path, or under its own name, with its own size. Such candidates are
hashed to find out, and so is whatever is taken in the end, wherever it was found: a digest that was
wrong costs a transfer and nothing else.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, BinaryIO

import attrs

from .errors import CowshedError

if TYPE_CHECKING:
    from .archive import Limits, StoredContent
    from .archive.chunked import Contents, FileContent, Piece
    from .lease import Lease
    from .records import LayerRecord
    from .shed import Shed
    from .transport import SourceLayer
    from .tree import Tree

MAGIC = b"cowshed digests 1\n"
_COUNT = struct.Struct("<I")
_FILE = struct.Struct("<32sI")
_CHUNK = struct.Struct("<32sIQ")
#: Layers that are looked through, the newest first: 256 of 20,000 files take a second.
_MOST_LAYERS = 256
#: The same without digests, whose recipes have to be read.
_MOST_RECIPES = 64
#: Files of the same name and size that are hashed to find one.
_MOST_CANDIDATES = 3
#: Below this a file is fetched rather than looked for under other paths.
_WORTH = 2048
_READ = 1 << 20


@attrs.frozen
class Held:
    """A content that the shed holds, or a part of one."""

    layer: LayerRecord
    path: str
    offset: int
    size: int
    #: Of the whole file: what its layer's tar has behind it, and the CRC-32 of its content.
    after: bytes = b""
    checksum: int = 0

    def part(self, offset: int, size: int) -> Held:
        return Held(self.layer, self.path, self.offset + offset, size)


def pack_digests(contents: Contents) -> bytes:
    """Return what to remember of a layer that has these contents."""
    files: list[bytes] = []
    chunks: list[bytes] = []
    for number, file in enumerate(contents.files, 1):
        if file.digest:
            files.append(_FILE.pack(file.digest, number))
        if len(file.pieces) > 1:
            chunks += [
                _CHUNK.pack(piece.digest, number, piece.offset)
                for piece in file.pieces
                if not piece.hole
            ]
    return b"".join((MAGIC, _COUNT.pack(len(files)), *files, *chunks))


def contents_of(layer: SourceLayer, limits: Limits) -> Contents | None:
    """Return the table of contents of a layer that was read; None: it has none.

    Raises:
        CowshedError, OSError: it can't be read.
    """
    from .archive.chunked import table_of

    if layer.contents is not None:
        return layer.contents()
    assert layer.descriptor is not None
    table = table_of(layer.descriptor.annotations, layer.descriptor.size)
    if table is None or layer.open_at is not None:
        return None
    with layer.open() as raw:
        if not raw.seekable():
            return None

        def fetch(start: int, end: int) -> bytes:
            raw.seek(start)
            return raw.read(end - start)

        return table.read(fetch, limits)


class Holdings:
    """What one shed holds, for as long as one import looks for contents. Any thread may."""

    def __init__(self, shed: Shed, driver: str, lease: Lease) -> None:
        """``lease`` keeps the layers in which something was found."""
        self._shed = shed
        self._lease = lease
        self._lock = threading.Lock()
        self._leased: set[tuple[str, str]] = set()
        self._layers = self._known_layers(driver)

    def __bool__(self) -> bool:
        return bool(self._layers)

    def _known_layers(self, driver: str) -> list[LayerRecord]:
        """Return one layer for each diff ID, the newest first, the import's own driver's rather."""
        found: dict[str, LayerRecord] = {}
        with self._shed.catalog.read() as transaction:
            for record in transaction.layers():
                if record.diff_id not in found or record.driver == driver:
                    found[record.diff_id] = record
        dated: list[tuple[float, LayerRecord]] = []
        for record in found.values():
            try:
                status = self._shed.recipes.path(record.diff_id).stat()
            except FileNotFoundError:
                continue
            dated.append((status.st_mtime, record))
        dated.sort(key=lambda pair: pair[0], reverse=True)
        return [record for _, record in dated[:_MOST_LAYERS]]

    def find(self, contents: Contents) -> dict[bytes, Held]:
        """Return where contents and pieces of contents are, by digest."""
        wanted = {file.digest: file.size for file in contents.files if file.digest}
        for file in contents.files:
            if len(file.pieces) > 1:
                wanted |= {piece.digest: piece.size for piece in file.pieces if not piece.hole}
        with self._lock:
            found: dict[bytes, Held] = {}
            plain: list[LayerRecord] = []
            for layer in self._layers:
                known = self._shed.recipes.digests(layer.diff_id)
                try:
                    if known is None or not known.startswith(MAGIC):
                        plain.append(layer)
                    else:
                        self._by_digest(layer, known, wanted, found)
                except struct.error:  # cut off
                    plain.append(layer)
            missing = [file for file in contents.files if file.digest not in found]
            if missing:
                self._by_name(plain[:_MOST_RECIPES], missing, found)
            self._keep(found)
        return found

    def _by_digest(
        self, layer: LayerRecord, known: bytes, wanted: dict[bytes, int], found: dict[bytes, Held]
    ) -> None:
        at = len(MAGIC) + _COUNT.size
        end = at + _COUNT.unpack_from(known, len(MAGIC))[0] * _FILE.size
        hits: dict[int, list[tuple[bytes, int]]] = {}
        if end > len(known):
            raise struct.error("files are missing")
        for digest, number in _FILE.iter_unpack(known[at:end]):
            if digest in wanted and digest not in found:
                hits.setdefault(number, []).append((digest, -1))
        for digest, number, offset in _CHUNK.iter_unpack(known[end:]):
            if digest in wanted and digest not in found:
                hits.setdefault(number, []).append((digest, offset))
        if not hits:
            return
        for stored in self._stored(layer):
            for digest, offset in hits.get(stored.number, ()):
                size, start = wanted[digest], max(offset, 0)
                if start + size <= stored.size and (offset >= 0 or size == stored.size):
                    whole = offset < 0
                    found[digest] = Held(
                        layer,
                        stored.path,
                        start,
                        size,
                        stored.after if whole else b"",
                        stored.checksum if whole else 0,
                    )

    def _stored(self, layer: LayerRecord) -> Iterator[StoredContent]:
        from .archive import read_stored_contents

        try:
            with self._shed.recipes.open(layer.diff_id) as recipe:
                yield from read_stored_contents(recipe)
        except CowshedError:
            return  # damaged: ``check`` says so, here it holds nothing

    # -- layers without digests ---------------------------------------------------------------

    def _by_name(
        self, layers: list[LayerRecord], missing: list[FileContent], found: dict[bytes, Held]
    ) -> None:
        from .archive import clean

        by_path: dict[str, FileContent] = {}
        by_name: dict[tuple[str, int], list[str]] = {}
        for file in missing:
            try:
                path = clean(file.name)
            except CowshedError:
                continue
            by_path[path] = file
            if file.size >= _WORTH:
                by_name.setdefault((path.rpartition("/")[2], file.size), []).append(path)
        candidates: dict[str, list[Held]] = {}
        for layer in layers:
            for stored in self._stored(layer):
                held = Held(layer, stored.path, 0, stored.size, stored.after, stored.checksum)
                if stored.path in by_path:
                    candidates.setdefault(stored.path, []).insert(0, held)
                name = stored.path.rpartition("/")[2]
                for path in by_name.get((name, stored.size), ())[:_MOST_CANDIDATES]:
                    if path != stored.path:
                        candidates.setdefault(path, []).append(held)
        with self.reading() as open_held:
            for path, those in candidates.items():
                file = by_path[path]
                for held in those[:_MOST_CANDIDATES]:
                    self._compare(open_held, file, held, found)
                    if file.digest in found:
                        break

    def _compare(
        self, open_held: OpenHeld, file: FileContent, held: Held, found: dict[bytes, Held]
    ) -> None:
        """Note a file that is equal, or the chunks that a changed file has at the same places."""
        try:
            same_size = held.size == file.size and file.digest
            if same_size and _digest(open_held(held), held.size) == file.digest:
                found[file.digest] = held
                return
            if len(file.pieces) == 1:
                return
            for piece in file.pieces:
                # From the start and, behind what was put in or taken out, from the end.
                for offset in {piece.offset, piece.offset + held.size - file.size}:
                    if self._has(open_held, held, offset, piece) and piece.digest not in found:
                        found[piece.digest] = held.part(offset, piece.size)
        except (CowshedError, OSError):
            return  # it was removed meanwhile, or is damaged

    def _has(self, open_held: OpenHeld, held: Held, offset: int, piece: Piece) -> bool:
        if piece.hole or not 0 <= offset <= held.size - piece.size:
            return False
        return _digest(open_held(held.part(offset, piece.size)), piece.size) == piece.digest

    # -- reading ------------------------------------------------------------------------------

    def _keep(self, found: dict[bytes, Held]) -> None:
        """Hold the layers in which something was found, and forget what has gone meanwhile."""
        layers = {(held.layer.driver, held.layer.chain) for held in found.values()} - self._leased
        if not layers:
            return
        gone: set[tuple[str, str]] = set()
        with self._shed.catalog.write() as transaction:
            for driver, chain in sorted(layers):
                if transaction.layer(driver, chain) is None:
                    gone.add((driver, chain))
                else:
                    self._lease.hold_layer(transaction, driver, chain)
        self._leased |= layers - gone
        for digest, held in list(found.items()):
            if (held.layer.driver, held.layer.chain) in gone:
                del found[digest]

    @contextmanager
    def reading(self) -> Generator[OpenHeld]:
        """Give what opens contents, for one thread."""
        with ExitStack() as stack:
            yield OpenHeld(self._shed, stack)


class OpenHeld:
    """Opens contents; the layers' trees stay open in between."""

    def __init__(self, shed: Shed, stack: ExitStack) -> None:
        self._shed = shed
        self._stack = stack
        self._trees: dict[tuple[str, str], Tree] = {}

    def __call__(self, held: Held) -> BinaryIO:
        """Open a content at its first byte.

        Raises:
            OSError, CowshedError: it is gone.
        """
        key = held.layer.driver, held.layer.chain
        tree = self._trees.get(key)
        if tree is None:
            tree = self._stack.enter_context(self._shed.driver(key[0]).tree(key[1]))
            self._trees[key] = tree
        file = tree.open(held.path)
        if held.offset:
            file.seek(held.offset)
        return file


def _digest(file: BinaryIO, size: int) -> bytes:
    hasher = hashlib.sha256()
    with file:
        while size and (data := file.read(min(size, _READ))):
            hasher.update(data)
            size -= len(data)
    return hasher.digest()
