"""Spec: the config.json of a container's OCI runtime bundle (runtime-spec 1.0.2).

It is what every runtime here gets, our own launcher and bubblewrap's arguments included. Places of
mounts have no link in them: ``Places`` looked where they lead inside the container. What a runtime
would mount somewhere else than it says is refused, as a /dev that is a link.
"""

from __future__ import annotations

import os
import stat
from typing import Any, NamedTuple

from ..errors import StoreError, UsageError
from . import security
from .identity import Identity, Range, in_user_namespace, own_capabilities
from .options import Volume
from .process import Process, resolved
from .rootfs import Rootfs

#: Their places are the runtime's: nothing of a user's is mounted there or below the first two.
_SYSTEM = ("proc", "sys", "dev")
#: What a container sees of the host's network, as files of the bundle.
ETC = ("hostname", "hosts", "resolv.conf")


class Places(NamedTuple):
    """Where things are mounted, resolved in the container."""

    #: (file of the bundle, place)
    etc: tuple[tuple[str, str], ...]
    #: Each with its place as target.
    volumes: tuple[Volume, ...]
    #: (place, whether it is a directory) of what isn't there yet.
    missing: tuple[tuple[str, bool], ...]


def find_places(root: Rootfs, volumes: tuple[Volume, ...]) -> Places:
    """Look where everything goes.

    Raises:
        StoreError: the container has something there that nothing can be mounted over.
        UsageError: a volume where the runtime has its own.
    """
    missing: list[tuple[str, bool]] = []
    for place in _SYSTEM:
        where, mode = resolved(root, place)
        if where != place or (mode is not None and not stat.S_ISDIR(mode)):
            raise StoreError(f"/{place} in the container is no directory, but a link or a file")
        if mode is None:
            missing.append((place, True))
    found: list[Volume] = []
    for volume in sorted(volumes, key=lambda one: one.target.count("/")):
        place = _place(root, volume, found, missing)
        found = [one for one in found if one.target != place]  # the last one counts
        found.append(volume._replace(target=place))
    etc: list[tuple[str, str]] = []
    for name in ETC:
        try:
            where, mode = root.resolve(f"etc/{name}")
        except OSError:
            continue
        if where.split("/")[0] in _SYSTEM or (mode is not None and not stat.S_ISREG(mode)):
            continue  # the image has arranged it otherwise
        if any(_below(f"/{where}", one.target) for one in found):
            continue
        if mode is None:
            missing.append((where, False))
        etc.append((name, f"/{where}"))
    return Places(etc=tuple(etc), volumes=tuple(found), missing=tuple(missing))


def _place(
    root: Rootfs, volume: Volume, above: list[Volume], missing: list[tuple[str, bool]]
) -> str:
    where, mode = resolved(root, volume.target)
    place = f"/{where}"
    if not where or where in _SYSTEM or where.split("/")[0] in ("proc", "sys"):
        raise UsageError(f"-v {volume.target}: {place} is the runtime's own; choose another place")
    directory = os.path.isdir(volume.source)
    if where.startswith("dev/"):
        return place  # the runtime makes it in a file system of its own
    for outer in above:
        if _below(place, outer.target):
            inside = os.path.join(outer.source, os.path.relpath(place, outer.target))
            if not os.path.lexists(inside):
                raise UsageError(f"-v {volume.target}: {inside} doesn't exist; make it first")
            if os.path.realpath(inside) != os.path.normpath(inside):
                # A process may have put it there, and not every runtime keeps it inside.
                raise UsageError(f"-v {volume.target}: {inside} is, or lies behind, a link")
            return place
    if mode is None:
        missing.append((where, directory))
    elif stat.S_ISDIR(mode) != directory:
        kinds = ("a directory", "a file") if directory else ("a file", "a directory")
        raise UsageError(f"-v {volume.source} is {kinds[0]}, {place} in the container {kinds[1]}")
    return place


def _below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory}/")


