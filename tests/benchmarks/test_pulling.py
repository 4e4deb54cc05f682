"""The measurement of pulls at work on a small image."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from cowshed import Shed
from cowshed_benchmarks import pulling


@pytest.fixture
def image(tmp_path: Path) -> str:
    """A layout with two versions that share their first layer."""
    target = f"oci:{tmp_path}/image"
    with Shed(tmp_path / "maker", driver="chunk-dedup") as shed:
        (tmp_path / "base").write_bytes(b"base" * 1000)
        with tarfile.open(tmp_path / "base.tar", "w") as tar:
            tar.add(tmp_path / "base", "base")
        shed.import_image(f"tar:{tmp_path}/base.tar", "base")
        for version in ("v1", "v2"):
            container = shed.create("base")
            with container.tree(writable=True) as tree:
                tree.write_bytes("version", version.encode())
            container.commit(version)
            shed.save([version], f"{target}:{version}")
    return target


def test_every_contender_takes_every_step(
    image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is not installed; .ci/run installs it")
    work = tmp_path / "work"
    work.mkdir()
    chosen = ["--drivers", "chunk-dedup", "hardlink-farm", "--no-podman"]
    more = ["--rounds", "1", "--work", str(work)]
    assert pulling.main([image, *chosen, *more, "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)
    assert list(runs) == ["chunk-dedup", "hardlink-farm"]
    for rounds in runs.values():
        assert [list(one) for one in rounds] == [list(pulling.STEPS)]
        assert all(ran["seconds"] > 0 and ran["peak"] > 0 for one in rounds for ran in one.values())
    assert list(work.iterdir()) == []
    assert pulling.main([image, "--drivers", "chunk-dedup", "--no-podman", *more]) == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert "cold" in heading and row.startswith("chunk-dedup ")
