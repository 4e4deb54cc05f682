"""umoci unpacks what we unpack: an independent reading of the same layers."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from archive.helpers import Member, Stack, listing, tar
from archive.test_breakouts import ONE_LAYER, TWO_LAYERS
from archive.test_whiteouts import BELOW, CASES
from archive.test_writer import below_root, written
from cowshed.archive import decompressor
from cowshed.entry import Kind

pytestmark = pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci isn't installed")

Layers = tuple[tuple[Member, ...], ...]


def umoci(*arguments: str | Path) -> None:
    subprocess.run(["umoci", *map(str, arguments)], check=True, capture_output=True, timeout=60)


def unpack(layers: list[bytes], tmp_path: Path) -> Path:
    image = tmp_path / "image"
    umoci("init", "--layout", image)
    umoci("new", "--image", f"{image}:x")
    for number, layer in enumerate(layers):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(layer)
        umoci("raw", "add-layer", "--image", f"{image}:x", path)
    rootless = ["--rootless"] if os.geteuid() else []
    umoci("unpack", *rootless, "--image", f"{image}:x", tmp_path / "bundle")
    return tmp_path / "bundle" / "rootfs"


def native(root: Path) -> dict[str, str | bytes]:
    found: dict[str, str | bytes] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        else:
            found[name] = "directory" if path.is_dir() else path.read_bytes()
    return found


CORPUS: dict[str, Layers] = {
    **{
        name: (members,)
        for name, (members, expected) in ONE_LAYER.items()
        if isinstance(expected, dict)
    },
    **{
        name: (below, above)
        for name, (below, above, expected) in TWO_LAYERS.items()
        if isinstance(expected, dict)
    },
    **{f"whiteouts_{name}": (BELOW, above) for name, (above, _) in CASES.items()},
}

#: A hard link onto itself: umoci removes the file first and then can't find it.
REFUSED_BY_UMOCI = {"hardlink_to_itself"}


@pytest.mark.parametrize("name", CORPUS)
def test_umoci_agrees_about_the_tree(name: str, tmp_path: Path) -> None:
    layers = [tar(*members) for members in CORPUS[name]]
    stack = Stack()
    ours = [listing(stack.apply(layer)) for layer in layers][-1]
    try:
        theirs = native(unpack(layers, tmp_path))
    except subprocess.CalledProcessError:
        assert name in REFUSED_BY_UMOCI
        return
    assert ours == theirs


def test_umoci_unpacks_what_we_write(tmp_path: Path) -> None:
    data, _ = written(below_root())
    root = unpack([data], tmp_path)
    tree = Stack().apply(data)
    assert native(root) == listing(tree)
    for entry in tree.walk():
        if entry.kind is Kind.FILE:
            found = os.lstat(root / entry.path)
            assert found.st_mtime_ns == entry.mtime_ns
            assert found.st_mode & 0o7777 == entry.mode
            if os.geteuid() == 0:
                assert (found.st_uid, found.st_gid) == (entry.uid, entry.gid)
            names = [name for name in entry.xattrs if name.startswith("user.")]
            for name in names:
                if entry.xattrs[name]:  # Go takes an empty record for none at all
                    assert os.getxattr(root / entry.path, name) == entry.xattrs[name]


def test_umocis_own_layers_come_back_byte_for_byte(tmp_path: Path) -> None:
    image = f"{tmp_path}/image:x"
    root = unpack([tar(*BELOW)], tmp_path)
    (root / "d" / "a").unlink()
    shutil.rmtree(root / "d" / "sub")
    (root / ("long" * 40)).write_bytes(b"new")
    (root / "größe").symlink_to("long")
    umoci("repack", "--image", image, tmp_path / "bundle")
    blobs = sorted((tmp_path / "image/blobs/sha256").iterdir(), key=os.path.getmtime)
    tars = [unpacked for blob in blobs if (unpacked := gunzipped(blob.read_bytes()))]
    stack = Stack()
    stack.apply(tars[0])
    assert listing(stack.apply(tars[-1])) == native(root)


def gunzipped(data: bytes) -> bytes:
    return decompressor(io.BytesIO(data)).read() if data[:2] == b"\x1f\x8b" else b""
