"""EROFS: an image of a tree's names and attributes, which the kernel mounts.

What is written is the form of Linux's fs/erofs/erofs_fs.h: blocks of 4 KiB, extended inodes of 64
bytes, attributes and the ends of directories behind their inode. Contents are elsewhere: a file is
one hole of its size, with the two attributes by which overlayfs finds it in a data-only layer
(Documentation/filesystems/overlayfs.rst, "Data-only lower layers").

    superblock   at 1,024
    inodes       numbered by where they are, in units of 32 bytes; the root first
    blocks       of directories and links that don't fit behind their inode

We write it ourselves because mkfs.erofs takes a directory, with files of those sizes and owners
and with those attributes, which takes root and six times as long to make as the image itself.
"""

from __future__ import annotations

import os
import stat as stat_module
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

import attrs

from ..entry import Entry, Kind, parent_of

_BLOCK = 4096
_START = 1024
_MAGIC = 0xE0F5E1E2
_SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQ24x")
_INODE = struct.Struct("<HHHHQIIIIqIi16x")
_DIRENT = struct.Struct("<QHBB")
_XATTR = struct.Struct("<BBH")
_XATTR_HEADER = bytes(12)
_CHUNKED = 0x4  # incompatible feature
_PLAIN, _INLINE, _CHUNKS = 0, 2, 4
#: One chunk of 2^43 bytes, which is nowhere.
_CHUNK_FORMAT, _NOWHERE = 31, b"\xff\xff\xff\xff"
_TYPES = {
    stat_module.S_IFREG: 1,
    stat_module.S_IFDIR: 2,
    stat_module.S_IFCHR: 3,
    stat_module.S_IFBLK: 4,
    stat_module.S_IFIFO: 5,
    stat_module.S_IFLNK: 7,
}
#: Names of attributes begin with a number for these.
_PREFIXES = (
    ("user.", 1),
    ("system.posix_acl_access", 2),
    ("system.posix_acl_default", 3),
    ("trusted.", 4),
    ("security.", 6),
)

#: Says where a file's content is: a path in the data-only layer, from its root, with a slash.
Where = Callable[[Entry], str]


@attrs.define
class _Node:
    entry: Entry
    parent: _Node | None
    links: int = 1
    children: list[tuple[bytes, _Node]] = attrs.Factory(list["tuple[bytes, _Node]"])
    xattrs: bytes = b""
    layout: int = _PLAIN
    #: Bytes behind inode and attributes, and how many of them there will be.
    tail: bytes = b""
    tail_length: int = 0
    #: Blocks before the tail, by their number and how many bytes they hold in all.
    first_block: int = 0
    blocks: int = 0
    size: int = 0
    at: int = 0

    @property
    def number(self) -> int:
        return self.at // 32


