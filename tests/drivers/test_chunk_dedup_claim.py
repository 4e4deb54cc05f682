"""chunk-dedup: layers too large for one transaction: claimed in parts, and sealed or not at all."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cowshed.entry import Entry, Kind
from cowshed.errors import NoSpaceError
from cowshed_drivers.chunk_dedup import claim as claim_module
from cowshed_drivers.chunk_dedup import commit as commit_module
from cowshed_drivers.chunk_dedup.claim import Claim
from cowshed_drivers.chunk_dedup.driver import ChunkDedup
from cowshed_drivers.chunk_dedup.ledger import DIGESTS_PER_ROW

# Forked, so that a patch made in the test holds in the child; no environment is open by then.
_context = multiprocessing.get_context("fork")

BASE, BIG, TWIN = (hashlib.sha256(name).hexdigest() for name in (b"base", b"big", b"twin"))
#: Three parts of it are claimed, a fourth comes with the seal.
FILES = 3 * DIGESTS_PER_ROW + 50


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_module, "TAKEN_AT_ONCE", DIGESTS_PER_ROW)
    monkeypatch.setattr(commit_module, "TAKEN_AT_ONCE", DIGESTS_PER_ROW)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "d").mkdir(mode=0o700)
    with ChunkDedup(tmp_path / "d") as driver:
        seal(driver, BASE, 20)
    return tmp_path / "d"


def seal(driver: ChunkDedup, id: str, count: int) -> None:
    """Make a layer of so many files; those of a smaller one are among a larger one's."""
    with driver.stage(None) as stage:
        for number in range(count):
            data = random.Random(number).randbytes(300)
            entry = Entry(path=f"f{number}", kind=Kind.FILE, mode=0o644, size=len(data))
            stage.add(entry, io.BytesIO(data))
        stage.seal(id)


def owners(driver: ChunkDedup) -> int:
    index = driver._store.index
    with index.read() as txn:
        return int(txn.stat(index.owners)["entries"])


def assert_sound(driver: ChunkDedup, *ids: str) -> None:
    assert {item.id for item in driver.items()} == set(ids)
    assert owners(driver) == len(ids)
    for id in ids:
        assert list(driver.verify(id, deep=True)) == []


@pytest.fixture
def extended(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Count the objects of every part that is claimed."""
    parts: list[int] = []
    extend = Claim.extend

    def counted(self: Claim, digests: list[bytes]) -> None:
        parts.append(len(digests))
        extend(self, digests)

    monkeypatch.setattr(Claim, "extend", counted)
    yield parts


def test_a_large_layer_is_claimed_in_parts_and_its_account_is_exact(
    root: Path, extended: list[int]
) -> None:
    with ChunkDedup(root) as driver:
        alone = driver.usage(BASE).exclusive
        seal(driver, BIG, FILES)
        assert extended == [DIGESTS_PER_ROW] * 3
        assert_sound(driver, BASE, BIG)
        assert driver.usage(BASE).exclusive < alone, "its files are the large layer's as well"
        seal(driver, TWIN, FILES)
        assert driver.usage(BIG).exclusive < 1000, "all but the note and the root are shared"
        driver.remove_many([BIG, TWIN])
        assert driver.usage(BASE).exclusive == alone
        assert_sound(driver, BASE)


def test_sealing_what_another_has_sealed_claims_nothing_for_long(root: Path) -> None:
    with ChunkDedup(root) as driver:
        seal(driver, BIG, FILES)
        seal(driver, BIG, FILES)
        assert_sound(driver, BASE, BIG)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_full_disk_between_two_parts_leaves_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    extend = Claim.extend

    def full(self: Claim, digests: list[bytes]) -> None:
        if self.rows == part:
            raise NoSpaceError("no space")
        extend(self, digests)

    with ChunkDedup(root) as driver:
        alone, before = driver.usage(BASE).exclusive, os.listdir(root / "packs")
        with monkeypatch.context() as patched:
            patched.setattr(Claim, "extend", full)
            with pytest.raises(NoSpaceError):
                seal(driver, BIG, FILES)
        assert_sound(driver, BASE)
        assert driver.usage(BASE).exclusive == alone
        driver.recover()
        assert os.listdir(root / "packs") == before
        seal(driver, BIG, FILES)
        assert_sound(driver, BASE, BIG)


@pytest.mark.parametrize("part", [1, 2, 3])
def test_a_kill_between_two_parts_leaves_a_claim_that_recover_drops(
    root: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    extend = Claim.extend

    def die(self: Claim, digests: list[bytes]) -> None:
        extend(self, digests)
        if self.rows == part:
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        with ChunkDedup(root) as driver:
            seal(driver, BIG, FILES)

    before = os.listdir(root / "packs")
    with monkeypatch.context() as patched:
        patched.setattr(Claim, "extend", die)
        process = _context.Process(target=work)
        process.start()
        process.join(60)
    assert process.exitcode == -signal.SIGKILL
    with ChunkDedup(root) as driver:
        assert {item.id for item in driver.items()} == {BASE}
        assert owners(driver) == 2
        driver.recover()
        assert_sound(driver, BASE)
        assert os.listdir(root / "packs") == before
