"""Mounts without privilege: in a user namespace, and what is said where there is none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cowshed import Shed
from cowshed.errors import StoreError

from .conftest import make_everything
from .pictures import Picture, differences, of_tree

DRIVERS = ("hardlink-farm", "chunk-dedup", "naive-copy")


@pytest.fixture
def namespace() -> list[str]:
    """The command that goes into a user namespace with mounts of its own."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("there is no unshare(1)")
    command = [unshare, "--user", "--map-root-user", "--mount"]
    done = subprocess.run([*command, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True)
    if done.returncode:
        pytest.skip("this system lets nobody make user namespaces with mounts")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse can't be opened")
    return command


def _picture(shed: Shed, id: str) -> Picture:
    with shed.container(id).tree() as tree:
        return of_tree(tree)


#: Goes in, changes things, says what the mount shows of owners.
SCRIPT = """
import json, os, sys
from cowshed import Shed
shed = Shed(sys.argv[1], driver=sys.argv[2], overrides={"durability": "none"})
container = shed.container(sys.argv[3])
with container.mounted() as path:
    before = [change.path for change in container.diff()]
    (path / "etc/passwd").write_bytes(b"written")
    os.chmod(path / "usr/lib/tool", 0o711)
    os.unlink(path / "etc/deep/other")
    (path / "etc/made").mkdir()
    (path / "etc/made/file").write_bytes(b"made")
    os.setxattr(path / "etc/made", "user.one", b"1")
    os.rename(path / "usr/lib/equal", path / "etc/made/equal")
    while_mounted = [change.path for change in container.diff()]
print(json.dumps([before, while_mounted, [change.path for change in container.diff()]]))
"""


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_users_containers_are_mounted_in_a_namespace(
    namespace: list[str], driver: str, tmp_path: Path
) -> None:
    """What the user's namespace can't show, other owners and privileged attributes, stays."""
    source = tmp_path / "source"
    source.mkdir()
    make_everything(source)
    root = tmp_path / "shed"
    with Shed(root, driver=driver, overrides={"durability": "none"}) as shed:
        shed.import_image(f"dir:{source}", "everything")
        container = shed.create("everything")
        with container.tree(writable=True) as tree:
            tree.chown("etc/deep/er/file", 77, 88)
            tree.setxattr("usr/lib/big", "trusted.mine", b"kept")
            tree.mknod("etc/device", 0o020600, os.makedev(5, 1))
        was = _picture(shed, container.id)
        layer = container.record.chain
        with shed.driver(driver).tree(layer) as tree:
            sealed = of_tree(tree)
        changed = [change.path for change in container.diff()]
    if driver == "hardlink-farm" and os.geteuid() == 0:
        pytest.skip("a farm that root made belongs to root's user namespace")
    if driver == "naive-copy" and os.geteuid() == 0:
        pytest.skip("trees that root made belong to root's user namespace")
    command = [*namespace, sys.executable, "-c", SCRIPT, str(root), driver, container.id]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, while_mounted, after = json.loads(done.stdout)
    assert before == changed
    expected = {
        *changed,
        *("etc/passwd", "usr/lib/tool", "etc/deep/other", "etc/made", "etc/made/file"),
        *("etc/made/equal", "usr/lib/equal", "usr/lib", "usr", "etc", "etc/deep"),
    }
    assert set(after) == expected
    assert while_mounted == after
    with Shed(root, driver=driver, overrides={"durability": "none"}) as shed:
        now = _picture(shed, container.id)
        with shed.driver(driver).tree(layer) as tree:
            assert differences(sealed, of_tree(tree)) == []
        assert [change.path for change in shed.container(container.id).diff()] == after
        assert shed.mounts() == []
    assert now["etc/device"] == was["etc/device"]
    assert now["etc/deep/er/file"] == was["etc/deep/er/file"]
    assert now["usr/lib/big"] == was["usr/lib/big"]
    assert (now["usr/lib/tool"].mode, now["usr/lib/tool"].uid) == (0o711, was["usr/lib/tool"].uid)
    assert now["etc/made/equal"].digest == was["usr/lib/equal"].digest


def test_who_may_not_mount_is_told_what_is_missing(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may mount")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse can't be opened")
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"content")
    with Shed(tmp_path / "shed", driver="chunk-dedup") as shed:
        shed.import_image(f"dir:{source}", "small")
        container = shed.create("small")
        with pytest.raises(StoreError, match=r"needs privilege; .*unshare -Urm"):
            container.mount()
        assert shed.mounts() == []
        container.remove()
