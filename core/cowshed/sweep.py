"""Sweep: drop what nothing refers to any more, and what dead processes left.

A thing leaves in this order: its catalog record (and it is doomed in the same transaction), then
the driver's data, then the doom. Killed in between, the doom stays, and whoever opens the shed
next finishes the work. Layers are dropped under their layer lock, so that an import which wants
one again either finds it before or makes it anew after.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from .adding import layer_lock
from .errors import CowshedError, InUseError, NotFoundError
from .lease import give_back, lock_key
from .locking import FILES_LOCK, making_lock
from .records import OF_CONTAINER

if TYPE_CHECKING:
    from .driver import Driver
    from .records import ImageRecord
    from .shed import Shed


class Collected(NamedTuple):
    """What ``gc`` did."""

    #: Bytes on disk before minus after.
    freed: int
    leases: int
    #: Layers and containers that drivers held and the catalog didn't know.
    orphans: int
    blobs: int
    #: Drivers that couldn't be swept just now or at all, and why.
    skipped: tuple[str, ...] = ()


def finish_abandoned(shed: Shed) -> int:
    """Give back what dead processes' leases held and drop what is doomed; return the leases."""
    with shed.catalog.read() as transaction:
        leases = list(transaction.leases())
        doomed = transaction.doomed()
    if shed.read_only or not (leases or doomed):
        return 0
    abandoned = temporary = 0
    for lease in leases:
        if lease.id.startswith(OF_CONTAINER):
            from .temporary import remove_left  # seldom needed

            temporary += remove_left(shed, lease)
            continue
        lock = shed.locks.attempt(lock_key(lease.id))
        if lock is None:
            continue
        with lock, shed.catalog.write() as transaction:
            current = transaction.lease(lease.id)
            if current is not None:
                give_back(transaction, current, made=False)
                abandoned += 1
    if abandoned:
        for name in shed.drivers_in_use():
            _recover(shed, name)
    drop_doomed(shed)
    return abandoned + temporary


def _recover(shed: Shed, driver: str) -> None:
    try:
        shed.driver(driver).recover()
    except CowshedError:
        return  # a driver that can't run here: the next gc or check says so


def drop_doomed(shed: Shed) -> None:
    """Remove from the drivers what is doomed and not in somebody's hands."""
    with shed.catalog.read() as transaction:
        doomed = transaction.doomed()
    by_driver: dict[str, list[str]] = {}
    for driver, id in doomed:
        by_driver.setdefault(driver, []).append(id)
    for driver, ids in by_driver.items():
        for start in range(0, len(ids), DROPPED_AT_ONCE):
            drop(shed, driver, ids[start : start + DROPPED_AT_ONCE])


#: The kernel searches a file's locks one by one: 10,000 at once take half a minute, 256 nothing.
DROPPED_AT_ONCE = 256


def drop(shed: Shed, driver_name: str, ids: Iterable[str]) -> None:
    """Remove doomed layers and containers from one driver, dependants first.

    What is locked or still needed stays doomed for the next time.
    """
    try:
        driver = shed.driver(driver_name)
    except CowshedError:
        return
    keys = {layer_lock(driver_name, id): id for id in ids}
    lock, taken = shed.locks.attempt_each(keys)
    with lock:
        mine = [keys[key] for key in taken]
        shed.catalog.settle()
        with shed.catalog.read() as transaction:
            doomed = set(transaction.doomed())
            mine = [id for id in mine if (driver_name, id) in doomed]
            wanted = {id for id in mine if transaction.wants(driver_name, id)}
        staying = wanted | _shown_elsewhere(shed, driver_name, mine)
        done = _remove_in_order(driver, [id for id in mine if id not in staying])
        with shed.catalog.write() as transaction:
            for id in (*done, *(id for id in wanted if transaction.wants(driver_name, id))):
                transaction.absolve(driver_name, id)


