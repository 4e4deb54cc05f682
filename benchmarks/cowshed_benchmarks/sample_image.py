"""A two-version image of real files of this machine, made without network, root or Cowshed.

    python -m cowshed_benchmarks.sample_image DIRECTORY

``DIRECTORY`` becomes an OCI layout with tags ``v1`` and ``v2`` of four gzip layers each: documents
and licences of the system, Python's standard library, installed packages, and a small application
with one of everything that is hard to keep (set-user-ID, hard links, a fifo, a name that isn't
UTF-8). The versions share two layers; in the third one file in twenty is edited, the fourth also
takes files away by whiteouts.

Python's ``tarfile`` writes the layers, and ``Picture`` says what each version must look like, so
that a check against it doesn't trust the code under test.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import stat
import sys
import sysconfig
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from .oci_layout import Layer, LayoutWriter

MEBI = 1 << 20
#: Files above it are left out: a few giants would make the sample unlike an image.
LARGEST = 16 * MEBI
WHEN = 1_700_000_000
LIBRARY = "usr/lib/python3"
PACKAGES = "usr/lib/python3/site-packages"
DOCUMENTS = "usr/share/doc"
DATA = "srv/app/data.bin"
DATA_SIZE = 16 * MEBI


@attrs.frozen
class Thing:
    """What one path must be: everything a tar says about it."""

    kind: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int = 0
    #: SHA-256 of a file's content.
    digest: str = ""
    target: str = ""


#: A whole file system, by path; hard links as the files they are names of.
Picture = dict[str, Thing]


@attrs.frozen
class Sample:
    """The made image."""

    layout: Path
    pictures: Mapping[str, Picture]

    @property
    def unpacked(self) -> int:
        """Bytes of all files of the first version."""
        return sum(thing.size for thing in self.pictures["v1"].values())


class _Layer:
    """One layer's tar in the making, and what it does to a picture."""

    def __init__(self, below: Picture) -> None:
        self.picture = dict(below)
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(  # noqa: SIM115 - closed by finish
            fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape"
        )
        self._made: set[str] = set()
        self.size = 0

    def directory(self, path: str) -> None:
        """Make ``path`` and what is missing above it."""
        if path and path not in self._made:
            self.directory(path.rpartition("/")[0])
            self._add(path, tarfile.DIRTYPE, 0o755)

    def file(self, path: str, content: bytes, mode: int = 0o644, uid: int = 0) -> None:
        self._add(path, tarfile.REGTYPE, mode, content=content, uid=uid)
        self.size += len(content)

    def symlink(self, path: str, target: str) -> None:
        self._add(path, tarfile.SYMTYPE, 0o777, target=target)

    def fifo(self, path: str) -> None:
        self._add(path, tarfile.FIFOTYPE, 0o600)

    def link(self, path: str, existing: str) -> None:
        self._add(path, tarfile.LNKTYPE, 0o644, target=existing)

    def remove(self, path: str) -> None:
        """Take ``path`` of a lower layer away."""
        head, _, name = path.rpartition("/")
        self._add(f"{head}/.wh.{name}", tarfile.REGTYPE, 0o644, seen=False)
        for gone in [one for one in self.picture if one == path or one.startswith(f"{path}/")]:
            del self.picture[gone]

    def _add(
        self,
        path: str,
        kind: bytes,
        mode: int,
        *,
        content: bytes = b"",
        target: str = "",
        uid: int = 0,
        seen: bool = True,
    ) -> None:
        if kind != tarfile.DIRTYPE and seen:
            self.directory(path.rpartition("/")[0])
        member = tarfile.TarInfo(path)
        member.type, member.mode, member.mtime = kind, mode, WHEN
        member.uid = member.gid = uid
        member.size, member.linkname = len(content), target
        self._tar.addfile(member, io.BytesIO(content))
        self._made.add(path)
        if not seen:
            return
        if kind == tarfile.LNKTYPE:
            self.picture[path] = self.picture[target]
            return
        digest = hashlib.sha256(content).hexdigest() if kind == tarfile.REGTYPE else ""
        self.picture[path] = Thing(kind, mode, uid, uid, WHEN, len(content), digest, target)

    def finish(self) -> bytes:
        """Return the tar. May be asked again."""
        self._tar.close()
        return self._buffer.getvalue()


