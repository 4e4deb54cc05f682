"""Identity: which users a container's users are on the host.

Root's containers use the host's numbers. An ordinary user's live in a user namespace: their root is
the user, and where subordinate IDs are set up (subuid(5)), their other users are those.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import NamedTuple

from ..errors import StoreError
from .programs import find_program

_SYS_ADMIN = 21
#: What must not be 0: see namespaces(7); the second is Debian's.
_NAMESPACE_LIMITS = (
    "/proc/sys/user/max_user_namespaces",
    "/proc/sys/kernel/unprivileged_userns_clone",
)


class Range(NamedTuple):
    """``size`` IDs from ``container`` on are those from ``host`` on."""

    container: int
    host: int
    size: int


class Identity(NamedTuple):
    """The maps of a user namespace."""

    users: tuple[Range, ...]
    groups: tuple[Range, ...]

    @property
    def single(self) -> bool:
        """Whether there is but one user, and its group, so that no group can be set."""
        return len(self.users) == 1 or len(self.groups) == 1

    def has(self, uid: int, gid: int) -> bool:
        """Say whether a process can run as that user and group."""
        return _covers(self.users, uid) and _covers(self.groups, gid)

    def only_own(self) -> Identity:
        """Return the same with nobody but the user."""
        return Identity(self.users[:1], self.groups[:1])


def find_identity() -> Identity | None:
    """Return the maps for this process's containers; None: it is root and needs none."""
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        return None
    users, groups = (Range(0, user, 1),), (Range(0, group, 1),)
    if find_program("newuidmap") is None or find_program("newgidmap") is None:
        return Identity(users, groups)
    more_users, more_groups = _subordinate("/etc/subuid", user), _subordinate("/etc/subgid", user)
    if not more_users or not more_groups:
        return Identity(users, groups)
    return Identity(users + more_users, groups + more_groups)


def map_users(process: str, identity: Identity) -> None:
    """Say whose numbers are whose in the user namespace that a process has just made, from outside.

    Raises:
        StoreError: the system refuses.
    """
    try:
        if identity.single:
            _write(process, "setgroups", "deny")
            for kind, ranges in (("uid", identity.users), ("gid", identity.groups)):
                _write(process, f"{kind}_map", " ".join(map(str, ranges[0])))
            return
        import subprocess

        for tool, ranges in (("newuidmap", identity.users), ("newgidmap", identity.groups)):
            numbers = [str(number) for one in ranges for number in one]
            done = subprocess.run([tool, process, *numbers], capture_output=True, check=False)
            if done.returncode:
                why = done.stderr.decode("utf-8", "replace").strip()
                raise StoreError(f"the user namespace can't be mapped: {why}")
    except OSError as error:
        raise StoreError(f"the user namespace can't be mapped: {error.strerror}") from None


def _write(process: str, name: str, text: str) -> None:
    with open(f"/proc/{process}/{name}", "w", encoding="ascii") as file:
        file.write(text)


def obstacle(identity: Identity | None) -> str | None:
    """Say in one sentence why no runtime could start anything here, as far as it can be told
    without trying; None: it can't."""
    if identity is None:
        if _SYS_ADMIN in own_capabilities():
            return None
        return (
            "root lacks the capability SYS_ADMIN here, without which nobody makes namespaces; "
            "start this environment with it, or run cowshed as an ordinary user"
        )
    for path in _NAMESPACE_LIMITS:
        if _reads_zero(path):
            return (
                f"an ordinary user can't make a user namespace here ({path} is 0); "
                "set it higher, or run cowshed as root"
            )
    return None


def own_capabilities() -> frozenset[int]:
    """Return the numbers of this process's capabilities (capabilities(7)); where nobody knows, it
    has all."""
    held = -1
    with suppress(OSError), open("/proc/self/status", "rb") as file:
        line = next((one for one in file if one.startswith(b"CapEff:")), None)
        if line is not None:
            held = int(line.split()[1], 16)
    return frozenset(number for number in range(64) if held >> number & 1)


def _reads_zero(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read().strip() == b"0"
    except OSError:
        return False


def in_user_namespace() -> bool:
    """Say whether this process's numbers for users aren't the host's (user_namespaces(7))."""
    try:
        with open("/proc/self/uid_map", "rb") as file:
            return file.read().split() != [b"0", b"0", b"4294967295"]
    except OSError:
        return False


def _covers(ranges: tuple[Range, ...], id: int) -> bool:
    return any(one.container <= id < one.container + one.size for one in ranges)


def _subordinate(path: str, user: int) -> tuple[Range, ...]:
    """Return the ranges that a file of subuid(5)'s form gives ``user``, by number or name."""
    names = {str(user), _name(user)}
    found: list[Range] = []
    first = 1
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                owner, _, rest = line.strip().partition(":")
                start, _, count = rest.partition(":")
                if owner in names and start.isdigit() and count.isdigit() and int(count):
                    found.append(Range(first, int(start), int(count)))
                    first += int(count)
    except OSError:
        return ()
    return tuple(found)


def _name(user: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return ""
