"""The hooks that plugins may implement, grouped by how their results combine.

A plugin is any module or object with functions named as below and marked ``@hookimpl``; it is found
through the entry point group ``cowshed`` or the ``plugins`` list of ``cowshed.toml``.
``COWSHED_TRACE_HOOKS=1`` prints every call.

* **Register**: every answer is collected.
* **Policy**: asked one after the other, the first that answers wins.
* **Operations**: the core's own implementation answers last; a wrapper
  (``@hookimpl(wrapper=True)``) times, vetoes or replaces it.
* **Notifications**: told after the fact; an exception is reported and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from .driver import DriverSpec
    from .shed import Shed
    from .transport import TransportSpec

hookspec = pluggy.HookspecMarker("cowshed")
hookimpl = pluggy.HookimplMarker("cowshed")


# -- register: all answers collected -----------------------------------------------------------


@hookspec
def cowshed_register_drivers() -> Sequence[DriverSpec]:  # type: ignore[empty-body]  # a spec
    """Return the drivers this plugin brings. Two plugins that claim one name are an error."""


@hookspec
def cowshed_register_transports() -> Sequence[TransportSpec]:  # type: ignore[empty-body]  # a spec
    """Return the transports (``oci:``, ``docker-archive:`` …) this plugin brings."""


@hookspec
def cowshed_register_commands() -> Mapping[str, str]:  # type: ignore[empty-body]  # a spec
    """Return commands for the command line: name → ``"module:attribute"`` of a click command."""


# -- policy: the first answer wins -------------------------------------------------------------


@hookspec(firstresult=True)
def cowshed_choose_driver(shed: Shed, image: str) -> str | None:
    """Name the driver to use for what is about to be imported or created; None: the configured."""


@hookspec(firstresult=True)
def cowshed_veto(shed: Shed, operation: str, details: Mapping[str, Any]) -> str | None:
    """Say in one sentence why ``operation`` must not run; None lets it.

    Asked before ``import``, ``create``, ``commit``, ``fork``, ``rm``, ``rmi`` and ``migrate``.
    ``details`` names what it is about (``image``, ``container``, ``driver``, ``count`` …).
    """


# -- operations: core answers last, wrappers go around it --------------------------------------


@hookspec(firstresult=True)
def cowshed_operation(shed: Shed, operation: str, details: Mapping[str, Any], run: Any) -> Any:
    """Run one operation of the Shed by calling ``run()``; wrap it to time, log, veto or replace.

    Names are those of the command line (``import``, ``create``, ``diff`` …).
    """


# -- notifications: told after the fact --------------------------------------------------------


@hookspec
def cowshed_shed_opened(shed: Shed) -> None:
    """A shed was opened."""


@hookspec
def cowshed_layer_sealed(shed: Shed, driver: str, layer: str, size: int) -> None:
    """A layer was stored: its chain ID and the bytes of its files."""


@hookspec
def cowshed_image_added(shed: Shed, image: str, names: Sequence[str]) -> None:
    """An image was imported, committed or migrated."""


@hookspec
def cowshed_image_removed(shed: Shed, image: str) -> None:
    """An image is gone."""


@hookspec
def cowshed_container_created(shed: Shed, containers: Sequence[str], image: str) -> None:
    """Containers were created, in one batch."""


@hookspec
def cowshed_container_removed(shed: Shed, containers: Sequence[str]) -> None:
    """Containers are gone."""


@hookspec
def cowshed_committed(shed: Shed, container: str, image: str) -> None:
    """An image was made of a container."""


@hookspec
def cowshed_progress(shed: Shed, operation: str, what: str, done: int, total: int | None) -> None:
    """Bytes of ``what`` done so far; called at most some ten times a second."""
