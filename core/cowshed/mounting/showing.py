"""Showing: one layer's tree as a FUSE file system that never changes.

Everything may be cached for ever, so a server is asked once for each directory and each part of a
file, by whichever container comes first; what follows is the kernel's business.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from typing import BinaryIO

from ..driver import Driver
from ..entry import Entry, Kind, join
from ..errors import CowshedError
from . import protocol
from .format import Format
from .protocol import Operation

_ROOT = 1
#: A file up to this size is read when it was looked up, as it is about to be opened: while the
#: kernel and who asked are at work on our answer, which makes a tenth of the time.
_SMALL = 128 << 10
#: Files kept open. One of chunk-dedup's holds up to 128 KiB.
_OPEN = 16
#: Directories whose lines are kept: a large one is read in parts, several at once.
_LISTED = 4


class Shown:
    """Answers the requests that come in by one ``/dev/fuse``."""

    def __init__(self, device: int, driver: Driver, layer: str, format: Format) -> None:
        self.device = device
        self._tree = driver.tree(layer)
        self._format = format
        #: Paths by number, and how often the kernel has one that it has more than once.
        self._paths: dict[int, str] = {_ROOT: ""}
        self._counts: dict[int, int] = {}
        self._expected: int | None = None
        self._files: OrderedDict[int, BinaryIO] = OrderedDict()
        self._lines: OrderedDict[int, list[Entry]] = OrderedDict()

    def close(self) -> None:
        """Let go of the device, the files and the tree."""
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._tree.close()
        os.close(self.device)

    def serve(self) -> bool:
        """Answer one request; False once the file system is unmounted."""
        try:
            request = os.read(self.device, protocol.LONGEST_REQUEST)
        except OSError as error:
            # EINTR, EAGAIN or, if the asking process was interrupted, ENOENT: go on.
            return error.errno not in (errno.ENODEV, errno.EBADF, errno.EIO)
        _, number, unique, node, *_ = protocol.REQUEST.unpack_from(request)
        data = request[protocol.REQUEST.size :]
        try:
            answer = self._answer(number, node, data)
        except OSError as error:
            answer = protocol.refusal(unique, error.errno or errno.EIO)
        except Exception:  # whatever it is, others' mounts are served by us too
            answer = protocol.refusal(unique, errno.EIO)
        else:
            if answer is None:
                return True
            answer = protocol.reply(unique, answer)
        try:
            os.write(self.device, answer)
        except OSError as error:
            return error.errno != errno.ENODEV
        if self._expected is not None:
            self._expect(self._expected)
        return True

    def _expect(self, node: int) -> None:
        """Read a file that will be asked for as soon as the asking process has our answer."""
        self._expected = None
        with suppress(OSError, CowshedError):
            self._open(node)

    def _answer(self, number: int, node: int, data: bytes) -> bytes | None:
        match number:
            case Operation.LOOKUP:
                return self._lookup(node, os.fsdecode(data[:-1]))
            case Operation.READDIRPLUS | Operation.READDIR:
                _, offset, size = protocol.READ.unpack_from(data)
                return self._list(node, offset, size, plus=number == Operation.READDIRPLUS)
            case Operation.READ:
                _, offset, size = protocol.READ.unpack_from(data)
                return self._read(node, offset, size)
            case Operation.GETATTR:
                entry = self._tree.stat(self._path(node))
                return protocol.attributes_reply(self._attributes(entry))
            case Operation.READLINK:
                return os.fsencode(self._tree.readlink(self._path(node)))
            case Operation.GETXATTR if self._has_xattrs:
                (size,) = protocol.XATTR.unpack_from(data)
                name = os.fsdecode(data[protocol.XATTR.size : -1])
                value = self._xattrs(node).get(name)
                if value is None:
                    raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
                return protocol.xattr_reply(size, value)
            case Operation.LISTXATTR:  # ENOSYS would be no empty list, but EOPNOTSUPP
                (size,) = protocol.XATTR.unpack_from(data)
                names = self._xattrs(node) if self._has_xattrs else ()
                return protocol.xattr_reply(
                    size, b"".join(os.fsencode(name) + b"\0" for name in names)
                )
            case Operation.STATFS:
                return protocol.statfs()
            case Operation.INIT:
                return protocol.init(data)
            case Operation.FORGET:
                self._forget(node, protocol.FORGET.unpack_from(data)[0])
                return None
            case Operation.BATCH_FORGET:
                (count,) = protocol.COUNT.unpack_from(data)
                for index in range(count):
                    at = protocol.COUNT.size + index * protocol.FORGET_ONE.size
                    self._forget(*protocol.FORGET_ONE.unpack_from(data, at))
                return None
            case Operation.INTERRUPT:
                return None
            case Operation.DESTROY:
                return b""
            case _:
                raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    @cached_property
    def _has_xattrs(self) -> bool:
        """Whether any file has an attribute. If none has, ENOSYS says so once for all; otherwise
        the kernel asks about each file that is looked up, for overlayfs's own."""
        return any(self._format.shown(entry.xattrs) for entry in self._tree.walk())

    def _xattrs(self, node: int) -> Mapping[str, bytes]:
        return self._format.shown(self._tree.stat(self._path(node)).xattrs)

    # -- nodes ----------------------------------------------------------------------------------

    def _path(self, node: int) -> str:
        return self._paths[node]

    def _node(self, entry: Entry) -> int:
        """Return the number of an object, which the kernel has once more from now on."""
        node = _number(entry)
        if node in self._paths:
            self._counts[node] = self._counts.get(node, 1) + 1
        else:
            self._paths[node] = entry.path
        return node

    def _forget(self, node: int, count: int) -> None:
        if node == _ROOT or node not in self._paths:
            return
        left = self._counts.pop(node, 1) - count
        if left > 1:
            self._counts[node] = left
        if left <= 0:
            del self._paths[node]
            file = self._files.pop(node, None)
            if file is not None:
                file.close()

    def _attributes(self, entry: Entry) -> bytes:
        uid, gid = self._format.uids.shown(entry.uid), self._format.gids.shown(entry.gid)
        # Of the 64 bits of an inode number, overlayfs keeps some for itself.
        return protocol.attributes(max(_number(entry) >> 16, _ROOT), entry, uid, gid)

    # -- names ----------------------------------------------------------------------------------

    def _lookup(self, node: int, name: str) -> bytes:
        try:
            entry = self._tree.stat(join(self._path(node), name))
        except (FileNotFoundError, NotADirectoryError):
            return protocol.NOTHING
        found = self._node(entry)
        if entry.kind is Kind.FILE and 0 < entry.size <= _SMALL:
            self._expected = found
        return protocol.entry_reply(found, self._attributes(entry))

    def _list(self, node: int, offset: int, size: int, *, plus: bool) -> bytes:
        entries = self._entries(node)
        parts: list[bytes] = []
        total = 0
        for index in range(offset, len(entries) + 2):
            if index < 2:
                line = protocol.listed(node, index + 1, Kind.DIRECTORY, b".." if index else b".")
                part = protocol.UNSAID + line if plus else line
            else:
                entry = entries[index - 2]
                name = os.fsencode(entry.name)
                line = protocol.listed(node, index + 1, entry.kind, name)
                if total + len(line) + (len(protocol.UNSAID) if plus else 0) > size:
                    break
                part = line
                if plus:
                    found = self._node(entry)
                    part = protocol.entry_reply(found, self._attributes(entry)) + (
                        protocol.listed(found, index + 1, entry.kind, name)
                    )
            if total + len(part) > size:
                break
            parts.append(part)
            total += len(part)
        return b"".join(parts)

    def _entries(self, node: int) -> list[Entry]:
        known = self._lines.pop(node, None)
        if known is None:
            known = list(self._tree.scandir(self._path(node)))
            if len(self._lines) >= _LISTED:
                self._lines.popitem(last=False)
        self._lines[node] = known
        return known

    # -- content --------------------------------------------------------------------------------

    def _read(self, node: int, offset: int, size: int) -> bytes:
        file = self._open(node)
        file.seek(offset)
        return file.read(size)

    def _open(self, node: int) -> BinaryIO:
        file = self._files.pop(node, None)
        if file is None:
            file = self._tree.open(self._path(node))
            if len(self._files) >= _OPEN:
                self._files.popitem(last=False)[1].close()
        self._files[node] = file
        return file


def _number(entry: Entry) -> int:
    """Return what tells a file from others, whoever asks and when: drawn from its path, or from
    what all its names share. Of a million files two have the same in one of 18 million layers."""
    if not entry.path:
        return _ROOT
    key = entry.path
    if entry.links > 1 and entry.inode and entry.kind is not Kind.DIRECTORY:
        key = f"/{entry.inode}"  # no path begins so
    digest = hashlib.blake2b(os.fsencode(key), digest_size=8).digest()
    return int.from_bytes(digest, "big") | 2  # no other is 0 or the root's
