"""Peers: other people's stores of images and trees, driven by their programs.

Each has a store, a configuration and a home of its own below the directory of the run: nothing that
is installed or running on the machine is touched.
"""

from __future__ import annotations

from ..actor import Program
from .archivers import Borg, Casync, Restic
from .containerd import Containerd, ContainerdNative
from .containers_storage import (
    Buildah,
    BuildahVfs,
    Podman,
    Skopeo,
    SkopeoVfs,
)
from .udocker import Udocker
from .umoci import Umoci

#: By name.
PEERS: dict[str, type[Program]] = {
    peer.name: peer
    for peer in (
        *(Skopeo, SkopeoVfs, Podman, Buildah, BuildahVfs, Containerd, ContainerdNative),
        *(Umoci, Udocker, Borg, Restic, Casync),
    )
}

__all__ = ["PEERS"]
