"""From an image of other tools to an empty disk again, with each driver, by the command line."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from cowshed import Shed
from cowshed.entry import Kind

from .helpers import (
    DRIVERS,
    ROOT,
    Picture,
    assert_consistent,
    assert_same,
    cowshed_command,
    diff_ids,
    image_id,
    must,
    picture_of_directory,
    picture_of_tree,
    run,
)


def test_every_attribute_is_what_umoci_unpacks(
    driver: str, shed_root: Path, layout: Path, unpacked: tuple[str, Picture]
) -> None:
    tag, expected = unpacked
    must(shed_root, "--driver", driver, "import", f"oci:{layout}:{tag}", "app")
    with Shed(shed_root) as shed, shed.create("app", driver=driver).tree() as tree:
        found = picture_of_tree(tree)
    if ROOT:
        assert_same(expected, found, where=f"{driver} {tag}")
        return
    # umoci --rootless can't chown and makes empty files of devices; what it can, it must equal.
    assert_same(expected, found, ignore=("uid", "gid", "xattrs"), where=f"{driver} {tag}")
    assert found["lib/module1.py"].uid == 1234
    assert found["lib/module1.py"].gid == 567
    assert found["etc/empty"].xattrs["user.note"] == b"a \xff note"


def test_an_image_lives_through_everything(
    driver: str, shed_root: Path, layout: Path, tmp_path: Path
) -> None:
    def cowshed(*arguments: object) -> str:
        return must(shed_root, "--driver", driver, *arguments)

    cowshed("import", f"oci:{layout}:v1", "app:1")
    cowshed("import", f"oci:{layout}:v2", "app:2")
    container = cowshed("create", "--name", "box", "app:2").strip()
    assert len(container) == 64

    note = tmp_path / "note"
    note.write_text("from outside\n")
    cowshed("cp", note, "box:/etc/note")
    with Shed(shed_root) as shed, shed.container("box").tree(writable=True) as tree:
        before = tree.stat("lib/module20.py")
        content = tree.read_bytes("lib/module20.py").replace(b"value", b"VALUE")
        tree.write_bytes("lib/module20.py", content)
        tree.utime("lib/module20.py", before.mtime_ns)
        tree.unlink("lib/module21.py")
        tree.chmod("etc/empty", 0o600)
        tree.chown("etc/secret", 3, 4)
        tree.mkdir("srv/made")
        tree.link("bin/program", "srv/made/program")
    assert cowshed("cat", "box", "/etc/note") == "from outside\n"
    changes = sorted(cowshed("diff", "box").splitlines())
    expected = ["A /etc/note", "A /srv/made", "A /srv/made/program", "C /bin", "C /bin/program"]
    expected += ["C /etc", "C /etc/empty", "C /etc/secret", "C /lib", "C /lib/module20.py"]
    expected += ["C /lib/third-name", "C /srv", "D /lib/module21.py"]
    assert changes == sorted(expected)

    cowshed("commit", "box", "app:changed", "--author", "a test", "--message", "why")
    cowshed("export", "box", tmp_path / "box.tar")
    with tarfile.open(tmp_path / "box.tar", errors="surrogateescape") as tar:
        members = {one.name.removeprefix("./").strip("/"): one for one in tar}
        file = tar.extractfile(members["lib/module20.py"])
        assert file is not None and file.read() == content
        assert "lib/module21.py" not in members
        assert (members["etc/secret"].uid, members["etc/secret"].gid) == (3, 4)
    with Shed(shed_root) as shed:
        with shed.container("box").tree() as tree:
            written = picture_of_tree(tree)
        with shed.create("app:changed", driver=driver).tree() as tree:
            assert_same(written, picture_of_tree(tree), where="a container on the commit")

    saved = tmp_path / "saved"
    for tag, name in (("v1", "app:1"), ("v2", "app:2"), ("changed", "app:changed")):
        cowshed("save", name, f"oci:{saved}:{tag}")
    for tag in ("v1", "v2"):
        assert image_id(saved, tag) == image_id(layout, tag)
        assert diff_ids(saved, tag) == diff_ids(layout, tag)
    assert diff_ids(saved, "changed")[:-1] == diff_ids(layout, "v2")

    elsewhere = tmp_path / "elsewhere"
    other = "chunk-dedup" if driver != "chunk-dedup" else "naive-copy"
    must(elsewhere, "--driver", other, "import", f"oci:{saved}:changed", "app:changed")
    with Shed(shed_root) as here, Shed(elsewhere) as there:
        assert here.image("app:changed").id == there.image("app:changed").id
        with there.create("app:changed", driver=other).tree() as tree:
            assert_same(written, picture_of_tree(tree), where=f"imported again by {other}")
    assert_consistent(shed_root)


def test_other_tools_read_what_is_saved(
    driver: str, shed_root: Path, layout: Path, tmp_path: Path
) -> None:
    must(shed_root, "--driver", driver, "import", f"oci:{layout}:v2", "app")
    must(shed_root, "save", "app", f"oci:{tmp_path / 'saved'}:again")
    rootless = () if ROOT else ("--rootless",)
    for source, bundle in ((f"{layout}:v2", "before"), (f"{tmp_path / 'saved'}:again", "after")):
        run("umoci", "unpack", *rootless, "--image", source, tmp_path / bundle)
    assert_same(
        picture_of_directory(tmp_path / "before/rootfs"),
        picture_of_directory(tmp_path / "after/rootfs"),
        where="umoci's view of the saved image",
    )


def test_removing_everything_gives_the_disk_back(
    driver: str, shed_root: Path, layout: Path
) -> None:
    def disk() -> int:
        return int(json.loads(must(shed_root, "--driver", driver, "df", "--json"))["total"])

    must(shed_root, "--driver", driver, "images")
    empty = disk()
    for tag in ("v1", "v2"):
        must(shed_root, "--driver", driver, "import", f"oci:{layout}:{tag}", f"app:{tag}")
    full = disk()
    ids = must(shed_root, "--driver", driver, "create", "--count", 5, "app:v2").split()
    assert len(ids) == 5
    must(shed_root, "cp", __file__, f"{ids[0]}:/etc/")
    must(shed_root, "rm", *ids)
    must(shed_root, "rmi", "app:v1")
    assert_consistent(shed_root)
    must(shed_root, "rmi", "app:v2")
    with Shed(shed_root) as shed:
        assert list(shed.driver(driver).items()) == []
    left = disk() - empty
    # Without gc. LMDB keeps its file's size: bounded, whatever was stored.
    assert left < 1_000_000 < full - empty, f"{left:,} of {full:,} bytes stay"


def test_a_tar_from_standard_input_becomes_an_image(driver: str, shed_root: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("hello")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"world"))
    command, environment = cowshed_command(shed_root, "--driver", driver, "import", "tar:-", "tiny")
    done = subprocess.run(command, env=environment, input=buffer.getvalue(), capture_output=True)
    assert done.returncode == 0, done.stderr
    with Shed(shed_root) as shed, shed.create("tiny", driver=driver).tree() as tree:
        assert tree.read_bytes("hello") == b"world"
        assert [one.path for one in tree.walk() if one.kind is Kind.FILE] == ["hello"]


@pytest.mark.parametrize(
    ("first", "second"), [(one, other) for one in DRIVERS for other in DRIVERS if one != other]
)
def test_a_container_migrates_with_its_changes(
    first: str, second: str, shed_root: Path, layout: Path
) -> None:
    must(shed_root, "--driver", first, "import", f"oci:{layout}:v2", "app")
    must(shed_root, "--driver", first, "create", "--name", "box", "app")
    must(shed_root, "cp", __file__, "box:/etc/")
    with Shed(shed_root) as shed:
        with shed.container("box").tree() as tree:
            before = picture_of_tree(tree)
        changes = [f"{one.kind.value} {one.path}" for one in shed.container("box").diff()]
    must(shed_root, "migrate", "--to", second)
    with Shed(shed_root) as shed:
        box = shed.container("box")
        assert box.driver == second
        with box.tree() as tree:
            assert_same(before, picture_of_tree(tree), where=f"{first} → {second}")
        assert [f"{one.kind.value} {one.path}" for one in box.diff()] == changes
    assert_consistent(shed_root)
