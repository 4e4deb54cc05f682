"""``oci:DIRECTORY[:TAG]`` and ``oci-archive:FILE[:TAG]``: OCI image layouts.

A directory may gain images while others use it: blobs are staged in a private directory inside,
then moved to their places and listed in a new ``index.json``, all under a lock on the directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import attrs

from cowshed.errors import NotFoundError, SourceError, StoreError, UsageError
from cowshed.oci import (
    Descriptor,
    Digest,
    ImageConfig,
    Index,
    Manifest,
    build_index,
    layer_compression,
)
from cowshed.oci.document import dump, load
from cowshed.oci.media import MANIFESTS
from cowshed.partials import storing, sync_directory
from cowshed.target import SavedImage, Target, Written
from cowshed.transport import Source, Transport

from .archive_files import open_archive
from .compression import Format, check_compression, decompressed, fits, media_type_of
from .files import DirectoryFiles
from .layout import (
    CONTAINERD_NAME,
    LAYOUT_VERSION,
    REF_NAME,
    LayoutSource,
    blob_name,
    qualified,
    read_index,
    split_place,
    title_of,
)
from .staging import (
    StagedImage,
    Staging,
    keeps,
    parent_directory,
    publish_file,
    write_archive,
)

LAYOUT_FILE = dump({"imageLayoutVersion": LAYOUT_VERSION})


class OciTransport(Transport):
    """OCI image layouts in directories."""

    def open_source(self, rest: str) -> Source:
        path, wanted = split_place(rest)
        if not os.path.isdir(path):
            if os.path.exists(path):
                raise SourceError(f"{path} is a file; for an archive use oci-archive:{rest}")
            raise NotFoundError("directory", path)
        return LayoutSource(DirectoryFiles(Path(path), path), title_of(path), wanted)

    def open_target(
        self, rest: str, *, compression: str | None = None, level: int | None = None
    ) -> Target:
        path, tag = split_place(rest)
        return OciTarget(Path(path), _tag(tag), compression, level)


class OciArchiveTransport(Transport):
    """OCI image layouts in tars; ``-`` is standard input or output."""

    def open_source(self, rest: str) -> Source:
        path, wanted = split_place(rest)
        return LayoutSource(open_archive(path), title_of(path), wanted)

    def open_target(
        self, rest: str, *, compression: str | None = None, level: int | None = None
    ) -> Target:
        path, tag = split_place(rest)
        return OciArchiveTarget(path, _tag(tag), compression, level)


def _tag(tag: str) -> str:
    if tag.startswith("@"):
        raise UsageError("a digest can't be chosen for what is written; give a tag or nothing")
    return tag


def index_entries(staged: StagedImage, tag: str) -> list[Descriptor]:
    """Return an image's entries of ``index.json``, one for each name or one for ``tag``."""
    if tag:
        return [attrs.evolve(staged.manifest, annotations={REF_NAME: tag})]
    return [
        attrs.evolve(
            staged.manifest, annotations={REF_NAME: name, CONTAINERD_NAME: qualified(name)}
        )
        for name in staged.image.names
    ] or [staged.manifest]


