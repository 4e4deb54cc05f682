"""Terminal: a pseudo-terminal between the caller's terminal and a container."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import tty
from contextlib import suppress
from typing import IO, Any

from .supervising import Streams

_BLOCK = 1 << 16


class Terminal:
    """Makes it, puts the caller's into raw mode if it gives us its keys, and carries bytes."""

    def __init__(self, streams: Streams, *, passed_on: bool = False) -> None:
        # Whether a runtime passes it all on, raw, from and to a terminal of its own.
        self._passed_on = passed_on
        self._master, self.slave = pty.openpty()
        # A process that waits until we take what it wrote doesn't read what we write.
        os.set_blocking(self._master, False)
        self._input = _descriptor(streams.stdin, sys.stdin)
        self._output = _descriptor(streams.stdout, sys.stdout)
        self._saved: list[Any] | None = None
        self.resize()

    def __enter__(self) -> Terminal:
        if self._input is not None and os.isatty(self._input):
            self._saved = termios.tcgetattr(self._input)
            tty.setraw(self._input, termios.TCSANOW)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._saved is not None and self._input is not None:
            with suppress(termios.error):
                termios.tcsetattr(self._input, termios.TCSADRAIN, self._saved)
        for descriptor in (self._master, self.slave):
            if descriptor >= 0:
                os.close(descriptor)

    def started(self) -> None:
        """The other side has it now."""
        os.close(self.slave)
        self.slave = -1

    def resize(self) -> None:
        """Give it the size of the caller's terminal."""
        size = _size(self._input, self._output)
        if size is not None:
            with suppress(OSError):
                fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def relay(self, process: subprocess.Popen[bytes]) -> None:
        """Carry bytes both ways until the container's side is closed."""
        sources = [self._master, *([] if self._input is None else [self._input])]
        waiting = b""
        while True:
            targets = [self._master] if waiting else []
            reading = [one for one in sources if one == self._master or not waiting]
            # A process that left others behind with the terminal has ended all the same.
            readable, writable, _ = select.select(reading, targets, [], 0.5)
            if self._master in readable:
                data = self._read()
                if data == b"":
                    return
                _write_all(self._output, data or b"")
            elif not readable and not writable and process.poll() is not None:
                return
            if self._input is not None and self._input in readable:
                waiting = os.read(self._input, _BLOCK)
                if not waiting:
                    sources.remove(self._input)
                    waiting = self._end_of_input()
            if self._master in writable and waiting:
                with suppress(OSError):
                    waiting = waiting[os.write(self._master, waiting) :]

    def _end_of_input(self) -> bytes:
        """Return what a person types to say that there is no more."""
        with suppress(termios.error):
            attributes = termios.tcgetattr(self._master)
            if attributes[3] & termios.ICANON or self._passed_on:
                return bytes(attributes[6][termios.VEOF])
        return b""

    def _read(self) -> bytes | None:
        """Return what was written on the other side; None: nothing yet, nothing: it is closed."""
        try:
            return os.read(self._master, _BLOCK)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno == errno.EIO:  # nobody has the other side any more
                return b""
            raise


def size_of(streams: Streams) -> tuple[int, int] | None:
    """Return lines and columns of the caller's terminal; None: there is none, or it has no size."""
    size = _size(_descriptor(streams.stdin, sys.stdin), _descriptor(streams.stdout, sys.stdout))
    lines, columns = struct.unpack("HHxxxx", size or bytes(8))
    return (lines, columns) if lines and columns else None


def _size(*descriptors: int | None) -> bytes | None:
    """Return the ``struct winsize`` of the first that is a terminal."""
    for descriptor in descriptors:
        if descriptor is not None and os.isatty(descriptor):
            with suppress(OSError):
                return fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8))
            return None
    return None


def _descriptor(stream: int | IO[bytes] | None, own: Any) -> int | None:
    if stream == subprocess.DEVNULL:
        return None
    if stream is None:
        try:
            return int(own.fileno())
        except (OSError, ValueError, AttributeError):
            return None
    return stream if isinstance(stream, int) else stream.fileno()


def _write_all(descriptor: int | None, data: bytes) -> None:
    view = memoryview(data)
    while view and descriptor is not None:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # whoever has it besides us wanted it so
            select.select([], [descriptor], [])