def write_image(entries: Iterable[Entry], where: Where, out: BinaryIO) -> None:
    """Write the image of a whole tree, given as its ``walk``, to a new file."""
    nodes = _gather(entries, where)
    end = _place(nodes)
    blocks = _place_blocks(nodes, -(-end // _BLOCK))
    out.seek(_START)
    out.write(
        _SUPERBLOCK.pack(
            *(_MAGIC, 0, 0, 12, 0, nodes[0].number, len(nodes), 0, 0, blocks, 0, 0),
            *(os.urandom(16), b"cowshed", _CHUNKED, 0, 0, 0, 0, 0, 0, 0),
        )
    )
    for node in nodes:
        out.seek(node.at)
        out.write(_encode(node))
    for node in nodes:
        if node.blocks:
            out.seek(node.first_block * _BLOCK)
            for block in _blocks_of(node):
                out.write(block.ljust(_BLOCK, b"\0"))
    out.truncate(blocks * _BLOCK)


def _gather(entries: Iterable[Entry], where: Where) -> list[_Node]:
    nodes: list[_Node] = []
    directories: dict[str, _Node] = {}
    linked: dict[int, _Node] = {}
    for entry in entries:
        parent = directories[parent_of(entry.path)] if entry.path else None
        node = linked.get(entry.inode) if entry.links > 1 and entry.inode else None
        if node is None:
            node = _Node(entry, parent)
            node.xattrs = _encode_xattrs(entry, where)
            nodes.append(node)
            if entry.links > 1 and entry.inode:
                linked[entry.inode] = node
        else:
            node.links += 1
        if entry.kind is Kind.DIRECTORY:
            directories[entry.path] = node
            node.links = 2
            if parent is not None:
                parent.links += 1
        if parent is not None:
            parent.children.append((os.fsencode(entry.name), node))
    return nodes


def _place(nodes: list[_Node]) -> int:
    """Say where each inode will be, and what is behind it; return where they end."""
    at = _START + _SUPERBLOCK.size
    for node in nodes:
        _lay_out(node)
        length = _INODE.size + len(node.xattrs) + node.tail_length
        at = -(-at // 32) * 32
        if node.layout == _INLINE and at % _BLOCK + length > _BLOCK:
            at = -(-at // _BLOCK) * _BLOCK  # a tail is in one block with its inode's beginning
        node.at = at
        at += length
    return at


def _lay_out(node: _Node) -> None:
    entry = node.entry
    room = _BLOCK - _INODE.size - len(node.xattrs)
    if entry.kind is Kind.FILE and entry.size:
        node.layout, node.tail, node.tail_length = _CHUNKS, _NOWHERE, 4
        node.size = entry.size
    elif entry.kind is Kind.SYMLINK:
        target = os.fsencode(entry.target)
        node.size = len(target)
        _put_tail(node, target, len(target), room)
    elif entry.kind is Kind.DIRECTORY:
        parts = list(_split(node))
        full, last = parts[:-1], sum(_DIRENT.size + len(name) for name, _ in parts[-1])
        node.blocks = len(full)
        node.size = len(full) * _BLOCK + last
        _put_tail(node, b"", last, room)


def _put_tail(node: _Node, tail: bytes, length: int, room: int) -> None:
    if length <= room:
        node.layout, node.tail, node.tail_length = _INLINE, tail, length
    else:
        node.blocks += 1


def _split(node: _Node) -> Iterator[list[tuple[bytes, _Node]]]:
    """Yield what each block of a directory lists."""
    listed = sorted([(b".", node), (b"..", node.parent or node), *node.children], key=_name)
    part: list[tuple[bytes, _Node]] = []
    used = 0
    for name, child in listed:
        needed = _DIRENT.size + len(name)
        if used + needed > _BLOCK:
            yield part
            part, used = [], 0
        part.append((name, child))
        used += needed
    yield part


def _name(listed: tuple[bytes, _Node]) -> bytes:
    return listed[0]


def _place_blocks(nodes: list[_Node], first: int) -> int:
    for node in nodes:
        node.first_block = first
        first += node.blocks
    return first


def _blocks_of(node: _Node) -> Iterator[bytes]:
    if node.entry.kind is Kind.SYMLINK:
        yield os.fsencode(node.entry.target)
        return
    for part in list(_split(node))[: node.blocks]:
        yield _encode_part(part)


def _encode_part(part: list[tuple[bytes, _Node]]) -> bytes:
    entries: list[bytes] = []
    at = len(part) * _DIRENT.size
    for name, child in part:
        kind = _TYPES[stat_module.S_IFMT(child.entry.st_mode)]
        entries.append(_DIRENT.pack(child.number, at, kind, 0))
        at += len(name)
    return b"".join([*entries, *(name for name, _ in part)])


def _encode(node: _Node) -> bytes:
    entry = node.entry
    union = node.first_block
    tail = node.tail
    if node.layout == _CHUNKS:
        union = _CHUNK_FORMAT
    elif entry.kind in (Kind.CHAR, Kind.BLOCK):
        major, minor = os.major(entry.rdev), os.minor(entry.rdev)
        union = (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12
    elif entry.kind is Kind.DIRECTORY and node.layout == _INLINE:
        tail = _encode_part(list(_split(node))[-1])
    seconds, nanoseconds = divmod(entry.mtime_ns, 1_000_000_000)
    count = (len(node.xattrs) - len(_XATTR_HEADER)) // 4 + 1 if node.xattrs else 0
    inode = _INODE.pack(
        *(1 | node.layout << 1, count, entry.st_mode, 0, node.size, union & 0xFFFFFFFF),
        *(node.number & 0xFFFFFFFF, entry.uid, entry.gid, seconds, nanoseconds, node.links),
    )
    return inode + node.xattrs + tail


def _encode_xattrs(entry: Entry, where: Where) -> bytes:
    held: dict[str, bytes] = {}
    for name, value in entry.xattrs.items():
        if name.startswith("trusted.overlay."):
            # As overlayfs escapes what isn't its own (Linux 6.7).
            name = f"trusted.overlay.overlay.{name.removeprefix('trusted.overlay.')}"
        held[name] = value
    if entry.kind is Kind.FILE and entry.size:
        held["trusted.overlay.metacopy"] = b""
        held["trusted.overlay.redirect"] = os.fsencode(where(entry))
    parts: list[bytes] = []
    for name, value in held.items():
        for prefix, index in _PREFIXES:
            if name.startswith(prefix):
                rest = os.fsencode(name[len(prefix) :])
                part = _XATTR.pack(len(rest), index, len(value)) + rest + value
                parts.append(part.ljust(-(-len(part) // 4) * 4, b"\0"))
                break
    return _XATTR_HEADER + b"".join(parts) if parts else b""
