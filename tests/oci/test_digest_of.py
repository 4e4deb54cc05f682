"""Digests of documents, with and without OpenSSL."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from cowshed.oci import Digest, digest_bytes


@pytest.mark.parametrize("size", [0, 1, 1000, (256 << 10) - 1, 256 << 10, 1 << 20])
def test_both_ways_agree(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    script = (
        "import sys; from cowshed.oci import digest_bytes;"
        "print(digest_bytes(sys.stdin.buffer.read()), '_hashlib' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", script], input=data, stdout=-1, check=True)
    said, loaded = ran.stdout.decode().split()
    assert said == f"sha256:{hashlib.sha256(data).hexdigest()}" == digest_bytes(data)
    assert loaded == str(size >= 256 << 10)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_digest_knows_its_data(algorithm: str) -> None:
    digest = Digest.parse(f"{algorithm}:{hashlib.new(algorithm, b'data').hexdigest()}")
    assert digest.is_of(b"data")
    assert not digest.is_of(b"dat")
