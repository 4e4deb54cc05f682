"""containers/storage behind three programs: skopeo, podman and buildah, on overlay or on vfs."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from ...space import Space, clear, space, unmount_below
from ..actor import Program
from ..files import Files, NativeFiles

_AS_ROOT = "containers-storage is measured as root: for others it needs a user namespace set up"
_MOUNTED = "its containers are mounted directories already: see the same work without 'mounted'"


class Storage(Program):
    """A store of containers/storage."""

    driver: ClassVar[str] = "overlay"
    durable: ClassVar[str] = "no: it leaves data and most metadata to the kernel's writeback"
    needs_root: ClassVar[str] = _AS_ROOT

    @property
    def _graph(self) -> Path:
        return self.store / "graph"

    @property
    def _run(self) -> Path:
        # Podman refuses a run root of more than 50 characters.
        digest = hashlib.sha256(os.fsencode(self.store)).hexdigest()[:12]
        return Path(tempfile.gettempdir(), f"cb-{digest}")

    def start(self) -> None:
        super().start()
        self._graph.mkdir(exist_ok=True)
        self._run.mkdir(mode=0o700, exist_ok=True)
        self._settings.write_text(
            f'[storage]\ndriver = "{self.driver}"\ngraphroot = "{self._graph}"\n'
            f'runroot = "{self._run}"\n'
        )
        self._engine.write_text(
            '[containers]\n[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n'
            f'tmp_dir = "{self._run}"\n'
        )
        self._policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}\n')

    @property
    def _settings(self) -> Path:
        return self.store.parent / "storage.conf"

    @property
    def _engine(self) -> Path:
        return self.store.parent / "containers.conf"

    @property
    def _policy(self) -> Path:
        return self.store.parent / "policy.json"

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            **super().environment,
            "CONTAINERS_STORAGE_CONF": str(self._settings),
            "CONTAINERS_CONF": str(self._engine),
            "STORAGE_DRIVER": self.driver,
        }

    def stop(self) -> None:
        super().stop()
        # It mounts its directory on itself and may leave it so.
        unmount_below(self.store)

    def discard(self) -> None:
        unmount_below(self.store)
        clear(self._run)

    def space(self) -> Space:
        return space(self._graph)


def _name(tag: str) -> str:
    return f"localhost/bench:{tag}"


class Skopeo(Storage):
    name = "containers-storage"
    programs: ClassVar[Mapping[str, str]] = {"skopeo": "skopeo"}
    version_command: ClassVar[Sequence[str]] = ("skopeo", "--version")
    cannot: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("create", "remove", "files", "mount", "diff", "commit", "fork", "export"),
        "skopeo copies images and makes no containers: see podman and buildah",
    )

    def _place(self, tag: str) -> str:
        place = f"{self.driver}@{self._graph}+{self._run}"
        return f"containers-storage:[{place}]{_name(tag)}"

    def import_image(self, tag: str) -> None:
        source = f"oci:{self.material.layout}:{tag}"
        self.call("skopeo", "copy", "--insecure-policy", "--quiet", source, self._place(tag))

    def remove_image(self, tag: str) -> None:
        self.call("skopeo", "delete", self._place(tag))


class SkopeoVfs(Skopeo):
    name = "containers-storage-vfs"
    thorough: ClassVar[bool] = True
    driver: ClassVar[str] = "vfs"


class Podman(Storage):
    name = "podman"
    programs: ClassVar[Mapping[str, str]] = {"podman": "podman"}
    version_command: ClassVar[Sequence[str]] = ("podman", "--version")
    cannot: ClassVar[Mapping[str, str]] = {
        "fork": "podman copies a container's settings, not its files; it must commit first",
        "mount": _MOUNTED,
    }

    def _podman(self, *arguments: str | Path, out: Path | None = None) -> str:
        ran = self.call("podman", *arguments, out=out)
        return ran.output.decode(errors="replace").strip()

    def import_image(self, tag: str) -> None:
        source = f"oci:{self.material.layout}:{tag}"
        image = self._podman("pull", "-q", f"--signature-policy={self._policy}", source)
        # Unnamed, it would go with the first image that is made of it.
        self._podman("tag", image, _name(tag))

    def remove_image(self, tag: str) -> None:
        self._podman("rmi", _name(tag))

    def create(self, tag: str, count: int = 1) -> list[str]:
        arguments = ("create", "--network=none", "--pull=never", _name(tag), "true")
        return [self._podman(*arguments) for _ in range(count)]

    def remove(self, containers: Sequence[str]) -> None:
        for start in range(0, len(containers), 1000):  # a command line has its bounds
            self._podman("rm", "--force", *containers[start : start + 1000])

    @contextmanager
    def files(self, container: str, *, writable: bool = True) -> Generator[Files]:
        yield NativeFiles(Path(self._podman("mount", container)))
        self._podman("unmount", container)

    def diff(self, container: str) -> int:
        return len(self._podman("diff", container).splitlines())

    def commit(self, container: str, tag: str) -> None:
        self._podman("commit", "-q", container, _name(tag))

    def export(self, container: str, out: Path) -> None:
        self._podman("export", "--output", out, container)


class Buildah(Storage):
    name = "buildah"
    thorough: ClassVar[bool] = True
    programs: ClassVar[Mapping[str, str]] = {"buildah": "buildah"}
    version_command: ClassVar[Sequence[str]] = ("buildah", "--version")
    cannot: ClassVar[Mapping[str, str]] = {
        "fork": "buildah must commit first, and make another of that",
        "mount": _MOUNTED,
        "diff": "buildah shows no changes",
        "export": "buildah writes images, not file systems",
    }

    def import_image(self, tag: str) -> None:
        source = f"oci:{self.material.layout}:{tag}"
        image = self.said("buildah", "pull", "-q", f"--signature-policy={self._policy}", source)
        self.call("buildah", "tag", image, _name(tag))

    def remove_image(self, tag: str) -> None:
        self.call("buildah", "rmi", _name(tag))

    def create(self, tag: str, count: int = 1) -> list[str]:
        command = ("buildah", "from", "--pull-never", _name(tag))
        return [self.said(*command) for _ in range(count)]

    def remove(self, containers: Sequence[str]) -> None:
        for start in range(0, len(containers), 1000):
            self.call("buildah", "rm", *containers[start : start + 1000])

    @contextmanager
    def files(self, container: str, *, writable: bool = True) -> Generator[Files]:
        yield NativeFiles(Path(self.said("buildah", "mount", container)))
        self.call("buildah", "umount", container)

    def commit(self, container: str, tag: str) -> None:
        policy = f"--signature-policy={self._policy}"
        self.call("buildah", "commit", "-q", policy, container, _name(tag))


class BuildahVfs(Buildah):
    name = "buildah-vfs"
    driver: ClassVar[str] = "vfs"
