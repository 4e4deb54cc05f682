"""A driver of Cowshed: through the public Python API, imports and one creation by the command."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..measuring import run
from ..space import Space
from .actor import Actor, Unable
from .files import Files, NativeFiles, TreeFiles
from .material import Material

if TYPE_CHECKING:
    from cowshed import Container, Shed


class DriverActor(Actor):
    """Any registered driver, a third party's as well."""

    opens: ClassVar[bool] = True
    syncs: ClassVar[bool] = True

    def __init__(
        self,
        place: Path,
        material: Material,
        driver: str,
        *,
        config: str | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(place, material)
        self.driver = driver
        self._config = config
        # What was promised durable is measured durable.
        self._overrides = {**(overrides or {}), "durability": "full"}
        self._shed: Shed | None = None

    @property
    def shed(self) -> Shed:
        """The shed, opened on first use."""
        if self._shed is None:
            from cowshed import Shed

            self._shed = Shed(
                self.store, driver=self.driver, config=self._config, overrides=self._overrides
            )
        return self._shed

    def start(self) -> None:
        super().start()
        # The driver is loaded, and its index open, before anything is measured.
        self.shed.driver(self.driver)

    def stop(self) -> None:
        if self._shed is not None:
            self._shed.close()
            self._shed = None
        super().stop()

    def space(self) -> Space:
        from cowshed.driver import Capability

        found = super().space()
        if Capability.SHARES_EXTENTS in self.shed.driver_spec(self.driver).capabilities:
            # Walking counts a shared extent for each file.
            return Space(self.shed.disk_usage(), found.inodes)
        return found

    def _command(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "cowshed", "--root", str(self.store)]
        command += ["--driver", self.driver]
        if self._config is not None:
            command += ["--config", self._config]
        for key, value in self._overrides.items():
            # A TOML basic string is a JSON string; so are numbers, booleans and lists of them.
            command += ["--set", f"{key}={json.dumps(value)}"]
        return run([*command, *arguments]).output.decode().strip()

    # -- images -------------------------------------------------------------------------------

    def import_image(self, tag: str) -> None:
        self._command("import", "-q", f"oci:{self.material.layout}:{tag}", f"bench:{tag}")

    def remove_image(self, tag: str) -> None:
        self.shed.remove_image(f"bench:{tag}")
        self.shed.gc()

    # -- containers ---------------------------------------------------------------------------

    def create(self, tag: str, count: int = 1) -> list[str]:
        return [one.id for one in self.shed.create_many(f"bench:{tag}", count)]

    def create_from_shell(self, tag: str) -> str:
        return self._command("create", f"bench:{tag}")

    def remove(self, containers: Sequence[str]) -> None:
        self.shed.remove_containers(containers)

    def _container(self, id: str) -> Container:
        return self.shed.container(id)

    @contextmanager
    def files(self, container: str, *, writable: bool = True) -> Generator[Files]:
        with self._container(container).tree(writable=writable) as tree:
            yield TreeFiles(tree)

    @contextmanager
    def mounted(self, container: str) -> Generator[Files]:
        from cowshed.errors import StoreError

        mount = self._container(container).mounted()
        try:
            path = mount.__enter__()
        except StoreError as error:
            raise Unable(f"its containers can't be mounted here: {error}") from None
        try:
            yield NativeFiles(path)
        finally:
            mount.__exit__(None, None, None)

    def diff(self, container: str) -> int:
        return len(self._container(container).diff())

    def commit(self, container: str, tag: str) -> None:
        self._container(container).commit(f"bench:{tag}")

    def fork(self, container: str) -> str:
        return self._container(container).fork().id

    def export(self, container: str, out: Path) -> None:
        with out.open("wb") as file:
            self._container(container).export(file)
