"""Acts: what a process is in the middle of when it dies or the disk fails, and the ground for it.

Each is one call of a driver, or a session with one call of a tree in it.
"""

from __future__ import annotations

import stat as stat_module
from collections.abc import Callable

import attrs

from ..driver import Driver
from ..entry import parent_of
from ..tree import Tree
from .files import pattern
from .kit import Store, key
from .oracle import Thing, directory, file, hardlink, opaque, symlink, whiteout

BASE: list[Thing] = [
    directory("", mtime_ns=1),
    directory("d", mode=0o750, uid=10, xattrs={"user.dir": b"1"}),
    file("d/f", pattern(20_000), mode=0o640, uid=10, xattrs={"user.x": b"1"}),
    file("d/h1", "linked"),
    hardlink("d/h2", "d/h1"),
    directory("d/sub"),
    file("d/sub/deep", "deep"),
    directory("e"),
    symlink("s", "d/f"),
]

NEW: list[Thing] = [
    directory("new", mode=0o1777),
    file("new/f", pattern(40_000, 2), uid=3, gid=4, xattrs={"trusted.t": b"2"}),
    file("d/f", "replaced", mode=0o4711),
    hardlink("new/h", "d/h1"),
    whiteout("d/sub"),
    opaque("d"),
    symlink("new/s", "../d"),
    file("d/again", pattern(3000, 3)),
]


def lay_ground(store: Store) -> None:
    """Make what every act finds: a layer, a container that was written in, and one on nothing."""
    base = store.layer("base", *BASE)
    origin = store.container("origin", base)
    with store.write(origin) as tree:
        tree.write_bytes("own", pattern(5000, 4))
        tree.unlink("d/h1")
        tree.chown("d/f", 5, 5)
    store.container("bare")


#: What is there between two acts, and stays.
GROUND = frozenset(map(key, ("base", "origin", "bare")))


def clear(driver: Driver) -> None:
    """Remove everything but the ground."""
    items = {item.id: item for item in driver.items() if item.id not in GROUND}
    while items:
        needed = {item.parent for item in items.values()}
        for id in [id for id in items if id not in needed]:
            driver.remove(id)
            del items[id]


def _nothing(driver: Driver) -> None:
    pass


@attrs.frozen(kw_only=True)
class Act:
    """``do`` on what ``ready`` made on the ground."""

    name: str
    do: Callable[[Driver], None]
    ready: Callable[[Driver], None] = _nothing
    #: Paths in container ``victim`` whose mtimes nobody promises, parents' included.
    touched: tuple[str, ...] = ()
    #: A file whose content may be a mixture of old and new.
    torn: str | None = None
    #: What is being made: until ``sync`` it may be there without its attributes and content.
    made: str | None = None
    #: Whether each of several things is whole or not there, rather than all or none.
    each: bool = False
    #: Whether a single failure, unlike a kill, leaves all or none nevertheless.
    undone: bool = False


# -- calls of a driver --------------------------------------------------------------------------


def seal(driver: Driver, name: str, parent: str | None, things: list[Thing]) -> None:
    """Seal one layer."""
    with driver.stage(parent) as stage:
        for thing in things:
            stage.add(thing.entry, thing.content())
        stage.seal(key(name))


def _commit(driver: Driver) -> None:
    from ..driver import change_entries

    with driver.tree(key("origin")) as tree, driver.stage(key("base")) as stage:
        for entry in change_entries(driver.changes(key("origin"))):
            if entry.kind.value == "file":
                with tree.open(entry.path) as content:
                    stage.add(entry, content)
            else:
                stage.add(entry)
        stage.seal(key("committed"))


def _victim(driver: Driver) -> None:
    driver.prepare(key("victim"), key("base"))


def _written_victim(driver: Driver) -> None:
    _victim(driver)
    with driver.tree(key("victim"), writable=True) as tree:
        tree.write_bytes("mine", pattern(9000, 5))
        tree.remove_tree("d/sub")


def _layer(driver: Driver) -> None:
    seal(driver, "layer", key("base"), NEW)


def _garbage(driver: Driver) -> None:
    for number in range(2):
        content = file("g", pattern(30_000, 7 + number))
        seal(driver, f"garbage{number}", None, [directory(""), content])
    driver.remove(key("garbage0"))


