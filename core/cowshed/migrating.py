"""Migrate: the same layers and containers in another driver.

A layer's exact tar is put together from the old driver and read into the new one, its diff ID
compared on the way. A container's changes are replayed on a fresh one.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from .adding import layer_lock, require_depth
from .container import Container, current
from .driver import apply_changes
from .errors import CorruptError, NotFoundError
from .importing import Importer
from .lease import Lease
from .records import ContainerRecord, ImageRecord, LayerRecord

if TYPE_CHECKING:
    from .catalog import Transaction
    from .shed import Shed


@attrs.frozen(kw_only=True)
class Migrated:
    """What ``migrate`` moved."""

    images: int
    containers: int
    layers: int


def migrate(shed: Shed, to: str, references: Sequence[str]) -> Migrated:
    """See ``Shed.migrate``. Naming an image doesn't move its containers, nor the reverse."""
    images: list[ImageRecord] = []
    containers: list[Container] = []
    if references:
        for reference in references:
            try:
                containers.append(shed.container(reference))
            except NotFoundError:
                images.append(shed.image(reference).record)
    else:
        images = [image.record for image in shed.images()]
        containers = shed.containers()
    layers = 0
    for image in images:
        layers += unpack_in(shed, image, to, leave_others=True)
    moved = 0
    for container in containers:
        written = _move(shed, container, to)
        if written is not None:
            layers += written
            moved += 1
    return Migrated(images=len(images), containers=moved, layers=layers)


def unpack_in(shed: Shed, image: ImageRecord, driver: str, *, leave_others: bool = False) -> int:
    """Store an image's layers in another driver too; return how many were written.

    With ``leave_others`` the image's layers in all other drivers are released.
    """
    gone: list[LayerRecord] = []
    lease = Lease(shed.catalog, shed.locks, "migrate")
    try:
        with shed.making(driver), lease:
            with shed.catalog.write() as transaction:
                source = _image_now(transaction, image).drivers[0]
                if image.chain:
                    lease.hold_layer(transaction, source, image.chain)
            written = copy_chain(shed, lease, image.chains, source, driver)
            with shed.catalog.write() as transaction:
                now = _image_now(transaction, image)
                others = [name for name in now.drivers if name != driver]
                if driver not in now.drivers and now.chain:
                    transaction.hold_layer(driver, now.chain)
                if leave_others and now.chain:
                    for other in others:
                        gone += transaction.release_layer(other, now.chain)
                drivers = (driver,) if leave_others else (*others, driver)
                transaction.put_image(now._replace(drivers=drivers))
                lease.finish(transaction)
    finally:
        shed.drop_layers([*gone, *lease.gone])
    return written


def _image_now(transaction: Transaction, image: ImageRecord) -> ImageRecord:
    now = transaction.image(image.id)
    if now is None:
        raise NotFoundError("image", image.id[:12])
    return now


def copy_chain(shed: Shed, lease: Lease, chains: Sequence[str], source: str, driver: str) -> int:
    """Bring a chain of layers, base first, from one driver to another; return how many."""
    require_depth(shed, driver, len(chains))
    written = 0
    parent = ""
    importer = Importer(shed, driver, None)
    for chain in chains:
        with shed.locks.acquire(layer_lock(driver, chain)):
            with shed.catalog.write() as transaction:
                record = transaction.layer(source, chain)
                present = transaction.layer(driver, chain) is not None
                if present:
                    lease.hold_layer(transaction, driver, chain)
                elif record is not None:
                    lease.hold_layer(transaction, source, chain)
            if not present:
                if record is None:
                    raise CorruptError(f"layer {chain[:12]}", f"missing in driver {source}")
                importer.store(
                    lease,
                    functools.partial(shed.open_layer_tar, record),
                    chain,
                    parent,
                    record.diff_id,
                )
                written += 1
        parent = chain
    return written


def _move(shed: Shed, container: Container, to: str) -> int | None:
    """Move one container; return how many layers were written, None if it is there already."""
    from .sweep import drop, take_back

    if container.driver == to:
        return None
    shed.running.require_stopped([container.record], force=False)
    shed.mounting.require_unmounted([container.record], force=False)
    shed.running.settle([container.record])
    lease = Lease(shed.catalog, shed.locks, "migrate")
    gone: list[LayerRecord] = []
    try:
        with container.writer_lock(), shed.making(to), lease:
            with shed.catalog.read() as transaction:
                record = current(transaction, container.record)
            if record.driver == to:
                return None  # somebody else moved it while we waited
            old, new = shed.driver(record.driver), shed.driver(to)
            if record.chain:
                with shed.catalog.write() as transaction:
                    current(transaction, record)  # "rm --force" doesn't wait for us
                    lease.hold_layer(transaction, record.driver, record.chain)
            written = copy_chain(shed, lease, _chain_of(shed, record), record.driver, to)
            # What a killed attempt left under this ID must be gone before, not after.
            drop(shed, to, [record.id])
            with shed.locks.acquire(layer_lock(to, record.id)):
                with shed.catalog.write() as transaction:
                    lease.own(transaction, to, [record.id])
                new.prepare(record.id, record.chain or None)
                try:
                    with (
                        old.tree(record.id) as source,
                        new.tree(record.id, writable=True) as target,
                    ):
                        apply_changes(old.changes(record.id), source, target)
                    with shed.catalog.write() as transaction:
                        gone += transaction.move_container(current(transaction, record), to)
                        lease.finish(transaction)
                except BaseException:
                    take_back(shed, to, [record.id])
                    raise
        drop(shed, record.driver, [record.id])
    finally:
        shed.drop_layers([*gone, *lease.gone])
    return written


def _chain_of(shed: Shed, record: ContainerRecord) -> list[str]:
    """Return the chain IDs a container stands on, base first."""
    chains: list[str] = []
    with shed.catalog.read() as transaction:
        chain = record.chain
        while chain:
            chains.append(chain)
            layer = transaction.layer(record.driver, chain)
            if layer is None:
                raise CorruptError(f"container {record.name}", f"layer {chain[:12]} is missing")
            chain = layer.parent
    return chains[::-1]
