"""Installed: which plugins the installed distributions bring, without asking every time.

``importlib.metadata`` takes 40 to 70 ms to import and search, half of what a short command may
take. So what was found is remembered in ``XDG_CACHE_HOME/cowshed``, together with the hooks that
each plugin implements, and a command imports only the plugins whose hooks it calls. It is believed
while every directory of ``sys.path`` has the modification time it had then (installing, upgrading
and removing a distribution change its directory's), and every file that defines a plugin or one of
its hooks too.
"""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

GROUP = "cowshed"
_VERSION = 1
#: How many sets of ``sys.path`` are remembered: its first entry is the directory of the script, or
#: with ``python -m`` wherever somebody stands.
_MOST = 32
_PREFIX = "plugins-"

#: Path → modification time in ns, or None where there is nothing.
Stamps = dict[str, int | None]


class InstalledPlugin(NamedTuple):
    """One entry point of the group ``cowshed``."""

    name: str
    value: str
    #: The hooks it implements; None: nobody has looked yet.
    hooks: tuple[str, ...] | None = None


def installed_plugins() -> tuple[list[InstalledPlugin], Stamps | None]:
    """Return all entry points, by name, and None if they, with their hooks, were remembered.

    Otherwise what ``remember`` needs: the stamps from before the search, so that what is installed
    meanwhile isn't missed for good.
    """
    remembered = _read()
    if remembered is not None:
        return remembered, None
    stamps = _stamps(sys.path)
    return _scan(), stamps


def remember(
    stamps: Stamps, plugins: Iterable[InstalledPlugin], objects: Mapping[str, object]
) -> None:
    """Keep what was found for the next process; ``objects`` are the plugins by name.

    One that couldn't be imported stays unknown, and is tried again each time.
    """
    path = _cache_file()
    if path is None:
        return
    files: set[str] = set()
    for plugin in objects.values():
        files |= _files_of(plugin)
    data = {
        "version": _VERSION,
        "path": stamps,
        "files": _stamps(sorted(files)),
        "plugins": [list(plugin) for plugin in plugins],
    }
    aside = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            json.dump(data, file)
        os.replace(aside, path)
        _forget_oldest(os.path.dirname(path))
    except OSError:
        return  # a home that can't be written: the next process looks again


def _forget_oldest(directory: str) -> None:
    with os.scandir(directory) as entries:
        files = [entry for entry in entries if entry.name.startswith(_PREFIX)]
    if len(files) > _MOST:
        files.sort(key=lambda entry: entry.stat(follow_symlinks=False).st_mtime_ns)
        for entry in files[:-_MOST]:
            os.unlink(entry.path)


def _scan() -> list[InstalledPlugin]:
    from importlib.metadata import entry_points

    found = {(point.name, point.value) for point in entry_points(group=GROUP)}
    return [InstalledPlugin(name, value) for name, value in sorted(found)]


def _read() -> list[InstalledPlugin] | None:
    path = _cache_file()
    if path is None:
        return None
    try:
        with open(path, encoding="ascii") as file:
            # It names modules to import: nobody else may have written it.
            status = os.fstat(file.fileno())
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                return None
            data: dict[str, Any] = json.load(file)
        if (
            data["version"] != _VERSION
            or data["path"] != _stamps(sys.path)
            or data["files"] != _stamps(data["files"])
        ):
            return None
        return [
            InstalledPlugin(str(name), str(value), None if hooks is None else tuple(hooks))
            for name, value, hooks in data["plugins"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _cache_file() -> str | None:
    """Return where the answer is kept, one file for each set of ``sys.path``; None: nowhere."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not os.path.isabs(home):
        return None
    key = "\0".join([sys.version, sys.prefix, *sys.path])
    # The whole path is compared with what the file says; this only keeps them apart.
    digest = zlib.crc32(key.encode("utf-8", "surrogateescape"))
    return os.path.join(home, "cowshed", f"{_PREFIX}{digest:08x}.json")


def _stamps(paths: Iterable[str]) -> Stamps:
    stamps: Stamps = {}
    for path in paths:
        try:
            stamps[path] = os.stat(path or ".").st_mtime_ns
        except OSError:
            stamps[path] = None
    return stamps


def _files_of(plugin: object) -> set[str]:
    """Return the source files of a plugin and of the hooks it implements."""
    files: set[str] = set()
    places = [plugin, sys.modules.get(type(plugin).__module__)]
    names = [name for name in dir(plugin) if name.startswith("cowshed_")]
    for place in places:
        file = getattr(place, "__file__", None)
        if isinstance(file, str):
            files.add(file)
    for name in names:
        code = getattr(getattr(plugin, name, None), "__code__", None)
        if code is not None:
            files.add(str(code.co_filename))
    return files
