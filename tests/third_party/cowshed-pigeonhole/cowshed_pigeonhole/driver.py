"""pigeonhole: what files hold lies in holes that never change; a tree is an index of them.

    ROOT/lock                one file for all locks
    ROOT/trees/ID/index      what the tree is and stands on, and its nodes
    ROOT/trees/ID/DIGEST     a hole: content that this tree brought
    ROOT/staging/KEY/        a tree in the making or on its way out, the same inside

An index says where content lies that a layer below brought, "ID/DIGEST", so nothing is ever copied
from below. A container that nobody has written in has no nodes of its own at all.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from cowshed.comparing import compare_trees
from cowshed.driver import Change, Driver, Held, Item, Problem, Stage, Usage
from cowshed.entry import Entry, Kind
from cowshed.errors import ConflictError, InUseError, NotFoundError
from cowshed.indexed import Node, empty_root, walk
from cowshed.locking import Lock, LockFile
from cowshed.native.syscalls import sync_directory
from cowshed.native.usage import allocated_below
from cowshed.tree import Tree

from . import index
from .plugin import Options
from .tree import PigeonTree


class Pigeonhole(Driver):
    """A store of trees."""

    name = "pigeonhole"

    def __init__(self, root: Path, options: Options | None = None) -> None:
        self.options = options or Options()
        self.root, self.trees, self.staging = root, root / "trees", root / "staging"
        for directory in (self.trees, self.staging):
            directory.mkdir(mode=0o700, exist_ok=True)
        self.locks = LockFile(root / "lock")

    def close(self) -> None:
        pass

    # -- finding --------------------------------------------------------------------------------

    def items(self) -> Iterator[Item]:
        for home in sorted(self.trees.iterdir()):
            with suppress(FileNotFoundError):  # removed meanwhile
                yield index.read_item(home)

    def item(self, id: str, held: Held | None = None) -> Item:
        with suppress(FileNotFoundError):
            item = index.read_item(self.trees / id)
            if held in (None, item.held):
                return item
        raise NotFoundError(held.value if held else "layer or container", id)

    def nodes(self, id: str, held: Held | None = None) -> tuple[Item, Node]:
        """Return what ``id`` is and its root, for the caller to do with as it likes."""
        with suppress(FileNotFoundError):
            item, root = index.read(self.trees / id)
            if held in (None, item.held):
                return item, root or self.inherited(item.parent)
        raise NotFoundError(held.value if held else "layer or container", id)

    def inherited(self, parent: str | None) -> Node:
        """Return the root that whatever stands on ``parent`` starts with."""
        if parent is None:
            return empty_root()
        _, root = self.nodes(parent, Held.LAYER)
        for node in walk(root):
            if node.content and "/" not in node.content:
                node.content = f"{parent}/{node.content}"
        return root

    # -- layers ---------------------------------------------------------------------------------

    def stage(self, parent: str | None) -> Stage:
        return PigeonStage(self, self.inherited(parent), parent)

    def publish(self, home: Path, id: str, held: Held, parent: str | None) -> None:
        """Rename a finished tree into place, unless it is a layer that is there already."""
        with self.locks.acquire("publish"):
            if parent is not None:
                self.item(parent, Held.LAYER)
            try:
                taken = self.item(id).held
            except NotFoundError:
                home.rename(self.trees / id)
            else:
                if not taken is held is Held.LAYER:
                    raise ConflictError(f"{taken.value} {id} exists already")
        if self.durable:
            sync_directory(str(self.trees))

    def remove(self, id: str) -> None:
        trash = self.staging / secrets.token_hex(8)
        with self.locks.acquire("publish"):
            if self.item(id).held is Held.LAYER:
                for item in self.items():
                    if item.parent == id:
                        raise InUseError(f"layer {id} is needed by {item.held.value} {item.id}")
            (self.trees / id).rename(trash)
        if self.durable:
            sync_directory(str(self.trees))
        shutil.rmtree(trash, ignore_errors=True)

    # -- containers -----------------------------------------------------------------------------

    def prepare(self, container: str, parent: str | None) -> None:
        with Workspace(self) as home:
            index.write(home, Held.CONTAINER, parent, None, self.durable)
            self.publish(home, container, Held.CONTAINER, parent)

    def fork(self, container: str, new: str) -> None:
        with Workspace(self) as home, self.using(container):
            item, root = self.nodes(container, Held.CONTAINER)
            for name in {node.content for node in walk(root)}:
                if name and "/" not in name:
                    self._share(self.trees / container / name, home / name)
            index.write(home, Held.CONTAINER, item.parent, root, self.durable)
            self.publish(home, new, Held.CONTAINER, item.parent)

    def _share(self, hole: Path, other: Path) -> None:
        if self.options.link_forks:
            try:
                os.link(hole, other)
                return
            except OSError as error:
                if error.errno != errno.EMLINK:  # a file has 65,000 names at most on ext4
                    raise
        with hole.open("rb") as old, other.open("xb") as new:
            shutil.copyfileobj(old, new)
            if self.durable:
                new.flush()
                os.fsync(new.fileno())

    def tree(self, id: str, *, writable: bool = False) -> Tree:
        lock = self.using(id)
        try:
            item, root = self.nodes(id)
            if writable and item.held is Held.LAYER:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), id)
        except BaseException:
            lock.release()
            raise
        home = self.trees / id

        def save() -> None:
            index.write(home, item.held, item.parent, root, self.durable)

        def let_go() -> None:
            lock.release()
            if writable:
                self.sweep(home)

        return PigeonTree(
            root,
            home,
            self.trees,
            writable=writable,
            durable=self.durable,
            save=save,
            let_go=let_go,
        )

    def changes(self, container: str) -> Iterator[Change]:
        item = self.item(container, Held.CONTAINER)
        old = PigeonTree(self.inherited(item.parent), self.trees, self.trees)
        with self.tree(container) as new:
            assert isinstance(new, PigeonTree)
            # The name of a hole is the digest of its content.
            yield from compare_trees(
                old,
                new,
                lambda path: old.hole(old.find(path)).name == new.hole(new.find(path)).name,
            )

    # -- housekeeping ---------------------------------------------------------------------------

    def using(self, id: str) -> Lock:
        """Keep a tree's holes while somebody may look into them."""
        return self.locks.acquire(f"using:{id}", shared=True)

    def sweep(self, home: Path) -> None:
        """Remove the holes that no file needs any more, if nobody looks into them."""
        alone = self.locks.attempt(f"using:{home.name}")
        if alone is not None:
            with alone, suppress(FileNotFoundError):
                _, root = index.read(home)
                keep_only(home, root)

    def recover(self) -> None:
        for home in self.staging.iterdir():
            dead = self.locks.attempt(f"staging:{home.name}")
            if dead is not None:
                with dead:
                    shutil.rmtree(home, ignore_errors=True)
        for item in self.items():
            if item.held is Held.CONTAINER:
                self.sweep(self.trees / item.id)

    def usage(self, id: str) -> Usage:
        item, root = self.nodes(id)
        if item.held is Held.LAYER:
            brought = [node.size for node in walk(root) if "/" not in node.content]
        else:
            entries = [change.entry for change in self.changes(id)]
            files = {entry.inode: entry.size for entry in entries if entry.kind is Kind.FILE}
            brought = list(files.values())
        found = [path.stat() for path in (self.trees / id).iterdir()]
        # What a fork has too doesn't go away.
        blocks = [one.st_blocks for one in found if one.st_nlink == 1]
        return Usage(exclusive=sum(blocks) * 512, apparent=sum(brought), inodes=len(blocks) + 1)

    def disk_usage(self) -> int:
        return allocated_below(str(self.root))

    def verify(self, id: str, *, deep: bool = False) -> Iterator[Problem]:
        with self.tree(id) as tree:
            assert isinstance(tree, PigeonTree)
            for entry in tree.walk():
                node = tree.find(entry.path)
                if node.content:
                    what = damage(tree.hole(node), node.size, deep)
                    if what:
                        yield Problem(id=id, path=entry.path, what=what)


