"""Import: from a source's layers to sealed layers in a driver and an image in the catalog.

For every layer, base first, under that layer's lock: if the driver has it, hold it; otherwise read
it through digest, decompression and diff ID into a stage, compare everything with what the source
promised, publish the recipe, seal, and record it, held by the lease. One last transaction makes
the image and drops the lease. Whatever goes wrong before it leaves only what the lease names, and
the lease takes that along.

A layer that another chain of this shed already holds under the same diff ID is replayed from there
and not read from the source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING, BinaryIO

import attrs

from .adding import add_image, chain_id_above, layer_lock, require_depth
from .epoch import timestamp
from .errors import (
    ArchiveError,
    CowshedError,
    DigestMismatchError,
    LimitExceededError,
    NoSpaceError,
)
from .layer_reading import LayerReader
from .lease import Lease
from .oci import ImageConfig, chain_ids, new_config
from .records import ImageRecord, LayerRecord
from .transport import AlreadyHereError

if TYPE_CHECKING:
    from .shed import Shed
    from .transport import SourceImage, SourceLayer


@attrs.frozen(kw_only=True)
class LayerEvent:
    """News of one layer while an image is imported."""

    #: ``fetching`` (from another thread, for sources that are far away), ``fetched``, ``exists``,
    #: ``reading``, ``done``.
    state: str
    #: Diff ID where known, otherwise the blob's digest.
    layer: str
    #: Position, from 0, and how many there are.
    index: int
    count: int
    #: Bytes read so far of the source's (compressed) layer and how many there are, if known.
    read: int = 0
    total: int | None = None
    #: Bytes of the layer's files, once done.
    size: int = 0


Listener = Callable[[LayerEvent], None]


@attrs.frozen(kw_only=True)
class Imported:
    """What an import did."""

    image: ImageRecord
    names: tuple[str, ...]
    layers: int
    #: How many of them the shed had already.
    existing: int
    bytes_read: int
    #: Bytes of layers that came from a source far away, of how many they have together.
    received: int = 0
    total: int = 0


class Importer:
    """Brings one image into one driver."""

    def __init__(self, shed: Shed, driver: str, listener: Listener | None) -> None:
        self._shed = shed
        self.driver = driver
        self._listener = listener
        self.existing = 0
        self.bytes_read = 0

    def run(self, source: SourceImage, names: Sequence[str]) -> Imported:
        """Import ``source`` and give it ``names``."""
        config = source.config
        if config is not None and (here := self._here(config)) is not None:
            return self._named(here, source, names)
        chains: list[str] = []
        diff_ids: list[str] = []
        sizes = 0
        if config is not None:
            config.check_layers(len(source.layers))
            expected = [chain.removeprefix("sha256:") for chain in chain_ids(config.diff_ids)]
        else:
            expected = [""] * len(source.layers)
        shed = self._shed
        require_depth(shed, self.driver, len(source.layers))
        lease = Lease(shed.catalog, shed.locks, "import")
        try:
            with lease:
                for index, layer in enumerate(source.layers):
                    parent = chains[-1] if chains else ""
                    stored = self._layer(lease, layer, expected[index], parent, index, source)
                    chains.append(stored.chain)
                    diff_ids.append(stored.diff_id)
                    sizes += stored.size
                if config is None:
                    config = _made_config(source, diff_ids)
                record = self._commit(lease, source, config, names, chains, diff_ids, sizes)
        finally:
            shed.drop_layers(lease.gone)
        return Imported(
            image=record,
            names=tuple(names),
            layers=len(source.layers),
            existing=self.existing,
            bytes_read=self.bytes_read,
        )

    def has(self, source: SourceImage) -> bool:
        """Say whether the driver has the whole image, so that ``run`` only names it."""
        return source.config is not None and self._here(source.config) is not None

    def _here(self, config: ImageConfig) -> ImageRecord | None:
        """Return the image if the driver has all of it."""
        with self._shed.catalog.read() as transaction:
            record = transaction.image(config.digest.removeprefix("sha256:"))
        return record if record is not None and self.driver in record.drivers else None

    def _named(self, here: ImageRecord, source: SourceImage, names: Sequence[str]) -> Imported:
        """Give a complete image its names, which takes no write at all where it has them."""
        shed = self._shed
        config = source.config
        assert config is not None
        config.check_layers(len(source.layers))
        with shed.catalog.read() as transaction:
            missing = [name for name in names if transaction.image_named(name) != here.id]
        if missing:
            with shed.catalog.write() as transaction:
                there = transaction.image(here.id) is not None
                for name in missing if there else ():
                    transaction.name_image(name, here.id)
            if not there:  # removed meanwhile
                return self.run(source, names)
            shed.plugins.notify("image_added", shed=shed, image=here.id, names=tuple(names))
        for index, layer in enumerate(source.layers):
            self._tell("exists", layer, index, len(source.layers))
        self.existing = len(source.layers)
        return Imported(
            image=here,
            names=tuple(names),
            layers=len(source.layers),
            existing=self.existing,
            bytes_read=0,
        )

    # -- one layer ----------------------------------------------------------------------------

    def _layer(
        self,
        lease: Lease,
        layer: SourceLayer,
        chain: str,
        parent: str,
        index: int,
        source: SourceImage,
    ) -> LayerRecord:
        while True:
            # Another process may be at it and want the lock that is taken below: so it is waited
            # for before.
            if chain and layer.ready is not None and self.wants(source, index):
                with suppress(AlreadyHereError):
                    layer.ready()
            try:
                return self._locked(lease, layer, chain, parent, index, len(source.layers))
            except AlreadyHereError:
                continue

    def _locked(
        self, lease: Lease, layer: SourceLayer, chain: str, parent: str, index: int, count: int
    ) -> LayerRecord:
        """Make a layer unless it is here. AlreadyHereError: look once more."""
        shed, driver = self._shed, self.driver

        def progress(done: int) -> None:
            self._tell("reading", layer, index, count, read=done)

        with ExitStack() as stack:
            if chain:
                stack.enter_context(shed.locks.acquire(layer_lock(driver, chain)))
            here = (self._known(lease, chain) if chain else None) or self._replayed(
                lease, layer, chain, parent
            )
            if here is not None:
                self.existing += 1
                self._tell("exists", layer, index, count, size=here.size)
                return here
            progress(0)
            record, read = self._read(lease, layer, chain, parent, progress)
            self.bytes_read += read
        self._tell("done", layer, index, count, read=read, size=record.size)
        return record

    def _read(
        self,
        lease: Lease,
        layer: SourceLayer,
        chain: str,
        parent: str,
        progress: Callable[[int], None],
    ) -> tuple[LayerRecord, int]:
        """Make the layer of the source's bytes; return how many those were.

        Damage is the digest's to report: it names the blob, and what an earlier transfer left is
        fetched once more.
        """
        record = self._assembled(lease, layer, chain, parent)
        if record is not None:
            self._remember(layer, record)
            return record, 0
        while True:
            with closing(LayerReader(self._shed, layer, progress)) as read:
                try:
                    record = self.store(
                        lease, read.open, chain, parent, layer.diff_id or "", read.verify
                    )
                except LimitExceededError:
                    raise
                except (ArchiveError, DigestMismatchError):
                    if layer.descriptor is None:
                        raise
                    try:
                        read.verify()
                    except DigestMismatchError:
                        if not read.again:
                            raise
                        continue
                    raise
                self._remember(layer, record)
                return record, read.count

    def _assembled(
        self, lease: Lease, layer: SourceLayer, chain: str, parent: str
    ) -> LayerRecord | None:
        """Make the layer of what is here and parts of the blob; None: it takes the whole blob.

        The diff ID proves it. What can't be put together so may be well as a whole, and if not, the
        whole says better what is wrong.
        """
        if layer.assemble is None or layer.give_up is None or not layer.diff_id:
            return None
        tar = layer.assemble()
        if tar is None:
            return None
        try:
            return self.store(lease, lambda: tar, chain, parent, layer.diff_id)
        except NoSpaceError:
            raise
        except CowshedError:
            layer.give_up()
            return None

    def _remember(self, layer: SourceLayer, record: LayerRecord) -> None:
        """Keep the digests that the layer's table of contents has, for layers to come."""
        if layer.descriptor is None or not layer.descriptor.annotations:
            return
        from .holdings import contents_of, pack_digests

        with suppress(CowshedError, OSError):  # it would only have saved transfers
            contents = contents_of(layer, self._shed.limits)
            if contents is not None:
                self._shed.recipes.put_digests(record.diff_id, pack_digests(contents))

    def _known(self, lease: Lease, chain: str) -> LayerRecord | None:
        """Hold the layer if the driver has it."""
        with self._shed.catalog.read() as transaction:
            if transaction.layer(self.driver, chain) is None:
                return None
        with self._shed.catalog.write() as transaction:
            record = transaction.layer(self.driver, chain)
            if record is not None:
                lease.hold_layer(transaction, self.driver, chain)
        return record

    def _replayed(
        self, lease: Lease, layer: SourceLayer, chain: str, parent: str
    ) -> LayerRecord | None:
        """Take the layer's bytes from another chain or driver of this shed that holds them."""
        if not layer.diff_id or not chain:
            return None
        twin = self._shed.layer_with_diff_id(layer.diff_id)
        if twin is None:
            return None
        with self._shed.catalog.write() as transaction:
            if transaction.layer(twin.driver, twin.chain) is None:
                return None
            lease.hold_layer(transaction, twin.driver, twin.chain)
        try:
            return self.store(
                lease, lambda: self._shed.open_layer_tar(twin), chain, parent, layer.diff_id
            )
        except NoSpaceError:
            raise
        except CowshedError:
            return None  # what can't be given back here is whole in the source

    def store(
        self,
        lease: Lease,
        open_tar: Callable[[], BinaryIO],
        chain: str,
        parent: str,
        diff_id: str,
        verify: Callable[[], None] = lambda: None,
    ) -> LayerRecord:
        """Read an uncompressed layer tar into a stage, check it, seal it and record it.

        ``chain`` and ``diff_id`` are what is expected; empty: they follow from the bytes.
        """
        from .archive import apply_layer

        shed = self._shed
        driver = shed.driver(self.driver)
        lease.announce()
        with ExitStack() as stack:
            below = stack.enter_context(driver.tree(parent)) if parent else None
            stage = stack.enter_context(driver.stage(parent or None))
            recipe = stack.enter_context(shed.recipes.writer())
            with open_tar() as tar:
                stats = apply_layer(
                    tar,
                    stage,
                    below,
                    recipe=recipe.file,
                    limits=shed.limits,
                    scratch=str(shed.home.temporary),
                )
            verify()
            if diff_id and stats.diff_id != diff_id:
                raise DigestMismatchError("layer's diff ID", diff_id, stats.diff_id)
            sealed = chain or chain_id_above(parent, stats.diff_id)
            if not chain:
                stack.enter_context(shed.locks.acquire(layer_lock(self.driver, sealed)))
            recipe.publish(stats.diff_id)
            with shed.catalog.write() as transaction:
                lease.own(transaction, self.driver, [sealed])
            stage.seal(sealed)
            record = LayerRecord(
                driver=self.driver,
                chain=sealed,
                diff_id=stats.diff_id,
                parent=parent,
                size=stats.size,
                tar_size=stats.tar_size,
                entries=stats.entries,
            )
            with shed.catalog.write() as transaction:
                if transaction.layer(self.driver, sealed) is None:
                    transaction.put_layer(record)
                transaction.absolve(self.driver, sealed)
                lease.hold_layer(transaction, self.driver, sealed)
        shed.plugins.notify(
            "layer_sealed", shed=shed, driver=self.driver, layer=sealed, size=stats.size
        )
        return record

    # -- the image ----------------------------------------------------------------------------

    def _commit(
        self,
        lease: Lease,
        source: SourceImage,
        config: ImageConfig,
        names: Sequence[str],
        chains: list[str],
        diff_ids: list[str],
        size: int,
    ) -> ImageRecord:
        shed = self._shed
        manifest = shed.blobs.put(source.manifest.raw) if source.manifest is not None else ""
        shed.blobs.put(config.raw)
        return add_image(shed, lease, config, names, chains, diff_ids, size, self.driver, manifest)

    def tell_fetched(
        self, layer: SourceLayer, index: int, count: int, done: int, complete: bool
    ) -> None:
        """Pass on how far a layer's transfer is; called from the threads that fetch."""
        self._tell("fetched" if complete else "fetching", layer, index, count, read=done)

    def wants(self, source: SourceImage, index: int) -> bool:
        """Say whether a layer has to come from the source, as far as the shed knows."""
        assert source.config is not None
        chain = chain_ids(source.config.diff_ids[: index + 1])[-1].removeprefix("sha256:")
        with self._shed.catalog.read() as transaction:
            if transaction.layer(self.driver, chain) is not None:
                return False
        return self._shed.layer_with_diff_id(source.config.diff_ids[index]) is None

    def _tell(
        self,
        state: str,
        layer: SourceLayer,
        index: int,
        count: int,
        read: int = 0,
        size: int = 0,
    ) -> None:
        total = layer.descriptor.size if layer.descriptor is not None else None
        label = layer.diff_id or (layer.descriptor.digest if layer.descriptor else "")
        if self._listener is not None:
            self._listener(
                LayerEvent(
                    state=state, layer=label, index=index, count=count,
                    read=read, total=total, size=size,
                )
            )  # fmt: skip
        if self._shed.plugins.listens("progress"):
            self._shed.plugins.notify(
                "progress",
                shed=self._shed, operation="import", what=label, done=read, total=total,
            )  # fmt: skip


def _made_config(source: SourceImage, diff_ids: Sequence[str]) -> ImageConfig:
    return new_config(
        None,
        diff_ids[0] if diff_ids else None,
        created=timestamp(),
        author="",
        comment="",
        created_by=f"cowshed import {source.origin}",
        changes=(),
    )
