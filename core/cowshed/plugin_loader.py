"""PluginLoader: finds plugins, imports each when it is needed, and remembers why one can't be.

A plugin that fails to import is named wherever plugins are listed; it takes nothing else down.
Plugins are imported when a hook that they implement is called first: ``cowshed ps`` calls none and
needs neither them nor pluggy.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .installed import InstalledPlugin, Stamps, installed_plugins, remember

if TYPE_CHECKING:
    import pluggy

    from .config import Config


class PluginInfo(NamedTuple):
    """One plugin as ``cowshed plugins`` shows it."""

    name: str
    #: Where it was named: ``entry point``, ``configuration`` or ``argument``.
    origin: str
    module: str
    #: Why it isn't loaded, or what it brings is refused; empty when all is well.
    failure: str = ""
    hooks: tuple[str, ...] = ()


class PluginLoader:
    """All plugins of one shed."""

    def __init__(self) -> None:
        #: Held while plugins are imported: another thread mustn't see half of them.
        self._lock = threading.RLock()
        self._made: pluggy.PluginManager | None = None
        self._infos: list[PluginInfo] = []
        #: Found but not imported yet, with their origin.
        self._waiting: list[tuple[InstalledPlugin, str]] = []
        self._installed: list[InstalledPlugin] = []
        self._objects: dict[str, object] = {}

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

    def _changed(self) -> None:
        """Forget what was concluded from the plugins known so far."""

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
        """Import the plugins that implement ``hook`` (None: all), and those that belong with them.

        pluggy calls whoever registered last first, so the order must not depend on what was called
        when: configured plugins come before installed ones, and an embedding program's before all.
        """
        with self._lock:
            needed = self._needed(hook)
            waiting = list(enumerate(self._waiting))
            self._waiting = [item for number, item in waiting if number not in needed]
            for number, (plugin, origin) in waiting:
                if number in needed:
                    self._load_one(plugin.name, origin, plugin.value)

    def _needed(self, hook: str | None) -> set[int]:
        """Return who of those waiting has to be imported for ``hook``.

        With each plugin come all others that implement one of its hooks or claim its name, so that
        every hook has either all its implementations or none. One whose hooks nobody knows may
        implement any.
        """
        everybody = set(range(len(self._waiting)))
        if hook is None or any(plugin.hooks is None for plugin, _ in self._waiting):
            return everybody
        plugins = [plugin for plugin, _ in self._waiting]
        hooks, names = {hook}, set[str]()
        needed: set[int] = set()
        while more := {
            number
            for number in everybody - needed
            if plugins[number].name in names or not hooks.isdisjoint(plugins[number].hooks or ())
        }:
            needed |= more
            hooks.update(*(plugins[number].hooks or () for number in more))
            names |= {plugins[number].name for number in more}
        return needed

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
        taken = next((info for info in self._infos if info.name == name), None)
        if taken is not None and taken.module != value:
            failure = f"plugin name {name!r} is claimed by both {taken.module} and {value}"
            self._infos.append(PluginInfo(name, origin, value, failure=failure))
            print(f"cowshed: {failure}; the first is used", file=sys.stderr)
            return
        try:
            plugin = load_object(value)
        except (Exception, SystemExit) as error:  # whatever a stranger's module does
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
        self._changed()

    def _collected(self, hook: str) -> Iterable[tuple[str, Mapping[Any, Any] | list[Any]]]:
        if not self._implemented(hook):
            return
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            plugin = implementation.plugin_name
            try:
                answer: Any = implementation.function()
                # Here, because a generator raises only when it is asked.
                if not isinstance(answer, Mapping):
                    answer = list(answer)
            except (Exception, SystemExit) as error:  # the other plugins must still work
                self._note_failure(plugin, f"{hook} raised {type(error).__name__}: {error}")
            else:
                yield plugin, answer

    def _note_failure(self, plugin: str, reason: str) -> None:
        for number, info in enumerate(self._infos):
            if info.name == plugin and reason not in info.failure:
                failure = f"{info.failure}; {reason}" if info.failure else reason
                self._infos[number] = info._replace(failure=" ".join(failure.split()))
                break  # a second of that name isn't loaded


def load_object(value: str) -> Any:
    """Import ``"module"`` or ``"module:attribute"``."""
    module, _, attribute = value.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split(".") if attribute else ():
        found = getattr(found, part)
    return found
