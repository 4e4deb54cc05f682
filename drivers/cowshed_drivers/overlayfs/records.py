"""Records that follow their files: an attribute of the file itself.

    trusted.cowshed (user.cowshed in a user namespace's store)   signature, then JSON, or @MARK
    HOME/diff.extra                                              a line of JSON each: MARK or inode

Processes in a container rename, link, replace and remove files without asking us, the kernel
copies files up, and a fork shares them; an attribute goes where the file goes and nowhere else.
It is signed with the store's key, because in a user namespace whoever owns a file can give it
one, and a record says who owns a file and whether it is a device. A process's own attribute of that
name has no signature and is just that.

A record says what the file itself said when it was made: where a process has since changed owner,
group or mode, or written into what stands for a device, that counts.

Records that don't fit into the file stand in ``extra`` files beside the directory, by a mark in the
file. A symbolic link and a fifo can't have attributes of users at all: their records stand there by
inode number, together with the mtime they had. A process that renames such a link in a user
namespace loses its record, and nothing else does.
"""

from __future__ import annotations

import binascii
import errno
import json
import os
import stat as stat_module
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cowshed.native.records import Record, Records
from cowshed.native.syscalls import procfs

if TYPE_CHECKING:
    from .view import OverlayView

EXTRA = ".extra"

_SIGNATURE = 12
#: Longer ones go into the extra file, so that a file keeps room for attributes of its own.
_LONGEST = 1500
_NO_ROOM = {errno.ENOSPC, errno.E2BIG, errno.ERANGE, errno.EDQUOT}
_REFUSED = {errno.EPERM, errno.EOPNOTSUPP, errno.EACCES}
_KEPT_IN = ("kind", "mode", "uid", "gid", "rdev")


class Extras:
    """The extra files of a stack, topmost first; lines are added to the first, later ones count."""

    def __init__(self, store: str, directories: Sequence[str]) -> None:
        self._store = store
        self._directories = directories
        self._lines: dict[str, Any] | None = None

    def get(self, key: str) -> Any:
        """Return what stands there for ``key``."""
        return self._read().get(key)

    @property
    def any(self) -> bool:
        """Say whether there is anything."""
        return bool(self._read())

    def put(self, key: str, value: object) -> None:
        """Add a line."""
        line = json.dumps({key: value}).encode() + b"\n"
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        path = os.path.join(self._store, self._directories[0]) + EXTRA
        descriptor = os.open(path, flags, 0o600)
        try:
            os.fchmod(descriptor, 0o600)  # whatever the umask
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # behind what a killed process began
            if os.write(descriptor, line) != len(line):
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        finally:
            os.close(descriptor)
        self._read()[key] = value

    def _read(self) -> dict[str, Any]:
        if self._lines is None:
            self._lines = read_extras(
                os.path.join(self._store, directory) for directory in self._directories
            )
        return self._lines


def read_extras(directories: Iterable[str]) -> dict[str, Any]:
    """Return what extra files of directories say, the first before the others."""
    found: dict[str, Any] = {}
    for directory in reversed(list(directories)):
        try:
            with open(directory + EXTRA, "rb") as file:
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            continue
        # Behind the last end of line is nothing, or what a killed process began.
        for line in lines[:-1]:
            try:
                found.update(json.loads(line))
            except ValueError:
                continue
    return found


def copy_extras(source: str, target: str, inodes: Mapping[int, int]) -> None:
    """Copy a directory's extra file for a copy of the directory, in which ``inodes`` became
    others."""
    lines: dict[str, Any] = {}
    for key, value in read_extras([source]).items():
        if key.startswith("@"):
            lines[key] = value
        elif int(key) in inodes:
            lines[str(inodes[int(key)])] = value
    write_extras(target, lines)


def write_extras(directory: str, lines: Mapping[str, Any]) -> None:
    """Write the extra file of a new directory, if it needs one."""
    if lines:
        with open(directory + EXTRA, "x", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o600)  # whatever the umask
            file.writelines(json.dumps({key: value}) + "\n" for key, value in lines.items())


