"""udocker: containers without privilege or mounts, as directories unpacked whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from ...measuring import ProgramError, run
from ..actor import Program
from ..files import Files, NativeFiles


class Udocker(Program):
    """Loads ``docker save``'s format, which skopeo makes of the layout beforehand."""

    name = "udocker"
    programs: ClassVar[Mapping[str, str]] = {"udocker": "udocker, by pip", "skopeo": "skopeo"}
    version_command: ClassVar[Sequence[str]] = ("udocker", "--allow-root", "--version")
    durable: ClassVar[str] = "no: it leaves what it unpacks to the kernel's writeback"
    packaged: ClassVar[bool] = False
    cannot: ClassVar[Mapping[str, str]] = {
        "fork": "udocker clones a container only by way of a tar",
        "diff": "udocker doesn't know what changed",
        "commit": "udocker makes no images",
        "mount": "its containers are directories already: see the same work without 'mounted'",
    }

    @property
    def environment(self) -> Mapping[str, str]:
        # An installation of its tools fetches programs to run containers with; we run none.
        own = {"UDOCKER_DIR": str(self.store), "UDOCKER_USE_PROOT_EXECUTABLE": "/bin/true"}
        return {**super().environment, **own}

    def _udocker(self, *arguments: str | Path) -> str:
        flags = ["--allow-root"] if os.geteuid() == 0 else []
        return self.said("udocker", *flags, "--quiet", *arguments)

    def _archive(self, tag: str) -> Path:
        path = self.material.root / f"{tag}.docker.tar"
        if not path.exists():
            source, target = f"oci:{self.material.layout}:{tag}", f"docker-archive:{path}"
            run(["skopeo", "copy", "--insecure-policy", "-q", source, f"{target}:bench:{tag}"])
        return path

    def ready(self, tag: str) -> None:
        self._archive(tag)

    def import_image(self, tag: str) -> None:
        self._udocker("load", "-i", self._archive(tag))

    def remove_image(self, tag: str) -> None:
        self._udocker("rmi", f"bench:{tag}")

    def create(self, tag: str, count: int = 1) -> list[str]:
        made: list[str] = []
        for _ in range(count):
            words = self._udocker("create", f"bench:{tag}").split()
            if not words:
                raise ProgramError("udocker: it names no container")
            made.append(words[-1])
        return made

    def remove(self, containers: Sequence[str]) -> None:
        for container in containers:
            self._udocker("rm", container)

    @contextmanager
    def files(self, container: str, *, writable: bool = True) -> Iterator[Files]:
        yield NativeFiles(self.store / "containers" / container / "ROOT")

    def export(self, container: str, out: Path) -> None:
        self._udocker("export", "-o", out, container)