class OciTarget(Target):
    """A layout in a directory, made if need be."""

    def __init__(self, path: Path, tag: str, compression: str | None, level: int | None) -> None:
        kind, number = check_compression(compression, level)
        self._path = path
        self._tag = tag
        self._made = False
        self._files = DirectoryFiles(path, str(path))
        self._verified: set[str] = set()
        try:
            path.mkdir()
            self._made = True
        except FileExistsError:
            names = [name for name in _listed(path) if not name.startswith(".cowshed-")]
            if names and "oci-layout" not in names:
                raise UsageError(f"{path} exists and is not an OCI layout") from None
        except OSError as error:
            raise StoreError(f"can't make {path}: {error.strerror}") from error
        try:
            self._known = self._layers_there(kind)
            self._staging = Staging(path, kind, number, keeps(compression, level))
        except BaseException:
            self._remove_if_made()
            raise

    def has_layer(self, diff_id: str) -> bool:
        return self._find(diff_id) is not None

    def written(self) -> Sequence[Written]:
        return self._staging.written

    def write_image(self, image: SavedImage) -> None:
        self._staging.listener = self.listener
        if self._tag and self._staging.images:
            raise UsageError(f"several images can't all have the tag {self._tag!r}; leave it out")
        self._staging.add(image, self._find, self._has)

    def commit(self) -> None:
        entries = [
            entry for staged in self._staging.images for entry in index_entries(staged, self._tag)
        ]
        lock = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            index = self._merged(entries)
            # First of all, so that nobody takes a directory with blobs in it for another thing.
            if self._files.size("oci-layout") is None:
                publish_file(self._path / "oci-layout", lambda out: _write(out, LAYOUT_FILE))
            with storing():
                self._move_blobs()
            publish_file(self._path / "index.json", lambda out: _write(out, index))
            self._made = False
        finally:
            os.close(lock)

    def close(self) -> None:
        self._staging.close()
        self._remove_if_made()

    def _move_blobs(self) -> None:
        directory = self._path / "blobs" / "sha256"
        directory.mkdir(parents=True, exist_ok=True)
        for digest in self._staging.blobs.iter():
            staged = self._staging.blobs.path(digest)
            with staged.open("rb") as file:
                os.fsync(file.fileno())
            # Over what is there, too: that may be damaged, this is not.
            staged.replace(self._path / blob_name(digest))
        sync_directory(directory)

    def _merged(self, entries: Sequence[Descriptor]) -> bytes:
        """Return the index that is there with ``entries`` in it, what has their names left out."""
        document: dict[str, Any] = dict(load(build_index(entries), "index").values)
        if self._files.size("index.json") is not None:
            old = load(self._files.read("index.json"), f"index.json of {self._path}")
            Index.parse(self._files.read("index.json"))
            new_names = {entry.annotations.get(REF_NAME) for entry in entries}
            new_digests = {entry.digest for entry in entries}
            kept: list[object] = []
            for item in old.objects("manifests"):
                name = item.texts_by_key("annotations").get(REF_NAME)
                if name not in new_names if name else item.text("digest") not in new_digests:
                    kept.append(dict(item.values))
            document = {**old.values, "manifests": [*kept, *document["manifests"]]}
        return dump(document)

    def _layers_there(self, kind: Format) -> dict[str, Descriptor]:
        """Return layers of the layout's images by diff ID, as far as these can be read."""
        found: dict[str, Descriptor] = {}
        if self._files.size("index.json") is None:
            return found
        for item in read_index(self._files).manifests:
            if item.media_type not in MANIFESTS:
                continue
            with contextlib.suppress(SourceError):
                manifest = Manifest.parse(self._files.read(blob_name(item.digest)))
                config = ImageConfig.parse(self._files.read(blob_name(manifest.config.digest)))
                for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=False):
                    if (
                        layer.media_type == media_type_of(kind)
                        and fits(layer, kind)
                        and self._files.size(blob_name(layer.digest)) == layer.size
                    ):
                        kept = dict(layer.annotations) if kind == "zstd:chunked" else {}
                        found[diff_id] = attrs.evolve(layer, annotations=kept, urls=())
        return found

    def _find(self, diff_id: str) -> Descriptor | None:
        """Return a layer that is there; the first time, only after reading it through.

        A layout may claim anything of its layers, and reading is much faster than compressing.
        """
        layer = self._known.get(diff_id)
        if layer is None or diff_id in self._verified:
            return layer
        if not self._is(layer, diff_id):
            del self._known[diff_id]
            return None
        self._verified.add(diff_id)
        return layer

    def _has(self, blob: Descriptor) -> bool:
        """Say whether a blob is there, read through to its end."""
        name = blob_name(blob.digest)
        if self._files.size(name) != blob.size:
            return False
        digest = Digest.parse(blob.digest)
        hasher = digest.hasher()
        with self._files.open(name) as file:
            while piece := file.read(1 << 20):
                hasher.update(piece)
        return hasher.hexdigest() == digest.hex

    def _is(self, layer: Descriptor, diff_id: str) -> bool:

        plain = Digest.parse(diff_id)
        if not self._has(layer):
            return False
        try:
            with self._files.open(blob_name(layer.digest)) as file:
                hasher = plain.hasher()
                with decompressed(file, layer_compression(layer.media_type)) as content:
                    while piece := content.read(1 << 20):
                        hasher.update(piece)
                return hasher.hexdigest() == plain.hex
        except SourceError:
            return False

    def _remove_if_made(self) -> None:
        """Remove a directory that failed to become a layout, unless others made it one."""
        if not self._made:
            return
        self._made = False
        lock = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._files.size("index.json") is None:
                with contextlib.suppress(OSError):
                    (self._path / "oci-layout").unlink()
                for directory in ("blobs/sha256", "blobs", "."):
                    with contextlib.suppress(OSError):
                        (self._path / directory).rmdir()
        finally:
            os.close(lock)


class OciArchiveTarget(Target):
    """A layout in one new file."""

    def __init__(self, path: str, tag: str, compression: str | None, level: int | None) -> None:
        kind, number = check_compression(compression, level)
        self._output = Output(path)
        self._tag = tag
        self._staging = Staging(self._output.directory, kind, number, keeps(compression, level))

    def written(self) -> Sequence[Written]:
        return self._staging.written

    def write_image(self, image: SavedImage) -> None:
        self._staging.listener = self.listener
        if self._tag and self._staging.images:
            raise UsageError(f"several images can't all have the tag {self._tag!r}; leave it out")
        self._staging.add(image)

    def commit(self) -> None:
        entries = [
            entry for staged in self._staging.images for entry in index_entries(staged, self._tag)
        ]
        documents = {"oci-layout": LAYOUT_FILE, "index.json": build_index(entries)}
        self._output.publish(lambda out: write_archive(out, self._staging, documents))

    def close(self) -> None:
        self._staging.close()


class Output:
    """Where an archive goes: a file, replaced at once, or standard output for ``-``."""

    def __init__(self, path: str) -> None:
        import tempfile

        self._path = None if path == "-" else Path(path)
        self.directory = (
            Path(tempfile.gettempdir()) if self._path is None else parent_directory(self._path)
        )

    def publish(self, write: Callable[[BinaryIO], None]) -> None:
        """Call ``write`` with a file."""
        if self._path is None:
            write(sys.stdout.buffer)
            sys.stdout.buffer.flush()
        else:
            publish_file(self._path, write)


def _write(out: BinaryIO, data: bytes) -> None:
    out.write(data)


def _listed(path: Path) -> list[str]:
    try:
        return os.listdir(path)
    except NotADirectoryError:
        raise UsageError(f"{path} is not a directory") from None
