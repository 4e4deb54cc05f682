"""Environment: one LMDB environment, whoever uses it, and what it says when it can't."""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import pytest

from cowshed import environment as environment_module
from cowshed.catalog import Catalog
from cowshed.environment import Environment
from cowshed.errors import CorruptError, NoSpaceError, ReadOnlyError, StoreError
from cowshed.testing.disk_calls import Unavailable
from cowshed.testing.interception import Fault, Watch, Watched
from cowshed_drivers.chunk_dedup.index import FORMAT, NUMBER, Index

DATABASES = [b"rows", b"others"]


def open_environment(path: Path, **options: object) -> Environment:
    return Environment(path, DATABASES, what="index of mine", **options)  # type: ignore[arg-type]


def put(environment: Environment, key: bytes, value: bytes) -> None:
    with environment.write() as txn:
        txn.put(key, value, db=environment.databases[b"rows"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "environment"


@contextmanager
def no_growth(file: Path) -> Generator[None]:
    """Let no file become longer than this one is, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def in_child(work: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_two_opens_in_one_process_share_it_until_the_last_closes(path: Path) -> None:
    one, two = open_environment(path), open_environment(path.parent / "." / "environment")
    put(one, b"a", b"1")
    assert two.get(b"rows", b"a") == b"1"
    assert one.databases is two.databases
    one.close()
    one.close()
    put(two, b"a", b"2")
    assert two.get(b"rows", b"a") == b"2"
    with pytest.raises(ValueError, match="the index of mine is closed"):
        one.get(b"rows", b"a")
    two.close()
    again = open_environment(path)
    assert again.get(b"rows", b"a") == b"2"
    again.close()


def test_both_sides_of_a_fork_go_on(path: Path) -> None:
    one, two = open_environment(path), open_environment(path)
    put(one, b"parent", b"1")
    assert two.get(b"rows", b"parent") == b"1"

    def child() -> None:
        assert two.get(b"rows", b"parent") == b"1"
        put(one, b"child", b"2")
        one.close()
        assert two.get(b"rows", b"child") == b"2"
        two.close()

    assert in_child(child) == 0
    # A slot of the reader table that the child took for its own would show here.
    for _ in range(3):
        assert one.get(b"rows", b"child") == b"2"
    put(one, b"parent", b"3")
    assert two.get(b"rows", b"parent") == b"3"
    one.close()
    two.close()


def test_a_child_that_never_used_it_leaves_its_parent_s_alone(path: Path) -> None:
    environment = open_environment(path)
    put(environment, b"a", b"1")
    assert in_child(environment.close) == 0
    put(environment, b"a", b"2")
    assert environment.get(b"rows", b"a") == b"2"
    environment.close()


def test_a_map_that_is_too_small_grows_and_others_notice(path: Path) -> None:
    one = open_environment(path, map_size=1 << 20)
    put(one, b"a", b"1")

    def fill(txn: lmdb.Transaction[bytes]) -> int:
        for number in range(300):
            txn.put(b"%d" % number, bytes(10_000), db=one.databases[b"others"])
        return 300

    def child() -> None:
        assert one.commit(fill) == 300

    assert in_child(child) == 0
    assert one.get(b"others", b"299") == bytes(10_000)
    one.close()


def test_a_failed_transaction_changes_nothing(path: Path) -> None:
    environment = open_environment(path)
    with pytest.raises(KeyError), environment.write() as txn:
        txn.put(b"a", b"1", db=environment.databases[b"rows"])
        raise KeyError
    assert environment.get(b"rows", b"a") is None
    environment.close()


def test_it_goes_on_after_a_meta_page_that_couldn_t_be_written(path: Path) -> None:
    # LMDB then refuses all further work, until it is opened anew.
    def work(watch: Watch) -> None:
        environment = open_environment(path)
        put(environment, b"a", b"1")
        watch.begin()
        try:
            put(environment, b"a", b"2")
        except StoreError:
            watch.say("refused")
        else:
            watch.say("written")
        value = environment.get(b"rows", b"a")
        put(environment, b"a", b"3")
        watch.say(f"{value!r}, then {environment.get(b'rows', b'a')!r}")

    try:
        with Watched(work) as process:
            assert process.hear() == "written"
            meta_page = len(process.points) - 1 - process.points[::-1].index("pwrite64")
    except Unavailable as error:
        pytest.skip(str(error))
    with Watched(work, Fault(meta_page, errno.EIO)) as process:
        assert process.rest() == ["refused", "b'1', then b'3'"]


def test_an_opener_that_refuses_leaves_nothing_open(path: Path) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("too new")

    with pytest.raises(StoreError, match="too new"):
        open_environment(path, opened=refuse).open()
    environment = open_environment(path)
    put(environment, b"a", b"1")
    environment.close()


def test_what_lmdb_calls_invalid_is_damage(path: Path) -> None:
    path.mkdir()
    (path / "data.mdb").write_bytes(b"no LMDB file" * 4096)
    with pytest.raises(CorruptError, match=r"^index of mine: "):
        open_environment(path).open()


def test_one_opened_read_only_refuses_to_write(path: Path) -> None:
    environment = open_environment(path)
    put(environment, b"a", b"1")
    environment.close()
    environment = open_environment(path, read_only=True)
    assert environment.get(b"rows", b"a") == b"1"
    with pytest.raises(ReadOnlyError, match="index of mine is read-only"):
        put(environment, b"a", b"2")
    environment.close()


def test_its_files_are_its_owner_s(path: Path) -> None:
    environment = open_environment(path)
    environment.open()
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((path / "data.mdb").stat().st_mode) == 0o600
    environment.close()


def test_a_user_that_asks_for_durability_gets_it_from_a_shared_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, safe = open_environment(path, durable=lambda: False), open_environment(path)
    fast.open()
    safe.open()
    synced: list[bool] = []
    shared = safe._shared
    assert shared is not None
    real = shared.env

    class Watched:
        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        def sync(self, force: bool) -> None:
            synced.append(force)

    monkeypatch.setattr(shared, "env", Watched())
    put(fast, b"a", b"1")
    assert synced == []
    put(safe, b"a", b"2")
    safe.commit(lambda txn: txn.put(b"a", b"3", db=safe.databases[b"rows"]))
    assert synced == [True, True]
    monkeypatch.undo()
    fast.close()
    safe.close()


def test_catalog_and_index_say_the_same_of_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A write that is cut short is "Input/output error" to LMDB, so the disk is asked.
    monkeypatch.setattr(environment_module, "_free", lambda _: 0)
    catalog = Catalog(tmp_path / "catalog")
    with no_growth(tmp_path / "catalog" / "data.mdb"):
        with pytest.raises(NoSpaceError) as from_catalog, catalog.write() as transaction:
            for number in range(20_000):
                transaction.name_image(f"name{number}", "ab" * 32)
        with catalog.read() as transaction:
            assert list(transaction.image_names()) == []
    catalog.close()
    index = Index(tmp_path / "index", map_size=1 << 30, durable=lambda: True)

    def fill(txn: lmdb.Transaction[bytes]) -> None:
        for number in range(20_000):
            txn.put(b"%d" % number, bytes(32), db=index.objects)

    index.settle()
    with no_growth(tmp_path / "index" / "data.mdb"):
        with pytest.raises(NoSpaceError) as from_index:
            index.write(fill)
        assert index.lookup(b"0") is None
    index.close()
    message = "no space left for the {} ({}); nothing was changed: free some space and try again"
    assert str(from_catalog.value) == message.format("catalog", tmp_path / "catalog")
    assert str(from_index.value) == message.format("index of chunk-dedup", tmp_path / "index")


def test_a_newer_index_is_refused_by_each_who_opens_it(tmp_path: Path) -> None:
    first = Index(tmp_path / "index", map_size=1 << 30, durable=lambda: True)
    first.write(lambda txn: txn.put(b"format", NUMBER.pack(FORMAT + 1), db=first.meta))
    second = Index(tmp_path / "index", map_size=1 << 30, durable=lambda: True)
    with pytest.raises(StoreError, match=f"format {FORMAT + 1}"):
        second.lookup(b"x")
    first.close()
    with pytest.raises(StoreError, match=f"format {FORMAT + 1}"):
        second.lookup(b"x")
    second.close()


def mapped_in_memory(file: Path) -> int:
    """Return how much of a mapped file this process has in memory (proc_pid_smaps(5))."""
    total = 0
    here = False
    with open("/proc/self/smaps", encoding="utf-8") as lines:
        for line in lines:
            if line.split()[0].count("-") == 1 and not line.startswith("Vm"):
                here = line.rstrip("\n").endswith(str(file))
            elif here and line.startswith("Rss:"):
                total += int(line.split()[1]) << 10
    return total


def read_all(environment: Environment) -> int:
    with environment.read() as txn, txn.cursor(db=environment.databases[b"rows"]) as cursor:
        return sum(len(value) for _, value in cursor)


def test_what_was_looked_at_can_be_let_go_of(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_module, "_SMALL", 1 << 20)
    environment = open_environment(path, durable=lambda: False, map_size=8 << 20)
    put(environment, b"small", b"x")
    assert read_all(environment) == 1
    environment.trim()
    assert mapped_in_memory(path / "data.mdb") > 0, "of a small file there is nothing to gain"

    def fill(txn: lmdb.Transaction[bytes]) -> None:
        for number in range(16):
            txn.put(b"%d" % number, bytes(1 << 20), db=environment.databases[b"rows"])

    environment.commit(fill)  # which takes a larger map
    for _ in range(2):
        assert read_all(environment) == (16 << 20) + 1
        assert mapped_in_memory(path / "data.mdb") > 15 << 20
        environment.trim()
        assert mapped_in_memory(path / "data.mdb") < 1 << 20
    with environment.write() as txn:
        txn.put(b"more", b"y", db=environment.databases[b"rows"])
        environment.trim()
        assert txn.get(b"more", db=environment.databases[b"rows"]) == b"y"
    assert read_all(environment) == (16 << 20) + 2

    def child() -> None:
        assert read_all(environment) == (16 << 20) + 2
        environment.trim()
        assert mapped_in_memory(path / "data.mdb") < 1 << 20

    assert in_child(child) == 0

    def nowhere(file: Path) -> tuple[int, int]:
        raise FileNotFoundError(2, "No such file or directory", "/proc/self/maps")

    monkeypatch.setattr(environment_module, "_mapped", nowhere)
    other = open_environment(path.parent / "other", durable=lambda: False)
    other.commit(lambda txn: txn.put(b"big", bytes(4 << 20), db=other.databases[b"rows"]))
    other.trim()
    assert read_all(other) == 4 << 20
    other.close()
    environment.close()


def test_a_child_closes_what_another_thread_was_using_at_the_fork(path: Path) -> None:
    environment = open_environment(path)
    put(environment, b"a", b"b")
    shared = environment._current()  # pyright: ignore[reportPrivateUsage]
    with shared._map:  # pyright: ignore[reportPrivateUsage]  # as ``trim`` of another thread
        assert in_child(lambda: put(environment, b"c", b"d")) == 0
    assert environment.get(b"rows", b"c") == b"d"
    environment.close()
