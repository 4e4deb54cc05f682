"""udocker: images as directories of layers, without privilege or mounts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ...measuring import run
from ..actor import Program


class Udocker(Program):
    """Loads ``docker save``'s format, which skopeo makes of the layout beforehand."""

    name = "udocker"
    programs: ClassVar[Mapping[str, str]] = {"udocker": "udocker, by pip", "skopeo": "skopeo"}
    version_command: ClassVar[Sequence[str]] = ("udocker", "--allow-root", "--version")
    durable: ClassVar[str] = "no: it leaves what it writes to the kernel's writeback"
    cannot: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("create", "remove", "files", "mount", "diff", "commit", "fork", "export"),
        "udocker makes no container before it has fetched its tools, and no network is used",
    )

    @property
    def environment(self) -> Mapping[str, str]:
        return {**super().environment, "UDOCKER_DIR": str(self.store)}

    def _udocker(self, *arguments: str | Path) -> None:
        flags = ["--allow-root"] if os.geteuid() == 0 else []
        self.call("udocker", *flags, *arguments)

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
        self._udocker("rmi", f"docker.io/library/bench:{tag}")
