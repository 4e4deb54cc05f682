"""Security: what a process in a container may not do, in the spirit of Docker's defaults.

Capabilities are Docker's fourteen but MKNOD, as with Podman: not every runtime has a cgroup that
keeps a new device node from being opened, and mounts are without devices. Calls that reach the
kernel's own configuration, other namespaces or mounts are refused by seccomp; the list is of what
is refused, so that a new call of a new kernel works until it is listed. OCI runtimes get it by
name, bubblewrap and our own launcher as a program for the kernel (seccomp(2)), which knows the
machine's own instruction set only.
"""

from __future__ import annotations

import errno
import struct
from typing import NamedTuple

CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_NET_RAW", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
)  # fmt: skip

#: Hidden: what tells of the host, or of other processes' secrets.
MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
    "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
    "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
)  # fmt: skip

#: Visible, not to be written: what configures the host's kernel.
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class Refusal(NamedTuple):
    """A call that is refused, with its numbers; -1 where the machine has none."""

    name: str
    x86_64: int
    aarch64: int
    error: int = errno.EPERM
    #: Refused only if argument ``[0]``, masked by ``[1]``, is ``[2]``.
    if_argument: tuple[int, int, int] | None = None


def _same(name: str, number: int, error: int = errno.EPERM) -> Refusal:
    return Refusal(name, number, number, error)


#: Flags of clone(2) that make namespaces.
_NAMESPACES = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C

REFUSALS = (
    Refusal("acct", 163, 89), Refusal("add_key", 248, 217), Refusal("bpf", 321, 280),
    Refusal("clock_adjtime", 305, 266), Refusal("clock_settime", 227, 112),
    Refusal("delete_module", 176, 106), Refusal("finit_module", 313, 273),
    _same("fsconfig", 431), _same("fsmount", 432), _same("fsopen", 430), _same("fspick", 433),
    Refusal("init_module", 175, 105), Refusal("ioperm", 173, -1), Refusal("iopl", 172, -1),
    _same("io_uring_enter", 426), _same("io_uring_register", 427), _same("io_uring_setup", 425),
    Refusal("kcmp", 312, 272), Refusal("kexec_file_load", 320, 294),
    Refusal("kexec_load", 246, 104), Refusal("keyctl", 250, 219),
    Refusal("lookup_dcookie", 212, 18), Refusal("mount", 165, 40), _same("mount_setattr", 442),
    _same("move_mount", 429), Refusal("nfsservctl", 180, 42),
    Refusal("open_by_handle_at", 304, 265), _same("open_tree", 428),
    Refusal("perf_event_open", 298, 241), Refusal("pivot_root", 155, 41),
    Refusal("process_vm_readv", 310, 270), Refusal("process_vm_writev", 311, 271),
    Refusal("quotactl", 179, 60), _same("quotactl_fd", 443), Refusal("reboot", 169, 142),
    Refusal("request_key", 249, 218), Refusal("setns", 308, 268),
    Refusal("settimeofday", 164, 170), Refusal("swapoff", 168, 225), Refusal("swapon", 167, 224),
    Refusal("syslog", 103, 116), Refusal("umount2", 166, 39), Refusal("unshare", 272, 97),
    Refusal("userfaultfd", 323, 282), Refusal("uselib", 134, -1),
    Refusal("vhangup", 153, 58),
    # Its flags are in memory, where no filter can look; programs fall back to clone.
    _same("clone3", 435, errno.ENOSYS),
    *(Refusal("clone", 56, 220, errno.EPERM, (0, flag, flag)) for flag in _NAMESPACES),
    # Typing into somebody else's terminal (CVE-2017-5226).
    *(
        Refusal("ioctl", 16, 29, errno.EPERM, (1, 0xFFFFFFFF, request))
        for request in (_TIOCSTI, _TIOCLINUX)
    ),
)  # fmt: skip

_OCI_ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}


def oci_seccomp(machine: str) -> dict[str, object]:
    """Return the refusals as ``linux.seccomp`` of a runtime's config.json."""
    calls: list[dict[str, object]] = []
    by_error: dict[int, list[str]] = {}
    for one in REFUSALS:
        if one.if_argument is None:
            by_error.setdefault(one.error, []).append(one.name)
            continue
        index, mask, value = one.if_argument
        test = {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
        calls.append(
            {
                "names": [one.name],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": one.error,
                "args": [test],
            }
        )
    for error, names in by_error.items():
        calls.append({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": error})
    seccomp: dict[str, object] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": calls}
    if machine in _OCI_ARCHITECTURES:
        seccomp["architectures"] = _OCI_ARCHITECTURES[machine]
    return seccomp


_LOAD, _AND, _EQUAL, _NOT_BELOW, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000


def seccomp_program(machine: str) -> bytes | None:
    """Return the refusals as a program of classic BPF; None: not for this kind of machine."""
    if machine not in _AUDIT:
        return None
    refuse_set = _ERRNO | errno.ENOSYS
    code: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, _AUDIT[machine]),
        (_RETURN, 0, 0, refuse_set),
        (_LOAD, 0, 0, _NUMBER),
        (_NOT_BELOW, 0, 1, _X32),
        (_RETURN, 0, 0, refuse_set),
    ]
    for one in REFUSALS:
        number = one.x86_64 if machine == "x86_64" else one.aarch64
        if number < 0:
            continue
        refuse = (_RETURN, 0, 0, _ERRNO | one.error)
        if one.if_argument is None:
            code += [(_EQUAL, 0, 1, number), refuse]
            continue
        index, mask, value = one.if_argument
        code += [
            (_EQUAL, 0, 5, number),
            (_LOAD, 0, 0, _ARGUMENTS + 8 * index),  # the low half: both kinds are little-endian
            (_AND, 0, 0, mask),
            (_EQUAL, 0, 1, value),
            refuse,
            (_LOAD, 0, 0, _NUMBER),
        ]
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)