def _shown_elsewhere(shed: Shed, driver: str, layers: list[str]) -> set[str]:
    """Unmount layers that are to go; return those that are mounted where we can't reach them."""
    try:
        if not os.listdir(shed.home.root / "lowers" / "at"):
            return set()
    except FileNotFoundError:
        return set()
    return shed.mounting.let_go(driver, layers)


def _remove_in_order(driver: Driver, ids: list[str]) -> list[str]:
    try:
        driver.remove_many(ids)
        return ids
    except (NotFoundError, InUseError):
        pass
    done: list[str] = []
    waiting = list(ids)
    progress = True
    while waiting and progress:
        progress = False
        for id in list(waiting):
            try:
                driver.remove(id)
            except NotFoundError:
                pass
            except InUseError:
                continue
            waiting.remove(id)
            done.append(id)
            progress = True
    return done


def collect(shed: Shed) -> Collected:
    """Do everything ``gc`` does: abandoned leases, orphans, unreferenced blobs and recipes, and
    each driver's own collection."""
    before = shed.disk_usage()
    shed.mounting.sweep()
    shed.running.sweep()
    leases = finish_abandoned(shed)
    orphans = 0
    skipped: list[str] = []
    for name in shed.drivers_in_use():
        try:
            driver = shed.driver(name)
        except CowshedError as error:
            skipped.append(str(error))
            continue
        driver.recover()
        # Whoever makes containers or layers holds this lock shared until the catalog knows them.
        lock = shed.locks.attempt(making_lock(name))
        if lock is None:
            skipped.append(f"driver {name}: in use by another process, orphans not looked for")
        else:
            with lock:
                orphans += _doom_orphans(shed, name)
            drop_doomed(shed)
        driver.collect()
    blobs = _sweep_files(shed)
    after = shed.disk_usage()
    return Collected(
        freed=max(0, before - after),
        leases=leases,
        orphans=orphans,
        blobs=blobs,
        skipped=tuple(skipped),
    )


def _doom_orphans(shed: Shed, driver_name: str) -> int:
    held = [item.id for item in shed.driver(driver_name).items()]
    with shed.catalog.write() as transaction:
        known = {record.chain for record in transaction.layers(driver_name)}
        known.update(
            record.id for record in transaction.containers() if record.driver == driver_name
        )
        orphans = [id for id in held if id not in known]
        for id in orphans:
            transaction.doom(driver_name, id)
    return len(orphans)


def _sweep_files(shed: Shed) -> int:
    """Remove blobs, recipes and temporary files that nothing refers to; return their number."""
    lock = shed.locks.attempt(FILES_LOCK)
    if lock is None:
        return 0  # an import or save is under way; what it just wrote has no record yet
    with lock:
        blobs, diff_ids = files_needed(shed)
        removed = sum(1 for digest in shed.blobs.iter() if digest not in blobs)
        shed.blobs.sweep(blobs, *shed.partial_limits)
        shed.recipes.sweep(diff_ids)
        for path in shed.home.temporary.iterdir():
            if path.is_dir() and not path.is_symlink():
                import shutil  # 2 ms

                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    return removed


def files_needed(shed: Shed) -> tuple[set[str], set[str]]:
    """Return the digests of the blobs and the diff IDs of the recipes that are still needed."""
    shed.catalog.settle()
    with shed.catalog.read() as transaction:
        diff_ids = {record.diff_id for record in transaction.layers()}
        images = list(transaction.images())
    blobs: set[str] = set()
    for image in images:
        blobs |= blobs_of(shed, image)
    return blobs, diff_ids


def blobs_of(shed: Shed, image: ImageRecord) -> set[str]:
    """Return the digests of an image's config, manifest and kept layers."""
    blobs = {f"sha256:{image.id}"}
    if image.manifest:
        blobs |= {image.manifest, *shed.kept_layer_blobs(image.manifest)}
    return blobs


def take_back(shed: Shed, driver: str, ids: list[str]) -> None:
    """Remove from a driver what was made for nothing: what the catalog doesn't know after all."""
    with shed.catalog.read() as transaction:
        unknown = [id for id in ids if not transaction.wants(driver, id)]
    shed.driver(driver).remove_many(unknown)
