"""Choosing: which runtime runs a container here.

The one that a person named, or says in one sentence why not. Else the first that works: an OCI
runtime, bubblewrap, our own launcher.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import StoreError, UsageError, nearest
from .identity import Identity
from .programs import find_program
from .runtimes import Runtime

RUNC = "runc"
OCI = ("crun", RUNC, "youki")
BUBBLEWRAP, PLAIN = "bubblewrap", "plain"
#: In the order in which they are preferred.
NAMES = (*OCI, BUBBLEWRAP, PLAIN)
_CGROUP2 = "cgroup2"


def probe(name: str) -> str | None:
    """Say in one sentence why a runtime can't run here; None if it can.

    Cheap: it looks at what is there and starts nothing.
    """
    if name == PLAIN:
        return None
    program = "bwrap" if name == BUBBLEWRAP else name
    if find_program(program) is None:
        return f"{program} isn't installed"
    if name == "crun" and _hybrid_cgroups():
        return "crun refuses the hybrid cgroup hierarchy of this machine; mount cgroup2 alone"
    return None


def _hybrid_cgroups() -> bool:
    """Say whether cgroup2 is mounted besides controllers of version 1, as systemd calls hybrid."""
    kinds: set[str] = set()
    unified = False
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            for line in file:
                before, _, after = line.partition(b" - ")
                kind = after.split()[0].decode()
                if kind in ("cgroup", _CGROUP2):
                    kinds.add(kind)
                    unified |= kind == _CGROUP2 and before.split()[4] == b"/sys/fs/cgroup/unified"
    except OSError:
        return False
    return unified and "cgroup" in kinds


def choose(
    asked: str | None, state: Path, identity: Identity | None, unsuited: Callable[[str], str | None]
) -> Runtime:
    """Return the runtime to use. ``unsuited`` says why one can't do what is wanted.

    Raises:
        UsageError: no runtime is called so.
        StoreError: the one named can't run here.
    """
    if asked is not None and asked not in NAMES:
        raise UsageError(
            f"no runtime is called {asked!r}{nearest(asked, NAMES)}; there are {', '.join(NAMES)}"
        )
    for name in NAMES if asked is None else (asked,):
        reason = probe(name) or unsuited(name)
        if reason is None:
            return make(name, state, identity)
        if asked is not None:
            others = [other for other in NAMES if probe(other) is None and other != name]
            raise StoreError(f"{name} can't run this: {reason}; {', '.join(others)} can")
    raise AssertionError("plain always suits")


def make(name: str, state: Path, identity: Identity | None) -> Runtime:
    """Return the runtime of that name."""
    if name in OCI:
        from .oci_runtime import OciRuntime

        path = find_program(name)
        return OciRuntime(name, path or name, state / name)
    from .plain import Plain

    plain = Plain(identity)
    if name == BUBBLEWRAP:
        from .bubblewrap import Bubblewrap

        return Bubblewrap(find_program("bwrap") or "bwrap", plain)
    return plain


def describe() -> Iterator[tuple[str, str, str | None]]:
    """Yield each runtime's name, program and what keeps it from running here."""
    for name in NAMES:
        program = "bwrap" if name == BUBBLEWRAP else name
        path = "built in" if name == PLAIN else find_program(program) or ""
        yield name, os.fspath(path), probe(name)
