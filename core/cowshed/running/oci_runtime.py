"""OciRuntime: processes by a program that implements the OCI runtime-spec."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import StoreError
from ..native.removal import remove_directory
from .process import CommandError
from .registry import PID
from .runtimes import Bundle
from .supervising import Launch

_LOG = "log"
#: Variables that are for this process, not for what it starts.
_OURS = ("LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "NOTIFY_SOCKET")


class OciRuntime:
    """crun, runc or youki. ``state``: where it keeps its containers."""

    def __init__(self, name: str, path: str, state: Path) -> None:
        self.name = name
        self.path = path
        self.state = state
        #: Where the files of the process are that it started last, and whether it was by ``exec``.
        self._place: Path | None = None
        self._beside = False

    def _launch(self, bundle: Bundle, place: Path, verb: str, *arguments: str) -> Launch:
        self._place = place
        pid_file, log = place / PID, place / _LOG
        log.unlink(missing_ok=True)
        where = ["--log", os.fspath(log), "--log-format", "json", verb]
        more = ["--pid-file", os.fspath(pid_file), *arguments, bundle.id]

        def forward(process: subprocess.Popen[bytes], number: int) -> None:
            # It passes on what it gets; what kills it would leave the process.
            if number == signal.SIGKILL:
                with suppress(OSError, ValueError):
                    os.kill(int(pid_file.read_bytes()), number)
                    return
            process.send_signal(number)

        return Launch(
            command=[*self._command, *where, *more],
            forward=forward,
            leads_terminal=True,
            # A service manager told us those; a runtime would act on them (sd_notify(3)).
            environment={name: text for name, text in os.environ.items() if name not in _OURS},
        )

    @property
    def _command(self) -> list[str]:
        own = ["--cgroup-manager=disabled"] if self.name == "crun" else []
        return [self.path, *own, "--root", os.fspath(self.state)]

    def run(self, bundle: Bundle) -> Launch:
        self.state.mkdir(mode=0o700, exist_ok=True)
        where = os.fspath(bundle.directory)
        return self._launch(bundle, bundle.directory, "run", "--bundle", where)

    def exec(self, bundle: Bundle, process: Mapping[str, Any]) -> Launch:
        import tempfile  # with random: 3 ms

        place = Path(tempfile.mkdtemp(prefix="exec-", dir=bundle.directory))
        self._beside = True
        path = place / "process.json"
        path.write_text(json.dumps(process))
        return self._launch(bundle, place, "exec", "--process", os.fspath(path))

    def check(self, bundle: Bundle, status: int) -> None:
        said = [] if self._place is None else _errors(self._place / _LOG)
        if not said:
            return
        text = said[-1]
        command = str(bundle.process["args"][0])
        if "no such file" in text.lower() or "not found" in text.lower():
            if command in text:
                raise CommandError(command, "no such file in the container", 127)
        elif "permission denied" in text.lower() or "exec format error" in text.lower():
            why = "exec format error" if "format" in text.lower() else "permission denied"
            if "exec" in text.lower():
                raise CommandError(command, why, 126)
        raise StoreError(f"{self.name}: {text}")

    def clear(self, bundle: Bundle) -> None:
        if self._beside and self._place is not None:
            with suppress(OSError):
                remove_directory(*os.path.split(self._place))
        elif (self.state / bundle.id).exists():
            subprocess.run(
                [*self._command, "delete", "--force", bundle.id],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )


def _errors(path: Path) -> list[str]:
    found: list[str] = []
    with suppress(OSError):
        for line in path.read_text("utf-8", "replace").splitlines():
            with suppress(ValueError, AttributeError):
                entry = json.loads(line)
                if entry.get("level") in ("error", "fatal"):
                    found.append(str(entry.get("msg", "")))
    return found