def make_spec(
    *,
    root: str,
    process: Process,
    places: Places,
    bundle: str,
    hostname: str,
    read_only: bool,
    network: str,
    identity: Identity | None,
    machine: str | None = None,
    annotations: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Return the config.json."""
    confined = identity is not None or in_user_namespace()
    namespaces = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]
    if network == "none":
        namespaces.append({"type": "network"})
    linux: dict[str, Any] = {
        "namespaces": namespaces,
        "maskedPaths": list(security.MASKED),
        "readonlyPaths": list(security.READ_ONLY),
        "seccomp": security.oci_seccomp(machine or os.uname().machine),
    }
    if identity is not None:
        namespaces.append({"type": "user"})
        linux["uidMappings"] = [_mapping(one) for one in identity.users]
        linux["gidMappings"] = [_mapping(one) for one in identity.groups]
    return {
        "ociVersion": "1.0.2",
        "process": process_spec(process),
        "root": {"path": root, "readonly": read_only},
        "hostname": hostname,
        "mounts": [
            *_system_mounts(confined and network == "host", identity),
            *(_bind(os.path.join(bundle, name), place) for name, place in places.etc),
            *(
                _bind(one.source, one.target, read_only=one.read_only, no_devices=not confined)
                for one in places.volumes
            ),
        ],
        "annotations": annotations or {},
        "linux": linux,
    }


def process_spec(process: Process) -> dict[str, Any]:
    """Return the part that says what runs, which ``exec`` needs alone."""
    root = process.user.uid == 0
    user: dict[str, Any] = {"uid": process.user.uid, "gid": process.user.gid}
    if process.user.groups:
        user["additionalGids"] = list(process.user.groups)
    # Nothing to inherit: CVE-2022-24769. Root alone has them at once.
    given = _capabilities()
    held = given if root else []
    size: dict[str, Any] = {}
    if process.size is not None:
        # There before the process looks; what runtimes copy from their own terminal comes later.
        size["consoleSize"] = {"height": process.size[0], "width": process.size[1]}
    return {
        "terminal": process.terminal,
        **size,
        "user": user,
        "args": list(process.arguments),
        "env": list(process.environment),
        "cwd": process.directory,
        "capabilities": {
            "bounding": given,
            "effective": held,
            "permitted": held,
            "inheritable": [],
            "ambient": [],
        },
        "noNewPrivileges": False,
    }


def _capabilities() -> list[str]:
    """Return those that a container has, but for what we lack ourselves, as in a container."""
    from .inside import CAPABILITIES  # in the order of their numbers

    if os.geteuid() != 0:
        return list(security.CAPABILITIES)  # in a user namespace all are had
    held = own_capabilities()
    return [one for one in security.CAPABILITIES if CAPABILITIES.index(one[4:]) in held]


def _mapping(one: Range) -> dict[str, int]:
    return {"containerID": one.container, "hostID": one.host, "size": one.size}


def _system_mounts(bind_sys: bool, identity: Identity | None) -> list[dict[str, Any]]:
    # A group that isn't mapped can't own terminals.
    group = [] if identity is not None and not identity.has(0, 5) else ["gid=5"]
    if bind_sys:
        # sysfs shows the network; who doesn't own that can't mount it.
        system = _mount("/sys", "/sys", "none", "rbind", "nosuid", "noexec", "nodev", "ro")
    else:
        system = _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro")
    pts = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620")
    quiet = ("nosuid", "noexec", "nodev")
    return [
        _mount("/proc", "proc", "proc", *quiet),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", *pts, *group),
        _mount("/dev/shm", "shm", "tmpfs", *quiet, "mode=1777", "size=65536k"),
        _mount("/dev/mqueue", "mqueue", "mqueue", *quiet),
        system,
    ]


def _mount(destination: str, source: str, kind: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def _bind(
    source: str, place: str, *, read_only: bool = False, no_devices: bool = False
) -> dict[str, Any]:
    # "rro" is what is mounted below as well; who doesn't know it takes it for data of mount(2),
    # which a bind mount ignores.
    options = ["rbind", "rprivate", *(["ro", "rro"] if read_only else [])]
    options += ["nodev"] if no_devices else []
    return _mount(place, source, "bind", *options)


# -- files of the bundle -------------------------------------------------------------------------


def write_etc(bundle: str, hostname: str, network: str) -> None:
    """Write the files that say who the container is and whom it knows.

    On the host's network it knows whom the host knows, as with Docker.
    """
    hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    resolv = ""
    if network == "host":
        hosts = _of_host("/etc/hosts") or hosts
        resolv = _of_host("/etc/resolv.conf")
    if hosts and not hosts.endswith("\n"):
        hosts += "\n"
    contents = {
        "hostname": f"{hostname}\n",
        "hosts": f"{hosts}127.0.0.1\t{hostname}\n",
        "resolv.conf": resolv,
    }
    for name, content in contents.items():
        path = os.path.join(bundle, name)
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
            os.fchmod(file.fileno(), 0o644)  # whatever the umask
            file.write(content)


def _of_host(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""
