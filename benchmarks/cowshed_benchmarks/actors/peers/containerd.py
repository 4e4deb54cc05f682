"""containerd: a daemon of our own with its content store and snapshots, driven by ``ctr``."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from ...measuring import ProgramError
from ...space import unmount_below
from ..actor import Program
from ..files import Files, NativeFiles

_PATIENCE = 20.0


class Containerd(Program):
    """A container is a snapshot; the daemon lives as long as the worker's process."""

    name = "containerd"
    snapshotter: ClassVar[str] = "overlayfs"
    programs: ClassVar[Mapping[str, str]] = {"containerd": "containerd", "ctr": "containerd"}
    version_command: ClassVar[Sequence[str]] = ("containerd", "--version")
    durable: ClassVar[str] = "partly: blobs and metadata are synced, unpacked files aren't"
    needs_root: ClassVar[str] = "containerd takes root"
    cannot: ClassVar[Mapping[str, str]] = {
        "fork": "a snapshot must be committed before another stands on it",
        "commit": "ctr makes no image of a snapshot",
        "export": "ctr writes images and differences, not file systems",
        "mount": "its snapshots are mounted already: see the same work without 'mounted'",
    }
    _daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        super().start()
        state = self.store.parent / "state"
        # A socket's address has 107 bytes; this directory's name may be longer.
        self._socket = f"/run/cb-{os.getpid()}.sock"
        settings = self.store.parent / "containerd.toml"
        settings.write_text(
            f'version = 2\nroot = "{self.store}"\nstate = "{state}"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{self._socket}"\n'
            f'[ttrpc]\naddress = "{self._socket}.ttrpc"\n'
        )
        log = self.store.parent / "containerd.log"
        with log.open("wb") as said:
            self._daemon = subprocess.Popen(
                ["containerd", "--config", settings],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=self.environment,
            )
        deadline = time.monotonic() + _PATIENCE
        while not self._answers():
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                last = (log.read_text(errors="replace").splitlines() or [""])[-1]
                raise ProgramError(f"containerd: it didn't start: {last}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            self._ctr("version")
        except ProgramError:
            return False
        return True

    def stop(self) -> None:
        if self._daemon is not None:
            self._daemon.terminate()
            try:
                self._daemon.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                self._daemon.wait()
            self._daemon = None
        for name in (self._socket, f"{self._socket}.ttrpc"):
            Path(name).unlink(missing_ok=True)
        super().stop()
        unmount_below(self.store)

    @property
    def daemons(self) -> tuple[int, ...]:
        return () if self._daemon is None else (self._daemon.pid,)

    def _ctr(self, *arguments: str | Path, out: Path | None = None) -> str:
        command = ("ctr", "--address", self._socket, "--namespace", "bench", *arguments)
        return self.call(*command, out=out).output.decode(errors="replace")

    def _snapshots(self, *arguments: str | Path, out: Path | None = None) -> str:
        return self._ctr("snapshots", "--snapshotter", self.snapshotter, *arguments, out=out)

    def ready(self, tag: str) -> None:
        self.material.archive(tag)

    def import_image(self, tag: str) -> None:
        archive = self.material.archive(tag)
        options = ("--snapshotter", self.snapshotter, "--base-name", "bench")
        self._ctr("images", "import", *options, archive)

    def remove_image(self, tag: str) -> None:
        self._ctr("images", "rm", "--sync", f"bench:{tag}")

    def create(self, tag: str, count: int = 1) -> list[str]:
        chain = self.material.chain_id(tag)
        made = [os.urandom(16).hex() for _ in range(count)]
        for name in made:
            self._snapshots("prepare", name, chain)
        return made

    def remove(self, containers: Sequence[str]) -> None:
        for start in range(0, len(containers), 1000):
            self._snapshots("rm", *containers[start : start + 1000])

    @contextmanager
    def files(self, container: str, *, writable: bool = True) -> Generator[Files]:
        point = self.scratch / container
        point.mkdir()
        command = self._snapshots("mounts", point, container)
        self.call("sh", "-ec", command)
        try:
            yield NativeFiles(point)
        finally:
            unmount_below(point)

    def diff(self, container: str) -> int:
        self._snapshots("diff", container, out=self.scratch / "diff.tar")
        return 0


class ContainerdNative(Containerd):
    """The snapshotter that copies."""

    name = "containerd-native"
    thorough: ClassVar[bool] = True
    snapshotter: ClassVar[str] = "native"
