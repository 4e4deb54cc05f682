"""Files in containers: ls, cat, cp with docker's rules, export."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest


def test_ls_lists_a_directory_or_a_file_and_follows_links_inside(
    cowshed: Any, container: str
) -> None:
    assert cowshed("ls", container).lines == ["data", "etc", "out"]
    assert cowshed("ls", f"{container}:/etc").lines == ["issue", "link", "motd"]
    assert cowshed("ls", container, "etc/link").lines == ["one"]
    assert "link -> /data/one" in cowshed("ls", "-l", container, "etc").text
    assert cowshed("ls", "--json", container, "data").json[0]["kind"] == "directory"


def test_a_link_that_points_out_of_the_root_ends_inside_it(cowshed: Any, container: str) -> None:
    ran = cowshed.try_("ls", container, "/out/")
    assert ran.status == 1
    assert "No such file or directory" in ran.err


# -- out ------------------------------------------------------------------------------------------


def test_a_file_goes_under_the_name_given_or_into_a_directory(
    cowshed: Any, container: str, tmp_path: Path
) -> None:
    cowshed("cp", f"{container}:/etc/motd", tmp_path / "named")
    cowshed("cp", f"{container}:/etc/motd", tmp_path)
    assert (tmp_path / "named").read_text() == (tmp_path / "motd").read_text() == "welcome\n"


def test_a_file_into_a_missing_directory_is_refused(
    cowshed: Any, container: str, tmp_path: Path
) -> None:
    ran = cowshed.try_("cp", f"{container}:/etc/motd", f"{tmp_path}/missing/")
    assert ran.status == 2
    assert "doesn't exist" in ran.err


def test_a_directory_becomes_a_new_one_or_goes_into_an_old_one(
    cowshed: Any, container: str, tmp_path: Path
) -> None:
    cowshed("cp", f"{container}:/data", tmp_path / "new")
    assert (tmp_path / "new/deep/leaf").read_text() == "leaf\n"
    cowshed("cp", f"{container}:/data", tmp_path / "new")
    assert (tmp_path / "new/data/deep/leaf").exists()
    (tmp_path / "content").mkdir()
    cowshed("cp", f"{container}:/data/.", tmp_path / "content")
    assert sorted(os.listdir(tmp_path / "content")) == ["deep", "one", "two"]


def test_hard_links_and_times_are_kept(
    cowshed: Any, container: str, files: Path, tmp_path: Path
) -> None:
    cowshed("cp", f"{container}:/data", tmp_path / "new")
    one, two = (tmp_path / "new/one").stat(), (tmp_path / "new/two").stat()
    assert one.st_ino == two.st_ino
    assert one.st_mtime_ns == (files / "data/one").stat().st_mtime_ns


def test_a_link_is_copied_as_a_link_unless_followed(
    cowshed: Any, container: str, tmp_path: Path
) -> None:
    cowshed("cp", f"{container}:/etc/link", tmp_path / "link")
    assert os.readlink(tmp_path / "link") == "/data/one"
    cowshed("cp", "-L", f"{container}:/etc/link", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"1" * 1000


def test_nothing_is_written_through_a_link_on_the_host(
    cowshed: Any, container: str, tmp_path: Path
) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "outside").mkdir()
    target = tmp_path / "target/data"
    target.mkdir(parents=True)
    (target / "one").symlink_to(tmp_path / "victim")
    cowshed("cp", f"{container}:/data", tmp_path / "target")
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (target / "one").is_symlink()
    (target / "deep/leaf").unlink()
    (target / "deep").rmdir()
    (target / "deep").symlink_to(tmp_path / "outside")
    ran = cowshed.try_("cp", f"{container}:/data", tmp_path / "target")
    assert ran.status == 1
    assert os.listdir(tmp_path / "outside") == []


def test_a_setuid_bit_comes_out_only_in_archive_mode(
    cowshed: Any, files: Path, tmp_path: Path
) -> None:
    (files / "etc/tool").write_text("#!/bin/sh\n")
    (files / "etc/tool").chmod(0o4755)
    cowshed("import", f"dir:{files}", "tools", "-q")
    cowshed("create", "tools", "--name", "tools")
    cowshed("cp", "tools:/etc/tool", tmp_path / "plain")
    assert (tmp_path / "plain").stat().st_mode & 0o7777 == 0o755
    if os.geteuid() == 0:
        cowshed("cp", "-a", "tools:/etc/tool", tmp_path / "exact")
        assert (tmp_path / "exact").stat().st_mode & 0o7777 == 0o4755


def test_to_standard_output_goes_a_tar_named_from_the_last_component(
    cowshed: Any, container: str
) -> None:
    out = cowshed("cp", f"{container}:/data/deep", "-").out
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        assert tar.getnames() == ["deep", "deep/leaf"]


# -- in -------------------------------------------------------------------------------------------


def test_a_directory_of_the_host_keeps_dockers_rules(
    cowshed: Any, container: str, files: Path
) -> None:
    cowshed("cp", files / "data", f"{container}:/new")
    cowshed("cp", files / "data", f"{container}:/new")
    cowshed("cp", f"{files}/data/.", f"{container}:/etc")
    assert cowshed("ls", f"{container}:/new").lines == ["data", "deep", "one", "two"]
    assert cowshed("cat", f"{container}:/etc/deep/leaf").text == "leaf\n"
    listed = {one["path"]: one for one in cowshed("ls", "--json", f"{container}:/new").json}
    assert listed["/new/one"]["links"] == 2
    assert listed["/new/one"]["uid"] == 0


def test_the_destination_is_resolved_inside_the_root(
    cowshed: Any, container: str, tmp_path: Path
) -> None:
    (tmp_path / "new").write_text("x")
    cowshed("cp", tmp_path / "new", f"{container}:/etc/link")
    assert cowshed("cat", f"{container}:/data/one").text == "x"
    escaping = cowshed.try_("cp", tmp_path / "new", f"{container}:/out/new")
    assert escaping.status == 1


@pytest.mark.parametrize(("source", "target"), [("data", "/etc/motd"), ("etc/motd", "/data/new/")])
def test_a_copy_that_makes_no_sense_is_refused(
    cowshed: Any, container: str, files: Path, source: str, target: str
) -> None:
    ran = cowshed.try_("cp", files / source, f"{container}:{target}")
    assert ran.status == 2
    assert cowshed("diff", container).text == ""


def test_a_file_never_replaces_a_directory(cowshed: Any, container: str, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")
    ran = cowshed.try_("cp", tmp_path / "data", f"{container}:/")
    assert ran.status == 1
    assert "a directory can't replace anything else" in ran.err


def make_tar(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size, member.uid = len(content), 1234
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def test_a_tar_on_standard_input_is_unpacked_in_a_directory(cowshed: Any, container: str) -> None:
    tar = make_tar(("sub/new", b"1"), (".wh.motd", b""))
    cowshed("cp", "-", f"{container}:/etc", stdin=tar)
    assert cowshed("diff", container).lines == [
        "C /etc",
        "A /etc/.wh.motd",
        "A /etc/sub",
        "A /etc/sub/new",
    ]
    assert cowshed("ls", "--json", f"{container}:/etc/sub/new").json[0]["uid"] == 0
    cowshed("cp", "-a", "-", f"{container}:/etc", stdin=tar)
    assert cowshed("ls", "--json", f"{container}:/etc/sub/new").json[0]["uid"] == 1234


def test_a_tar_that_leads_out_of_the_directory_is_refused(cowshed: Any, container: str) -> None:
    ran = cowshed.try_("cp", "-", f"{container}:/etc", stdin=make_tar(("../data/up", b"2")))
    assert ran.status == 1
    assert "unsafe entry '../data/up'" in ran.err
    assert cowshed("diff", container).text == ""


def test_a_damaged_tar_is_one_line(cowshed: Any, container: str) -> None:
    ran = cowshed.try_("cp", "-", f"{container}:/etc", stdin=b"no tar at all" * 100)
    assert ran.status == 1
    assert ran.err.count("\n") == 1


def test_a_fifo_comes_out_and_a_device_only_with_privilege(
    cowshed: Any, files: Path, tmp_path: Path
) -> None:
    os.mkfifo(files / "etc/pipe")
    cowshed("import", f"dir:{files}", "pipes", "-q")
    cowshed("create", "pipes", "--name", "pipes")
    cowshed("cp", "pipes:/etc", tmp_path / "etc")
    assert (tmp_path / "etc/pipe").is_fifo()


# -- export ---------------------------------------------------------------------------------------


def test_export_writes_the_whole_tree_as_a_tar(
    cowshed: Any, container: str, tmp_path: Path
) -> None:
    names = {"data", "data/deep", "data/deep/leaf", "data/one", "data/two", "etc", "etc/issue",
             "etc/link", "etc/motd", "out"}  # fmt: skip
    cowshed("export", container, tmp_path / "a.tar")
    cowshed("export", "-o", tmp_path / "b.tar", container)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert cowshed("export", container, "-").out == (tmp_path / "a.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert set(tar.getnames()) == names
