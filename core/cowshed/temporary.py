"""Temporary containers: made to be thrown away, and thrown away even if nobody is left to do it.

A lease in the catalog names the container as long as its owner lives; it comes and goes in the
transactions that the container comes and goes with. Whoever opens the shed after the owner was
killed, or the machine stopped, finds the lease's lock free and removes the container, unless
processes still use it. So nothing of a temporary container need be durable.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from .errors import CowshedError, NotFoundError
from .lease import Lease, lock_key

if TYPE_CHECKING:
    from .container import Container
    from .records import LeaseRecord
    from .shed import Shed


@contextmanager
def temporary(shed: Shed, image: str, name: str | None, driver: str | None) -> Generator[Container]:
    """See ``Shed.temporary``."""
    from .creating import create

    with Lease(shed.catalog, shed.locks, "run", of_container=True) as lease, _left(lease):
        (container,) = shed.operate(
            "create",
            {"image": image, "count": 1, "driver": driver},
            lambda: create(shed, image, 1, None if name is None else [name], driver, lease),
            vetoable=True,
        )
        try:
            yield container
        finally:
            with suppress(NotFoundError):  # somebody else has removed it
                _remove(shed, [container.id], lease, force=True)


@contextmanager
def _left(lease: Lease) -> Generator[None]:
    """Whatever goes wrong, leave what there may be to whoever opens the shed next."""
    try:
        yield
    except BaseException:
        lease.leave()
        raise


def _remove(shed: Shed, ids: Sequence[str], lease: Lease, *, force: bool) -> None:
    from .removing import remove

    shed.operate(
        "rm",
        {"containers": tuple(ids), "force": force},
        lambda: remove(shed, ids, force=force, lease=lease),
        vetoable=True,
    )


def remove_left(shed: Shed, record: LeaseRecord) -> bool:
    """Remove the container of a dead process's lease; return whether it is gone.

    It stays, to be looked at again, as long as its process lives or somebody has it mounted.
    """
    lease = Lease.taken_over(shed.catalog, shed.locks, record)
    if lease is None:
        return False
    with suppress(CowshedError, OSError), lease, _left(lease):
        with shed.catalog.read() as transaction:
            there = [id for _, id in record.making if transaction.container(id) is not None]
        if there:
            _remove(shed, there, lease, force=False)
        return True
    return False


def any_left(shed: Shed) -> bool:
    """Say whether some of the temporary containers are a dead process's: two, chosen at random, as
    a thousand of them may be in use."""
    with shed.catalog.read() as transaction:
        some = transaction.some_leases_of_containers(2)
    for id in some:
        lock = shed.locks.attempt(lock_key(id))
        if lock is not None:
            lock.release()
            return True
    return False
