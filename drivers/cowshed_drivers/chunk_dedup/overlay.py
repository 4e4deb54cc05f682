"""Overlay: changes in memory on top of a stored tree, for stages and for writable trees alike.

A ``Folder`` is a directory loaded for writing: a copy of its entries, and the folders below it
that were loaded too. The digest in a directory's record is stale as long as its folder is loaded;
``encode`` writes folders from the bottom up, mends the records and yields the new root. Everything
that was not touched stays shared with the old tree by digest.

Paths are expected in Entry form. Errors are those of ``os``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from cowshed.entry import Entry, Kind, parent_of

from .folder import Folder
from .links import Table
from .node import Listing, Root
from .nodes import Nodes
from .record import (
    DIRECTORY,
    LINKED,
    Record,
    change,
    from_entry,
    inode_of,
    payload,
    weight,
    with_payload,
)

NAME_MAX = 255

#: Names of a file up to which each record always says how many there are: most have no more, and
#: the directories of many names lie apart.
_PAIR = 2
#: New entries, of some 300 bytes each, before folders are better unloaded.
_FRESH_MAX = 32_768
#: Entries loaded that count as one that is new.
_LOADED = 2
#: Entries of one folder that are better written to a file.
_SPILL_AT = 16_384
#: Folders that have a file, before they are better written and loaded again where needed.
_LARGE_MAX = 16


def failure(number: int, path: str) -> OSError:
    """Return the error that ``os`` would raise."""
    return OSError(number, os.strerror(number), path)


class Overlay:
    """A tree that can be changed, beginning as the stored tree ``root``."""

    def __init__(self, nodes: Nodes, root: bytes, spilling: Path | None = None) -> None:
        """``spilling``: where to write entries of very large directories meanwhile."""
        self._nodes = nodes
        self._spilling = spilling
        self._table: Table | None = None
        self.reset(root)

    def reset(self, root: bytes) -> None:
        """Begin anew from a stored tree."""
        self.base = root
        self._root = self._nodes.root(root)
        self.record = self._root.record
        self._top: Folder | None = None
        self._close_table()
        self._next_inode = self._root.next_inode
        self._recent: tuple[str, Folder] | None = None
        self._fresh = 0
        self.changed = False

    # -- looking ------------------------------------------------------------------------------

    def find(self, path: str) -> Record | None:
        """Return what is at ``path``, or None where the last component is missing.

        Raises:
            FileNotFoundError, NotADirectoryError: for something on the way.
        """
        if not path:
            return self.record
        directory, _, name = path.rpartition("/")
        return self._at(directory).get(name)

    def get(self, path: str) -> Record:
        """Return what is at ``path``; FileNotFoundError where nothing is."""
        record = self.find(path)
        if record is None:
            raise failure(errno.ENOENT, path)
        return record

    def entries(self, path: str) -> Listing:
        """Return the entries of directory ``path``; not to be changed, order is not promised."""
        found = self._at(path)
        return found.entries if isinstance(found, Folder) else found

    def _at(self, path: str) -> Folder | Listing:
        """Return directory ``path``: its folder, if it is loaded."""
        recent = self._recent
        if recent is not None and recent[0] == path:
            return recent[1]
        found: Folder | Listing | None = self._top
        if found is None:
            found = self._nodes.directory(payload(self.record))
        for part in path.split("/") if path else ():
            below = found.get(part)
            if below is None:
                raise failure(errno.ENOENT, path)
            if below[0] != DIRECTORY:
                raise failure(errno.ENOTDIR, path)
            loaded = found.folders.get(part) if isinstance(found, Folder) else None
            found = self._nodes.directory(payload(below)) if loaded is None else loaded
        return found

    def own(self, path: str) -> Folder:
        """Return directory ``path`` loaded for writing."""
        recent = self._recent
        if recent is not None and recent[0] == path:
            return recent[1]
        self.changed = True
        folder = self._top
        if folder is None:
            folder = self._top = self._load(payload(self.record))
        if path:
            for part in path.split("/"):
                below = folder.get(part)
                if below is None:
                    raise failure(errno.ENOENT, path)
                if below[0] != DIRECTORY:
                    raise failure(errno.ENOTDIR, path)
                inner = folder.folders.get(part)
                if inner is None:
                    inner = folder.folders[part] = self._load(payload(below))
                folder = inner
        self._recent = (path, folder)
        return folder

    def _load(self, digest: bytes) -> Folder:
        listing = self._nodes.directory(digest)
        if isinstance(listing, dict) or self._spilling is None:
            # A load is cheaper to have than a new entry, and to be done again dearer.
            self._fresh += len(listing) // _LOADED
            return Folder(dict(listing.items()))
        folder = Folder({})
        for name, record in listing.items():
            folder.put(name, record)
            folder.spill(self._spilling, _FRESH_MAX)
        return folder

    # -- changing -----------------------------------------------------------------------------

    def replace(self, path: str, record: Record) -> None:
        """Replace what is at ``path``, at every name that it has. Its kind stays."""
        self.changed = True
        if not path:
            self.record = record
            return
        inode = inode_of(record)
        for name in self.names(inode) if inode else (path,):
            self._put(name, record)

    def touch(self, path: str, mtime_ns: int) -> None:
        """Set the modification time of directory ``path``."""
        self.replace(path, change(self.get(path), mtime_ns=mtime_ns))

    def create(self, path: str, record: Record) -> None:
        """Put a new object where nothing is."""
        directory, _, name = path.rpartition("/")
        check_name(name, path)
        self.own(directory).put(name, record)
        self._fresh += weight(record)

    def delete(self, path: str) -> None:
        """Take away ``path`` and everything below it."""
        directory, _, name = path.rpartition("/")
        folder = self.own(directory)
        record = self.get(path)
        folder.remove(name)
        below = folder.folders.pop(name, None)
        if record[0] == DIRECTORY:
            self._recent = None
            if not below.is_empty if below is not None else payload(record):
                self._drop_links_below(path)
        elif record[1] & LINKED:
            inode = inode_of(record)
            self._settle_row(inode, self.table.drop(inode, path))
        if folder.is_large:
            self._grown(folder, 1)

    def clear(self, path: str) -> None:
        """Take away everything that directory ``path`` holds."""
        folder = self.own(path)
        if not folder.is_empty:
            self._drop_links_below(path)
            folder.clear()
        self._recent = None

    def move(self, source: str, destination: str) -> None:
        """Move ``source`` to ``destination``, where nothing is."""
        above, _, name = source.rpartition("/")
        below, _, new_name = destination.rpartition("/")
        check_name(new_name, destination)
        target = self.own(below)
        folder = self.own(above)
        record = folder.entries.pop(name)
        loaded = folder.folders.pop(name, None)
        self._recent = None
        target.entries[new_name] = record
        if loaded is not None:
            target.folders[new_name] = loaded
        if record[0] == DIRECTORY:
            self._rename_links_below(source, destination)
        elif record[1] & LINKED:
            inode = inode_of(record)
            self.table.put(inode, self.names(inode) - {source} | {destination})

    # -- hard links ---------------------------------------------------------------------------

    @property
    def table(self) -> Table:
        """The names of every file that has several."""
        if self._table is None:
            self._table = Table(self._nodes, self._root.links, self._spilling)
        return self._table

    def names(self, inode: int) -> set[str]:
        """Return every path of a file with several names; not to be changed."""
        return self.table.names(inode)

    def link(self, existing: str, path: str) -> None:
        """Make ``path``, where nothing is, another name of ``existing``."""
        check_name(path.rpartition("/")[2], path)
        self.own(parent_of(path))
        record = self.get(existing)
        inode = inode_of(record)
        if inode:
            count = self.table.add(inode, path)
        else:
            inode = self._next_inode
            self._next_inode += 1
            count = 2
            self.table.put(inode, {existing, path})
        self._fresh += 1
        record = change(record, inode=inode, links=count)
        if self._is_counted_late(count):
            self.changed = True
            self._put(path, record)
        else:
            self.replace(existing, record)

    def _is_counted_late(self, count: int) -> bool:
        """Say whether a file has so many names that its records don't say how many, until the end:
        nobody asks a stage."""
        return count > _PAIR and self._spilling is not None

    def _put(self, path: str, record: Record) -> None:
        directory, _, name = path.rpartition("/")
        self.own(directory).put(name, record)

    def _settle_row(self, inode: int, count: int) -> None:
        """Say in the records of a file that has lost names how many are left."""
        if self._is_counted_late(count):
            return
        names = self.names(inode) if count else set[str]()
        if names:
            record = change(self.get(min(names)), inode=inode, links=count)
            for name in names:
                self._put(name, record)
        if count < 2:
            self.table.put(inode, ())

    def _drop_links_below(self, path: str) -> None:
        prefix = f"{path}/" if path else ""
        for inode in self.table.below(prefix):
            self._settle_row(inode, self.table.drop_below(inode, prefix))

    def _rename_links_below(self, source: str, destination: str) -> None:
        prefix = f"{source}/"
        for inode in self.table.below(prefix):
            names = self.names(inode)
            self.table.put(
                inode,
                {
                    destination + name[len(source) :] if name.startswith(prefix) else name
                    for name in names
                },
            )

    def _count_names(self, put: Callable[[bytes], bytes]) -> None:
        """Say in each record of a file of more names than two how many there are, one directory
        after the other: by files, each would be loaded and written again and again."""
        table = self._table
        if table is None or self._spilling is None:
            return
        for path in table.parents(_PAIR + 1):
            folder = self.own(path)
            for name, record in folder.items():
                inode = inode_of(record)
                count = table.changed_count(inode) if inode else 0
                if count > _PAIR:
                    folder.put(name, change(record, inode=inode, links=count))
                    self._grown(folder, 1)
            if self.is_crowded:
                self.unload(put)

    def _close_table(self) -> None:
        table, self._table = self._table, None
        if table is not None:
            table.close()

    # -- a stream's entries -------------------------------------------------------------------

    def apply(self, entry: Entry, record: Record | None) -> None:
        """Make ``entry.path`` exactly ``entry``, as ``Tree.apply``; a FILE's record is given."""
        path = entry.path
        kind = entry.kind
        if kind is Kind.OPAQUE:
            self.get(path)
            self.clear(path)
            return
        if not path:
            fresh = with_payload(from_entry(entry), payload(self.record))
            self.changed = True
            self.record = fresh
            return
        directory, _, name = path.rpartition("/")
        check_name(name, path)
        folder = self.own(directory)
        old = folder.get(name)
        if record is None and kind is not Kind.WHITEOUT and kind is not Kind.HARDLINK:
            record = from_entry(entry)
        if old is not None:
            if kind is Kind.DIRECTORY and old[0] == DIRECTORY and record is not None:
                folder.put(name, with_payload(record, payload(old)))
                return
            if kind is Kind.HARDLINK and self._is_name_of(path, old, entry.target):
                return
            if old[0] == DIRECTORY or old[1] & LINKED:
                self.delete(path)
            elif kind is Kind.WHITEOUT or kind is Kind.HARDLINK:
                folder.remove(name)
                if folder.is_large:
                    self._grown(folder, 1)
        elif kind is Kind.WHITEOUT:
            raise failure(errno.ENOENT, path)
        if kind is Kind.HARDLINK:
            if self.get(entry.target)[0] == DIRECTORY:
                raise failure(errno.EPERM, entry.target)
            self.link(entry.target, path)
        elif record is not None:
            folder = self.own(directory)
            folder.put(name, record)
            self._grown(folder, weight(record))

    def _grown(self, folder: Folder, by: int) -> None:
        """Note that more is in memory."""
        self._fresh += by
        if self._fresh >= _FRESH_MAX and self._spilling is not None:
            self._fresh = max(0, self._fresh - folder.spill(self._spilling, _SPILL_AT))

    def _is_name_of(self, path: str, record: Record, target: str) -> bool:
        if path == target:
            return True
        inode = inode_of(record)
        return bool(inode) and self.table.has(inode, target)

    # -- storing ------------------------------------------------------------------------------

    def encode(self, put: Callable[[bytes], bytes]) -> bytes:
        """Write every loaded folder and the root as objects; return the new root's digest."""
        if not self.changed:
            return self.base
        self._count_names(put)
        self.unload(put, all_of_them=True)
        table = self._root.links if self._table is None else self._table.store(put)
        return put(Root(self.record, table, self._next_inode).encode())

    @property
    def is_crowded(self) -> bool:
        """Whether folders take so much memory that they are better unloaded."""
        if self._fresh < _FRESH_MAX:
            return False
        if self._spilling is not None or self._recent is None:
            return True
        # A directory that is large by itself is soon loaded again: ever more rarely, then.
        return self._fresh > len(self._recent[1].entries)

    def unload(self, put: Callable[[bytes], bytes], *, all_of_them: bool = False) -> None:
        """Write loaded folders as objects and forget them; they are loaded again where they are
        needed. Those that are large stay, and what they are in, unless ``all_of_them`` go."""
        self._fresh = 0
        self._recent = None
        if self._top is None:
            return
        # Deep first with a stack of our own: images hold trees deeper than Python recurses.
        order: list[tuple[Folder | None, str, Folder]] = [(None, "", self._top)]
        for _, _, folder in order:
            order += [(folder, name, below) for name, below in folder.folders.items()]
        if sum(folder.is_large for _, _, folder in order) > _LARGE_MAX:
            all_of_them = True
        for above, name, folder in reversed(order):
            if not all_of_them and (folder.is_large or folder.folders):
                if folder.is_large and self._spilling is not None:
                    folder.spill(self._spilling, 0)
                continue
            digest = folder.store(put)
            folder.close()
            if above is None:
                self.record = with_payload(self.record, digest)
                self._top = None
            else:
                record = above.get(name)
                assert record is not None
                above.put(name, with_payload(record, digest))
                del above.folders[name]

    def close(self) -> None:
        """Let go of files. What is loaded is lost."""
        self._close_table()
        folders = [] if self._top is None else [self._top]
        for folder in folders:
            folder.close()
            folders += folder.folders.values()


def check_name(name: str, path: str) -> None:
    """Refuse what can't be a name in a directory."""
    if name in ("", ".", ".."):
        raise failure(errno.EINVAL, path)
    if len(name) * 4 > NAME_MAX and len(os.fsencode(name)) > NAME_MAX:
        raise failure(errno.ENAMETOOLONG, path)
