"""How much memory an import takes, whatever the image: of very many entries, each time of one kind.

    python -m cowshed_benchmarks.crowds [--entries N] [--drivers DRIVER ...] [--kinds KIND ...]

A tar is made while it is read, on standard input, so nothing of it lies on the disk; the kinds that
take two layers are an OCI layout.
``anonymous`` is the most that the process had of its own at any time (``RssAnon`` of
proc_pid_status(5), looked at every 50 ms), ``resident`` what the kernel counts with pages of files
that it had mapped (``VmHWM``). A million entries of one kind take half a minute to some minutes,
and as many inodes where a driver has one for each.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TypeAlias

from .measuring import ProgramError, cowshed, failure, proc_field
from .oci_layout import LayoutWriter
from .quantities import size

DRIVERS = ("hardlink-farm", "chunk-dedup", "naive-copy", "overlayfs")
#: Entries of one directory, but of ``flat``.
_PER_DIRECTORY = 100
_BLOCK = 512
_PAUSE = 0.05

#: Gives the parts of a tar with so many entries.
_Make: TypeAlias = Callable[[int], Iterator[bytes]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="cowshed_benchmarks.crowds", description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--drivers", nargs="+", default=DRIVERS[:2], choices=DRIVERS)
    parser.add_argument("--kinds", nargs="+", default=_ALL, choices=_ALL)
    parser.add_argument("--work", type=Path, help="directory on the file system to measure on")
    options = parser.parse_args(arguments)
    print(f"{options.entries:,} entries{'':14}anonymous   resident    seconds")
    for kind, driver in itertools.product(options.kinds, options.drivers):
        with tempfile.TemporaryDirectory(prefix="cow-", dir=options.work) as work:
            try:
                anonymous, resident, seconds = _import(Path(work), driver, kind, options.entries)
            except ProgramError as error:
                print(f"{kind}, {driver}: {error}", file=sys.stderr)
                return 1
        said = f"{size(anonymous):>9}  {size(resident):>9}  {seconds:9.1f}"
        print(f"{kind:12}{driver:16}{said}", flush=True)
    return 0


def _import(work: Path, driver: str, kind: str, entries: int) -> tuple[int, int, float]:
    """Return the most memory that it took, of its own and with mapped files, and the seconds."""
    source, tar = "tar:-", KINDS.get(kind, _nothing)(entries)
    if kind in UPPER:
        source = f"oci:{work}/image:crowd"
        write_layout(work / "image", kind, entries)
    command = [*cowshed(work / "shed", driver, "import", "--quiet"), source, "crowd"]
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said
        )
        assert process.stdin is not None
        feeder = threading.Thread(target=_feed, args=(process.stdin, tar))
        feeder.start()
        anonymous = resident = 0
        status = f"/proc/{process.pid}/status"
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            anonymous = max(anonymous, proc_field(status, "RssAnon") or 0)
            resident = max(resident, proc_field(status, "VmHWM") or 0)
            time.sleep(_PAUSE)
        process.wait()
        seconds = time.perf_counter() - began
        feeder.join()
        if process.returncode:
            said.seek(0)
            raise ProgramError(failure(command, process.returncode, said.read()))
    return anonymous << 10, resident << 10, seconds


def write_layout(root: Path, kind: str, entries: int) -> None:
    """Write an image of two layers, the lower one as ``flat``."""

    def write(make: _Make) -> Callable[[BinaryIO], None]:
        def to(out: BinaryIO) -> None:
            made = make(entries)
            while parts := [*itertools.islice(made, 1024)]:
                out.write(b"".join(parts))

        return to

    writer = LayoutWriter(root)
    layers = [writer.layer(kind, write(make)) for make in (_flat, UPPER[kind])]
    writer.image("crowd", layers)
    writer.finish()


def _feed(pipe: BinaryIO, tar: Iterator[bytes]) -> None:
    try:
        with pipe:
            for part in tar:
                pipe.write(part)
    except BrokenPipeError:
        pass  # it failed, and says so itself


# -- tars ------------------------------------------------------------------------------------------


def _crowd(entries: int, per_directory: int, make: Callable[[str, int], bytes]) -> Iterator[bytes]:
    directory = ""
    for number in range(entries):
        if number % per_directory == 0:
            directory = f"directory-{number // per_directory:06d}"
            yield _header(directory, tarfile.DIRTYPE)
        yield make(f"{directory}/an-entry-of-some-name-{number:08d}", number)
    yield bytes(2 * _BLOCK)


def _header(name: str, type: bytes, size: int = 0, target: str = "") -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = type, size, target
    member.mode, member.mtime = 0o755, 1_700_000_000
    return member.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")


def _nothing(_: int) -> Iterator[bytes]:
    return iter(())


def _file(name: str, content: bytes) -> bytes:
    return _header(name, tarfile.REGTYPE, len(content)) + content + bytes(-len(content) % _BLOCK)


def _files(entries: int) -> Iterator[bytes]:
    return _crowd(entries, _PER_DIRECTORY, lambda name, number: _file(name, b"%08d" % number))


def _flat(entries: int) -> Iterator[bytes]:
    return _crowd(entries, entries, lambda name, number: _file(name, b"%08d" % number))


def _contents(entries: int) -> Iterator[bytes]:
    chance = random.Random(1)
    return _crowd(entries, _PER_DIRECTORY, lambda name, _: _file(name, chance.randbytes(1024)))


def _links(entries: int) -> Iterator[bytes]:
    return _crowd(
        entries,
        _PER_DIRECTORY,
        lambda name, number: _header(name, tarfile.SYMTYPE, target=f"../somewhere/else/{number}"),
    )


def _directories(entries: int) -> Iterator[bytes]:
    return _crowd(entries, _PER_DIRECTORY, lambda name, _: _header(name, tarfile.DIRTYPE))


def _pairs(entries: int) -> Iterator[bytes]:
    def make(name: str, number: int) -> bytes:
        if number % 2 == 0:
            return _file(name, b"%08d" % number)
        return _header(name, tarfile.LNKTYPE, target=f"{name[:-8]}{number - 1:08d}")

    return _crowd(entries, _PER_DIRECTORY, make)


def _names(entries: int) -> Iterator[bytes]:
    chance = random.Random(2)
    files = entries // 100 or 1
    yield _header("files", tarfile.DIRTYPE)
    for number in range(files):
        yield _file(f"files/{number:08d}", b"%08d" % number)

    def link(name: str, _: int) -> bytes:
        return _header(name, tarfile.LNKTYPE, target=f"files/{chance.randrange(files):08d}")

    yield from _crowd(entries - files, _PER_DIRECTORY, link)


def _whiteouts(entries: int) -> Iterator[bytes]:
    for number in range(0, entries, 2):
        yield _file(f"directory-000000/.wh.an-entry-of-some-name-{number:08d}", b"")
    yield bytes(2 * _BLOCK)


def _opaque(_: int) -> Iterator[bytes]:
    yield _file("directory-000000/new", b"new")
    yield _file("directory-000000/.wh..wh..opq", b"")
    yield bytes(2 * _BLOCK)


def _relinked(entries: int) -> Iterator[bytes]:
    name = "directory-000000/an-entry-of-some-name-"
    for number in range(0, entries - 1, 2):
        yield _file(f"{name}{number:08d}", b"%08d" % number)
        yield _header(f"{name}{number + 1:08d}", tarfile.LNKTYPE, target=f"{name}{number:08d}")
    yield bytes(2 * _BLOCK)


#: Small files; of a KiB that nothing else has; in one directory; symbolic links; directories; files
#: of two names each; of a hundred names each, in no order.
KINDS: dict[str, _Make] = {
    "files": _files,
    "contents": _contents,
    "flat": _flat,
    "links": _links,
    "directories": _directories,
    "pairs": _pairs,
    "names": _names,
}
#: Upper layers: every second file of a large directory is removed; all of them are, behind a file
#: that is new there; every second one becomes another name of the one before.
UPPER: dict[str, _Make] = {"whiteouts": _whiteouts, "opaque": _opaque, "relinked": _relinked}
_ALL = (*KINDS, *UPPER)


if __name__ == "__main__":
    sys.exit(main())
