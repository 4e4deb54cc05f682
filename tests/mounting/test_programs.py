"""What processes do in a container's file system, seen through every driver's mount."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import CAPABILITY, Stable
from .pictures import differences, of_directory, of_tree

Act = Callable[[Path], None]


def test_a_mount_shows_the_image_as_it_is(stable: Stable) -> None:
    container = stable.container()
    with container.mounted() as path:
        assert differences(stable.layer, of_directory(path)) == []
        stable.assert_exact(container, path)
    assert container.diff() == []
    stable.assert_layer_whole(container)


def write_mapped_memory(path: Path) -> None:
    with (path / "usr/lib/big").open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[5_000:5_005] = b"spoke"
        memory.flush()


def append(path: Path) -> None:
    descriptor = os.open(path / "etc/passwd", os.O_WRONLY | os.O_APPEND)
    for line in (b"one\n", b"two\n"):
        os.write(descriptor, line)
        os.lseek(descriptor, 0, os.SEEK_SET)
    os.close(descriptor)
    assert (path / "etc/passwd").read_bytes().endswith(b"one\ntwo\n")


def name_a_nameless_file(path: Path) -> None:
    descriptor = os.open(path / "etc", os.O_TMPFILE | os.O_RDWR, 0o640)
    os.write(descriptor, b"nameless")
    procfs = os.open("/proc/self/fd", os.O_RDONLY)  # only with it, link(2) follows
    os.link(str(descriptor), path / "etc/named", src_dir_fd=procfs, follow_symlinks=True)
    os.close(procfs)
    os.close(descriptor)
    assert (path / "etc/named").read_bytes() == b"nameless"


def use_a_removed_file(path: Path) -> None:
    with (path / "usr/lib/big").open("r+b") as file:
        os.unlink(path / "usr/lib/big")
        file.write(b"nobody sees it")
        file.seek(0)
        assert file.read(14) == b"nobody sees it"
        assert file.read(2) == b"\x0e\x0f"
    assert not (path / "usr/lib/big").exists()


def rename_over(path: Path) -> None:
    (path / "etc/new").write_bytes(b"new")
    os.rename(path / "etc/new", path / "etc/passwd")
    os.rename(path / "etc/deep/other", path / "etc/link")
    assert (path / "etc/passwd").read_bytes() == b"new"


def make_hard_links(path: Path) -> None:
    (path / "made").write_bytes(b"made")
    os.link(path / "made", path / "etc/made")
    os.link(path / "etc/nothing", path / "etc/nothing-too")
    (path / "etc/made").write_bytes(b"both")
    assert (path / "made").read_bytes() == b"both"
    assert (path / "made").stat().st_nlink == 2


def write_one_of_several_names(path: Path) -> None:
    (path / "usr/lib/two").write_bytes(b"written")


def remove_one_of_several_names(path: Path) -> None:
    os.unlink(path / "usr/lib/one")


def lock(path: Path) -> None:
    script = (
        "import fcntl,sys\n"
        "file=open(sys.argv[1],'r+b')\n"
        "try: fcntl.lockf(file,fcntl.LOCK_EX|fcntl.LOCK_NB)\n"
        "except OSError: sys.exit(7)\n"
    )
    with (path / "etc/passwd").open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        assert subprocess.run(["python3", "-c", script, path / "etc/passwd"]).returncode == 7
        fcntl.lockf(file, fcntl.LOCK_UN)
        assert subprocess.run(["python3", "-c", script, path / "etc/passwd"]).returncode == 0
        fcntl.flock(file, fcntl.LOCK_EX)
        with (path / "etc/passwd").open("r+b") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def write_sparsely(path: Path) -> None:
    with (path / "holes").open("wb") as file:
        file.seek(40 << 20)
        file.write(b"middle")
        file.truncate(200 << 20)
    with (path / "usr/lib/sparse").open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"in the hole")
    assert (path / "holes").stat().st_blocks * 512 < 2 << 20


def set_attributes(path: Path) -> None:
    os.setxattr(path / "etc/passwd", "user.one", b"1")
    os.setxattr(path / "etc", "user.of.a.directory", b"\xff")
    os.removexattr(path / "etc/nothing", "user.comment")
    os.setxattr(path / "usr/lib/big", "security.capability", CAPABILITY)
    os.setxattr(path / "etc/link", "trusted.of.a.link", b"link", follow_symlinks=False)
    with pytest.raises(OSError) as caught:
        os.getxattr(path / "etc/nothing", "user.comment")
    assert caught.value.errno == errno.ENODATA


def change_owner_and_mode_only(path: Path) -> None:
    os.chmod(path / "usr/lib/big", 0o640)
    os.chown(path / "usr/lib/tool", 5, 6)
    os.chown(path / "etc/link", 7, 8, follow_symlinks=False)
    os.chmod(path / "etc/deep", 0o711)
    os.utime(path / "etc/deep/other", ns=(1, 2))


def change_attributes_then_content(path: Path) -> None:
    os.chmod(path / "usr/lib/big", 0o600)
    with (path / "usr/lib/big").open("r+b") as file:
        file.write(b"first bytes")


def make_special_files(path: Path) -> None:
    os.mkfifo(path / "etc/fifo", 0o600)
    os.mknod(path / "etc/zero", 0o020640, os.makedev(1, 5))
    os.unlink(path / "tmp/fifo")
    reader = os.open(path / "etc/fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path / "etc/fifo", os.O_WRONLY)
    os.write(writer, b"through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    os.close(writer)


def put_a_socket_where_a_file_was(path: Path) -> None:
    os.unlink(path / "etc/passwd")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        here = os.open(path / "etc", os.O_PATH)
        server.bind(f"/proc/self/fd/{here}/passwd")
        server.listen()
        client.connect(f"/proc/self/fd/{here}/passwd")
        os.close(here)
        accepted, _ = server.accept()
        client.sendall(b"hello")
        assert accepted.recv(10) == b"hello"
        accepted.close()


def sync(path: Path) -> None:
    with (path / "etc/passwd").open("r+b") as file:
        file.write(b"synced")
        file.flush()
        os.fsync(file.fileno())
        os.fdatasync(file.fileno())
    directory = os.open(path / "etc", os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def remove_and_make_a_directory_again(path: Path) -> None:
    shutil.rmtree(path / "etc/deep")
    (path / "etc/deep").mkdir(mode=0o700)
    (path / "etc/deep/er").write_bytes(b"a file now")
    shutil.rmtree(path / "many")
    (path / "many").mkdir()


def put_a_directory_where_a_file_was(path: Path) -> None:
    os.unlink(path / "etc/passwd")
    (path / "etc/passwd/below").mkdir(parents=True)
    shutil.rmtree(path / "etc/deep")
    (path / "etc/deep").symlink_to("passwd")


def move_directories(path: Path) -> None:
    # Where the kernel can't (EXDEV), mv copies.
    subprocess.run(["mv", path / "etc/deep", path / "moved"], check=True)
    (path / "moved/er/file").write_bytes(b"changed after it moved")
    subprocess.run(["mv", path / "usr/lib", path / "etc/lib"], check=True)
    (path / "usr/lib").mkdir()
    (path / "usr/lib/fresh").touch()


def move_a_directory_and_back(path: Path) -> None:
    subprocess.run(["mv", path / "usr/lib", path / "elsewhere"], check=True)
    os.unlink(path / "elsewhere/equal")
    subprocess.run(["mv", path / "elsewhere", path / "usr/lib"], check=True)


def move_files_of_which_attributes_changed(path: Path) -> None:
    os.chmod(path / "usr/lib/big", 0o611)
    os.rename(path / "usr/lib/big", path / "etc/bigger")
    os.chown(path / "etc/deep/er/file", 9, 9)
    os.link(path / "etc/deep/er/file", path / "file-too")


def change_in_place_and_put_the_time_back(path: Path) -> None:
    before = (path / "usr/lib/equal").stat()
    (path / "usr/lib/equal").write_bytes(b"EQUAL")
    os.utime(path / "usr/lib/equal", ns=(before.st_atime_ns, before.st_mtime_ns))


def use_strange_names(path: Path) -> None:
    (path / os.fsdecode(b"\xc3\x28\n")).write_bytes(b"1")
    (path / ("x" * 255)).mkdir()
    os.rename(path / os.fsdecode(b"etc/\xff\xfe"), path / os.fsdecode(b"\xfe"))


def allocate_and_cut(path: Path) -> None:
    descriptor = os.open(path / "usr/lib/big", os.O_RDWR)
    os.truncate(descriptor, 1000)
    os.posix_fallocate(descriptor, 0, 5000)
    os.close(descriptor)
    os.truncate(path / "etc/passwd", 3)
    assert (path / "usr/lib/big").stat().st_size == 5000


ACTS: list[Act] = [
    write_mapped_memory,
    append,
    name_a_nameless_file,
    use_a_removed_file,
    rename_over,
    make_hard_links,
    write_one_of_several_names,
    remove_one_of_several_names,
    lock,
    write_sparsely,
    set_attributes,
    change_owner_and_mode_only,
    change_attributes_then_content,
    make_special_files,
    put_a_socket_where_a_file_was,
    sync,
    remove_and_make_a_directory_again,
    put_a_directory_where_a_file_was,
    move_directories,
    move_a_directory_and_back,
    move_files_of_which_attributes_changed,
    change_in_place_and_put_the_time_back,
    use_strange_names,
    allocate_and_cut,
]


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
def test_what_processes_do_is_what_the_container_holds(stable: Stable, act: Act) -> None:
    container = stable.container()
    with container.mounted() as path:
        act(path)
        stable.assert_exact(container, path)
        (path / "afterwards").write_bytes(b"still mounted")
        stable.assert_exact(container, path)
        seen = of_directory(path)
    with container.tree() as tree:
        assert differences(seen, of_tree(tree)) == []
    # Mounted anew, from what the driver has.
    with container.mounted() as path:
        assert differences(seen, of_directory(path)) == []
        os.unlink(path / "afterwards")
        stable.assert_exact(container, path)
    stable.assert_layer_whole(container)
    container.remove()


def test_one_act_after_the_other_adds_up(layered: Stable) -> None:
    container = layered.container()
    with container.mounted() as path:
        for act in (
            append,
            change_owner_and_mode_only,
            make_hard_links,
            write_sparsely,
            move_directories,
            use_strange_names,
        ):
            act(path)
            layered.assert_exact(container, path)
    copy = container.fork()
    with copy.mounted() as path:
        layered.assert_exact(container, path)
    image = container.commit("committed")
    assert image.id
    again = layered.shed.create("committed")
    with again.mounted() as path, container.mounted() as other:
        assert differences(of_directory(path), of_directory(other)) == []
    layered.assert_layer_whole(container)