def make_sample(layout: Path, *, limit: int = 12 * MEBI, data: int = DATA_SIZE) -> Sample:
    """Write the image to ``layout``, at most ``limit`` bytes of files in each layer, and a file of
    ``data`` bytes in the last."""
    written = LayoutWriter(layout)
    documents = _Layer({})
    _documents(documents, limit // 4)
    library = _Layer(documents.picture)
    _library(library, limit)
    pictures: dict[str, Picture] = {}
    made: dict[str, Layer] = {}
    for version in ("v1", "v2"):
        packages = _Layer(library.picture)
        _packages(packages, limit, edited=version == "v2")
        top = _Layer(packages.picture)
        _application(top, version, data)
        layers = [("documents", documents), ("standard library", library)]
        layers += [("packages", packages), (f"application {version}", top)]
        for words, layer in layers:
            if words not in made:
                made[words] = written.layer(words, layer.finish())
        written.image(version, [made[words] for words, _ in layers])
        made.pop("packages")
        pictures[version] = top.picture
    written.finish()
    return Sample(layout, pictures)


# -- what goes in --------------------------------------------------------------------------------


def _documents(layer: _Layer, limit: int) -> None:
    layer.directory(DOCUMENTS)
    for source in ("/usr/share/doc", "/usr/share/common-licenses", "/usr/share/zoneinfo"):
        _take(layer, Path(source), f"{DOCUMENTS}/{Path(source).name}", limit)


def _library(layer: _Layer, limit: int) -> None:
    _take(layer, Path(sysconfig.get_path("stdlib")), LIBRARY, limit, skip=("site-packages", "test"))


def _packages(layer: _Layer, limit: int, *, edited: bool) -> None:
    _take(layer, Path(sysconfig.get_path("purelib")), PACKAGES, limit, edit=20 if edited else 0)


def _application(layer: _Layer, version: str, data: int) -> None:
    layer.file("srv/app/main.py", f"print('version {version}')\n".encode(), 0o755)
    layer.link("srv/app/start", "srv/app/main.py")
    layer.symlink("srv/app/current", "main.py")
    layer.file("srv/app/helper", b"#!/bin/sh\nid -u\n", 0o4755)
    layer.file("srv/app/caf\udce9.txt", b"a name in Latin-1\n", uid=1000)
    layer.fifo("srv/app/queue")
    layer.file(DATA, _data(data))
    if version != "v1":
        layer.file("srv/app/CHANGES", b"second version\n")
        gone = f"{LIBRARY}/email"
        if gone in layer.picture:
            layer.remove(gone)


def _data(size: int) -> bytes:
    """Return so many bytes of this machine's own files, one after the other."""
    library = Path(sysconfig.get_path("stdlib"))
    content = bytearray()
    for path, status in _walk(library, ()):
        if len(content) >= size:
            break
        if stat.S_ISREG(status.st_mode):
            content += _read(path) or b""
    while len(content) < size:
        content += hashlib.sha256(content[-64:]).digest() * 64
    return bytes(content[:size])


def _take(
    layer: _Layer,
    source: Path,
    target: str,
    limit: int,
    *,
    skip: Sequence[str] = (),
    edit: int = 0,
) -> None:
    """Copy readable files below ``source``; ``edit`` n changes each n-th."""
    stop = layer.size + limit
    for number, (path, status) in enumerate(_walk(source, skip)):
        if layer.size >= stop:
            break
        inside = f"{target}/{path.relative_to(source)}"
        if stat.S_ISDIR(status.st_mode):
            layer.directory(inside)
        elif stat.S_ISLNK(status.st_mode):
            layer.symlink(inside, str(path.readlink()))
        elif stat.S_ISREG(status.st_mode) and status.st_size <= LARGEST:
            content = _read(path)
            if content is not None:
                if edit and number % edit == 0:
                    content += b"\n# edited in the second version\n"
                layer.file(inside, content, stat.S_IMODE(status.st_mode))


def _walk(source: Path, skip: Sequence[str]) -> Iterator[tuple[Path, os.stat_result]]:
    try:
        names = sorted(os.listdir(source))
    except OSError:
        return
    for name in names:
        if name in skip or name == "__pycache__":
            continue
        path = source / name
        try:
            status = path.lstat()
        except OSError:
            continue
        yield path, status
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(path, skip)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None  # not ours to read


# -- looking at an export ------------------------------------------------------------------------


def picture_of_tar(path: Path) -> Picture:
    """Read what a tar holds, by path, with Python's ``tarfile``."""
    picture: Picture = {}
    with tarfile.open(path, errors="surrogateescape") as tar:
        for member in tar:
            name = member.name.removeprefix("./").strip("/")
            if name in ("", "."):
                continue
            if member.islnk():
                picture[name] = picture[member.linkname.removeprefix("./").strip("/")]
                continue
            content = tar.extractfile(member) if member.isreg() else None
            picture[name] = Thing(
                tarfile.REGTYPE if member.isreg() else member.type,
                member.mode,
                member.uid,
                member.gid,
                int(member.mtime),
                member.size,
                "" if content is None else hashlib.sha256(content.read()).hexdigest(),
                member.linkname,
            )
    return picture


def differences(expected: Picture, found: Picture) -> list[str]:
    """Name every path that isn't what it must be."""
    lines: list[str] = []
    for path in sorted({*expected, *found}):
        if path not in found:
            lines.append(f"{path!r} is missing")
        elif path not in expected:
            lines.append(f"{path!r} must not be there")
        elif expected[path] != found[path]:
            lines.append(f"{path!r} must be {expected[path]}, is {found[path]}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the sample where the argument says."""
    parser = argparse.ArgumentParser(prog="cowshed_benchmarks.sample_image", description=__doc__)
    parser.add_argument("directory", type=Path)
    sample = make_sample(parser.parse_args(arguments).directory)
    for version, picture in sample.pictures.items():
        size = sum(thing.size for thing in picture.values())
        print(f"oci:{sample.layout}:{version}  {len(picture):,} entries, {size / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
