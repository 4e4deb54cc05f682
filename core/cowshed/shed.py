"""Shed: the front door. Everything the command line can do is a method here.

    with cowshed.Shed("/var/lib/sandboxes") as shed:
        image = shed.import_image("oci:debian:12", "debian:12")[0]
        container = shed.create("debian:12")
        with container.tree(writable=True) as tree:
            tree.write_bytes("etc/motd", b"hello\\n")
        for change in container.diff():
            print(change.kind.value, change.path)

Opening a shed loads no driver; the first use of one does. Several processes may open one shed,
and one process may use it from several threads. After ``os.fork`` open it again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, Unpack

from .catalog import Catalog, Transaction
from .config import Config, load_config
from .context import Closing
from .errors import (
    AmbiguousError,
    CowshedError,
    DriverError,
    NotFoundError,
    ReadOnlyError,
    UsageError,
)
from .home import Home
from .locking import FILES_LOCK, LockFile, making_lock
from .names import SCRATCH, image_name, is_id_prefix
from .plugin_manager import Plugins
from .records import ImageRecord, LayerRecord

if TYPE_CHECKING:
    from .accounts import DiskUsage
    from .archive import Limits
    from .blobs import BlobStore
    from .checkup import Finding
    from .container import Container
    from .driver import Driver, DriverSpec
    from .image import Image
    from .importing import Imported, Listener
    from .migrating import Migrated
    from .mounting import Mounted, Mounts
    from .mounting.kept import Kept
    from .recipes import RecipeStore
    from .running.options import How
    from .running.runs import Runs
    from .running.supervising import Ended
    from .saving import SavedListener
    from .sweep import Collected
    from .target import Written

Result = TypeVar("Result")


class Shed(Closing):
    """One store of images and containers, below one directory."""

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        driver: str | None = None,
        config: Config | str | os.PathLike[str] | None = None,
        overrides: Mapping[str, Any] | None = None,
        plugins: Mapping[str, object] | None = None,
    ) -> None:
        """Open a shed, making it if there is none at ``root``.

        ``config`` is a ready ``Config`` or the path of a ``cowshed.toml``; ``overrides`` goes
        over it by dotted names; ``plugins`` are registered under their names besides those found.

        Raises:
            ConfigError: the configuration is wrong.
            StoreError: the directory can't be a shed (see ``Home``).
        """
        if isinstance(config, Config):
            self.config = config
        else:
            arguments = {"root": None if root is None else os.fspath(root), "driver": driver}
            self.config = load_config(arguments, file=config, overrides=overrides)
        self.plugins = Plugins()
        self.plugins.load(self.config)
        for name, plugin in (plugins or {}).items():
            self.plugins.register(plugin, name)
        self.home = Home(self.config.root)
        self.read_only = self.home.read_only
        self.locks = LockFile(self.home.locks)
        self.catalog = Catalog(
            self.home.catalog, durable=self.config.durable, read_only=self.read_only
        )
        self._drivers: dict[str, Driver] = {}
        self._drivers_lock = threading.Lock()
        self._kept: Kept | None = None
        self._closed = False
        if self._has_abandoned():
            from .sweep import finish_abandoned  # 60 ms, and seldom needed

            # A full disk or a broken driver, whatever it raises, mustn't keep anybody from reading;
            # gc says what it is.
            with suppress(Exception):
                finish_abandoned(self)
        self.plugins.notify("shed_opened", shed=self)

    def _has_abandoned(self) -> bool:
        if self.read_only:
            return False  # nothing could be done about it
        with self.catalog.read() as transaction:
            if transaction.other_leases() or transaction.doomed():
                return True
            temporary = transaction.some_leases_of_containers(1)
        if not temporary:
            return False
        from .temporary import any_left

        return any_left(self)

    def close(self) -> None:
        """Let go of drivers, catalog and layers that stayed mounted. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._kept is not None:
                self._kept.close()
        finally:
            for driver in self._drivers.values():
                driver.close()
            self.catalog.close()

    # -- images -------------------------------------------------------------------------------

    def import_image(
        self,
        source: str,
        name: str | None = None,
        *,
        driver: str | None = None,
        platform: str | None = None,
        listener: Listener | None = None,
    ) -> list[Imported]:
        """Import what ``source`` (``oci:DIR[:TAG]``, ``docker-archive:FILE`` …) holds.

        Layers the shed has are neither read nor stored again. ``listener`` is told layer by layer.

        Raises:
            SourceError: it isn't acceptable; nothing of it stays.
            UsageError: unknown transport, or a name for several images.
        """
        from .transferring import import_from

        name = None if name is None else image_name(name)
        chosen = self.choose_driver(driver, name or source)
        return self._run(
            "import",
            {"source": source, "image": name, "driver": chosen},
            lambda: import_from(self, source, name, chosen, platform, listener),
            vetoable=True,
        )

    def pull(
        self,
        reference: str,
        name: str | None = None,
        *,
        driver: str | None = None,
        platform: str | None = None,
        listener: Listener | None = None,
    ) -> list[Imported]:
        """Import an image of a registry, ``[HOST/]NAME[:TAG][@DIGEST]``; see ``import_image``.

        A reference with a transport (``docker://…``, ``oci:…``) means what it says.
        """
        from .transferring import in_full

        return self.import_image(
            in_full(self, reference), name, driver=driver, platform=platform, listener=listener
        )

    def save(
        self,
        images: Sequence[str],
        target: str,
        *,
        compression: str | None = None,
        level: int | None = None,
        listener: SavedListener | None = None,
    ) -> None:
        """Write images to ``target`` (``oci:DIR[:TAG]``, ``oci-archive:FILE`` …).

        The layers' diff IDs are those that were imported, whichever driver holds them. Without
        ``compression``, layers whose blobs are kept go out as those, the others with gzip.

        Raises:
            CorruptError: a layer can't be given back as it came; the target isn't written.
        """
        from .saving import save_to

        self._run(
            "save",
            {"images": tuple(images), "target": target},
            lambda: save_to(
                self, [self.image(one) for one in images], target, compression, level, listener
            ),
        )

    def push(
        self,
        image: str,
        target: str | None = None,
        *,
        compression: str | None = None,
        level: int | None = None,
        listener: SavedListener | None = None,
    ) -> Written | None:
        """Write one image to ``target``, by default the registry that its name says.

        Layers that are there already aren't sent. The manifest is the one that the image came
        with, byte for byte, where the registry gets all the blobs that it names.
        """
        from .saving import push

        return self._run(
            "push",
            {"image": image, "target": target},
            lambda: push(self, self.image(image), image, target, compression, level, listener),
        )

    def copy(
        self,
        source: str,
        target: str,
        *,
        platform: str | None = None,
        compression: str | None = None,
        level: int | None = None,
        listener: SavedListener | None = None,
    ) -> Sequence[Written]:
        """Copy images from one transport to another; nothing of them stays in the shed.

        Layers go as they are, unless ``compression`` asks for something else.
        """
        from .saving import copy

        return self._run(
            "copy",
            {"source": source, "target": target},
            lambda: copy(self, source, target, platform, compression, level, listener),
        )

    def images(self) -> list[Image]:
        """Return all images, newest first."""
        from .image import list_images

        return list_images(self)

    def image(self, reference: str) -> Image:
        """Return the image of that name, ID or unambiguous ID prefix.

        Raises:
            NotFoundError, AmbiguousError: none or several answer to it.
        """
        from .image import Image

        with self.catalog.read() as transaction:
            record = self.find_image(transaction, reference)
            return Image(self, record, _names_of(transaction, record.id))

    def find_image(self, transaction: Transaction, reference: str) -> ImageRecord:
        """Look an image up in a transaction; see ``image``."""
        try:
            id = transaction.image_named(image_name(reference))
        except UsageError:
            id = None
        if id is None:
            prefix = reference.removeprefix("sha256:")
            matches = transaction.ids_with_prefix("images", prefix) if is_id_prefix(prefix) else []
            if len(matches) > 1:
                raise AmbiguousError("image", reference, matches)
            if not matches:
                known = [name for name, _ in transaction.image_names()]
                raise NotFoundError("image", reference, [*known, *_without_tags(known)])
            id = matches[0]
        record = transaction.image(id)
        if record is None:
            raise NotFoundError("image", reference)
        return record

    def tag(self, reference: str, name: str) -> None:
        """Give an image another name; a name that another image had moves over."""
        name = image_name(name)

        def run() -> None:
            with self.catalog.write() as transaction:
                record = self.find_image(transaction, reference)
                transaction.name_image(name, record.id)

        self._run("tag", {"image": reference, "name": name}, run)

    def remove_image(self, reference: str, *, force: bool = False) -> list[str]:
        """Remove a name of an image, and with the last name the image and its unshared layers.

        Returns lines as Docker prints them (``Untagged: …``, ``Deleted: …``). With an ID all names
        go. An image that containers use, or an ID with several names, is removed only by ``force``;
        the containers keep the layers they stand on.

        Raises:
            InUseError: it is in use, or has several names.
        """
        from .image import remove_image

        return self._run(
            "rmi",
            {"image": reference, "force": force},
            lambda: remove_image(self, reference, force=force),
            vetoable=True,
        )

    # -- containers ---------------------------------------------------------------------------

    def create(
        self, image: str, name: str | None = None, *, driver: str | None = None
    ) -> Container:
        """Make a container on an image (``scratch``: on nothing).

        Raises:
            ConflictError: the name is taken.
        """
        return self.create_many(image, 1, names=None if name is None else [name], driver=driver)[0]

    def create_many(
        self,
        image: str,
        count: int,
        *,
        names: Sequence[str] | None = None,
        driver: str | None = None,
    ) -> list[Container]:
        """Make ``count`` containers on an image in one batch: all or none."""
        from .creating import create

        if count < 1:
            raise UsageError(f"can't create {count} containers; --count takes 1 or more")
        return self._run(
            "create",
            {"image": image, "count": count, "driver": driver},
            lambda: create(self, image, count, names, driver),
            vetoable=True,
        )

    def temporary(
        self, image: str, name: str | None = None, *, driver: str | None = None
    ) -> AbstractContextManager[Container]:
        """Make a container that is removed, whoever uses it, when the context is left.

        If this process is killed or the machine stops before, then somebody who opens the shed
        later removes it, or ``gc``, as soon as no process uses it any more. So none of it is
        synced, which saves up to some seconds, and what is committed of it is. Errors as
        ``create``'s.
        """
        from .temporary import temporary

        return temporary(self, image, name, driver)

    def containers(self) -> list[Container]:
        """Return all containers, newest first."""
        from .container import list_containers

        return list_containers(self)

    def container(self, reference: str) -> Container:
        """Return the container of that name, ID or unambiguous ID prefix.

        Raises:
            NotFoundError, AmbiguousError: none or several answer to it.
        """
        from .container import find

        return find(self, reference)

    def remove_containers(self, references: Sequence[str], *, force: bool = False) -> list[str]:
        """Remove containers, each with exactly its read-write layer; return the references.

        Raises:
            BusyError: one is being written just now and ``force`` isn't given.
        """
        from .removing import remove

        return self._run(
            "rm",
            {"containers": tuple(references), "force": force},
            lambda: remove(self, references, force=force),
            vetoable=True,
        )

    def mounts(self) -> list[Mounted]:
        """Return the mounts of containers, the dead ones too."""
        return self.mounting.list()

    @property
    def mounting(self) -> Mounts:
        """What mounts containers and remembers the mounts."""
        from .mounting import Mounts

        return Mounts(self)

    @property
    def kept(self) -> Kept:
        """What stays mounted until this is closed, or else until nobody has it any more."""
        with self._drivers_lock:
            if self._kept is None:
                import weakref

                from .mounting.kept import Kept

                self._kept = Kept(self.home.root, self.locks)
                weakref.finalize(self, self._kept.close)
            return self._kept

    @property
    def running(self) -> Runs:
        """What runs processes in containers and remembers which run."""
        from .running.runs import Runs

        return Runs(self)

    def run(
        self,
        image: str,
        command: Sequence[str] = (),
        *,
        name: str | None = None,
        driver: str | None = None,
        remove: bool = True,
        input: bytes | None = None,
        capture: bool = False,
        timeout: float | None = None,
        **how: Unpack[How],
    ) -> Ended:
        """Run a process in a new container on ``image``, and remove that; see ``Container.run``."""
        with ExitStack() as stack:
            if remove:
                container = stack.enter_context(self.temporary(image, name, driver=driver))
            else:
                container = self.create(image, name, driver=driver)
            return container.run(
                command, input=input, capture=capture, timeout=timeout, discard=remove, **how
            )

    # -- the shed -----------------------------------------------------------------------------

    def df(self) -> DiskUsage:
        """Say where the bytes on disk are; the parts add up to ``total``."""
        from .accounts import disk_usage

        return self._run("df", {}, lambda: disk_usage(self))

    def gc(self) -> Collected:
        """Remove what nothing refers to and give the space back."""
        from .sweep import collect

        self.require_writable()
        return self._run("gc", {}, lambda: collect(self))

    def check(self, *, deep: bool = False) -> list[Finding]:
        """Look for damage; ``deep`` re-hashes everything. An empty list is good news."""
        from .checkup import check

        return self._run("check", {"deep": deep}, lambda: check(self, deep=deep))

    def migrate(self, to: str, references: Sequence[str] = ()) -> Migrated:
        """Move images and containers (all, or those named) into driver ``to``."""
        from .migrating import migrate

        self.require_writable()
        self.driver(to)
        return self._run(
            "migrate",
            {"driver": to, "references": tuple(references)},
            lambda: migrate(self, to, references),
            vetoable=True,
        )

    # -- drivers ------------------------------------------------------------------------------

    def driver_spec(self, name: str) -> DriverSpec:
        """Return how a driver is registered. NotFoundError suggests the nearest name."""
        return self.plugins.drivers.find(name)

    def probe(self, name: str) -> str | None:
        """Say in one sentence why a driver can't run here; None if it can."""
        from .interface import probe

        try:
            return probe(self.driver_spec(name), self.home.drivers)
        except DriverError as error:
            return error.reason

    def driver(self, name: str) -> Driver:
        """Return a driver, opened on first use.

        Raises:
            NotFoundError: no plugin brings it.
            DriverError: it can't run here.
            ConfigError: its configured options are wrong.
        """
        driver = self._drivers.get(name)
        if driver is None:
            with self._drivers_lock:
                driver = self._drivers.get(name) or self._open_driver(name)
                self._drivers[name] = driver
        return driver

    def _open_driver(self, name: str) -> Driver:
        from .driver import make_options
        from .interface import open_driver, probe
        from .probed import is_known, remember

        spec = self.driver_spec(name)
        options = make_options(spec, self.config.driver_options(name))
        if not is_known(self.home.root, name, self.home.drivers):
            reason = probe(spec, self.home.drivers)
            if reason is not None:
                raise DriverError(name, f"can't run here: {reason}")
            remember(self.home.root, name, self.home.drivers)
        return open_driver(spec, self.home.driver(name), options, durable=self.config.durable)

    def choose_driver(self, asked: str | None, about: str) -> str:
        """Return the driver to use: argument, then what the user configured, then plugins'
        policy, then the default. A driver that was named is never silently replaced."""
        name: str = asked or self.config["driver"]
        if asked is None and not self.driver_was_named:
            name = self.plugins.choose_driver(self, about) or name
        # One that has stored something here was known; whoever opens it looks it up again. To look
        # up means to import all drivers' specs: a tenth of a pull that has nothing to fetch.
        if name not in self.drivers_in_use():
            self.driver_spec(name)
        return name

    @property
    def driver_was_named(self) -> bool:
        """Whether a person configured the driver, by file, environment or argument."""
        return self.config.sources["driver"] != "default"

    def drivers_in_use(self) -> list[str]:
        """Return the drivers that have a directory in this shed."""
        try:
            return sorted(os.listdir(self.home.drivers))
        except FileNotFoundError:
            return []

    # -- for the operations in this package ---------------------------------------------------

    def _run(
        self,
        operation: str,
        details: Mapping[str, Any],
        function: Callable[[], Result],
        *,
        vetoable: bool = False,
    ) -> Result:
        if vetoable:
            self.require_writable()
        return self.plugins.run(self, operation, details, function, vetoable=vetoable)

    operate = _run

    def require_writable(self) -> None:
        """Raise ReadOnlyError if the shed can't be changed."""
        if self.read_only:
            raise ReadOnlyError(
                f"shed {self.home.root} is on a read-only disk; nothing can be changed"
            )

    @contextmanager
    def making(self, driver: str) -> Generator[None, None, None]:
        """Keep the sweeper off what is being made until the catalog knows of it."""
        with ExitStack() as stack:
            stack.enter_context(self.locks.acquire(making_lock(driver), shared=True))
            stack.enter_context(self.locks.acquire(FILES_LOCK, shared=True))
            yield

    @property
    def blobs(self) -> BlobStore:
        """Manifests, configs and kept layer blobs."""
        from .blobs import BlobStore

        return BlobStore(self.home.root, durable=self.config.durable)

    @property
    def recipes(self) -> RecipeStore:
        """How layers' tars are put together again."""
        from .recipes import RecipeStore

        return RecipeStore(self.home.recipes, self.home.temporary, durable=self.config.durable)

    @property
    def limits(self) -> Limits:
        """Bounds for untrusted layers, as configured."""
        from .config import limits_from

        return limits_from(self.config)

    @property
    def partial_limits(self) -> tuple[float, int]:
        """Seconds and bytes that broken transfers may be kept for and take."""
        return self.config["partial_days"] * 86400.0, self.config["partial_bytes"]

    def kept_layer_blobs(self, manifest: str) -> list[str]:
        """Return the digests of the layers that a kept manifest names."""
        from .oci import Manifest

        try:
            parsed = Manifest.parse(self.blobs.read(manifest))
        except (CowshedError, OSError):
            return []
        return [layer.digest for layer in parsed.layers]

    def layer_with_diff_id(self, diff_id: str) -> LayerRecord | None:
        """Return a layer with that diff ID whose tar this shed can give back, if any."""
        if not self.recipes.has(diff_id):
            return None
        with self.catalog.read() as transaction:
            return next(
                (record for record in transaction.layers() if record.diff_id == diff_id), None
            )

    def open_layer_tar(self, record: LayerRecord) -> BinaryIO:
        """Open the exact uncompressed tar of a layer."""
        from .pipes import piped

        return piped(lambda out: self.write_layer_tar(record, out))

    def write_layer_tar(self, record: LayerRecord, out: BinaryIO) -> str:
        """Write the exact uncompressed tar of a layer; return its diff ID.

        Raises:
            CorruptError: the stored files don't give it back.
        """
        from .archive import replay
        from .errors import CorruptError

        with (
            self.recipes.open(record.diff_id) as recipe,
            self.driver(record.driver).tree(record.chain) as tree,
        ):
            diff_id = replay(recipe, tree, out)
        if diff_id != record.diff_id:
            raise CorruptError(
                f"layer {record.chain[:12]}", f"gives diff ID {diff_id}, not {record.diff_id}"
            )
        return diff_id

    def drop_layers(self, records: Sequence[LayerRecord]) -> None:
        """Remove from their drivers layers that a transaction has just doomed."""
        if not records:
            return
        from .sweep import drop

        by_driver: dict[str, list[str]] = {}
        for record in records:
            by_driver.setdefault(record.driver, []).append(record.chain)
        for driver, chains in by_driver.items():
            drop(self, driver, chains)

    def disk_usage(self) -> int:
        """Return all bytes allocated below the shed's directory."""
        from .accounts import whole

        return whole(self)

    @property
    def root(self) -> Path:
        """The shed's directory."""
        return self.home.root


def _names_of(transaction: Transaction, id: str) -> tuple[str, ...]:
    return tuple(name for name, named in transaction.image_names() if named == id)


def _without_tags(names: Sequence[str]) -> list[str]:
    return [name.removesuffix(":latest") for name in names if name.endswith(":latest")]


__all__ = ["SCRATCH", "Shed"]
