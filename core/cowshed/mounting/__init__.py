"""Mounting: containers as directories that processes use.

    with container.mounted() as path:
        subprocess.run(["make", "-C", path / "src"])

A driver says how its containers can be had (``Driver.attach``), ``ways`` makes a mount of that,
``registry`` remembers it in ROOT/mounts, and ``mounts`` is what ``Container`` and ``Shed`` call.

    native    the driver's own directory; nothing is between a process and its files
    overlay   the kernel merges: the driver's own mount, or an upper directory of ours over a
              read-only image of the layer (``lowers``)
    fuse      a server of ours shows the container's ``Tree``, with an upper directory (``fuse``)

What processes write into an upper directory is brought into the driver's container by
``absorbing``: before anybody looks at the container, and when it is unmounted. So ``diff``,
``commit``, ``ps -s`` and ``export`` need to know nothing of mounts.
"""

from .mounts import Mounted, Mounts

__all__ = ["Mounted", "Mounts"]
