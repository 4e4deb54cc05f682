"""Plain: processes by our own launcher."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import StoreError
from . import security
from .identity import Identity, map_users
from .launchers import Status, descriptor_of, guarded, pipe
from .process import CommandError
from .runtimes import Bundle
from .supervising import Launch

_INSIDE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "inside.py")


class Plain:
    """Our own launcher."""

    name = "plain"

    def __init__(self, identity: Identity | None = None) -> None:
        self.identity = identity
        self._last: Status | None = None

    def run(self, bundle: Bundle) -> Launch:
        return self._launch(bundle, dict(bundle.spec), bundle.note_pid, self.identity)

    def exec(self, bundle: Bundle, process: Mapping[str, Any]) -> Launch:
        # In the namespaces of the container's first, whoever made them.
        config = {"join": bundle.pid(), "process": process}
        return self._launch(bundle, config, lambda pid: None, None)

    def _launch(
        self,
        bundle: Bundle,
        config: dict[str, Any],
        note: Callable[[int], None],
        identity: Identity | None,
    ) -> Launch:
        config["single"] = bundle.single
        program = security.seccomp_program(os.uname().machine)
        self._last = status = Status(note)
        given = [descriptor_of(json.dumps(config).encode()), status.write_end]
        given.append(-1 if program is None else descriptor_of(program))
        ready = go = -1
        if identity is not None:
            (ready, ready_in), (go_out, go) = pipe(), pipe()
            given += [ready_in, go_out]
        else:
            given += [-1, -1]

        def started() -> None:
            if identity is not None:
                _map(ready, go, identity)
            status.follow("pid")

        return Launch(
            command=[sys.executable, "-I", "-S", _INSIDE, *map(str, given)],
            executable=guarded(sys.executable),
            descriptors=tuple(one for one in given if one >= 0),
            started=started,
            forward=status.forward,
            environment={
                "PYTHONDONTWRITEBYTECODE": "1",
                # For an interpreter that looks for its library beside itself.
                "LD_LIBRARY_PATH": os.path.join(sys.base_prefix, "lib"),
            },
        )

    def check(self, bundle: Bundle, status: int) -> None:
        said = self._last
        if said is None or not said.error:
            return
        command = str(bundle.process["args"][0])
        if said.code in (126, 127):
            raise CommandError(command, said.error.removeprefix(f"{command}: "), said.code)
        raise StoreError(f"can't start a process in the container: {said.error}")

    def clear(self, bundle: Bundle) -> None:
        if self._last is not None:
            self._last.close()


def _map(ready: int, go: int, identity: Identity) -> None:
    """Map a launcher's user namespace once it has made it."""
    with os.fdopen(ready, "rb") as ready_file, os.fdopen(go, "wb") as go_file:
        line = ready_file.readline()
        if not line.strip():
            return  # it says itself what went wrong
        map_users(line.strip().decode(), identity)
        go_file.write(b"\n")
