"""Supervising: one process of a runtime, from its start until it has ended.

Its streams are ours, or a terminal's. The terminal is a pseudo-terminal between the caller's and
the container's: keys go in as they are typed, the size follows, and the container never holds the
caller's own terminal. Signals go to the container; the third in a row that asks for an end kills
it, as with Docker.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from types import FrameType
from typing import IO, TYPE_CHECKING, NamedTuple, NoReturn, TypeAlias

if TYPE_CHECKING:
    from .terminal import Terminal

Stream: TypeAlias = "int | IO[bytes] | None"

#: Forwarded to the container.
FORWARDED = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip
_ENDING = (signal.SIGINT, signal.SIGTERM)
_PATIENCE = 3
#: Seconds until a launcher ends whose process was killed, unless others have its streams.
_ENDING_IN = 5.0
_PR_SET_PDEATHSIG = 1


class Interrupted(BaseException):
    """A signal came before there was a container to forward it to."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Launch(NamedTuple):
    """What to execute, and what to do beside it."""

    command: Sequence[str]
    #: Sends a signal to the container's first process.
    forward: Callable[[subprocess.Popen[bytes], int], None]
    #: What is executed in fact, if it isn't the command's first word.
    executable: str | None = None
    #: Descriptors that the runtime, not the container, gets; closed here once it has them.
    descriptors: tuple[int, ...] = ()
    #: Called once it was started, before anybody waits for it.
    started: Callable[[], None] = lambda: None
    environment: dict[str, str] | None = None
    #: Whether the terminal's size and keys are the runtime's to pass on, so that it is told of them
    #: as the session's leader.
    leads_terminal: bool = False


class Streams(NamedTuple):
    """Where a process's output goes and its input comes from, as ``subprocess.Popen`` takes it."""

    stdin: Stream = subprocess.DEVNULL
    stdout: Stream = None
    stderr: Stream = None
    #: Sent to standard input, which is closed then.
    input: bytes | None = None
    #: Whether our own terminal and signals are the container's, as for the command line.
    foreground: bool = False
    #: Seconds after which it is killed.
    timeout: float | None = None


class Ended(NamedTuple):
    """How a process of a runtime ended."""

    status: int
    stdout: bytes | None = None
    stderr: bytes | None = None
    timed_out: bool = False


class Signals:
    """While it is entered, signals don't end us: they are the container's, or raise ``Interrupted``
    as long as there is none. For the main thread only."""

    def __init__(self) -> None:
        self._before: dict[int, object] = {}
        self._target: Callable[[int], None] | None = None
        self._over = False
        self._held = False
        self._pending = 0
        self._asked = 0
        #: Called when the terminal's size has changed.
        self.resized: Callable[[], None] = lambda: None

    def __enter__(self) -> Signals:
        for number in (*FORWARDED, signal.SIGWINCH):
            before = signal.getsignal(number)
            if before is signal.SIG_IGN and number != signal.SIGWINCH:
                continue  # nohup
            self._before[number] = before
            signal.signal(number, self._came)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]  # what getsignal returned

    @contextmanager
    def held(self) -> Generator[None]:
        """Keep them for the end of the block, which must happen whole."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def deliver(self) -> None:
        """Raise what came while they were held."""
        if self._pending:
            self._interrupt(self._pending)

    def to(self, target: Callable[[int], None]) -> None:
        """From now on forward them to ``target``."""
        self._target = target

    def over(self) -> None:
        """From now on they mean nothing: we are clearing up, which is short."""
        self._over = True

    def _came(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGWINCH:
            self.resized()
        elif self._over:
            return
        elif self._held:
            self._pending = self._pending or number
        elif self._target is None:
            self._interrupt(number)
        else:
            self._asked += number in _ENDING
            with suppress(ProcessLookupError, PermissionError):
                self._target(signal.SIGKILL if self._asked >= _PATIENCE else number)

    def _interrupt(self, number: int) -> NoReturn:
        self._over = True  # a second one would cut short what undoes our work
        raise Interrupted(number)


def supervise(
    launch: Launch, streams: Streams, *, terminal: bool, signals: Signals | None = None
) -> Ended:
    """Start it, wait until it has ended, and say how."""
    if terminal:
        from .terminal import Terminal

        with Terminal(streams, passed_on=launch.leads_terminal) as pseudo:
            return _watch(launch, streams, signals, pseudo)
    return _watch(launch, streams, signals, None)


def _start(launch: Launch, streams: Streams, slave: int | None) -> subprocess.Popen[bytes]:
    libc = ctypes.CDLL(None) if streams.foreground else None
    leads = slave is not None and launch.leads_terminal

    def in_child() -> None:
        # What we ignore, as a shell's job in the background or under nohup does, isn't the
        # container's to ignore: its session is its own.
        for number in FORWARDED:
            signal.signal(number, signal.SIG_DFL)
        if libc is not None:
            # If we are killed, it is told to end, as by us.
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if leads:
            import fcntl
            import termios

            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    try:
        return subprocess.Popen(
            list(launch.command),
            executable=launch.executable,
            stdin=slave if slave is not None else
                subprocess.PIPE if streams.input is not None else streams.stdin,
            stdout=streams.stdout if slave is None else slave,
            stderr=streams.stderr if slave is None else slave,
            pass_fds=launch.descriptors,
            start_new_session=True,
            umask=0o022,
            env=launch.environment,
            # Safe: the command line has no threads while it runs one.
            preexec_fn=in_child if streams.foreground or leads else None,
        )  # fmt: skip
    finally:
        for descriptor in launch.descriptors:
            os.close(descriptor)


def _watch(
    launch: Launch,
    streams: Streams,
    signals: Signals | None,
    pseudo: Terminal | None,
) -> Ended:
    def forward(number: int) -> None:
        if process.poll() is None:
            launch.forward(process, number)

    # What comes meanwhile would find a process that nobody knows.
    with nullcontext() if signals is None else signals.held():
        process = _start(launch, streams, None if pseudo is None else pseudo.slave)
        if signals is not None:
            signals.to(forward)
    timed_out = False
    try:
        if signals is not None:
            signals.deliver()
        if pseudo is not None:
            pseudo.started()
        launch.started()
        if pseudo is not None:
            if signals is not None:
                signals.resized = pseudo.resize
            pseudo.relay(process)
            out = err = None
        elif streams.input is not None or subprocess.PIPE in (streams.stdout, streams.stderr):
            try:
                out, err = process.communicate(streams.input, timeout=streams.timeout)
            except subprocess.TimeoutExpired:
                timed_out = True
                forward(signal.SIGKILL)
                out, err = _rest(process)
        else:
            out = err = None
            try:
                process.wait(streams.timeout)
            except subprocess.TimeoutExpired:
                timed_out = True
                forward(signal.SIGKILL)
                _rest(process)
        status = process.wait()
    except BaseException:
        with suppress(OSError):
            forward(signal.SIGKILL)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
    return Ended(
        status=128 - status if status < 0 else status, stdout=out, stderr=err, timed_out=timed_out
    )


def _rest(process: subprocess.Popen[bytes]) -> tuple[bytes | None, bytes | None]:
    """Return what a process that was killed said, whoever else has its streams now."""
    try:
        return process.communicate(timeout=_ENDING_IN)
    except subprocess.TimeoutExpired as late:
        process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        return late.output, late.stderr
