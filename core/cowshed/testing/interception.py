"""Interception: a process that is stopped before every write, and may die or fail there.

The process is forked from this one, so what it runs may be any function. While it is watched, the
kernel stops it at each call by which it changes what is on disk and asks us (``disk_calls``): we
let it go on, let the call fail, or kill the process, which then never made it. No patch of the
code under test, no privilege, and nothing that a C library does is missed. Waiting for the disk is
only pretended: it would take most of the time, and where the power is cut, ``power`` knows what was
waited for.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import socket
import struct
import traceback
import warnings
from collections.abc import Callable

import attrs
import pytest

from ..context import Closing
from .disk_calls import BY_DESCRIPTOR, BY_PATH, SYNCS, TAKES_SPACE, Unavailable, install, machine
from .power import Unsynced

#: Seconds that a process may be silent; generous, because a busy machine isn't a broken promise.
PATIENCE = 60

_ASK = 80  # struct seccomp_notif
_ANSWER = struct.Struct("=QqiI")  # struct seccomp_notif_resp
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_GO_ON = 1
#: Where a write changes nothing on disk: what descriptors of such kinds are called in /proc.
_ELSEWHERE = ("pipe:", "socket:", "anon_inode:", "/dev/", "/proc/", "/sys/")


@attrs.frozen
class Fault:
    """What happens at the ``at``-th write, counted from 0."""

    at: int
    #: The error that the call fails with; None: the process is killed.
    error: int | None = None
    #: Whether every later call that takes space fails too, until the process isn't watched.
    lasting: bool = False
    #: Whether what wasn't synced is lost with the process.
    power: bool = False

    def __str__(self) -> str:
        if self.power:
            return "a power cut before"
        if self.error is None:
            return "a kill before"
        return f"{errno.errorcode[self.error]}{' from' if self.lasting else ' at'}"


class Watch:
    """The process's side: what ``work`` is given."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def begin(self) -> None:
        """From now on writes count."""
        try:
            listener = install()
        except Unavailable as error:
            self.say(f"unavailable:{error}")
            os._exit(0)
        socket.send_fds(self._connection, [b"begin"], [listener])
        os.close(listener)
        self._connection.recv(1)

    def say(self, message: str) -> None:
        """Tell the other side; return once it lets us go on."""
        self._connection.send(message.encode("utf-8", "replace")[:30_000])
        self._connection.recv(1)


