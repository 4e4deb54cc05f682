"""Lease: what protects layers and containers while an operation is still making them.

An operation's lease lists what it made or relies on, and holds references on the layers, so that
``rm``, ``rmi`` and ``gc`` in other processes leave them alone. Its owner holds a lock that dies
with the process: a lease whose lock is free is abandoned, and whoever opens the shed next gives
back what it held. No process IDs, no expiry, nothing that a reboot or another PID namespace
could confuse.
"""

from __future__ import annotations

import os
from types import TracebackType

from .catalog import Catalog, Transaction
from .locking import Lock, LockFile
from .records import LayerRecord, LeaseRecord


class Lease:
    """One operation's lease, written to the catalog on first use."""

    def __init__(self, catalog: Catalog, locks: LockFile, operation: str) -> None:
        self._catalog = catalog
        self._record = LeaseRecord(id=os.urandom(8).hex(), operation=operation)
        self._lock: Lock = locks.acquire(lock_key(self._record.id))
        self._written = False
        #: Layers whose last reference was this lease's; the caller drops them from the drivers.
        self.gone: list[LayerRecord] = []

    def hold_layer(self, transaction: Transaction, driver: str, chain: str) -> None:
        """Take a reference on a layer, inside the caller's transaction."""
        transaction.hold_layer(driver, chain)
        self._record = self._record._replace(layers=(*self._record.layers, (driver, chain)))
        self._write(transaction)

    def own_containers(self, transaction: Transaction, driver: str, ids: list[str]) -> None:
        """Note containers that are being made."""
        containers = tuple((driver, id) for id in ids)
        self._record = self._record._replace(containers=self._record.containers + containers)
        self._write(transaction)

    def _write(self, transaction: Transaction) -> None:
        transaction.put_lease(self._record)
        self._written = True

    def finish(self, transaction: Transaction) -> None:
        """Give everything back in the transaction that commits the operation's result."""
        if self._written:
            self.gone = give_back(transaction, self._record, made=True)
            self._written = False

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._written:
                with self._catalog.write() as transaction:
                    self.gone = give_back(transaction, self._record, made=False)
                self._written = False
        finally:
            self._lock.release()


def give_back(transaction: Transaction, lease: LeaseRecord, *, made: bool) -> list[LayerRecord]:
    """Release what a lease holds and forget it; return the layers that went with it.

    Unless its containers were ``made``, they are doomed too.
    """
    gone: list[LayerRecord] = []
    if not made:
        for driver, container in lease.containers:
            if not transaction.wants(driver, container):
                transaction.doom(driver, container)
    for driver, chain in lease.layers:
        gone += transaction.release_layer(driver, chain)
    transaction.delete_lease(lease.id)
    return gone


def lock_key(lease: str) -> str:
    """Return the key of the lock that a lease's owner holds."""
    return f"lease:{lease}"
