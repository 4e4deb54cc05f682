"""Removing: containers, each with exactly its read-write layer.

The catalog forgets them first, so that they are gone for everybody at once; the driver's part is
swept if it can't be done now.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .container import find_record, lock_key
from .errors import InUseError
from .records import ContainerRecord, LayerRecord
from .sweep import DROPPED_AT_ONCE, drop

if TYPE_CHECKING:
    from .lease import Lease
    from .shed import Shed


def remove(
    shed: Shed, references: Sequence[str], *, force: bool, lease: Lease | None = None
) -> list[str]:
    """See ``Shed.remove_containers``. A temporary container's ``lease`` ends with it."""
    with shed.catalog.read() as transaction:
        records = {
            record.id: record for record in (find_record(transaction, ref) for ref in references)
        }
    ids = list(records)
    for start in range(0, len(ids), DROPPED_AT_ONCE):
        some = [records[id] for id in ids[start : start + DROPPED_AT_ONCE]]
        _remove(shed, some, force=force, lease=lease)
    return list(references)


def _remove(
    shed: Shed, records: Sequence[ContainerRecord], *, force: bool, lease: Lease | None
) -> None:
    lock, taken = shed.locks.attempt_each(lock_key(record.id) for record in records)
    with lock:
        held = set(taken)
        shed.running.require_stopped(records, force=force)
        for record in records:
            if lock_key(record.id) not in held and not force:
                raise InUseError(
                    f"container {record.name} is being written by another process; "
                    "wait for it or use --force"
                )
        shed.mounting.require_unmounted(records, force=force, discard=lease is not None)
        with shed.catalog.write() as transaction:
            present = [
                found
                for found in (transaction.container(record.id) for record in records)
                if found is not None
            ]
            gone: list[LayerRecord] = transaction.delete_containers(present)
            if lease is not None:
                lease.finish(transaction)
        by_driver: dict[str, list[str]] = {}
        for record in present:
            by_driver.setdefault(record.driver, []).append(record.id)
        for driver, ids in by_driver.items():
            drop(shed, driver, ids)
        shed.drop_layers(gone)
    if present:
        shed.running.forget(record.id for record in present)
        shed.plugins.notify(
            "container_removed", shed=shed, containers=[record.id for record in present]
        )