class Workspace:
    """A directory of its own to make a tree in, which ``recover`` leaves to its process."""

    def __init__(self, driver: Pigeonhole) -> None:
        key = secrets.token_hex(8)
        # Locked before it is there, or a recover in between would take it for a dead one.
        self._lock = driver.locks.acquire(f"staging:{key}")
        self.home = driver.staging / key
        self.home.mkdir(mode=0o700)

    def close(self) -> None:
        """Throw away what is left: nothing, once it was renamed. Twice is fine."""
        shutil.rmtree(self.home, ignore_errors=True)
        self._lock.release()

    def __enter__(self) -> Path:
        return self.home

    def __exit__(self, *_: object) -> None:
        self.close()


class PigeonStage(Stage):
    """A tree in a workspace that becomes a layer."""

    def __init__(self, driver: Pigeonhole, root: Node, parent: str | None) -> None:
        self._driver, self._parent = driver, parent
        self._workspace = Workspace(driver)
        self._tree = PigeonTree(
            root, self._workspace.home, driver.trees, writable=True, durable=driver.durable
        )

    def add(self, entry: Entry, content: BinaryIO | None = None) -> None:
        self._tree.apply(entry, content)

    def open(self, path: str) -> BinaryIO:
        if "/" in self._tree.find(path).content:
            raise FileNotFoundError(errno.ENOENT, "not a file of this stage", path)
        return self._tree.open(path)

    def seal(self, layer: str) -> None:
        home, root = self._workspace.home, self._tree.root
        keep_only(home, root)
        index.write(home, Held.LAYER, self._parent, root, self._driver.durable)
        self._driver.publish(home, layer, Held.LAYER, self._parent)
        self.discard()

    def discard(self) -> None:
        self._workspace.close()


def keep_only(home: Path, root: Node | None) -> None:
    """Remove from a tree's directory what isn't its index or content of its files."""
    needed = {node.content for node in walk(root)} if root else set[str]()
    for path in home.iterdir():
        if path.name not in needed and path.name != index.NAME:
            path.unlink()


def damage(hole: Path, size: int, deep: bool) -> str | None:
    """Say what is wrong with a hole, or None."""
    try:
        with hole.open("rb") as content:
            if os.fstat(content.fileno()).st_size != size:
                return f"it should hold {size} bytes"
            if deep and hashlib.file_digest(content, "sha256").hexdigest() != hole.name:
                return "it doesn't hold what was put in"
    except OSError as error:
        return f"it can't be read: {error}"
    return None
