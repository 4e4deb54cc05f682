"""Driver: what stores layers and containers, and the promises it makes.

A driver keeps two kinds of things under IDs that core chooses: sealed read-only **layers** and
read-write **containers**. Both are seen as a ``Tree`` that includes all parents. Layer IDs are
OCI chain IDs in hex (image-spec, config.md, "Layer ChainID"): the same stack of diffs has the same
ID everywhere. Container IDs are 64 hex digits. A driver may use both as file names.

Core parses, validates and resolves everything that comes from outside. A driver receives entries
of which this is guaranteed: the parent directory exists in the merged view and is a real
directory (no link on the way); a HARDLINK's target exists and isn't a directory; FILE content is
exactly ``entry.size`` bytes; whiteouts name something that exists; the root stays a directory.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, ClassVar, NamedTuple, TypeAlias

import attrs

from .context import Closing
from .entry import Change, ChangeKind, Entry, Kind
from .errors import ConflictError, NotFoundError
from .tree import Tree


class Capability(enum.Enum):
    """What a driver declares it can do; shown by ``cowshed drivers``, gates conformance cases."""

    NATIVE_PATH = "trees are directories that processes can use"
    UNPRIVILEGED = "needs no privilege, keeps every attribute without it"
    INSTANT_PREPARE = "creating a container doesn't depend on the image's size"
    INSTANT_FORK = "forking a container doesn't depend on its or the image's size"
    NATIVE_CHANGES = "finding changes costs what was changed, not the image's size"
    SHARES_INODES = "equal files share an inode"
    SHARES_EXTENTS = "trees share extents of the file system until they are written"
    SHARES_CHUNKS = "equal parts of files are stored once"
    COMPRESSES = "stored data is compressed"
    VERIFIES_READS = "what is read is checked against its digest"


class Held(enum.Enum):
    """What an ID stands for."""

    LAYER = "layer"
    CONTAINER = "container"


class Item(NamedTuple):
    """One thing a driver holds."""

    id: str
    held: Held
    #: ID of the layer it stands on; None for a base.
    parent: str | None


class Usage(NamedTuple):
    """What one layer or container costs."""

    #: Bytes on disk that go away with it, were it removed alone.
    exclusive: int
    #: Bytes a user sees: content of the files that this layer or this container's writes brought;
    #: of a container, the FILEs in its changes, a file of several names once.
    apparent: int
    #: Inodes of the hosting file system that go away with it.
    inodes: int


class Problem(NamedTuple):
    """Something that ``verify`` found wrong. ``path`` is inside ``id``'s tree, or empty."""

    id: str
    path: str
    what: str


class NativeDirectory(NamedTuple):
    """An attachment: the container is a directory that processes may use, to write in as well."""

    path: str
    #: Whether the directory alone says everything: owners, modes and attributes. Where it doesn't,
    #: core would rather serve the tree.
    faithful: bool = True
    #: Whether whoever makes a file there can be told by its owner. Where that can't be, core would
    #: rather serve the tree, too, but do without it if it can't.
    tells_owners: bool = True


class OwnMount(NamedTuple):
    """An attachment: the driver mounts the container itself. What processes write there is the
    container's at once, in ``changes``, ``usage`` and forks too."""

    #: Mounts it at an existing directory, where it stays whatever becomes of this process.
    mount: Callable[[str], None]
    #: Takes the mount at that directory away; who has something open there may go on.
    unmount: Callable[[str], None]
    #: Mounts a container that is removed when nobody uses it any more: nothing that is written
    #: there has to reach the disk, ever, and nobody waits for it. None: it is mounted as others.
    mount_unsynced: Callable[[str], None] | None = None


class LayerContents(NamedTuple):
    """An attachment: the files of the layer that the container stands on have their contents at
    the same paths below ``directory``, byte for byte and as long as the layer lives. Attributes and
    everything that isn't a regular file are taken from the layer's tree. Nobody writes there."""

    directory: str


#: How processes can get at a container, told by ``Driver.attach``.
Attachment: TypeAlias = NativeDirectory | OwnMount | LayerContents


