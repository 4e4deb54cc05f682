"""The catalog: references, leases, dooms, prefixes, and what it costs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cowshed.catalog import Catalog
from cowshed.errors import CorruptError, ReadOnlyError, StoreError
from cowshed.lease import Lease, give_back, lock_key
from cowshed.locking import LockFile
from cowshed.records import ContainerRecord, ImageRecord, LayerRecord


def chain(number: int) -> str:
    return f"{number:064x}"


def layer(number: int, parent: int | None = None) -> LayerRecord:
    return LayerRecord(
        driver="naive-copy",
        chain=chain(number),
        diff_id=f"sha256:{chain(number)}",
        parent="" if parent is None else chain(parent),
        size=10 * number,
    )


def container(id: str, name: str, on: int | None = None, image: str = "") -> ContainerRecord:
    return ContainerRecord(
        id=id,
        name=name,
        image=image,
        chain="" if on is None else chain(on),
        driver="naive-copy",
        created_ns=1,
    )


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    (tmp_path / "catalog").mkdir()
    opened = Catalog(tmp_path / "catalog")
    yield opened
    opened.close()


def test_the_last_release_takes_the_chain_down_to_what_is_still_used(catalog: Catalog) -> None:
    with catalog.write() as transaction:
        for number, parent in ((1, None), (2, 1), (3, 2), (4, 2)):
            transaction.put_layer(layer(number, parent))
        transaction.hold_layer("naive-copy", chain(3))
        transaction.hold_layer("naive-copy", chain(4))
    with catalog.write() as transaction:
        gone = transaction.release_layer("naive-copy", chain(3))
        assert [record.chain for record in gone] == [chain(3)]
        assert transaction.doomed() == [("naive-copy", chain(3))]
    with catalog.write() as transaction:
        gone = transaction.release_layer("naive-copy", chain(4))
        assert [record.chain for record in gone] == [chain(4), chain(2), chain(1)]
        assert list(transaction.layers()) == []


def test_holding_a_layer_that_is_missing_is_an_error_and_changes_nothing(
    catalog: Catalog,
) -> None:
    with pytest.raises(CorruptError, match="missing"), catalog.write() as transaction:
        transaction.name_image("a:latest", chain(9))
        transaction.hold_layer("naive-copy", chain(1))
    with catalog.read() as transaction:
        assert transaction.image_named("a:latest") is None


def test_containers_of_one_batch_hold_their_layer_once_each(catalog: Catalog) -> None:
    image = ImageRecord(id=chain(7), chains=(chain(1),), drivers=("naive-copy",))
    records = [container(chain(100 + n), f"c{n}", 1, image.id) for n in range(5)]
    with catalog.write() as transaction:
        transaction.put_layer(layer(1))
        transaction.put_image(image)
        transaction.add_containers(records)
    with catalog.write() as transaction:
        found = transaction.layer("naive-copy", chain(1))
        assert found is not None
        assert found.references == 5
        assert transaction.image_uses(image.id) == 5
        assert transaction.delete_containers(records[:4]) == []
        assert transaction.image_uses(image.id) == 1
        gone = transaction.delete_containers(records[4:])
        assert [record.chain for record in gone] == [chain(1)]
        assert transaction.image_uses(image.id) == 0
        assert len(transaction.doomed()) == 6


def test_records_come_back_as_they_went_in(catalog: Catalog) -> None:
    image = ImageRecord(
        id=chain(1),
        created="2026-01-02T03:04:05Z",
        diff_ids=("sha256:" + chain(2),),
        chains=(chain(2),),
        drivers=("a", "b"),
        size=5,
        platform="linux/amd64",
        manifest="sha256:" + chain(3),
        added_ns=6,
    )
    made = container(chain(4), "grün_ümlaut", 2, image.id)
    with catalog.write() as transaction:
        transaction.put_layer(layer(2))
        transaction.put_image(image)
        transaction.add_containers([made])
    with catalog.read() as transaction:
        assert transaction.image(image.id) == image
        assert transaction.container(made.id) == made
        assert transaction.layer("naive-copy", chain(2)) == layer(2)._replace(references=1)


def test_an_odd_prefix_finds_exactly_the_ids_that_begin_so(catalog: Catalog) -> None:
    ids = ["ab" + "0" * 62, "ac" + "0" * 62, "ad" + "0" * 62, "b0" + "0" * 62]
    with catalog.write() as transaction:
        transaction.add_containers([container(id, f"n{id[:2]}") for id in ids])
    with catalog.read() as transaction:
        assert transaction.ids_with_prefix("containers", "a") == ids[:3]
        assert transaction.ids_with_prefix("containers", "ac") == ids[1:2]
        assert transaction.ids_with_prefix("containers", "c") == []
        assert transaction.ids_with_prefix("containers", "a", most=2) == ids[:2]


def test_ten_thousand_containers_take_less_than_half_a_kibibyte_each(
    catalog: Catalog, tmp_path: Path
) -> None:
    records = [
        container(os.urandom(32).hex(), f"brave_dijkstra_{n}", 1, chain(7)) for n in range(10_000)
    ]
    with catalog.write() as transaction:
        transaction.put_layer(layer(1))
    before = (tmp_path / "catalog" / "data.mdb").stat().st_blocks * 512
    with catalog.write() as transaction:
        transaction.add_containers(records)
    after = (tmp_path / "catalog" / "data.mdb").stat().st_blocks * 512
    assert (after - before) / 10_000 < 512


def test_one_environment_serves_several_catalogs_of_a_process(tmp_path: Path) -> None:
    (tmp_path / "catalog").mkdir()
    first, second = Catalog(tmp_path / "catalog"), Catalog(tmp_path / "catalog")
    with first.write() as transaction:
        transaction.name_image("a:latest", chain(1))
    first.close()
    first.close()
    with second.read() as transaction:
        assert transaction.image_named("a:latest") == chain(1)
    second.close()
    with pytest.raises(StoreError, match="closed"), second.read():
        pass


def test_a_forked_child_is_told_to_open_again(catalog: Catalog) -> None:
    child = os.fork()
    if child == 0:
        try:
            with catalog.read():
                os._exit(1)
        except StoreError:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_read_only_catalog_refuses_to_write_and_reads(tmp_path: Path) -> None:
    (tmp_path / "catalog").mkdir()
    writer = Catalog(tmp_path / "catalog")
    with writer.write() as transaction:
        transaction.name_image("a:latest", chain(1))
    writer.close()
    reader = Catalog(tmp_path / "catalog", read_only=True)
    with reader.read() as transaction:
        assert transaction.image_named("a:latest") == chain(1)
    with pytest.raises(ReadOnlyError), reader.write():
        pass
    reader.close()


def test_a_lease_protects_a_layer_until_it_is_finished(catalog: Catalog, tmp_path: Path) -> None:
    locks = LockFile(tmp_path / "locks")
    with Lease(catalog, locks, "import") as lease:
        with catalog.write() as transaction:
            transaction.put_layer(layer(1))
            lease.hold_layer(transaction, "naive-copy", chain(1))
            transaction.hold_layer("naive-copy", chain(1))  # an image
        with catalog.write() as transaction:  # rmi meanwhile
            assert transaction.release_layer("naive-copy", chain(1)) == []
        with catalog.write() as transaction:
            lease.finish(transaction)
        assert [record.chain for record in lease.gone] == [chain(1)]
    with catalog.read() as transaction:
        assert list(transaction.leases()) == []


def test_an_abandoned_lease_is_known_by_its_free_lock(catalog: Catalog, tmp_path: Path) -> None:
    locks = LockFile(tmp_path / "locks")
    lease = Lease(catalog, locks, "import").__enter__()
    with catalog.write() as transaction:
        transaction.put_layer(layer(1))
        lease.hold_layer(transaction, "naive-copy", chain(1))
        lease.own(transaction, "naive-copy", [chain(5)])
    with catalog.read() as transaction:
        (record,) = transaction.leases()
    assert locks.attempt(lock_key(record.id)) is None
    assert lease._lock is not None
    lease._lock.release()  # the process dies
    free = locks.attempt(lock_key(record.id))
    assert free is not None
    with free, catalog.write() as transaction:
        give_back(transaction, record, made=False)
        assert set(transaction.doomed()) == {("naive-copy", chain(1)), ("naive-copy", chain(5))}
        assert list(transaction.leases()) == []
