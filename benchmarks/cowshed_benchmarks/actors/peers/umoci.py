"""umoci: bundles unpacked from an OCI layout, and layers made of what changed in them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from ...space import clear
from ..actor import Program
from ..files import Files, NativeFiles


class Umoci(Program):
    """A container is a bundle, unpacked whole."""

    name = "umoci"
    programs: ClassVar[Mapping[str, str]] = {"umoci": "umoci"}
    version_command: ClassVar[Sequence[str]] = ("umoci", "--version")
    durable: ClassVar[str] = "no: it leaves what it unpacks to the kernel's writeback"
    cannot: ClassVar[Mapping[str, str]] = {
        "import": "umoci works on the layout itself: see what it takes to create a container",
        "fork": "umoci must make a layer first, and unpack that",
        "diff": "umoci finds changes only while it makes a layer of them",
        "export": "umoci unpacks directories and writes layers, not whole file systems",
        "mount": "its containers are directories already: see the same work without 'mounted'",
    }

    @property
    def _layout(self) -> Path:
        return self.store / "image"

    def stock(self, tag: str) -> None:
        if not self._layout.exists():
            shutil.copytree(self.material.layout, self._layout)

    def create(self, tag: str, count: int = 1) -> list[str]:
        bundles = self.store / "bundles"
        bundles.mkdir(exist_ok=True)
        made: list[str] = []
        rootless = [] if os.geteuid() == 0 else ["--rootless"]
        for _ in range(count):
            bundle = bundles / os.urandom(8).hex()
            self.call("umoci", "unpack", *rootless, "--image", f"{self._layout}:{tag}", bundle)
            made.append(str(bundle))
        return made

    def remove(self, containers: Sequence[str]) -> None:
        for bundle in containers:
            clear(Path(bundle))

    @contextmanager
    def files(self, container: str, *, writable: bool = True) -> Generator[Files]:
        yield NativeFiles(Path(container, "rootfs"))

    def commit(self, container: str, tag: str) -> None:
        self.call("umoci", "repack", "--image", f"{self._layout}:{tag}", container)

    def remove_image(self, tag: str) -> None:
        if tag != "committed":
            raise self.unable("import")
        self.call("umoci", "rm", "--image", f"{self._layout}:{tag}")
        self.call("umoci", "gc", "--layout", self._layout)
