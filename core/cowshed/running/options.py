"""Options: what a person asks of a run, and how the command line's words for it are read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple, TypedDict

from ..errors import UsageError

Network = Literal["host", "none"]

_NOTHING: Mapping[str, str | None] = MappingProxyType({})


class Volume(NamedTuple):
    """A file or directory of the host that a container sees."""

    source: str
    target: str
    read_only: bool = False


class Options(NamedTuple):
    """How to run a process; what isn't said comes from the image's config."""

    #: Arguments; they replace the image's Cmd and follow its Entrypoint.
    command: tuple[str, ...] = ()
    #: Replaces the image's Entrypoint, and drops its Cmd; ("",): neither.
    entrypoint: tuple[str, ...] | None = None
    #: Goes over the image's; None takes a variable away.
    environment: Mapping[str, str | None] = _NOTHING
    directory: str | None = None
    #: USER[:GROUP], names or numbers.
    user: str | None = None
    volumes: tuple[Volume, ...] = ()
    read_only: bool = False
    network: Network = "host"
    hostname: str | None = None
    #: Give it a terminal.
    terminal: bool = False
    #: Name of the runtime; None: as configured, otherwise the first that works here.
    runtime: str | None = None


class How(TypedDict, total=False):
    """How to run a process, for callers from Python; see ``Options``."""

    entrypoint: Sequence[str]
    environment: Mapping[str, str | None]
    #: Absolute, in the container.
    cwd: str
    user: str
    #: (path here, path in the container), or with a third, "ro".
    volumes: Iterable[tuple[str | os.PathLike[str], str] | tuple[str | os.PathLike[str], str, str]]
    read_only: bool
    network: Network
    hostname: str
    runtime: str


def make_options(
    command: Sequence[str], how: How, *, entrypoint: Sequence[str] | None = None
) -> Options:
    """Check what a caller from Python asks.

    Raises:
        UsageError: a volume that can't be, a network that isn't.
    """
    chosen = how.get("entrypoint", entrypoint)
    for name, words in (("command", command), ("entrypoint", chosen)):
        if isinstance(words, str):
            raise UsageError(f"{name} takes a list of words, not a string")
    network = how.get("network", "host")
    if network not in ("host", "none"):
        raise UsageError(f"network is 'host' or 'none', not {network!r}")
    volumes = tuple(
        volume(one[0], one[1], read_only=one[2:] == ("ro",)) for one in how.get("volumes", ())
    )
    return Options(
        command=tuple(command),
        entrypoint=None if chosen is None else tuple(chosen),
        environment=dict(how.get("environment", {})),
        directory=how.get("cwd"),
        user=how.get("user"),
        volumes=volumes,
        read_only=how.get("read_only", False),
        network=network,
        hostname=how.get("hostname"),
        runtime=how.get("runtime"),
    )


def parse_environment(
    texts: Iterable[str], files: Iterable[str] = (), own: Mapping[str, str] | None = None
) -> dict[str, str | None]:
    """Read ``NAME=VALUE``, or ``NAME`` for a variable as we have it; files come first.

    A file has one to a line; empty lines and those that begin with # don't count.

    Raises:
        UsageError: a file that can't be read, or a name that is none.
    """
    own = os.environ if own is None else own
    found: dict[str, str | None] = {}
    for path in files:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                lines = [line.strip("\r\n").lstrip() for line in file]
        except OSError as error:
            raise UsageError(f"--env-file {path}: {error.strerror}") from None
        for line in lines:
            if line and not line.startswith("#"):
                _add(found, line, own, f"--env-file {path}")
    for text in texts:
        _add(found, text, own, "-e")
    return found


def _add(found: dict[str, str | None], text: str, own: Mapping[str, str], where: str) -> None:
    name, equals, value = text.partition("=")
    if not name or "\0" in text or any(letter.isspace() for letter in name):
        raise UsageError(f"{where} takes NAME=VALUE or NAME, not {text!r}")
    if equals:
        found[name] = value
    else:
        found[name] = own.get(name)


def parse_volume(text: str) -> Volume:
    """Read ``HOST:CONTAINER[:ro]``.

    Raises:
        UsageError: it is something else, or there is no such file or directory here.
    """
    parts = text.split(":")
    if len(parts) not in (2, 3) or not parts[0]:
        raise UsageError(f"-v takes HOST:CONTAINER[:ro], not {text!r}")
    source, target, *rest = parts
    if rest and rest[0] not in ("ro", "rw"):
        raise UsageError(f"-v {text}: {rest[0]!r} is neither 'ro' nor 'rw'")
    if "/" not in source and source not in (".", ".."):
        raise UsageError(
            f"-v {text}: volumes by name aren't kept; for the directory here say ./{source}"
        )
    return volume(source, target, read_only=rest == ["ro"])


def volume(source: str | os.PathLike[str], target: str, *, read_only: bool = False) -> Volume:
    """Return a checked volume, links on the host's side followed now.

    Raises:
        UsageError: see ``parse_volume``.
    """
    name = os.fspath(source)
    if not target.startswith("/") or "\0" in target or "\0" in name:
        raise UsageError(f"the path in the container must begin with '/': {target!r}")
    real = os.path.realpath(name)
    if not os.path.exists(real):
        raise UsageError(f"{name} doesn't exist here; make it first")
    if not target.strip("/."):
        raise UsageError(f"a volume can't take the place of the container's root ({target})")
    return Volume(real, target, read_only)


def require_clean(words: Sequence[str], what: str) -> None:
    """Refuse what no process can be given.

    Raises:
        UsageError: a NUL byte in it.
    """
    for word in words:
        if "\0" in word:
            raise UsageError(f"{what} has a NUL byte: {word!r}")
