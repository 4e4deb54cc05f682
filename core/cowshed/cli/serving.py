"""The FUSE server's process: ``python -m cowshed.cli.serving``, told what to do on standard input.

Started by ``mounting.serving``, by nobody else.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
from contextlib import suppress

from ..config import Config
from ..mounting import kernel
from ..mounting.serving import Server
from ..shed import Shed


def main() -> None:
    """Serve until nobody needs it."""
    said = json.load(sys.stdin)
    config = said["config"]
    shed = Shed(config=Config(config, dict.fromkeys(config, "server")))
    directory = os.open(said["at"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    # A socket's name may have 107 bytes, the shed's more.
    path = f"/proc/self/fd/{directory}/{said['name']}.socket"
    with suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen(64)
    if not kernel.in_first_namespace():
        shown = {record.path for record in shed.mounting.registry.records()}
        kernel.leave_namespace({*shown, *shed.mounting.lowers.places()})
    gc.collect()
    gc.freeze()
    null = os.open(os.devnull, os.O_RDWR)
    os.write(1, b"+")
    for standard in (0, 1):
        os.dup2(null, standard)
    os.close(null)
    Server(shed, listener, path).run()


if __name__ == "__main__":
    main()
