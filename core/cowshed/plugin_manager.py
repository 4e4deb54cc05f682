"""Plugins: found, loaded one by one, and called through a typed façade.

A plugin that fails to import is remembered with its reason and named wherever plugins are listed;
it takes nothing else down. Two plugins that claim one driver, transport or command name are told
apart by an error that names both, raised when that name is used.

Plugins are imported when a hook that they implement is called first: ``cowshed ps`` calls none and
needs neither them nor pluggy.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, cast

from .errors import NotFoundError, PluginError, VetoError
from .installed import InstalledPlugin, Stamps, installed_plugins, remember

if TYPE_CHECKING:
    import pluggy

    from .config import Config
    from .driver import DriverSpec
    from .shed import Shed
    from .transport import TransportSpec

Result = TypeVar("Result")


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Spec = TypeVar("Spec", bound=_Named)


class PluginInfo(NamedTuple):
    """One plugin as ``cowshed plugins`` shows it."""

    name: str
    #: Where it was named: ``entry point``, ``configuration`` or ``argument``.
    origin: str
    module: str
    #: Why it isn't loaded; empty when it is.
    failure: str = ""
    hooks: tuple[str, ...] = ()


class Plugins:
    """All plugins of one shed, and the calls the core makes to them."""

    def __init__(self) -> None:
        #: Held while plugins are imported: another thread mustn't see half of them.
        self._lock = threading.RLock()
        self._made: pluggy.PluginManager | None = None
        self._infos: list[PluginInfo] = []
        #: Found but not imported yet, with their origin.
        self._waiting: list[tuple[InstalledPlugin, str]] = []
        self._installed: list[InstalledPlugin] = []
        self._objects: dict[str, object] = {}
        self._drivers: _Registry[DriverSpec] | None = None
        self._transports: _Registry[TransportSpec] | None = None

    # -- loading ------------------------------------------------------------------------------

    def load(self, config: Config) -> None:
        """Take in the plugins of all installed distributions, then those the configuration names.

        Raises nothing for a plugin that can't be imported; ``infos`` says why it can't.
        """
        disabled = set(config["disabled_plugins"])
        self._installed, stamps = installed_plugins()
        found = [(plugin, "entry point") for plugin in self._installed]
        found += [(InstalledPlugin(name, name), "configuration") for name in config["plugins"]]
        self._waiting += [
            (plugin, origin) for plugin, origin in found if plugin.name not in disabled
        ]
        if stamps is not None and not disabled:
            self._load_waiting()
            self._remember(stamps)

    def register(self, plugin: object, name: str) -> None:
        """Add a plugin object directly, for programs that embed Cowshed and for tests."""
        self._load_waiting()
        self._register(plugin, name, "argument", type(plugin).__name__)

    @property
    def infos(self) -> list[PluginInfo]:
        """All plugins, each imported to see whether it can be."""
        self._load_waiting()
        return self._infos

    def _remember(self, stamps: Stamps) -> None:
        hooks = {info.name: info.hooks for info in self._infos if not info.failure}
        remember(
            stamps,
            [plugin._replace(hooks=hooks.get(plugin.name)) for plugin in self._installed],
            {name: plugin for name, plugin in self._objects.items() if name in hooks},
        )

    def _implemented(self, hook: str) -> bool:
        """Import the plugins that implement ``hook``; say whether there are any."""
        self._load_waiting(hook)
        return self._made is not None and bool(getattr(self._made.hook, hook).get_hookimpls())

    def _load_waiting(self, hook: str | None = None) -> None:
        """Import the plugins that implement ``hook`` (None: all), and those found before them.

        pluggy calls whoever registered last first, so the order must not depend on what was called
        when: configured plugins come before installed ones, and an embedding program's before all.
        """
        with self._lock:
            needed = 0
            for number, (plugin, _) in enumerate(self._waiting, 1):
                if hook is None or plugin.hooks is None or hook in plugin.hooks:
                    needed = number
            waiting, self._waiting = self._waiting[:needed], self._waiting[needed:]
            for plugin, origin in waiting:
                self._load_one(plugin.name, origin, plugin.value)

    @property
    def _manager(self) -> pluggy.PluginManager:
        if self._made is None:
            import pluggy  # 10 ms

            from . import default_hooks, hookspecs

            self._made = pluggy.PluginManager("cowshed")
            self._made.add_hookspecs(hookspecs)
            self._made.register(default_hooks, "default")
            if os.environ.get("COWSHED_TRACE_HOOKS"):
                self._made.trace.root.setwriter(lambda text: print(text, end="", file=sys.stderr))
                self._made.enable_tracing()
        return self._made

    def _load_one(self, name: str, origin: str, value: str) -> None:
        try:
            plugin = load_object(value)
        except Exception as error:  # whatever a stranger's module raises while it is imported
            reason = f"failed to import: {type(error).__name__}: {error}"
            self._infos.append(PluginInfo(name, origin, value, failure=reason.splitlines()[0]))
            # Said each time: a quota or an audit that isn't there protects nothing.
            print(f"cowshed: plugin {name} {reason.splitlines()[0]}", file=sys.stderr)
            return
        self._register(plugin, name, origin, value)

    def _register(self, plugin: object, name: str, origin: str, module: str) -> None:
        from pluggy import PluginValidationError

        manager = self._manager
        try:
            manager.register(plugin, name)
            manager.check_pending()
        except (ValueError, PluginValidationError) as error:
            if manager.has_plugin(name) and manager.get_plugin(name) is plugin:
                manager.unregister(plugin)
            reason = " ".join(f"failed to register: {error}".split())
            self._infos.append(PluginInfo(name, origin, module, failure=reason))
            return
        callers = manager.get_hookcallers(plugin) or []
        hooks = tuple(sorted(caller.name for caller in callers))
        self._infos.append(PluginInfo(name, origin, module, hooks=hooks))
        self._objects[name] = plugin
        self._drivers = self._transports = None

    # -- registers ----------------------------------------------------------------------------

    def _collected(self, hook: str) -> Iterable[tuple[str, Any]]:
        if not self._implemented(hook):
            return
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            plugin = implementation.plugin_name
            try:
                yield plugin, implementation.function()
            except Exception as error:  # a stranger's code; the other plugins must still work
                self._note_failure(plugin, f"{hook} raised {type(error).__name__}: {error}")

    def _note_failure(self, plugin: str, reason: str) -> None:
        self._infos = [
            info._replace(failure=reason) if info.name == plugin else info for info in self._infos
        ]

    @property
    def drivers(self) -> _Registry[DriverSpec]:
        """Drivers by name."""
        registry = self._drivers
        if registry is None:
            from .driver import DriverSpec

            # Filling it imports plugins, and each of those makes what is known obsolete.
            registry = _Registry[DriverSpec]("driver", DriverSpec)
            self._fill(registry, "cowshed_register_drivers")
            self._drivers = registry
        return registry

    @property
    def transports(self) -> _Registry[TransportSpec]:
        """Transports by name."""
        registry = self._transports
        if registry is None:
            from .transport import TransportSpec

            # Filling it imports plugins, and each of those makes what is known obsolete.
            registry = _Registry[TransportSpec]("transport", TransportSpec)
            self._fill(registry, "cowshed_register_transports")
            self._transports = registry
        return registry

    def _fill(self, registry: _Registry[Any], hook: str) -> None:
        for plugin, specs in self._collected(hook):
            for spec in specs:
                problem = registry.add(plugin, spec)
                if problem:
                    self._note_failure(plugin, problem)

    def commands(self) -> dict[str, str]:
        """Return the commands that plugins bring: name → ``"module:attribute"``."""
        found: dict[str, str] = {}
        for _, commands in self._collected("cowshed_register_commands"):
            for name, value in commands.items():
                found.setdefault(name, value)
        return found

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


class _Registry(dict[str, Spec]):
    """Specs by name; a name two plugins claim is an error once somebody asks for it."""

    def __init__(self, kind: str, type_: type[Any]) -> None:
        super().__init__()
        self._kind = kind
        self._type = type_
        self._plugins: dict[str, str] = {}
        self.clashes: dict[str, str] = {}

    def add(self, plugin: str, spec: object) -> str | None:
        """Take one spec; return what is wrong with it, or None."""
        if not isinstance(spec, self._type):
            return f"registered {spec!r} as a {self._kind}, which is no {self._type.__name__}"
        checked = cast(Spec, spec)
        name = checked.name
        other = self._plugins.setdefault(name, plugin)
        if other != plugin:
            self.clashes[name] = (
                f"{self._kind} {name!r} is claimed by both {other} and {plugin}; "
                "disable one with disabled_plugins"
            )
            return self.clashes[name]
        self[name] = checked
        return None

    def plugin_of(self, name: str) -> str:
        """Return the name of the plugin that brought ``name``."""
        return self._plugins[name]

    def find(self, name: str) -> Spec:
        """Return the spec of that name.

        Raises:
            NotFoundError: there is none; the message suggests the nearest name.
            PluginError: two plugins claim it.
        """
        if name in self.clashes:
            raise PluginError(self._plugins[name], self.clashes[name])
        try:
            return self[name]
        except KeyError:
            raise NotFoundError(self._kind, name, known=self) from None


def load_object(value: str) -> Any:
    """Import ``"module"`` or ``"module:attribute"``."""
    module, _, attribute = value.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split(".") if attribute else ():
        found = getattr(found, part)
    return found


__all__ = ["PluginInfo", "Plugins", "load_object"]
