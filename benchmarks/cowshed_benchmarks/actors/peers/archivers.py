"""borg, restic and casync: deduplicating archivers, for what storing and giving back costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ..actor import Archiver


class Borg(Archiver):
    """Takes an image's tar, layers merged."""

    name = "borg"
    programs: ClassVar[Mapping[str, str]] = {"borg": "borgbackup"}
    version_command: ClassVar[Sequence[str]] = ("borg", "--version")
    durable: ClassVar[str] = "yes"

    @property
    def environment(self) -> Mapping[str, str]:
        quiet = {"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
        return {**super().environment, **quiet, "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}

    def start(self) -> None:
        super().start()
        if not (self.store / "config").exists():
            self.call("borg", "init", "--encryption=none", self.store)

    def ready(self, tag: str) -> None:
        self.material.tar(tag)

    def import_image(self, tag: str) -> None:
        archive = f"{self.store}::{tag}"
        self.call("borg", "import-tar", "--compression=zstd,3", archive, self.material.tar(tag))

    def remove_image(self, tag: str) -> None:
        self.call("borg", "delete", f"{self.store}::{tag}")
        self.call("borg", "compact", self.store)

    def export(self, container: str, out: Path) -> None:
        self.call("borg", "export-tar", f"{self.store}::{container}", out)


class Restic(Archiver):
    """Takes a directory with an image's files."""

    name = "restic"
    thorough: ClassVar[bool] = True
    programs: ClassVar[Mapping[str, str]] = {"restic": "restic"}
    version_command: ClassVar[Sequence[str]] = ("restic", "version")
    durable: ClassVar[str] = "yes"

    @property
    def environment(self) -> Mapping[str, str]:
        own = {"RESTIC_REPOSITORY": str(self.store), "RESTIC_PASSWORD": "benchmark"}
        return {**super().environment, **own}

    def start(self) -> None:
        super().start()
        if not (self.store / "config").exists():
            self.call("restic", "init", "--quiet")

    def ready(self, tag: str) -> None:
        self.material.tree(tag)

    def import_image(self, tag: str) -> None:
        tree = self.material.tree(tag)
        self.call("restic", "backup", "--quiet", "--tag", tag, "--force", tree)

    def _snapshot(self, tag: str) -> str:
        found = json.loads(self.said("restic", "snapshots", "--json", "--tag", tag))
        snapshot: str = found[-1]["id"]
        return snapshot

    def remove_image(self, tag: str) -> None:
        self.call("restic", "forget", "--quiet", "--prune", self._snapshot(tag))

    def export(self, container: str, out: Path) -> None:
        self.call("restic", "dump", "--quiet", self._snapshot(container), "/", out=out)


class Casync(Archiver):
    """Takes a directory with an image's files, gives one back."""

    name = "casync"
    programs: ClassVar[Mapping[str, str]] = {"casync": "casync"}
    version_command: ClassVar[Sequence[str]] = ("casync", "--version")
    durable: ClassVar[str] = "no: it leaves chunks to the kernel's writeback"

    @property
    def _chunks(self) -> str:
        return f"--store={self.store / 'chunks.castr'}"

    def _index(self, tag: str) -> Path:
        return self.store / f"{tag}.caidx"

    def ready(self, tag: str) -> None:
        self.material.tree(tag)

    def import_image(self, tag: str) -> None:
        self.call("casync", self._chunks, "make", self._index(tag), self.material.tree(tag))

    def remove_image(self, tag: str) -> None:
        self._index(tag).unlink()
        self.call("casync", self._chunks, "gc", *sorted(self.store.glob("*.caidx")))

    def export(self, container: str, out: Path) -> None:
        self.call("casync", self._chunks, "extract", self._index(container), out)
