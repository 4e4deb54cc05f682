"""What the end-to-end tests share: other people's tools, the command line, and looking at trees."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from cowshed import Shed, Tree
from cowshed.entry import Kind, kind_of

ROOT = os.geteuid() == 0
DRIVERS = ("naive-copy", "hardlink-farm", "chunk-dedup")


def run(*command: object, cwd: Path | None = None) -> str:
    """Run another tool; a failure shows what it said."""
    done = subprocess.run(
        [os.fsencode(word) if isinstance(word, (str, Path)) else str(word) for word in command],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, f"{command}: {done.stdout.decode(errors='replace')}"
    return done.stdout.decode(errors="replace")


def cowshed_command(shed: Path, *arguments: object) -> tuple[list[str], dict[str, str]]:
    """Return the command line of Cowshed on ``shed`` and the environment to run it in."""
    command = [sys.executable, "-m", "cowshed", "--root", str(shed), *map(str, arguments)]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("COWSHED_")
    }
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return command, environment


def cowshed(shed: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    command, environment = cowshed_command(shed, *arguments)
    return subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=300,
    )


def must(shed: Path, *arguments: object) -> str:
    """Run the command line; it must succeed. Return its output."""
    done = cowshed(shed, *arguments)
    assert done.returncode == 0, f"cowshed {arguments}: {done.stderr}"
    return done.stdout


def refused(shed: Path, *arguments: object, status: int = 1) -> str:
    """Run the command line; it must fail with ``status`` and one clear line. Return that."""
    done = cowshed(shed, *arguments)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr and "internal error" not in done.stderr
    return lines[0]


# -- looking at trees ----------------------------------------------------------------------------


@attrs.frozen
class Seen:
    """Every attribute of one object."""

    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    digest: str
    target: str
    rdev: int
    xattrs: Mapping[str, bytes]
    #: All names of the same file, this one included.
    names: tuple[str, ...]


Picture = dict[str, Seen]


def picture_of_tree(tree: Tree) -> Picture:
    """Look at every object of a tree."""
    groups: defaultdict[int, list[str]] = defaultdict(list)
    entries = list(tree.walk())
    for entry in entries:
        if entry.inode and entry.kind is not Kind.DIRECTORY:
            groups[entry.inode].append(entry.path)
    return {
        entry.path: Seen(
            entry.kind,
            entry.mode,
            entry.uid,
            entry.gid,
            entry.mtime_ns,
            entry.size,
            _digest(tree.read_bytes(entry.path)) if entry.kind is Kind.FILE else "",
            entry.target,
            entry.rdev,
            dict(entry.xattrs),
            tuple(sorted(groups.get(entry.inode) or [entry.path])),
        )
        for entry in entries
    }


def picture_of_directory(root: Path) -> Picture:
    """Look at every object below a directory, with the system's own calls."""
    found: dict[str, os.stat_result] = {"": root.lstat()}
    for above, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = os.path.join(above, name)
            found[os.path.relpath(path, root)] = os.lstat(path)
    groups: defaultdict[int, list[str]] = defaultdict(list)
    picture: Picture = {}
    for path, status in found.items():
        kind = kind_of(status.st_mode)
        assert kind is not None
        if kind is not Kind.DIRECTORY:
            groups[status.st_ino].append(path)
        full = os.path.join(root, path) if path else str(root)
        picture[path] = Seen(
            kind,
            0o777 if kind is Kind.SYMLINK else status.st_mode & 0o7777,
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            status.st_size if kind is Kind.FILE else 0,
            _digest(Path(full).read_bytes()) if kind is Kind.FILE else "",
            os.readlink(full) if kind is Kind.SYMLINK else "",
            status.st_rdev if kind in (Kind.CHAR, Kind.BLOCK) else 0,
            {
                name: os.getxattr(full, name, follow_symlinks=False)
                for name in os.listxattr(full, follow_symlinks=False)
                if name != "security.selinux"
            },
            (),
        )
    for path, status in found.items():
        names = tuple(sorted(groups.get(status.st_ino) or [path]))
        picture[path] = attrs.evolve(picture[path], names=names)
    return picture


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def assert_same(
    expected: Picture, found: Picture, *, ignore: Iterable[str] = (), where: str = ""
) -> None:
    """Fail with the first differences, attribute by attribute."""
    lines = [f"{path!r} is missing" for path in sorted({*expected} - {*found})]
    lines += [f"{path!r} must not be there" for path in sorted({*found} - {*expected})]
    for path in sorted({*expected} & {*found}):
        for field in attrs.fields(Seen):
            wanted = getattr(expected[path], field.name)
            got = getattr(found[path], field.name)
            if wanted != got and field.name not in ignore:
                lines.append(f"{path!r}: {field.name} must be {wanted!r}, is {got!r}")
    shown = "\n  ".join(lines[:20])
    assert not lines, f"{where}: {len(lines)} differences\n  {shown}"


# -- images of other tools -----------------------------------------------------------------------


def manifest_of(layout: Path, tag: str) -> dict[str, Any]:
    """Return the manifest that ``tag`` names in an OCI layout."""
    index = json.loads((layout / "index.json").read_text())
    for descriptor in index["manifests"]:
        if descriptor.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag:
            return json.loads(blob(layout, descriptor["digest"]))  # type: ignore[no-any-return]
    raise AssertionError(f"no {tag} in {layout}: {index}")


def blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()


def image_id(layout: Path, tag: str) -> str:
    """Return the image ID, the digest of its config."""
    return str(manifest_of(layout, tag)["config"]["digest"])


def diff_ids(layout: Path, tag: str) -> list[str]:
    config = json.loads(blob(layout, image_id(layout, tag)))
    return list(config["rootfs"]["diff_ids"])


def assert_consistent(shed: Path) -> None:
    """No damage, and the parts of df add up to what is on disk."""
    with Shed(shed) as opened:
        assert opened.check(deep=True) == []
        usage = opened.df()
        parts = sum(one.disk for one in usage.drivers) + usage.recipes + usage.blobs + usage.partial
        assert usage.total == parts + usage.catalog + usage.temporary + usage.other