_MANY = [key(f"many{number}") for number in range(3)]

CALLS = [
    Act(name="sealing a base", do=lambda driver: seal(driver, "new", None, BASE)),
    Act(name="sealing a layer", do=lambda driver: seal(driver, "new", key("base"), NEW)),
    Act(name="sealing a container's changes", do=_commit),
    Act(name="preparing a container", do=_victim),
    Act(
        name="preparing a container on nothing",
        do=lambda driver: driver.prepare(key("victim"), None),
    ),
    Act(
        name="preparing many containers",
        do=lambda driver: driver.prepare_many(_MANY, key("base")),
        each=True,
        undone=True,
    ),
    Act(name="forking", do=lambda driver: driver.fork(key("origin"), key("fork"))),
    Act(
        name="removing a container",
        ready=_written_victim,
        do=lambda driver: driver.remove(key("victim")),
    ),
    Act(
        name="removing a layer",
        ready=_layer,
        do=lambda driver: driver.remove(key("layer")),
    ),
    Act(
        name="removing many containers",
        ready=lambda driver: driver.prepare_many(_MANY, key("base")),
        do=lambda driver: driver.remove_many(_MANY),
        each=True,
    ),
    Act(name="collecting", ready=_garbage, do=lambda driver: (driver.collect(), None)[1]),
]

#: Of which a power cut may leave anything.
UNSYNCED = Act(
    name="preparing a container that is thrown away soon",
    do=lambda driver: driver.prepare_unsynced(key("victim"), key("base")),
)


# -- calls of a tree ----------------------------------------------------------------------------


def _session(
    name: str,
    call: Callable[[Tree], object],
    *touched: str,
    torn: str | None = None,
    made: str | None = None,
) -> Act:
    def do(driver: Driver) -> None:
        with driver.tree(key("victim"), writable=True) as tree:
            call(tree)

    paths = {*touched, *map(parent_of, touched)}
    return Act(name=name, ready=_victim, do=do, touched=tuple(sorted(paths)), torn=torn, made=made)


def _overwrite(tree: Tree) -> None:
    with tree.open("d/f", "r+b") as content:
        content.seek(10_000)
        content.write(pattern(5000, 6))


def _apply(thing: Thing) -> Callable[[Tree], None]:
    return lambda tree: tree.apply(thing.entry, thing.content())


SESSIONS = [
    _session("mkdir", lambda t: t.mkdir("e/new", 0o1777), "e/new", made="e/new"),
    _session("symlink", lambda t: t.symlink("../d", "e/new"), "e/new", made="e/new"),
    _session("link", lambda t: t.link("d/h1", "e/h3"), "d/h1", "d/h2", "e/h3"),
    _session("mknod", lambda t: t.mknod("e/p", stat_module.S_IFIFO | 0o622), "e/p", made="e/p"),
    _session("rename", lambda t: t.rename("d/f", "e/f"), "d/f", "e/f"),
    _session("rename over", lambda t: t.rename("d/f", "d/h1"), "d/f", "d/h1", "d/h2"),
    _session("rename of a directory", lambda t: t.rename("d", "e/d"), "d", "e/d"),
    _session("unlink", lambda t: t.unlink("d/h1"), "d/h1", "d/h2"),
    _session("rmdir", lambda t: t.rmdir("e"), "e"),
    _session("chmod", lambda t: t.chmod("d/f", 0o4711), "d/f"),
    _session("chmod of a directory", lambda t: t.chmod("d", 0o1777), "d"),
    _session("chown", lambda t: t.chown("d/h2", 77, 88), "d/h1", "d/h2"),
    _session("utime", lambda t: t.utime("d/sub/deep", 12345), "d/sub/deep"),
    _session("setxattr", lambda t: t.setxattr("d/f", "trusted.new", b"1"), "d/f"),
    _session("removexattr", lambda t: t.removexattr("d/f", "user.x"), "d/f"),
    _session("truncate", lambda t: t.truncate("d/f", 100), "d/f", torn="d/f"),
    _session("overwriting", _overwrite, "d/f", torn="d/f"),
    _session(
        "applying a new file", _apply(file("e/new", pattern(9000), uid=3)), "e/new", made="e/new"
    ),
    _session("applying a file over one", _apply(file("d/f", pattern(9000), uid=3)), "d/f"),
]
