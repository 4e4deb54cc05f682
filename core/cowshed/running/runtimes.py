"""Runtimes: what starts a bundle's process, each behind the same few questions.

crun, runc, youki    OCI runtimes (``oci_runtime``): they get the bundle
bubblewrap           gets the bundle as arguments; only ever as the container's root, or as one
                     user of an ordinary user's
plain                our own launcher (``inside``): namespaces, mounts, a new root
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..errors import UsageError
from .registry import PID
from .supervising import Launch

BUNDLED = "config.json"


class Bundle(NamedTuple):
    """A bundle in its directory."""

    id: str
    directory: Path
    spec: Mapping[str, Any]

    @property
    def process(self) -> Mapping[str, Any]:
        """Its process."""
        found: Mapping[str, Any] = self.spec["process"]
        return found

    @property
    def uses_user_namespace(self) -> bool:
        """Whether it is an ordinary user's."""
        return "uidMappings" in self.spec["linux"]

    @property
    def single(self) -> bool:
        """Whether it has but one user or group, so that no group can be set (setgroups(2))."""
        maps = [self.spec["linux"].get(f"{kind}Mappings", ()) for kind in ("uid", "gid")]
        return self.uses_user_namespace and min(map(len, maps)) < 2

    def write(self) -> None:
        """Write its config.json.

        Raises:
            UsageError: text that isn't Unicode, which JSON can't say.
        """
        try:
            data = json.dumps(self.spec, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise UsageError("the command and environment must be valid UTF-8") from None
        (self.directory / BUNDLED).write_bytes(data)
        (self.directory / PID).unlink(missing_ok=True)

    def pid(self) -> int | None:
        """Return its first process, once there is one."""
        try:
            return int((self.directory / PID).read_bytes())
        except (OSError, ValueError):
            return None

    def note_pid(self, pid: int) -> None:
        """Remember its first process."""
        (self.directory / PID).write_text(str(pid))


class Runtime(Protocol):
    """Starts processes."""

    @property
    def name(self) -> str: ...

    def run(self, bundle: Bundle) -> Launch:
        """Start the bundle's process as a container's first."""
        ...

    def exec(self, bundle: Bundle, process: Mapping[str, Any]) -> Launch:
        """Start one more in the container that runs."""
        ...

    def check(self, bundle: Bundle, status: int) -> None:
        """Tell a failure of the runtime from one of the process.

        Raises:
            StoreError, CommandError: the process never ran.
        """

    def clear(self, bundle: Bundle) -> None:
        """Take away what the runtime keeps of a container that has ended, or kill it; after
        ``exec``, of that process alone."""