class Watched(Closing):
    """Our side: a context manager; the process is dead when it is left."""

    def __init__(self, work: Callable[[Watch], None], fault: Fault | None = None) -> None:
        self.fault = fault
        #: The calls that were stopped so far, by name.
        self.points: list[str] = []
        #: The call that the fault hit, with what it is about.
        self.hit = ""
        #: What a power cut would lose now, and at which points it would lose anything.
        self.unsynced = Unsynced()
        self.losses: list[int] = []
        self._machine = machine()
        self._names = self._machine.names
        self._listener: int | None = None
        self._here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with warnings.catch_warnings():
            # The process needs none of the threads that Python warns about.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process = os.fork()
        if self._process == 0:
            self._here.close()
            _work_and_die(work, there)
        there.close()

    def close(self) -> None:
        """Kill the process, if it is there, and let go of it."""
        self.kill()
        self.unsynced.forget()
        self._here.close()
        if self._listener is not None:
            os.close(self._listener)

    def kill(self) -> None:
        """End the process, if it hasn't, and wait for that."""
        if self._process:
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
            self._process = 0

    def cut_power(self) -> None:
        """Kill the process and lose what it wrote and didn't sync."""
        self.kill()
        self.unsynced.lose()

    def hear(self) -> str | None:
        """Return what the process says next, which waits for ``answer`` then; None: it is dead.

        Raises:
            Unavailable: it can't be watched here.
        """
        while True:
            poll = select.poll()
            poll.register(self._here, select.POLLIN)
            if self._listener is not None:
                poll.register(self._listener, select.POLLIN)
            ready = dict(poll.poll(PATIENCE * 1000))
            if not ready:
                self.kill()
                pytest.fail(f"broken promise: the process hangs after {self.hit or 'no fault'}")
            if self._here.fileno() in ready:
                message = self._message()
                if message != "begin":
                    return message
                self.answer()
            elif ready.get(self._listener or -1, 0) & select.POLLIN:
                self._asked()
            else:
                self._listener_is_gone()

    def answer(self) -> None:
        """Let the process go on."""
        self._here.send(b".")

    def rest(self) -> list[str]:
        """Let the process go on to its end; return what it says until then."""
        said: list[str] = []
        while (message := self.hear()) is not None:
            said.append(message)
            self.answer()
        return said

    # -- how ------------------------------------------------------------------------------------

    def _message(self) -> str | None:
        data, descriptors, _, _ = socket.recv_fds(self._here, 32_768, 1)
        if descriptors:
            self._listener = descriptors[0]
        message = data.decode()
        if message.startswith("unavailable:"):
            raise Unavailable(message.partition(":")[2])
        if message.startswith("failed:"):
            pytest.fail(f"the process that is watched failed by itself: {message[7:]}")
        return message or None

    def _listener_is_gone(self) -> None:
        if self._listener is not None:
            os.close(self._listener)
            self._listener = None

    def _asked(self) -> None:
        """Answer one call."""
        assert self._listener is not None
        asked = bytearray(_ASK)
        try:
            fcntl.ioctl(self._listener, _RECEIVE, asked)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # it died meanwhile
                return
            raise
        id, thread, _, number = struct.unpack_from("=QIIi", asked)
        name = self._names[number]
        arguments = struct.unpack_from("=6Q", asked, 32)
        refusal, flags = 0, 0 if name in SYNCS else _GO_ON
        if self._counts(name, thread, arguments):
            refusal = self._at_point(name, thread, arguments)
            if refusal < 0:
                self.cut_power() if self.fault and self.fault.power else self.kill()
                return
            if not refusal:
                self.unsynced.before(name, thread, arguments)
        reply = _ANSWER.pack(id, 0, -refusal, 0 if refusal else flags)
        try:
            fcntl.ioctl(self._listener, _SEND, bytearray(reply))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise

    def _counts(self, name: str, thread: int, arguments: tuple[int, ...]) -> bool:
        if name not in BY_DESCRIPTOR:
            return True
        place = _descriptor(thread, arguments[0])
        return not place.startswith(_ELSEWHERE)

    def _at_point(self, name: str, thread: int, arguments: tuple[int, ...]) -> int:
        """Note one more write; return the error that it fails with, 0 for none, -1 to die."""
        at = len(self.points)
        self.points.append(name)
        if self.unsynced:
            self.losses.append(at)
        fault = self.fault
        if fault is None or at < fault.at:
            return 0
        if at == fault.at:
            self.hit = f"{name}({_subject(name, thread, arguments)}), write {at + 1}"
            return -1 if fault.error is None else fault.error
        return fault.error or 0 if fault.lasting and name in TAKES_SPACE else 0


def _work_and_die(work: Callable[[Watch], None], connection: socket.socket) -> None:
    try:
        watch = Watch(connection)
        try:
            work(watch)
        except BaseException:
            watch.say(f"failed:\n{traceback.format_exc()}")
    finally:
        os._exit(0)


def _descriptor(thread: int, descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/{thread}/fd/{descriptor & 0xFFFFFFFF}")
    except OSError:
        return ""


def _subject(name: str, thread: int, arguments: tuple[int, ...]) -> str:
    """Return what a call is about, for people."""
    if name in BY_DESCRIPTOR:
        return _descriptor(thread, arguments[0])
    if name in BY_PATH:
        return _text(thread, arguments[0])
    return _text(thread, arguments[1]) if name.endswith(("at", "at2")) else ""


def _text(thread: int, address: int) -> str:
    """Read a string out of the process's memory."""
    try:
        with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(256).split(b"\0")[0].decode("utf-8", "replace")
    except (OSError, ValueError, OverflowError):
        return "…"
