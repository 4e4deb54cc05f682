"""Lowers: layers as directories that the kernel can merge a container's changes with.

    ROOT/lowers/images/DRIVER.LAYER.erofs      names and attributes of a layer (``erofs``)
    ROOT/lowers/images/DRIVER.LAYER.cached …   the same, over files of the cache (``cache``)
    ROOT/lowers/files/                         that cache
    ROOT/lowers/at/NAMESPACE/DRIVER.LAYER.KIND where it is mounted, in one mount namespace
    ROOT/lowers/nothing/                       what containers on no layer are merged with
    ROOT/lowers/*.socket, *.log                of the FUSE server (``serving``)

One mount serves all containers of a layer, so the kernel caches each file once for all of them.
Three ways, by what the driver has and what the configuration says:

    erofs    the kernel reads names and attributes from an image, and contents from files that lie
             somewhere under other names. Nobody need serve anything
    cache    the same, the files unpacked from the driver's store when a layer is first mounted
    served   the FUSE server shows the layer's ``Tree``. Where there is EROFS, names come from an
             image all the same and only contents from the server: 3,487 files are looked at 1.7
             times as often in a second, and three to five times as often for the first time
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from ..entry import Entry
from ..errors import StoreError
from ..home import made
from ..locking import LockFile
from . import kernel
from .format import format_here

if TYPE_CHECKING:
    from ..shed import Shed

#: What is mounted at a place: an image over files in their own places, or in the cache's; what the
#: server shows.
Kind = Literal["image", "cached", "served"]

#: What the kernel says if it can't mount EROFS from a file: it has none (ENODEV), wants a block
#: device (ENOTBLK, before Linux 6.12), or the shed lies on an overlay itself (EINVAL).
_NO_EROFS = (errno.ENODEV, errno.ENOTBLK, errno.EINVAL, *kernel.REFUSED)


class Lower(NamedTuple):
    """One layer, mounted."""

    path: str
    #: Directory that holds the contents, if ``path`` doesn't.
    data: str = ""

    @property
    def served(self) -> bool:
        """Whether contents come from the FUSE server."""
        return (self.data or self.path).endswith(".served")


class Lowers:
    """The layers that are mounted for a shed's containers."""

    def __init__(self, shed: Shed) -> None:
        self._shed = shed
        self.root = shed.home.root / "lowers"

    # -- mounting -------------------------------------------------------------------------------

    def nothing(self) -> Lower:
        """Return what containers on no layer are merged with."""
        return Lower(path=str(made(self.root, "nothing")))

    def by_erofs(self, driver: str, layer: str, data: str, where: Where) -> Lower | None:
        """Return the layer, its contents in files below ``data``; None: this kernel can't."""
        if not kernel.in_first_user_namespace():
            return None
        place = self._place(driver, layer, "image")
        with self._shed.locks.acquire(f"lower:{place}"):
            if not self._alive(place):
                image = self.images / f"{driver}.{layer}.erofs"
                if not image.exists():
                    with self._shed.driver(driver).tree(layer) as tree:
                        self.write_image(image, tree.walk(), where)
                if not self._mount_image(image, place):
                    return None
        return Lower(path=str(place), data=data)

    def by_cache(self, driver: str, layer: str) -> Lower | None:
        """Return the layer, its contents in the cache; None: this kernel can't, or they are more
        than the cache may hold."""
        if not kernel.in_first_user_namespace():
            return None
        from .cache import Cache  # nobody else needs it

        cache = Cache(self._shed, self)
        place = self._place(driver, layer, "cached")
        with self._shed.locks.acquire(f"lower:{place}"), cache.alone():
            if not self._alive(place):
                image = cache.image(driver, layer)
                if image is None or not self._mount_image(image, place):
                    return None
        return Lower(path=str(place), data=str(cache.files))

    def _mount_image(self, image: Path, place: Path) -> bool:
        try:
            kernel.mount_erofs(str(image), str(place))
        except OSError as error:
            if error.errno not in _NO_EROFS:
                raise
            return False
        return True

    def by_fuse(self, driver: str, layer: str) -> Lower:
        """Return the layer, shown by the FUSE server.

        Raises:
            StoreError: this machine has no FUSE.
        """
        place = self._place(driver, layer, "served")
        with self._shed.locks.acquire(f"lower:{place}"):
            if not self._alive(place):
                try:
                    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
                except OSError as error:
                    help = "load the kernel's module fuse"
                    if error.errno in kernel.REFUSED:
                        help = "let everybody open it, as udev does (chmod 0666 /dev/fuse, by root)"
                    raise StoreError(
                        f"/dev/fuse can't be opened ({error.strerror}); {help}, or choose a driver "
                        "with native directories, such as naive-copy"
                    ) from None
                try:
                    options = f"rootmode=40000,user_id={os.geteuid()},group_id={os.getegid()}"
                    kernel.mount_fuse(
                        device, str(place), f"{options},default_permissions,allow_other"
                    )
                    try:
                        self._hand_over(device, driver, layer)
                    except BaseException:
                        kernel.unmount(str(place), lazily=True)
                        raise
                finally:
                    os.close(device)
        return Lower(path=str(place))

    def _place(self, driver: str, layer: str, kind: Kind) -> Path:
        return made(self.root, "at", str(kernel.namespace()), f"{driver}.{layer}.{kind}")

    def _alive(self, place: Path) -> bool:
        """Say whether something is mounted there; take away what is dead."""
        if kernel.point_at(str(place)) is None:
            return False
        if answers(str(place)):
            return True
        kernel.unmount(str(place), lazily=True)
        return self._alive(place)

    @property
    def images(self) -> Path:
        """The directory of images, which exists."""
        return made(self.root, "images")

    def write_image(self, image: Path, entries: Iterable[Entry], where: Where) -> None:
        """Write an image of names and attributes, whole or not at all."""
        from .erofs import write_image  # nobody else needs it

        aside = image.with_name(f"{image.name}.{os.urandom(4).hex()}")
        try:
            with aside.open("xb") as file:
                os.fchmod(file.fileno(), 0o600)  # whatever the umask
                write_image(entries, where, file)
                if self._shed.config.durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.rename(aside, image)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise

    # -- the FUSE server ------------------------------------------------------------------------

    def _hand_over(self, device: int, driver: str, layer: str) -> None:
        from .serving import STARTING, start  # nobody else needs it

        wanted = {
            "driver": driver,
            "layer": layer,
            "format": format_here().written(),
        }
        # A server shares the namespaces of who starts it: it must see the same files and processes.
        spaces = "".join(f"-{os.stat(f'/proc/self/ns/{one}').st_ino}" for one in ("user", "pid"))
        name = f"server{spaces}"
        with self._shed.locks.acquire(STARTING):
            try:
                answer = self._ask(name, wanted, device)
            except (FileNotFoundError, ConnectionError):
                start(dict(self._shed.config.values), name, str(self.root))
                answer = self._ask(name, wanted, device)
        if answer != "+":
            raise StoreError(f"the FUSE server can't show layer {layer[:12]}: {answer}")

    def _ask(self, name: str, wanted: object, device: int) -> str:
        import socket  # 4 ms

        directory = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(30)
                # A socket's name may have 107 bytes, the shed's more.
                connection.connect(f"/proc/self/fd/{directory}/{name}.socket")
                socket.send_fds(connection, [json.dumps(wanted).encode()], [device])
                return connection.recv(4096).decode()
        finally:
            os.close(directory)

    # -- taking away ----------------------------------------------------------------------------

    def let_go(self, name: str, used: Callable[[], set[str]]) -> None:
        """Unmount all of ``DRIVER.LAYER`` that ``used`` doesn't return: something was to be mounted
        on it, and wasn't, or it is to be removed."""
        self._release_all((one for one in self.places() if Path(one).stem == name), used)

    def _release_all(self, places: Iterable[str], used: Callable[[], set[str]]) -> None:
        here = self.root / "at" / str(kernel.namespace())
        for place in places:
            if Path(place).parent == here:
                release(self.root, self._shed.locks, place, used)
            elif not any(kernel.processes_in(int(Path(place).parent.name))):
                with suppress(OSError):  # that namespace is gone, and its mounts
                    os.rmdir(place)
                    os.rmdir(os.path.dirname(place))

    def among(self, lower: Lower) -> tuple[str, ...]:
        """Return the mounts of ours that ``lower`` consists of."""
        above = self.root / "at"
        return tuple(one for one in (lower.path, lower.data) if one and above in Path(one).parents)

    def places(self) -> set[str]:
        """Return the directories in the shed at which layers may be mounted."""
        try:
            return {str(place) for place in (self.root / "at").glob("*/*")}
        except OSError:
            return set()

    def sweep(self, used: Callable[[], set[str]], layers: Iterable[str]) -> None:
        """Clear away mounts that nobody uses, and images of layers that aren't any more."""
        self._release_all(self.places(), used)
        known = set(layers)
        try:
            names = os.listdir(self.root / "images")
        except FileNotFoundError:
            return
        for name in names:
            if name.split(".")[1] not in known:
                (self.root / "images" / name).unlink(missing_ok=True)
        if (self.root / "files").exists():
            from .cache import Cache  # nobody else needs it

            cache = Cache(self._shed, self)
            with cache.alone():
                cache.shrink()

    def mounted(self) -> set[str]:
        """Return ``DRIVER.LAYER`` of all that may be mounted somewhere."""
        return {Path(place).stem for place in self.places()}


def release(root: Path, locks: LockFile, path: str, used: Callable[[], set[str]]) -> None:
    """Unmount what is mounted at ``path`` below ``root/at`` unless it is among what ``used``
    returns. What is merged with it goes on."""
    place = Path(path)
    if root / "at" not in place.parents:
        return
    alone = locks.attempt(being_mounted(place.stem))
    if alone is None:
        return  # somebody is about to use it
    with alone, locks.acquire(f"lower:{place}"):
        if path in used():
            return
        if kernel.point_at(path) is not None:
            kernel.unmount(path, lazily=True)
        with suppress(OSError):
            place.rmdir()
            place.parent.rmdir()


def being_mounted(name: str) -> str:
    """Return the key of the lock that whoever mounts on ``DRIVER.LAYER`` shares until the registry
    says so."""
    return f"mounting:{name}"


def answers(path: str) -> bool:
    """Say whether the server of a FUSE mount is there. It is asked by what is never cached."""
    try:
        os.statvfs(path)
    except OSError as error:
        return error.errno not in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
    return True


def in_place(entry: Entry) -> str:
    """Say that a file's content is at its own path."""
    return f"/{entry.path}"


if TYPE_CHECKING:
    from .erofs import Where