class Stage(abc.ABC):
    """A layer being written: write-only, invisible to everyone until sealed.

    Leaving the context without ``seal`` discards it. One thread uses a stage at a time.
    """

    @abc.abstractmethod
    def add(self, entry: Entry, content: BinaryIO | None = None) -> None:
        """Apply one entry on top of the parent and what was added before, as ``Tree.apply``.

        Must read FILE content to its end before returning and keep no reference to it.
        """

    @abc.abstractmethod
    def open(self, path: str) -> BinaryIO:
        """Read back a regular file that this stage was given (not its parent's)."""

    @abc.abstractmethod
    def seal(self, layer: str) -> None:
        """Publish as ``layer``, atomically and durably. Sealing what exists already is normal and
        changes nothing: two importers race, the contents are equal by the ID's meaning."""

    @abc.abstractmethod
    def discard(self) -> None:
        """Throw everything away. After ``seal`` or another ``discard`` it does nothing."""

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.discard()


class Driver(Closing):
    """A store of layers and containers below one directory that is the driver's own.

    Promises of every driver:

    * each call succeeds whole or leaves the store as it was, a crash in mid-call included, once
      ``recover`` has run;
    * what a call returned from is durable, unless ``durable`` is False;
    * a sealed layer never changes; a write in a container reaches that container only;
    * several processes may use one store at once, each through a ``Driver`` of its own, and so
      may several ``Driver`` objects of one process;
    * unknown IDs raise ``NotFoundError`` (a container is no layer to stand on, a layer no
      container to fork or to ask for changes), taken ones ``ConflictError`` (sealing a sealed
      layer again is fine), a removal that would orphan something ``InUseError``.
    """

    #: Set by core before use: False means that nothing need be synced (throw-away sheds).
    durable: bool = True

    name: ClassVar[str]

    @abc.abstractmethod
    def stage(self, parent: str | None) -> Stage:
        """Begin writing a layer on top of the sealed layer ``parent``.

        Its ID is given to ``Stage.seal``: a layer's ID follows from its bytes, which nobody knows
        before the last one was read.
        """

    @abc.abstractmethod
    def prepare(self, container: str, parent: str | None) -> None:
        """Make a container on the sealed layer ``parent``; None: on an empty root, mode 0755."""

    def prepare_unsynced(self, container: str, parent: str | None) -> None:
        """Make a container as ``prepare`` does, but one that is thrown away soon: if the machine
        stops before, it needn't be there, nor be whole, and must be removable all the same."""
        self.prepare(container, parent)

    @abc.abstractmethod
    def tree(self, id: str, *, writable: bool = False) -> Tree:
        """Open a layer (never writable: ``OSError(EROFS)``) or container. Core sees to it that a
        container has one writer at a time."""

    @abc.abstractmethod
    def changes(self, container: str) -> Iterator[Change]:
        """Yield the exact differences to the parent layer, in path order (parents first, names
        in byte order), even if every mtime was put back.

        A directory above a change is MODIFIED too, as Docker lists it; the root is listed only if
        its own attributes changed. A deleted directory is one DELETED, without its children. An
        object of another kind than before is MODIFIED. A renamed object is DELETED and ADDED.
        A change of an mtime alone counts. Where a file gained a name (a hard link was made), every
        name it has is a change, so that a layer made of the changes holds the link. Replayed on
        the parent (``apply_changes``), the changes give an equal tree, hard links included.
        """

    @abc.abstractmethod
    def remove(self, id: str) -> None:
        """Remove a layer without dependants, or a container; invisible at once, space later."""

    @abc.abstractmethod
    def usage(self, id: str) -> Usage:
        """Say what ``id`` costs."""

    @abc.abstractmethod
    def items(self) -> Iterator[Item]:
        """Yield everything sealed or prepared."""

    @abc.abstractmethod
    def recover(self) -> None:
        """Sweep what crashed or killed processes left; idempotent; leaves live stages alone."""

    @abc.abstractmethod
    def verify(self, id: str, *, deep: bool = False) -> Iterator[Problem]:
        """Look for damage: structure, with ``deep`` every byte."""

    @abc.abstractmethod
    def disk_usage(self) -> int:
        """Return all bytes on disk (allocated) below the driver's directory."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of everything. Closing twice is fine."""

    # -- with a default on top of the above ---------------------------------------------------

    def prepare_many(self, containers: Iterable[str], parent: str | None) -> None:
        """Make many containers at once; all or none."""
        begun: list[str] = []
        try:
            for container in containers:
                begun.append(container)
                self.prepare(container, parent)
        except BaseException as error:
            self.remove_many(begun[:-1])
            if begun and not isinstance(error, ConflictError):
                # It may be there: its directory is synced when it is.
                with suppress(NotFoundError):
                    self.remove(begun[-1])
            raise

    def remove_many(self, ids: Iterable[str]) -> None:
        """Remove many at once, in the order given."""
        for id in ids:
            self.remove(id)

    def fork(self, container: str, new: str) -> None:
        """Make ``new`` a container equal to ``container``, on the same parent."""
        for item in self.items():
            if item.id == container and item.held is Held.CONTAINER:
                break
        else:
            raise NotFoundError("container", container)
        self.prepare(new, item.parent)
        try:
            with self.tree(container) as source, self.tree(new, writable=True) as target:
                apply_changes(self.changes(container), source, target)
        except BaseException:
            self.remove(new)
            raise

    def attach(self, container: str, *, read_only: bool = False) -> Attachment | None:
        """Say how processes can get at a container's files; None: only through its ``tree``.

        Then core serves the tree to them, and brings what they wrote into it by its methods.
        """
        return None

    def economise(self) -> None:
        """Keep as little in memory as can be from now on: the process lives long, beside others
        that do the work."""

    def collect(self) -> int:
        """Give space back to the file system; return how many bytes."""
        return 0


