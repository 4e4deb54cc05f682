"""Bubblewrap: processes by bwrap(1)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..errors import StoreError
from . import security
from .launchers import Status, descriptor_of, guarded
from .plain import Plain
from .runtimes import Bundle
from .supervising import Launch


class Bubblewrap:
    """bwrap(1)."""

    name = "bubblewrap"

    def __init__(self, path: str, plain: Plain) -> None:
        self.path = path
        self.plain = plain
        self._status: Status | None = None

    def run(self, bundle: Bundle) -> Launch:
        spec = bundle.spec
        user = spec["process"]["user"]
        if not bundle.uses_user_namespace and (user["uid"], user["gid"]) != (0, 0):
            raise StoreError(
                "bubblewrap can't start a process as another user than root; "
                "choose another runtime, as --runtime plain"
            )
        self._status = status = Status(bundle.note_pid)
        descriptors = [status.write_end]
        arguments = self._arguments(spec)
        # Everybody can read a command line, and there are secrets in variables.
        variables = (one.partition("=") for one in spec["process"]["env"])
        words = [word for name, _, value in variables for word in ("--setenv", name, value)]
        descriptors.append(descriptor_of(b"".join(os.fsencode(word) + b"\0" for word in words)))
        arguments += ["--args", str(descriptors[-1])]
        program = security.seccomp_program(os.uname().machine)
        if program is not None:
            descriptors.append(descriptor_of(program))
            arguments += ["--seccomp", str(descriptors[-1])]
        arguments += ["--json-status-fd", str(status.write_end)]
        return Launch(
            command=[self.path, *arguments, "--", *spec["process"]["args"]],
            executable=guarded(self.path),
            descriptors=tuple(descriptors),
            started=lambda: status.follow_into(spec["root"]["path"]),
            forward=status.forward,
        )

    def _arguments(self, spec: Mapping[str, Any]) -> list[str]:
        process = spec["process"]
        # As process 1 the command gets signals and children as it does with the others.
        arguments = ["--die-with-parent", "--as-pid-1", "--unshare-pid", "--unshare-ipc"]
        arguments += ["--unshare-uts", "--hostname", spec["hostname"]]
        if any(one["type"] == "network" for one in spec["linux"]["namespaces"]):
            arguments.append("--unshare-net")
        if "uidMappings" in spec["linux"]:
            user = process["user"]
            arguments += ["--unshare-user", "--uid", str(user["uid"]), "--gid", str(user["gid"])]
        arguments += ["--bind", spec["root"]["path"], "/"]
        for one in spec["mounts"]:
            arguments += _mount(one)
        for path in spec["linux"]["maskedPaths"]:
            if os.path.isdir(path):
                arguments += ["--tmpfs", path, "--remount-ro", path]
            elif os.path.exists(path):
                arguments += ["--ro-bind", "/dev/null", path]
        for path in spec["linux"]["readonlyPaths"]:
            arguments += ["--ro-bind-try", path, path]
        if spec["root"]["readonly"]:
            arguments += ["--remount-ro", "/"]
        arguments += ["--cap-drop", "ALL"]
        for capability in process["capabilities"]["effective"]:
            arguments += ["--cap-add", capability]
        arguments += ["--chdir", process["cwd"], "--clearenv"]
        return arguments

    def exec(self, bundle: Bundle, process: Mapping[str, Any]) -> Launch:
        return self.plain.exec(bundle, process)

    def check(self, bundle: Bundle, status: int) -> None:
        if self._status is None:
            self.plain.check(bundle, status)

    def clear(self, bundle: Bundle) -> None:
        if self._status is not None:
            self._status.close()
        self.plain.clear(bundle)


def _mount(one: Mapping[str, Any]) -> list[str]:
    place, kind = one["destination"], one["type"]
    if kind == "bind":
        return ["--ro-bind" if "ro" in one["options"] else "--bind", one["source"], place]
    if place == "/proc":
        return ["--proc", place]
    if place == "/dev":
        return ["--dev", place]  # with terminals and shared memory
    if kind == "mqueue":
        return ["--mqueue", place]
    if place == "/sys":
        return ["--ro-bind", "/sys", place]
    return []
