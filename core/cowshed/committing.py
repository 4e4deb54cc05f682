"""Commit: a container's changes become a layer, written, hashed and stored in one pass.

The changes are written as a tar in one thread and read back through the import path in another,
so that a committed layer has a recipe, a diff ID and a place in the driver exactly as an imported
one has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

from .adding import add_image, require_depth
from .container import current
from .driver import change_entries
from .epoch import source_date_epoch, timestamp
from .errors import BusyError
from .importing import Importer
from .lease import Lease
from .names import image_name
from .oci import new_config
from .pipes import piped

if TYPE_CHECKING:
    from .image import Image
    from .records import ContainerRecord
    from .shed import Shed


def commit(
    shed: Shed,
    record: ContainerRecord,
    name: str | None,
    author: str,
    message: str,
    changes: Sequence[str],
) -> Image:
    """See ``Container.commit``."""
    names = () if name is None else (image_name(name),)
    with shed.catalog.read() as transaction:
        record = current(transaction, record)
    base = shed.image(f"sha256:{record.image}") if record.image else None
    config = None if base is None else base.config
    # Unusable changes are refused before anything is written.
    new_config(config, None, created=timestamp(), changes=changes)
    shed.running.settle([record])
    shed.mounting.settle([record.id])
    driver = shed.driver(record.driver)
    changed = next(shed.running.shown(record, driver.changes(record.id)), None) is not None
    chains = [] if base is None else list(base.record.chains)
    diff_ids = [] if base is None else list(base.record.diff_ids)
    size = 0 if base is None else base.size
    diff_id: str | None = None
    lease = Lease(shed.catalog, shed.locks, "commit")
    try:
        with shed.making(record.driver), lease:
            if record.chain:
                with shed.catalog.write() as transaction:
                    if current(transaction, record).driver != record.driver:
                        raise BusyError(f"container {record.name} was moved just now; try again")
                    lease.hold_layer(transaction, record.driver, record.chain)
            if changed:
                require_depth(shed, record.driver, len(chains) + 1)
                layer = Importer(shed, record.driver, None).store(
                    lease,
                    lambda: piped(lambda out: _write(shed, record, out)),
                    chain="",
                    parent=record.chain,
                    diff_id="",
                )
                chains.append(layer.chain)
                diff_ids.append(layer.diff_id)
                size += layer.size
                diff_id = layer.diff_id
            made = new_config(
                config,
                diff_id,
                created=timestamp(),
                author=author,
                comment=message,
                created_by=f"cowshed commit {record.name}",
                changes=changes,
            )
            shed.blobs.put(made.raw)
            image = add_image(shed, lease, made, names, chains, diff_ids, size, record.driver)
    finally:
        shed.drop_layers(lease.gone)
    shed.plugins.notify("committed", shed=shed, container=record.id, image=image.id)
    return shed.image(f"sha256:{image.id}")


def _write(shed: Shed, record: ContainerRecord, out: BinaryIO) -> None:
    from .archive import write_layer

    epoch = source_date_epoch()
    driver = shed.driver(record.driver)
    with driver.tree(record.id) as tree:
        write_layer(
            change_entries(shed.running.shown(record, driver.changes(record.id))),
            tree.open,
            out,
            clamp_mtime_ns=None if epoch is None else epoch * 1_000_000_000,
        )
