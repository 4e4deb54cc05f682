"""Mounts: shared, listed, refused, cleaned up, and what becomes of them when something dies."""

from __future__ import annotations

import json
import mmap
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from cowshed import Shed
from cowshed.config import load_config
from cowshed.errors import BusyError, ConfigError, DriverError, InUseError, StoreError
from cowshed.mounting import absorbing, filling
from cowshed.mounting import layered as layered_module
from cowshed.mounting import mounts as mounts_module
from cowshed.mounting.registry import Registry
from cowshed.native.removal import remove_directory

from .conftest import Make, Stable, require_mounts, unmount_all
from .pictures import differences, of_directory, of_tree

#: As older and as newer kernels say it.
VOLATILE = {"volatile", "fsync=volatile"}


def server_of(shed: Shed) -> int | None:
    """Return the process that serves the FUSE mounts of a shed."""
    inodes = set()
    for path in (shed.home.root / "lowers").glob("*.log"):
        inodes.add(path.stat().st_ino)
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}/fd/2").st_ino in inodes:
                    return int(name)
            except OSError:
                continue
    return None


def wait_for(condition: object, seconds: float = 20) -> None:
    """Wait until ``condition`` returns something true."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it didn't happen"
        time.sleep(0.05)


def test_a_mount_stays_until_it_is_taken_away(stable: Stable, tmp_path: Path) -> None:
    container = stable.container()
    place = tmp_path / "here"
    place.mkdir()
    script = (
        "import sys; from cowshed import Shed\n"
        "shed = Shed(sys.argv[1], driver=sys.argv[2])\n"
        "from pathlib import Path\n"
        "print(shed.container(sys.argv[3]).mount(Path(sys.argv[4])))\n"
    )
    root = str(stable.shed.home.root)
    command = [sys.executable, "-c", script, root, stable.driver, container.id, str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(place)
    (place / "etc/passwd").write_text("written after its maker ended")
    [mount] = [one for one in stable.shed.mounts() if one.container == container.id]
    assert (mount.state, mount.lasting, mount.path) == ("alive", True, place)
    with container.mounted() as path:
        assert path == place
    assert (place / "etc/passwd").exists()
    stable.assert_exact(container, place)
    container.unmount()
    assert os.listdir(place) == [] or stable.driver in ("naive-copy", "reflink")
    assert not [one for one in stable.shed.mounts() if one.container == container.id]
    with container.tree() as tree:
        assert tree.read_bytes("etc/passwd") == b"written after its maker ended"


def test_a_mounted_container_is_removed_by_force_alone(stable: Stable) -> None:
    container = stable.container()
    with container.mounted() as path:
        with pytest.raises(InUseError, match="mounted at"):
            container.remove()
        assert (path / "etc/passwd").exists()
        container.remove(force=True)
    assert not [one for one in stable.shed.mounts() if one.container == container.id]


def test_a_busy_mount_isnt_taken_away(layered: Stable) -> None:
    container = layered.container()
    path = container.mount()
    with (path / "etc/passwd").open("r+b") as file:
        with pytest.raises(BusyError, match="something open"):
            container.unmount()
        file.write(b"still here")
    layered.assert_exact(container, path)
    container.unmount()


def _answers_of_earlier_readers(place: Path) -> list[bytes]:
    """Write to a file that is open and mapped to read; return what each sees then."""
    with place.open("rb") as reader, mmap.mmap(reader.fileno(), 0, prot=mmap.PROT_READ) as memory:
        found = [os.pread(reader.fileno(), 7, 0), memory[:7]]
        with place.open("r+b") as writer:
            writer.write(b"written")
        found += [os.pread(reader.fileno(), 7, 0), memory[:7], place.read_bytes()[:7]]
        # It was copied already, and is one file for all who open it from now on.
        with place.open("rb") as later, mmap.mmap(later.fileno(), 0, prot=mmap.PROT_READ) as new:
            with place.open("r+b") as writer:
                writer.write(b"WRITTEN")
            found += [os.pread(reader.fileno(), 7, 0), memory[:7], new[:7], later.read(7)]
    return found


def test_who_has_an_images_file_open_sees_what_he_does_on_an_overlay(
    layered: Stable, everything: Path, tmp_path: Path
) -> None:
    """The first write to it makes a copy: who mapped it before goes on with the image's."""
    for name in ("upper", "work", "merged"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={everything},upperdir={tmp_path / 'upper'},workdir={tmp_path / 'work'}"
    command = ["mount", "-t", "overlay", "-o", options, "overlay", tmp_path / "merged"]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("the temporary directory lies on what can't be an overlay's")
    try:
        plainly = _answers_of_earlier_readers(tmp_path / "merged/usr/lib/big")
    finally:
        subprocess.run(["umount", tmp_path / "merged"], check=True)
    container = layered.container()
    with container.mounted() as path:
        assert _answers_of_earlier_readers(path / "usr/lib/big") == plainly
        layered.assert_exact(container, path)
    assert plainly[2] == b"written" and plainly[3] == plainly[0] != plainly[2]
    layered.assert_layer_whole(container)


def test_nobody_writes_beside_a_mount(layered: Stable) -> None:
    container = layered.container()
    with container.mounted(), pytest.raises(BusyError, match="is mounted at"):
        container.tree(writable=True)
    with container.tree(writable=True) as tree:
        tree.write_bytes("etc/passwd", b"before")
    with container.mounted() as path:
        assert (path / "etc/passwd").read_bytes() == b"before"
        layered.assert_exact(container, path)


def test_a_read_only_mount_shows_what_was_changed_and_takes_nothing(stable: Stable) -> None:
    container = stable.container()
    with container.tree(writable=True) as tree:
        tree.write_bytes("etc/passwd", b"before")
        tree.unlink("etc/link")
    with container.mounted(read_only=True) as path:
        with pytest.raises(OSError, match="Read-only"):
            (path / "etc/passwd").write_bytes(b"no")
        with container.tree() as tree:
            assert differences(of_directory(path), of_tree(tree)) == []


def _hold(root: str, driver: str, container: str, ready: object) -> None:
    shed = Shed(root, driver=driver)
    with shed.container(container).mounted() as path:
        (path / "etc/passwd").write_bytes(b"by the killed")
        descriptor = os.open(path / "etc/passwd", os.O_RDONLY)
        os.fsync(descriptor)
        ready.set()  # type: ignore[attr-defined]  # an Event of its context
        time.sleep(60)


def test_what_a_killed_user_wrote_is_kept_and_its_mount_goes(stable: Stable) -> None:
    container = stable.container()
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    root = str(stable.shed.home.root)
    process = context.Process(target=_hold, args=(root, stable.driver, container.id, ready))
    process.start()
    assert ready.wait(60)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    stable.shed.check()
    assert not [one for one in stable.shed.mounts() if one.container == container.id]
    with container.tree() as tree:
        assert tree.read_bytes("etc/passwd") == b"by the killed"
    stable.assert_layer_whole(container)


def test_a_killed_server_takes_nothing_along(make_stable: Make) -> None:
    require_mounts()
    stable = make_stable("chunk-dedup")
    container = stable.container()
    path = container.mount()
    (path / "etc/new").write_bytes(b"new")
    with (path / "etc/passwd").open("r+b") as file:
        file.write(b"changed")
        file.flush()
        os.fsync(file.fileno())
    server = server_of(stable.shed)
    assert server is not None
    os.kill(server, signal.SIGKILL)
    wait_for(lambda: server_of(stable.shed) is None)
    [mount] = [one for one in stable.shed.mounts() if one.container == container.id]
    assert mount.state == "dead"
    changes = {change.path: change.kind.value for change in container.diff()}
    assert changes == {"etc": "C", "etc/new": "A", "etc/passwd": "C"}
    with container.tree() as tree:
        assert tree.read_bytes("etc/passwd").startswith(b"changed")
    # The next one gets a server of his own.
    with container.mounted() as path:
        assert (path / "etc/new").read_bytes() == b"new"
        assert (path / "usr/lib/equal").read_bytes() == b"equal"
        stable.assert_exact(container, path)
    assert stable.shed.check() == [
        one for one in stable.shed.check() if one.where == "configuration"
    ]
    stable.assert_layer_whole(container)


@pytest.mark.parametrize("driver", ["naive-copy", "reflink"])
def test_what_somebody_mounted_in_a_container_is_left_alone(
    make_stable: Make, driver: str, tmp_path: Path
) -> None:
    require_mounts()
    container = make_stable(driver).container()
    (tmp_path / "kept").write_text("the host's")
    path = container.mount()
    inside = path / "empty"
    subprocess.run(["mount", "--bind", tmp_path, inside], check=True)
    try:
        container.unmount()
        for force in (False, True):
            with pytest.raises(InUseError, match=r"something is mounted in container .*/empty"):
                container.remove(force=force)
        with pytest.raises(OSError, match="something is mounted there"):
            remove_directory(str(path.parent), path.name)
    finally:
        subprocess.run(["umount", inside], check=True)
    assert (tmp_path / "kept").read_text() == "the host's"
    container.remove()


def test_the_server_ends_when_nothing_is_mounted(make_stable: Make) -> None:
    require_mounts()
    stable = make_stable("chunk-dedup")
    one, other = stable.container(), stable.container()
    with one.mounted(), other.mounted():
        server = server_of(stable.shed)
        assert server is not None
    stable.shed.kept.close()
    wait_for(lambda: server_of(stable.shed) is None)
    assert not list((stable.shed.home.root / "lowers").glob("*.socket"))


@pytest.fixture
def own(everything: Path, tmp_path: Path) -> Iterator[Stable]:
    """A shed of its own, of which nothing is mounted yet."""
    require_mounts()
    with Shed(tmp_path / "own", driver="chunk-dedup", overrides={"durability": "none"}) as shed:
        shed.import_image(f"dir:{everything}", "everything")
        yield Stable(shed, "chunk-dedup", {})


def _devices(shed: Shed) -> list[int]:
    return [os.stat(place).st_dev for place in sorted(shed.mounting.lowers.places())]


def test_a_layer_stays_mounted_for_the_next_container_until_the_shed_is_closed(own: Stable) -> None:
    with own.container().mounted():
        mounted = _devices(own.shed)
    assert mounted and _devices(own.shed) == mounted
    with own.container().mounted() as path:
        assert _devices(own.shed) == mounted
        assert (path / "etc/passwd").read_bytes().startswith(b"root:")
    with Shed(own.shed.home.root) as other, other.create("everything").mounted():
        assert _devices(other) == mounted
    assert _devices(own.shed) == mounted, "somebody else's end takes nothing of ours away"
    own.shed.close()
    assert not list((own.shed.home.root / "lowers/at").iterdir())


def test_a_shed_that_nobody_closed_leaves_no_layer_mounted(own: Stable) -> None:
    script = (
        "import sys; from cowshed import Shed\n"
        "shed = Shed(sys.argv[1])\n"
        "with shed.create('everything').mounted(): pass\n"
        "print(len(shed.mounting.lowers.places()))\n"
    )
    command = [sys.executable, "-c", script, str(own.shed.home.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 0
    assert not list((own.shed.home.root / "lowers/at").iterdir())


def test_a_kept_layer_is_removed_with_its_image_by_whoever_does_it(
    own: Stable, everything: Path
) -> None:
    for _ in range(2):
        container = own.container()
        with container.mounted():
            pass
        container.remove()
        with Shed(own.shed.home.root) as other:
            other.remove_image("everything")
        assert not own.shed.mounting.lowers.places()
        assert not list(own.shed.driver("chunk-dedup").items())
        own.shed.import_image(f"dir:{everything}", "everything")  # and the same layer again


def test_a_layer_that_is_shown_in_another_namespace_stays_until_that_ends(own: Stable) -> None:
    with subprocess.Popen(["unshare", "--mount", "sleep", "60"]) as process:
        here = os.stat("/proc/self/ns/mnt").st_ino
        wait_for(lambda: os.stat(f"/proc/{process.pid}/ns/mnt").st_ino != here)
        there = os.stat(f"/proc/{process.pid}/ns/mnt").st_ino
        container = own.container()
        layer = f"chunk-dedup.{container.record.chain}"
        place = own.shed.home.root / "lowers/at" / str(there) / f"{layer}.served"
        place.mkdir(parents=True)
        container.remove()
        own.shed.remove_image("everything")
        assert len(list(own.shed.driver("chunk-dedup").items())) == 1, "somebody looks at it"
        process.kill()
    own.shed.gc()
    assert not place.exists()
    assert not list(own.shed.driver("chunk-dedup").items())


def test_what_was_absorbed_by_a_killed_process_is_absorbed_again(layered: Stable) -> None:
    container = layered.container()
    path = container.mount()
    (path / "etc/passwd").write_bytes(b"one")
    (path / "etc/short-lived").write_bytes(b"two")
    layered.assert_exact(container, path)
    # As if it had been killed before it could say what it had done, or the note were lost.
    home = layered.shed.mounting.registry.home(container.id)
    (home / "absorbed.json").unlink()
    os.unlink(path / "etc/short-lived")
    layered.assert_exact(container, path)
    container.unmount()
    layered.assert_layer_whole(container)


def _die_while_filling(root: str, driver: str, container: str, files: int) -> None:
    really = filling._copy  # pyright: ignore[reportPrivateUsage]
    copied: list[int] = []

    def copy(content: BinaryIO, descriptor: int, size: int) -> None:
        really(content, descriptor, size)
        copied.append(size)
        if len(copied) == files:
            os.kill(os.getpid(), signal.SIGKILL)

    filling._copy = copy  # pyright: ignore[reportPrivateUsage]
    Shed(root, driver=driver).container(container).mount()


@pytest.mark.parametrize("files", [1, 3])
def test_who_is_killed_while_he_mounts_takes_nothing_from_the_container(
    layered: Stable, files: int
) -> None:
    container = layered.container()
    with container.tree(writable=True) as tree:
        for number in range(5):
            tree.write_bytes(f"tmp/f{number}", b"%d" % number)
    before = [f"{change.kind.value} {change.path}" for change in container.diff()]
    root = str(layered.shed.home.root)
    context = multiprocessing.get_context("fork")
    process = context.Process(
        target=_die_while_filling, args=(root, layered.driver, container.id, files)
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert [f"{change.kind.value} {change.path}" for change in container.diff()] == before
    with container.mounted() as path:
        assert (path / "tmp/f4").read_bytes() == b"4"
    layered.assert_layer_whole(container)


def test_what_a_mount_begins_with_is_on_the_disk_before_it_counts(
    layered: Stable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(layered.shed.config.values, "durability", "full")
    container = layered.container()
    with container.tree(writable=True) as tree:
        tree.write_bytes("etc/new", b"new")
    home = layered.shed.mounting.registry.home(container.id)
    synced: list[set[str]] = []

    def sync(descriptor: int) -> None:
        assert os.path.samefile(f"/proc/self/fd/{descriptor}", home / "upper.new")
        assert (home / "upper.new/etc/new").read_bytes() == b"new"
        synced.append(set(os.listdir(home)))

    files: list[str] = []
    really = os.fsync

    def sync_file(descriptor: int) -> None:
        files.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        really(descriptor)

    monkeypatch.setattr(layered_module, "syncfs", sync)
    monkeypatch.setattr(os, "fsync", sync_file)
    container.mount()
    # The record that says what the upper directory is over: unreadable, that would be nobody's.
    assert [name.startswith("mount.json.") for name in files].count(True) == 1
    container.unmount()
    [there] = synced
    assert {"absorbed.json", "mount.json", "upper.new"} <= there and "upper" not in there


def test_a_mount_of_before_the_machine_stopped_is_absorbed_and_forgotten(layered: Stable) -> None:
    container = layered.container()
    path = container.mount()
    (path / "etc/passwd").write_bytes(b"before the power went")
    home = layered.shed.mounting.registry.home(container.id)
    subprocess.run(["umount", path], check=True)
    record = json.loads((home / "mount.json").read_bytes())
    (home / "mount.json").write_text(json.dumps({**record, "boot": "another"}))
    with container.tree() as tree:
        assert tree.read_bytes("etc/passwd") == b"before the power went"
    assert not home.exists()


@pytest.fixture(params=["overlayfs", "hardlink-farm", "chunk-dedup"])
def durable(
    request: pytest.FixtureRequest, everything: Path, tmp_path: Path
) -> Iterator[tuple[Shed, str]]:
    """A shed that syncs what it says is done."""
    require_mounts()
    with Shed(tmp_path / "shed", driver=request.param) as shed:
        try:
            shed.import_image(f"dir:{everything}", "everything")
        except DriverError as error:
            pytest.skip(str(error))
        yield shed, request.param
        unmount_all(shed)


def options_of(path: Path) -> set[str]:
    """Return what a mount's file system was told."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if line.split()[4] == str(path):
            return {*line.partition(" - ")[2].split()[2].split(",")}
    raise AssertionError(f"{path} isn't mounted")


def test_only_what_is_thrown_away_is_never_synced(durable: tuple[Shed, str]) -> None:
    shed, _ = durable
    container = shed.create("everything")
    with container.mounted() as path:
        assert not options_of(path) & VOLATILE
    with shed.mounting.mounted(container.record, read_only=False, discard=True) as path:
        assert options_of(path) & VOLATILE
        (path / "etc/new").write_bytes(b"new")
        # What somebody keeps of it is whole.
        container.commit("kept")
    with shed.create("kept").tree() as tree:
        assert tree.read_bytes("etc/new") == b"new"


def test_what_was_to_be_thrown_away_and_stays_is_synced_in_the_end(
    durable: tuple[Shed, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shed, _ = durable
    container = shed.create("everything")
    synced: list[str] = []
    really = mounts_module._sync_all

    def sync(path: str) -> None:
        synced.append(path)
        really(path)

    monkeypatch.setattr(mounts_module, "_sync_all", sync)
    places: list[str] = []
    really_sync = Registry.sync

    def sync_record(registry: Registry, container: str) -> None:
        places.append(container)
        really_sync(registry, container)

    monkeypatch.setattr(Registry, "sync", sync_record)
    with shed.mounting.mounted(container.record, read_only=False, discard=True) as path:
        (path / "etc/new").write_bytes(b"new")
        assert places == []
        container.mount()
        assert places == [container.id]  # that it is to stay, at least
    assert synced == []
    container.unmount()
    assert synced == [str(shed.home.root)]
    with container.tree() as tree:
        assert tree.read_bytes("etc/new") == b"new"


def test_a_driver_s_directory_on_a_file_system_of_its_own_is_synced_as_well(
    everything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_mounts()
    (tmp_path / "shed/drivers").mkdir(parents=True, mode=0o700)
    drivers = tmp_path / "shed/drivers"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "cowshed", drivers], check=True)
    synced: list[str] = []
    monkeypatch.setattr(mounts_module, "_sync_all", synced.append)
    try:
        with Shed(tmp_path / "shed", driver="overlayfs") as shed:
            shed.import_image(f"dir:{everything}", "everything")
            container = shed.create("everything")
            with shed.mounting.mounted(container.record, read_only=False, discard=True):
                container.mount()
            container.unmount()
            assert sorted(synced) == [str(tmp_path / "shed"), str(drivers / "overlayfs")]
    finally:
        subprocess.run(["umount", "--lazy", drivers], check=True)


def test_of_what_was_never_synced_a_machine_that_stopped_leaves_nothing(layered: Stable) -> None:
    container = layered.container()
    mounting = layered.shed.mounting
    home = mounting.registry.home(container.id)
    with mounting.mounted(container.record, read_only=False, discard=True) as path:
        (path / "etc/passwd").write_bytes(b"before the power we")
        record = json.loads((home / "mount.json").read_bytes())
        subprocess.run(["umount", "--lazy", path], check=True)
        (home / "mount.json").write_text(json.dumps({**record, "boot": "another"}))
        with container.tree() as tree:
            assert tree.read_bytes("etc/passwd").startswith(b"root:")
    assert not home.exists()


def test_what_a_runtime_made_where_its_mount_was_taken_away_goes_with_it(layered: Stable) -> None:
    container = layered.container()
    with container.mounted() as path:
        subprocess.run(["umount", "--lazy", path], check=True)
        (path / "proc").mkdir()
    assert not layered.shed.mounting.registry.has(container.id)
    assert [change.path for change in container.diff()] == []


KILLED = """
import os, sys
from cowshed import Shed
with Shed(sys.argv[1]) as shed, shed.temporary("everything") as container:
    with shed.mounting.mounted(container.record, read_only=False, discard=True) as path:
        (path / "etc/new").write_bytes(b"new")
        os.kill(os.getpid(), 9)
"""


def test_for_what_a_killed_process_left_to_be_thrown_away_nobody_waits(
    durable: tuple[Shed, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shed, driver = durable
    done: list[object] = []
    monkeypatch.setattr(mounts_module, "_sync_all", done.append)
    monkeypatch.setattr(absorbing, "absorb", lambda *arguments, **_: done.append(arguments))
    left = subprocess.run([sys.executable, "-c", KILLED, str(shed.root)], check=False)
    assert left.returncode == -9
    assert len(shed.containers()) == len(shed.mounts()) == 1
    with Shed(shed.root, driver=driver) as another:
        assert another.containers() == [] and another.mounts() == []
    assert done == []


def test_of_what_was_made_to_last_it_leaves_what_there_is(layered: Stable) -> None:
    container = layered.container()
    mounting = layered.shed.mounting
    home = mounting.registry.home(container.id)
    with mounting.mounted(container.record, read_only=False, discard=True) as path:
        (path / "etc/passwd").write_bytes(b"changed")
        container.mount()
        record = json.loads((home / "mount.json").read_bytes())
        subprocess.run(["umount", "--lazy", path], check=True)
        (home / "mount.json").write_text(json.dumps({**record, "boot": "another"}))
        with container.tree() as tree:
            assert tree.read_bytes("etc/passwd") == b"changed"


def test_earlier_versions_can_read_the_record_of_a_mount_that_they_know(layered: Stable) -> None:
    container = layered.container()
    record = layered.shed.mounting.registry.home(container.id) / "mount.json"
    with container.mounted():
        assert "discard" not in json.loads(record.read_bytes())
    with layered.shed.mounting.mounted(container.record, read_only=False, discard=True):
        assert json.loads(record.read_bytes())["discard"] is True


def _use(root: str, driver: str, container: str, number: int) -> None:
    shed = Shed(root, driver=driver)
    with shed.container(container).mounted() as path:
        for entry in sorted((path / "usr/lib").iterdir()):
            if entry.is_file():
                entry.read_bytes()
        (path / f"etc/{number}").write_text(str(number))
        with (path / "usr/lib/big").open("r+b") as file:
            file.seek(number * 1000)
            file.write(b"%d" % number)
    shed.close()


def test_thirty_two_processes_in_as_many_containers_of_one_image(layered: Stable) -> None:
    containers = layered.shed.create_many("everything", 32)
    context = multiprocessing.get_context("fork")
    root = str(layered.shed.home.root)
    processes = [
        context.Process(target=_use, args=(root, layered.driver, container.id, number))
        for number, container in enumerate(containers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * 32
    for number, container in enumerate(containers):
        with container.tree() as tree:
            assert tree.read_bytes(f"etc/{number}") == str(number).encode()
            assert tree.read_bytes("usr/lib/big")[number * 1000 :].startswith(b"%d" % number)
    layered.assert_layer_whole(containers[0])
    layered.shed.remove_containers([container.id for container in containers])


# -- the cache of files ---------------------------------------------------------------------------


@pytest.fixture
def cached(everything: Path, tmp_path: Path) -> Stable:
    """A shed that is configured to unpack files."""
    require_mounts()
    shed = Shed(
        tmp_path / "shed",
        driver="chunk-dedup",
        overrides={"durability": "none", "mount.way": "cache"},
    )
    shed.import_image(f"dir:{everything}", "everything")
    stable = Stable(shed, "chunk-dedup", {})
    container = shed.create("everything")
    return Stable(shed, "chunk-dedup", stable.layer_now(container))


def _files(shed: Shed) -> int:
    return sum(path.is_file() for path in (shed.home.root / "lowers/files").glob("*/*"))


def test_containers_of_an_image_share_the_cache(cached: Stable) -> None:
    one, other = cached.container(), cached.container()
    with one.mounted() as path, other.mounted() as place:
        assert server_of(cached.shed) is None
        assert differences(cached.layer, of_directory(path)) == []
        (path / "usr/lib/big").write_bytes(b"mine")
        cached.assert_exact(one, path)
        assert (place / "usr/lib/big").stat().st_size == 256 * 20_000
        number = _files(cached.shed)
        assert 0 < number <= 312
    cached.assert_layer_whole(one)
    # A second image needs but what is new in it.
    one.commit("another")
    with cached.shed.create("another").mounted() as path:
        assert (path / "usr/lib/big").read_bytes() == b"mine"
        assert _files(cached.shed) == number + 1
    unmount_all(cached.shed)
    cached.shed.close()


def test_the_cache_gives_way_to_what_is_mounted_next(cached: Stable) -> None:
    shed = cached.shed
    one = cached.container()
    with one.mounted() as path:
        (path / "usr/lib/big").write_bytes(os.urandom(5_000_000))
    one.commit("another")
    # Room for either, not for both.
    shed.config.values["mount"]["cache_size"] = 10_000_000
    other = shed.create("another")
    with other.mounted() as path:
        assert (path / "usr/lib/big").stat().st_size == 5_000_000
        used = _files(shed)
        with pytest.raises(StoreError, match="cache_size"), cached.container().mounted():
            pass
    with cached.container().mounted() as path:
        assert (path / "usr/lib/big").stat().st_size == 256 * 20_000
        assert _files(shed) <= used
    shed.remove_containers([container.id for container in shed.containers()])
    for image in ("another", "everything"):
        shed.remove_image(image)
    shed.gc()
    assert _files(shed) == 0
    assert shed.check() == [one for one in shed.check() if one.where == "configuration"]
    shed.close()


def test_a_way_that_isnt_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="way must be one of auto, fuse, cache"):
        load_config(overrides={"mount.way": "magic"})
    with pytest.raises(ConfigError, match="has no 'weigh'"):
        load_config(overrides={"mount.weigh": "auto"})


def test_a_shed_on_an_overlay_says_what_to_do_and_leaves_nothing(tmp_path: Path) -> None:
    require_mounts()
    for name in ("lower", "upper", "work", "merged", "source"):
        (tmp_path / name).mkdir()
    (tmp_path / "source/file").write_bytes(b"content")
    merged = tmp_path / "merged"
    options = ",".join(f"{name}dir={tmp_path / name}" for name in ("lower", "upper", "work"))
    command = ["mount", "-t", "overlay", "-o", options, "overlay", merged]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("the temporary directory lies on what can't be an overlay's")
    try:
        for driver in ("hardlink-farm", "chunk-dedup"):
            with Shed(merged / driver, driver=driver) as shed:
                shed.import_image(f"dir:{tmp_path / 'source'}", "small")
                container = shed.create("small")
                with pytest.raises(StoreError, match=r"lies on overlay, .* to a volume"):
                    container.mount()
                assert (shed.mounts(), shed.mounting.points()) == ([], set())
                wait_for(lambda shed=shed: server_of(shed) is None)
        with Shed(merged / "copies", driver="naive-copy") as shed:
            shed.import_image(f"dir:{tmp_path / 'source'}", "small")
            with shed.create("small").mounted() as path:
                assert (path / "file").read_bytes() == b"content"
    finally:
        # A server that was told to end may take a moment to let go of it.
        wait_for(lambda: not subprocess.run(["umount", merged], check=False).returncode)


def test_a_machine_without_fuse_is_told_what_to_do(
    make_stable: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_mounts()
    stable = make_stable("chunk-dedup")
    stable.shed.kept.close()
    container = stable.container()
    really = os.open

    def opened(path: str, *arguments: int, **more: int | None) -> int:
        if path == "/dev/fuse":
            raise FileNotFoundError(2, "No such file or directory", path)
        return really(path, *arguments, **more)  # type: ignore[arg-type]  # as it was called

    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(StoreError, match=r"^/dev/fuse can't be opened .*; load .*, or choose"):
        container.mount()
    assert not [one for one in stable.shed.mounts() if one.container == container.id]
