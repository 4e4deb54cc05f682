"""How much memory an import takes, whatever the image: of very many entries, each time of one kind.

    python -m cowshed_benchmarks.crowds [--entries N] [--drivers DRIVER ...] [--kinds KIND ...]

The tar is made while it is read, on standard input, so nothing of it lies on the disk.
``anonymous`` is the most that the process had of its own at any time (``RssAnon`` of
proc_pid_status(5), looked at every 50 ms), ``resident`` what the kernel counts with pages of files
that it had mapped (getrusage(2)). A million entries of one kind take half a minute to a minute and
a half, and as many inodes where a driver has one for each.
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

from .measuring import ProgramError, cowshed, failure
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
    parser.add_argument("--kinds", nargs="+", default=[*KINDS], choices=[*KINDS])
    parser.add_argument("--work", type=Path, help="directory on the file system to measure on")
    options = parser.parse_args(arguments)
    print(f"{options.entries:,} entries{'':14}anonymous   resident    seconds")
    for kind, driver in itertools.product(options.kinds, options.drivers):
        with tempfile.TemporaryDirectory(prefix="cow-", dir=options.work) as work:
            try:
                anonymous, resident, seconds = _import(
                    Path(work, "shed"), driver, KINDS[kind](options.entries)
                )
            except ProgramError as error:
                print(f"{kind}, {driver}: {error}", file=sys.stderr)
                return 1
        said = f"{size(anonymous):>9}  {size(resident):>9}  {seconds:9.1f}"
        print(f"{kind:12}{driver:16}{said}", flush=True)
    return 0


def _import(shed: Path, driver: str, tar: Iterator[bytes]) -> tuple[int, int, float]:
    """Return the most memory that it took, of its own and with mapped files, and the seconds."""
    command = [*cowshed(shed, driver, "import", "--quiet"), "tar:-", "crowd"]
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said
        )
        assert process.stdin is not None
        feeder = threading.Thread(target=_feed, args=(process.stdin, tar))
        feeder.start()
        most = 0
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            most = max(most, _anonymous(process.pid))
            time.sleep(_PAUSE)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        feeder.join()
        if process.returncode:
            said.seek(0)
            raise ProgramError(failure(command, process.returncode, said.read()))
    return most, usage.ru_maxrss << 10, seconds


def _feed(pipe: BinaryIO, tar: Iterator[bytes]) -> None:
    try:
        with pipe:
            for part in tar:
                pipe.write(part)
    except BrokenPipeError:
        pass  # it failed, and says so itself


def _anonymous(pid: int) -> int:
    with open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith(b"RssAnon:"):
                return int(line.split()[1]) << 10
    return 0  # it is ending


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


#: Small files; of a KiB that nothing else has; in one directory; symbolic links; directories; files
#: of two names each.
KINDS: dict[str, _Make] = {
    "files": _files,
    "contents": _contents,
    "flat": _flat,
    "links": _links,
    "directories": _directories,
    "pairs": _pairs,
}


if __name__ == "__main__":
    sys.exit(main())
