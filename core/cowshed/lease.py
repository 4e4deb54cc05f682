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
from .errors import StoreError
from .locking import Lock, LockFile
from .records import OF_CONTAINER, LayerRecord, LeaseRecord


class Lease:
    """One operation's lease: a context, written to the catalog on first use.

    What it holds is what the catalog says, so that a transaction that fails changes nothing.
    """

    def __init__(
        self, catalog: Catalog, locks: LockFile, operation: str, *, of_container: bool = False
    ) -> None:
        """``of_container``: for as long as a temporary container lives (see ``temporary``)."""
        self._catalog = catalog
        self._locks = locks
        self._id = f"{OF_CONTAINER if of_container else ''}{os.urandom(8).hex()}"
        self._operation = operation
        self._lock: Lock | None = None
        self._used = False
        self._finished = False
        #: Layers whose last reference was this lease's; the caller drops them from the drivers.
        self.gone: list[LayerRecord] = []

    @classmethod
    def taken_over(cls, catalog: Catalog, locks: LockFile, record: LeaseRecord) -> Lease | None:
        """Return a dead process's lease, which is ours now; None: it lives, or is gone."""
        lock = locks.attempt(lock_key(record.id))
        if lock is None:
            return None
        lease = cls(catalog, locks, record.operation)
        lease._id, lease._lock, lease._used = record.id, lock, True
        return lease

    def leave(self) -> None:
        """Let the catalog keep it when the context is left: somebody else will take it over."""
        self._used = False

    def announce(self) -> None:
        """Be known before anything is made that only a driver's ``recover`` could find."""
        if not self._used:
            with self._catalog.write() as transaction:
                self._write(transaction, self._record(transaction))

    def hold_layer(self, transaction: Transaction, driver: str, chain: str) -> None:
        """Take a reference on a layer, inside the caller's transaction."""
        transaction.hold_layer(driver, chain)
        record = self._record(transaction)
        self._write(transaction, record._replace(layers=(*record.layers, (driver, chain))))

    def own(self, transaction: Transaction, driver: str, ids: list[str]) -> None:
        """Note layers and containers that are being made, before they are."""
        making = tuple((driver, id) for id in ids)
        record = self._record(transaction)
        self._write(transaction, record._replace(making=record.making + making))

    def _record(self, transaction: Transaction) -> LeaseRecord:
        found = transaction.lease(self._id)
        return found or LeaseRecord(id=self._id, operation=self._operation)

    def _write(self, transaction: Transaction, record: LeaseRecord) -> None:
        self._used = True
        transaction.put_lease(record)

    def finish(self, transaction: Transaction) -> None:
        """Give everything back in the transaction that commits the operation's result."""
        if self._used:
            self.gone = give_back(transaction, self._record(transaction), made=True)
            self._finished = True

    def __enter__(self) -> Lease:
        if self._lock is None:
            self._lock = self._locks.acquire(lock_key(self._id))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            # After an error nobody knows whether the transaction that finished it was committed.
            if self._used and not (self._finished and kind is None):
                with self._catalog.write() as transaction:
                    record = transaction.lease(self._id)
                    if record is not None:
                        self.gone = give_back(transaction, record, made=False)
        except StoreError:
            if error is None:
                raise  # otherwise the first error says more; whoever opens next gives back
        finally:
            if self._lock is not None:
                self._lock.release()


def give_back(transaction: Transaction, lease: LeaseRecord, *, made: bool) -> list[LayerRecord]:
    """Release what a lease holds and forget it; return the layers that went with it.

    Unless what it was making was ``made``, that is doomed too.
    """
    gone: list[LayerRecord] = []
    if not made:
        for driver, id in lease.making:
            if not transaction.wants(driver, id):
                transaction.doom(driver, id)
    for driver, chain in lease.layers:
        gone += transaction.release_layer(driver, chain)
    transaction.delete_lease(lease.id)
    return gone


def lock_key(lease: str) -> str:
    """Return the key of the lock that a lease's owner holds."""
    return f"lease:{lease}"