class ObjectRecords(Records):
    """The records of one tree's files. ``key`` signs them."""

    def __init__(self, view: OverlayView, extras: Extras, key: bytes) -> None:
        self._view = view
        self._extras = extras
        self._key = key
        self._name = view.hosting.record_name

    # -- asking ---------------------------------------------------------------------------------

    def get(self, path: str) -> Record | None:
        fd, name = self._view.directories.at(path)
        return self._get(path, fd, name)

    def below(self, path: str) -> _Below:
        return _Below(self, path, self._view.directories.fd(path))

    def get_in(self, directory: str, fd: int, name: str) -> Record | None:
        """Return the record of ``name`` in a directory that is open."""
        return self._get(f"{directory}/{name}" if directory else name, fd, name)

    def _get(self, path: str, fd: int, name: str) -> Record | None:
        try:
            signed = os.getxattr(procfs(fd, name), self._name, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP, errno.ENOENT, *_REFUSED):
                raise
            if not self._view.hosting.user or not self._extras.any:
                return None
            said = self._of_node(path, fd, name)
        else:
            said = self._verified(signed)
            if said is not None and said.startswith(b"@"):
                said = _to_bytes(self._extras.get(said.decode()))
        return None if said is None else _decode(said, fd, name)

    def _verified(self, signed: bytes) -> bytes | None:
        said = signed[_SIGNATURE:]
        return said if signed[:_SIGNATURE] == self._sign(said) else None

    def _sign(self, said: bytes) -> bytes:
        import hashlib  # 3 ms, and few files have a record

        return hashlib.blake2b(said, key=self._key, digest_size=_SIGNATURE).digest()

    def visible(self, xattrs: Mapping[str, bytes]) -> Mapping[str, bytes]:
        value = xattrs.get(self._name)
        if value is None or self._verified(value) is None:
            return xattrs
        return {name: value for name, value in xattrs.items() if name != self._name}

    # -- changing -------------------------------------------------------------------------------

    def put(self, path: str, record: Record) -> None:
        fd, name = self._view.directories.at(path)
        if record.says_nothing:
            if record.id:
                self._forget(path, fd, name)
                record.id = 0
            return
        said = _encode(record, fd, name)
        if len(said) <= _LONGEST:
            try:
                self._set(fd, name, said)
            except OSError as error:
                if error.errno in _REFUSED:
                    self._put_node(path, fd, name, said)
                elif error.errno in _NO_ROOM:
                    self._put_aside(path, fd, name, said)
                else:
                    raise
        else:
            self._put_aside(path, fd, name, said)
        record.id = 1

    def _set(self, fd: int, name: str, said: bytes) -> None:
        signed = self._sign(said) + said
        os.setxattr(procfs(fd, name), self._name, signed, follow_symlinks=False)

    def _put_aside(self, path: str, fd: int, name: str, said: bytes) -> None:
        mark = f"@{os.urandom(8).hex()}"
        self._extras.put(mark, said.decode())
        try:
            self._set(fd, name, mark.encode())
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            self._put_node(path, fd, name, said)

    def _forget(self, path: str, fd: int, name: str) -> None:
        try:
            os.removexattr(procfs(fd, name), self._name, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.ENODATA, *_REFUSED):
                raise
            if self._view.hosting.user and self._extras.any:
                self._put_node(path, fd, name, None)

    # -- links and fifos in a user namespace ----------------------------------------------------

    def _put_node(self, path: str, fd: int, name: str, said: bytes | None) -> None:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        # A change is one only in the container's own directory. Killed before the line is written,
        # the copy still has the record of what it was copied from.
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=fd, follow_symlinks=False)
        inode = self._view.real_inode(path, status)
        text = None if said is None else said.decode()
        self._extras.put(str(inode), [status.st_mtime_ns, text])

    def _of_node(self, path: str, fd: int, name: str) -> bytes | None:
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not stat_module.S_ISLNK(status.st_mode) and not stat_module.S_ISFIFO(status.st_mode):
            return None
        for inode in self._view.real_inodes(path, status):
            found = self._extras.get(str(inode))
            if found is not None and found[0] == status.st_mtime_ns:
                return _to_bytes(found[1])
        return None

    def retimed(self, path: str, record: Record) -> None:
        if self._view.hosting.user:
            self.put(path, record)

    def link(self, existing: str, path: str) -> None:
        if self._view.hosting.user and self._extras.any:
            fd, name = self._view.directories.at(existing)
            said = self._of_node(existing, fd, name)
            if said is not None:
                self._put_node(existing, fd, name, said)

    def move(self, source: str, destination: str) -> None:
        if not self._view.hosting.user or not self._extras.any:
            return
        fd, name = self._view.directories.at(source)
        said = self._of_node(source, fd, name)
        if said is not None:
            self._put_node(source, fd, name, said)


class _Below:
    def __init__(self, records: ObjectRecords, directory: str, fd: int) -> None:
        self._records = records
        self._directory = directory
        self._fd = fd

    def get(self, name: str, /) -> Record | None:
        return self._records.get_in(self._directory, self._fd, name)


def _encode(record: Record, fd: int, name: str) -> bytes:
    said: dict[str, Any] = {
        field: value for field in _KEPT_IN if (value := getattr(record, field)) is not None
    }
    if record.xattrs:
        said["xattrs"] = {
            name: binascii.b2a_base64(value, newline=False).decode()
            for name, value in sorted(record.xattrs.items())
        }
    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
    mode = stat_module.S_IMODE(status.st_mode)
    said["for"] = [status.st_uid, status.st_gid, mode, status.st_size]
    return json.dumps(said, separators=(",", ":")).encode()


def _decode(said: bytes, fd: int, name: str) -> Record | None:
    found = json.loads(said)
    record = Record(
        id=1,
        **{field: found.get(field) for field in _KEPT_IN},
        xattrs={
            name: binascii.a2b_base64(value) for name, value in found.get("xattrs", {}).items()
        },
    )
    try:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    uid, gid, mode, size = found["for"]
    if (status.st_uid, status.st_gid) != (uid, gid):
        record.uid = record.gid = None
    if record.kind is not None and status.st_size != size:
        record.kind = record.rdev = record.mode = None
    elif stat_module.S_IMODE(status.st_mode) != mode:
        record.mode = None
    return record


def _to_bytes(text: object) -> bytes | None:
    return text.encode() if isinstance(text, str) else None
