"""Plugins: the calls that core makes to plugins, through a typed façade.

Whatever a plugin gets wrong takes nothing else down. One that fails to import is named (see
``plugin_loader``), names that two plugins claim and drivers that break the interface are refused
one by one (see ``register`` and ``interface``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from .errors import DriverError, VetoError
from .plugin_loader import PluginInfo, PluginLoader, load_object
from .register import Register

if TYPE_CHECKING:
    from .driver import DriverSpec
    from .shed import Shed
    from .transport import TransportSpec

Result = TypeVar("Result")


class CommandSpec(NamedTuple):
    """A command that a plugin brings."""

    name: str
    #: ``"module:attribute"`` of a click command.
    value: str


class Verdict(NamedTuple):
    """Whether a registered driver can be used; both empty: it can."""

    #: How it breaks the interface, or who else claims its name.
    refused: str = ""
    #: Why it can't run here.
    unable: str = ""


class Plugins(PluginLoader):
    """All plugins of one shed, and the calls the core makes to them."""

    def __init__(self) -> None:
        super().__init__()
        self._changed()

    def _changed(self) -> None:
        self._drivers: Register[DriverSpec] | None = None
        self._transports: Register[TransportSpec] | None = None
        self._commands: Register[CommandSpec] | None = None

    # -- registers ----------------------------------------------------------------------------

    @property
    def drivers(self) -> Register[DriverSpec]:
        """Drivers by name."""
        register = self._drivers
        if register is None:
            from .driver import DriverSpec
            from .interface import spec_problem

            # Filling it imports plugins, and each of those makes what is known obsolete.
            register = Register[DriverSpec]("driver", DriverSpec, spec_problem)
            self._fill(register, "cowshed_register_drivers")
            self._drivers = register
        return register

    @property
    def transports(self) -> Register[TransportSpec]:
        """Transports by name."""
        register = self._transports
        if register is None:
            from .register import transport_problem
            from .transport import TransportSpec

            register = Register[TransportSpec]("transport", TransportSpec, transport_problem)
            self._fill(register, "cowshed_register_transports")
            self._transports = register
        return register

    def commands(self) -> dict[str, str]:
        """Return the commands that plugins bring: name → ``"module:attribute"``."""
        return {name: spec.value for name, spec in self.command_register.items()}

    @property
    def command_register(self) -> Register[CommandSpec]:
        """Plugins' commands by name, with those that clash or are refused."""
        register = self._commands
        if register is None:
            register = Register[CommandSpec]("command", CommandSpec, _command_problem)
            self._fill(register, "cowshed_register_commands")
            self._commands = register
        return register

    def _fill(self, register: Register[Any], hook: str) -> None:
        for plugin, answer in self._collected(hook):
            specs: Iterable[object] = answer
            if isinstance(answer, Mapping):
                specs = [CommandSpec(name, value) for name, value in answer.items()]
            for spec in specs:
                problem = register.add(plugin, spec)
                if problem:
                    self._note_failure(plugin, problem)

    def judge(self, name: str, root: Path | None = None) -> Verdict:
        """Import a registered driver and look it over; ask its probe as well where ``root`` says
        what about."""
        from .interface import load_driver, probe

        register = self.drivers
        if name in register.clashes:
            return Verdict(refused=register.clashes[name])
        try:
            spec = register.find(name)
            load_driver(spec)
            return Verdict(unable=(probe(spec, root) if root is not None else None) or "")
        except DriverError as error:
            self._note_failure(register.plugin_of(name), f"driver {name} refused: {error.reason}")
            return Verdict(refused=error.reason)

    # -- policy and operations ----------------------------------------------------------------

    def choose_driver(self, shed: Shed, image: str) -> str | None:
        """Ask the plugins which driver to use."""
        if not self._implemented("cowshed_choose_driver"):
            return None
        answer: str | None = self._manager.hook.cowshed_choose_driver(shed=shed, image=image)
        return answer

    def run(
        self,
        shed: Shed,
        operation: str,
        details: Mapping[str, Any],
        function: Callable[[], Result],
        *,
        vetoable: bool = False,
    ) -> Result:
        """Run one operation through the hooks.

        Raises:
            VetoError: a policy plugin refused it.
        """
        self._load_waiting("cowshed_operation")
        if vetoable and self._implemented("cowshed_veto"):
            reason = self._manager.hook.cowshed_veto(
                shed=shed, operation=operation, details=details
            )
            if reason is not None:
                raise VetoError(operation, reason)
        if self._made is None:
            return function()
        result: Result = self._made.hook.cowshed_operation(
            shed=shed, operation=operation, details=details, run=function
        )
        return result

    # -- notifications ------------------------------------------------------------------------

    def notify(self, event: str, **details: Any) -> None:
        """Tell the plugins that ``event`` (a notification hook without its prefix) happened.

        What they raise is reported on standard error and changes nothing: it has happened.
        """
        hook = f"cowshed_{event}"
        if not self._implemented(hook):
            return
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            try:
                implementation.function(**{name: details[name] for name in implementation.argnames})
            except Exception as error:
                print(
                    f"cowshed: plugin {implementation.plugin_name} failed on {event}: {error}",
                    file=sys.stderr,
                )

    def listens(self, event: str) -> bool:
        """Say whether any plugin implements that notification."""
        return self._implemented(f"cowshed_{event}")


def _command_problem(spec: CommandSpec) -> str | None:
    value = cast(object, spec.value)
    if isinstance(value, str) and all(value.partition(":")):
        return None
    return f'it is {value!r:.100}, not "module:attribute"'


__all__ = ["CommandSpec", "PluginInfo", "Plugins", "Verdict", "load_object"]
