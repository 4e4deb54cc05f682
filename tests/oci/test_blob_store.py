"""The content store: resuming, verifying, racing, sweeping."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cowshed.blobs import BlobStore
from cowshed.errors import (
    CorruptError,
    DigestMismatchError,
    LimitExceededError,
    NotFoundError,
    SourceError,
)
from cowshed.oci import Descriptor, digest_bytes

DATA = os.urandom(300_000)
WHOLE = Descriptor(media_type="x", digest=digest_bytes(DATA), size=len(DATA))


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path, durable=False)


def left_over(store: BlobStore, root: Path) -> list[str]:
    partial = root / "blobs" / "partial"
    return sorted(os.listdir(partial)) if partial.exists() else []


def test_what_is_put_comes_back_under_its_digest(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    digest = store.put(b"hello")
    assert digest == digest_bytes(b"hello")
    assert store.put(b"hello") == digest
    assert store.read(digest) == b"hello"
    assert (store.has(digest), store.size(digest), list(store.iter())) == (True, 5, [digest])
    assert store.path(digest) == tmp_path / "blobs" / "sha256" / digest[7:]
    assert store.verify(digest)
    assert store.disk_usage() >= 5
    store.delete(digest)
    assert not store.has(digest)
    assert left_over(store, tmp_path) == []


@pytest.mark.parametrize("percent", [0, 10, 50, 90, 100])
def test_a_broken_transfer_is_resumed_where_it_broke(
    store: BlobStore, tmp_path: Path, percent: int
) -> None:
    cut = len(DATA) * percent // 100
    with store.writer(WHOLE) as writer:
        writer.write(DATA[:cut])
    assert not store.has(WHOLE.digest)
    with BlobStore(tmp_path, durable=False).writer(WHOLE) as writer:
        assert writer.offset == cut
        writer.write(DATA[writer.offset :])
        assert writer.commit() == WHOLE.digest
    assert store.read(WHOLE.digest) == DATA
    assert left_over(store, tmp_path) == []


def test_a_transfer_that_ends_too_short_fails_and_can_be_resumed(store: BlobStore) -> None:
    with store.writer(WHOLE) as writer:
        writer.write(DATA[:100])
        with pytest.raises(DigestMismatchError, match="300,000 bytes, found 100"):
            writer.commit()
    with store.writer(WHOLE) as writer:
        assert writer.offset == 100
        writer.restart()
        writer.write(DATA)
        writer.commit()
    assert store.verify(WHOLE.digest)


def test_wrong_bytes_fail_and_are_forgotten(store: BlobStore, tmp_path: Path) -> None:
    with store.writer(WHOLE) as writer:
        writer.write(bytes(len(DATA)))
        with pytest.raises(DigestMismatchError, match=WHOLE.digest):
            writer.commit()
    assert not store.has(WHOLE.digest)
    assert left_over(store, tmp_path) == []
    with store.writer(WHOLE) as writer:
        assert writer.offset == 0


def test_more_bytes_than_promised_fail_at_once(store: BlobStore, tmp_path: Path) -> None:
    with store.writer(WHOLE) as writer:
        writer.write(DATA)
        with pytest.raises(DigestMismatchError, match="more"):
            writer.write(b"x")
    assert left_over(store, tmp_path) == []


def test_two_writers_of_one_blob_both_succeed(store: BlobStore, tmp_path: Path) -> None:
    with store.writer(WHOLE) as first:
        first.write(DATA[:1000])
        with store.writer(WHOLE) as second:
            assert second.offset == 0
            second.write(DATA)
            second.commit()
        first.write(DATA[1000:])
        first.commit()
    assert store.verify(WHOLE.digest)
    assert left_over(store, tmp_path) == []


def test_many_threads_write_one_blob(store: BlobStore, tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def write() -> None:
        try:
            for _ in range(10):
                with store.writer(WHOLE) as writer:
                    writer.write(DATA[writer.offset :])
                    writer.commit()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.verify(WHOLE.digest)
    assert left_over(store, tmp_path) == []


def test_a_killed_writer_leaves_something_to_resume(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib\n"
        "from cowshed.blobs import BlobStore\n"
        "from cowshed.oci import Descriptor\n"
        "d = Descriptor(media_type='x', digest=sys.argv[2], size=int(sys.argv[3]))\n"
        "w = BlobStore(pathlib.Path(sys.argv[1])).writer(d)\n"
        "w.write(sys.stdin.buffer.read())\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run(
        [sys.executable, "-c", script, tmp_path, WHOLE.digest, str(WHOLE.size)],
        input=DATA[:5000],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with BlobStore(tmp_path).writer(WHOLE) as writer:
        assert writer.offset == 5000
        writer.write(DATA[5000:])
        writer.commit()


def test_a_blob_that_changed_on_disk_is_noticed_and_healed_by_writing_it_again(
    store: BlobStore,
) -> None:
    digest = store.put(b"good")
    store.path(digest).write_bytes(b"evil")
    assert not store.verify(digest)
    with pytest.raises(CorruptError, match=digest):
        store.read(digest)
    store.put(b"good")
    assert store.read(digest) == b"good"


def test_reading_is_bounded_and_names_what_is_missing(store: BlobStore) -> None:
    digest = store.put(bytes(100))
    with pytest.raises(LimitExceededError):
        store.read(digest, limit=99)
    missing = digest_bytes(b"missing")
    for call in (store.read, store.open, store.size, store.delete):
        with pytest.raises(NotFoundError, match=missing):
            call(missing)  # type: ignore[operator]
    with pytest.raises(SourceError):
        store.has("sha256:../../x")


def test_a_sweep_keeps_what_is_named_and_what_is_being_written(
    store: BlobStore, tmp_path: Path
) -> None:
    kept, dropped = store.put(b"kept"), store.put(b"dropped")
    with store.writer(WHOLE) as broken:
        broken.write(DATA[:5000])
    other = Descriptor(media_type="x", digest=digest_bytes(b"other"), size=5)
    with store.writer(other) as live, store.writer() as nameless:
        live.write(b"ot")
        nameless.write(b"x")
        assert store.sweep({kept}) > 0
        assert store.has(kept)
        assert not store.has(dropped)
        with store.writer(WHOLE) as resumed:
            assert resumed.offset == 5000
        store.sweep({kept}, partial_age=-1)
        with store.writer(WHOLE) as resumed:
            assert resumed.offset == 0
        live.write(b"her")
        live.commit()
        assert nameless.commit() == digest_bytes(b"x")
    (tmp_path / "blobs" / "partial" / ("a" * 64 + ".dead")).write_bytes(b"x")
    store.sweep({kept})
    assert left_over(store, tmp_path) == []


def test_sha512_blobs_are_verified_with_sha512(store: BlobStore) -> None:
    digest = f"sha512:{hashlib.sha512(DATA).hexdigest()}"
    with store.writer(Descriptor(media_type="x", digest=digest, size=len(DATA))) as writer:
        writer.write(DATA)
        assert writer.commit() == digest
    assert store.read(digest) == DATA
