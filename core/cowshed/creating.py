"""Creating: containers made on an image, or of another container, in one batch: all or none.

The driver makes them first, then one transaction of the catalog says that they exist, so that a
crash in between leaves something to sweep and nothing to miss.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from .container import Container, current, require_free
from .errors import ConflictError, NotFoundError, UsageError
from .names import SCRATCH, container_name, made_up_name, new_id
from .records import ContainerRecord, ImageRecord

if TYPE_CHECKING:
    from .catalog import Transaction
    from .lease import Lease
    from .shed import Shed


def create(
    shed: Shed,
    reference: str,
    count: int,
    names: Sequence[str] | None,
    asked: str | None,
    lease: Lease | None = None,
) -> list[Container]:
    """See ``Shed.create_many``. ``lease``: that of one temporary container (see ``temporary``)."""
    if names is not None and len(names) != count:
        raise UsageError(f"{len(names)} names for {count} containers")
    for name in names or ():
        container_name(name)
    while True:
        try:
            records = _create(shed, reference, count, names, asked, lease)
            break
        except _MovedError:
            continue
    shed.plugins.notify(
        "container_created",
        shed=shed,
        containers=[record.id for record in records],
        image=reference,
    )
    return [Container(shed, record) for record in records]


class _MovedError(Exception):
    """The image went to another driver after it was looked up."""


def _create(
    shed: Shed,
    reference: str,
    count: int,
    names: Sequence[str] | None,
    asked: str | None,
    kept_by: Lease | None,
) -> list[ContainerRecord]:
    image = None if reference == SCRATCH else shed.image(reference).record
    driver = _driver_for(shed, image, asked)

    def make(ids: list[str]) -> None:
        chain = None if image is None else image.chain
        if kept_by is not None:
            shed.driver(driver).prepare_unsynced(ids[0], chain)
        elif count == 1:
            shed.driver(driver).prepare(ids[0], chain)
        else:
            shed.driver(driver).prepare_many(ids, chain)

    def still_there(transaction: Transaction) -> None:
        if image is not None:
            found = transaction.image(image.id)
            if found is None:
                raise NotFoundError("image", reference)
            if driver not in found.drivers:
                raise _MovedError

    return _make(shed, driver, image, "", count, names, make, still_there, kept_by)


def _driver_for(shed: Shed, image: ImageRecord | None, asked: str | None) -> str:
    """Choose a driver for containers of ``image``, unpacking it there if the user named one."""
    driver = shed.choose_driver(asked, "" if image is None else image.id)
    if image is None or driver in image.drivers:
        return driver
    named = asked is not None or shed.driver_was_named
    if not named and image.drivers:
        return image.drivers[0]
    from .migrating import unpack_in

    unpack_in(shed, image, driver)
    return driver


def _make(
    shed: Shed,
    driver: str,
    image: ImageRecord | None,
    chain: str,
    count: int,
    names: Sequence[str] | None,
    make: Callable[[list[str]], None],
    check: Callable[[Transaction], None],
    kept_by: Lease | None = None,
) -> list[ContainerRecord]:
    """Make containers in a driver and tell the catalog, in that order; both or neither."""
    from .driver import Capability
    from .lease import Lease

    ids = [new_id() for _ in range(count)]
    if image is not None:
        chain = image.chain or ""
    lease = Lease(shed.catalog, shed.locks, "create")
    instant = Capability.INSTANT_PREPARE in shed.driver_spec(driver).capabilities
    try:
        with ExitStack() as stack:
            stack.enter_context(shed.making(driver))
            stack.enter_context(lease)
            if not instant:
                # A killed copy of half a gigabyte must not wait for gc; an instant driver's
                # orphan is one record, not worth a second durable commit.
                with shed.catalog.write() as transaction:
                    check(transaction)
                    if chain:
                        lease.hold_layer(transaction, driver, chain)
                    lease.own(transaction, driver, ids)
            try:
                make(ids)
            except NotFoundError:
                with shed.catalog.read() as transaction:
                    check(transaction)  # it knows better what vanished meanwhile
                raise
            try:
                with shed.catalog.write() as transaction:
                    check(transaction)
                    chosen = _names(transaction, count, names)
                    now = time.time_ns()
                    records = [
                        ContainerRecord(
                            id=id,
                            name=name,
                            image="" if image is None else image.id,
                            chain=chain,
                            driver=driver,
                            created_ns=now,
                        )
                        for id, name in zip(ids, chosen, strict=True)
                    ]
                    transaction.add_containers(records)
                    if kept_by is not None:
                        kept_by.own(transaction, driver, ids)
                    lease.finish(transaction)
            except BaseException:
                from .sweep import take_back

                take_back(shed, driver, ids)
                raise
    finally:
        shed.drop_layers(lease.gone)
    return records


def _names(transaction: Transaction, count: int, names: Sequence[str] | None) -> list[str]:
    if names is not None:
        for name in names:
            require_free(transaction, name)
            if names.count(name) > 1:
                raise ConflictError(f"the name {name!r} is given twice; choose another")
        return list(names)
    chosen: set[str] = set()
    while len(chosen) < count:
        chosen.add(
            made_up_name(
                lambda name: name in chosen or transaction.container_named(name) is not None
            )
        )
    return list(chosen)


def fork(shed: Shed, record: ContainerRecord, name: str | None) -> Container:
    """See ``Container.fork``."""
    if name is not None:
        container_name(name)
        with shed.catalog.read() as transaction:
            require_free(transaction, name)
    with shed.catalog.read() as transaction:
        record = current(transaction, record)
        image = transaction.image(record.image) if record.image else None

    def make(ids: list[str]) -> None:
        shed.running.settle([record])
        shed.mounting.settle([record.id])
        shed.driver(record.driver).fork(record.id, ids[0])
        shed.running.clear_fork(record, record.driver, ids[0])

    made = _make(
        shed,
        record.driver,
        image,
        record.chain,
        1,
        None if name is None else [name],
        make,
        lambda transaction: _require(transaction, record),
    )[0]
    shed.plugins.notify("container_created", shed=shed, containers=[made.id], image=record.image)
    return Container(shed, made)


def _require(transaction: Transaction, record: ContainerRecord) -> None:
    current(transaction, record)
