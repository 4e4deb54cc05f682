"""Mounting: containers as directories that processes use.

    with container.mounted() as path:
        subprocess.run(["make", "-C", path / "src"])

A driver says how its containers can be had (``Driver.attach``), ``ways`` makes a mount of that,
``registry`` remembers it in ROOT/mounts, and ``mounts`` is what ``Container`` and ``Shed`` call.

    native    the driver's own directory; nothing is between a process and its files
    overlay   the kernel merges: the driver's own mount, or an upper directory of ours (``layered``)
              over the layer, whose names are in an image and whose contents in files (``lowers``)
    fuse      the same, over the layer's ``Tree`` as a server of ours shows it (``serving``)

In all three the kernel alone does what is written, on a native file system: mapped memory, locks,
``fsync`` and whatever comes behave as on any overlay, and a server that dies takes nothing along.

What processes write into an upper directory is brought into the driver's container by
``absorbing``: before anybody looks at the container, and when it is unmounted. So ``diff``,
``commit``, ``ps -s`` and ``export`` need to know nothing of mounts.
"""

from .mounts import Mounted, Mounts

__all__ = ["Mounted", "Mounts"]