def apply_changes(changes: Iterable[Change], source: Tree, target: Tree) -> None:
    """Replay ``changes``, whose contents are in ``source``, on ``target``; hard links kept."""
    for entry in change_entries(changes):
        if entry.kind is Kind.FILE:
            with source.open(entry.path) as content:
                target.apply(entry, content)
        else:
            target.apply(entry)


def change_entries(changes: Iterable[Change]) -> Iterator[Entry]:
    """Turn changes into a stream that ``Tree.apply`` and ``Stage.add`` take.

    A directory that stands where something else stood replaces it; every further name of an
    inode becomes a HARDLINK entry.
    """
    first_names: dict[int, str] = {}
    for change in changes:
        entry = change.entry
        if (
            change.kind is not ChangeKind.DELETED
            and entry.kind is not Kind.DIRECTORY
            and entry.inode
            and entry.links > 1
        ):
            first = first_names.setdefault(entry.inode, entry.path)
            if first != entry.path:
                yield Entry(path=entry.path, kind=Kind.HARDLINK, target=first)
                continue
        yield entry


@attrs.frozen(kw_only=True)
class DriverSpec:
    """How a driver is registered: light, so that listing drivers imports none of them.

    ``load`` returns the factory, importing what it needs only then. The factory is called as
    ``factory(root, options)`` with the driver's own directory (exists, mode 0700) and an instance
    of ``options`` made from the configuration.
    """

    #: As users write it: lower case, words joined by hyphens.
    name: str
    #: One line for ``cowshed drivers``.
    summary: str
    load: Callable[[], Callable[[Path, Any], Driver]]
    capabilities: frozenset[Capability] = frozenset()
    #: Says in one sentence why the driver can't run with its data at this path, or None.
    probe: Callable[[Path], str | None] = attrs.field(default=lambda root: None)
    #: An attrs class with defaults and validators; None: the driver takes no options.
    options: type[Any] | None = None
    #: Layers in one chain that it can hold; None: no bound.
    max_depth: int | None = None


def make_options(spec: DriverSpec, values: Mapping[str, object]) -> Any:
    """Build ``spec.options`` from configured values.

    Raises:
        ConfigError: an option the driver doesn't have, or a value its validator refuses.
    """
    from .errors import ConfigError, nearest

    known: dict[str, Any] = (
        {} if spec.options is None else {field.name: field for field in attrs.fields(spec.options)}
    )
    for name in values:
        if name.replace("-", "_") not in known:
            raise ConfigError(
                f"driver {spec.name} has no option {name!r}{nearest(name.replace('-', '_'), known)}"
            )
    if spec.options is None:
        return None
    try:
        return spec.options(**{name.replace("-", "_"): value for name, value in values.items()})
    except (TypeError, ValueError) as error:
        match error.args:
            case (_, attrs.Attribute(name=name), wanted, value):  # of instance_of
                kinds = {"int": "a whole number", "str": "a string", "bool": "true or false"}
                kind = str(getattr(wanted, "__name__", wanted))
                message = f"{name} must be {kinds.get(kind, kind)}, not {value!r}"
            case (message, *_):
                pass
            case _:
                message = str(error)
        raise ConfigError(f"driver {spec.name}: {message}") from error
