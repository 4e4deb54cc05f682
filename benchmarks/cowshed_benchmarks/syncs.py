"""Syncs: how often the disk was waited for, counted by strace.

Counting slows what is counted, so it has a run of its own, whose times nobody sees. strace follows
every child, and with a filter in the kernel stops at nothing but what it counts. A write to a file
that was opened with O_DSYNC waits as well and isn't counted: LMDB writes one for each transaction,
besides its fdatasync.
"""

from __future__ import annotations

import re

CALLS = ("fsync", "fdatasync", "msync", "sync", "syncfs", "sync_file_range")
_CALL = re.compile(rf"^(?:\d+ +)?(?:{'|'.join(CALLS)})\((?P<first>[^,) ]*)")


def tracing(log: str) -> tuple[str, ...]:
    """Return the words to put before a command to have its syncs logged."""
    calls = f"trace={','.join(CALLS)}"
    return ("strace", "--follow-forks", "--seccomp-bpf", "-qq", "-e", calls, "-o", log, "--")


def count_syncs(log: str) -> int | None:
    """Count the calls between the marks of the window; None: they aren't there.

    A call that another process interrupts has two lines; only the first has its name in front.
    """
    count: int | None = None
    for line in log.splitlines():
        call = _CALL.match(line)
        if call is None:
            continue
        if call["first"] == "-1":
            if count is not None:
                return count
            count = 0
        elif count is not None:
            count += 1
    return None
