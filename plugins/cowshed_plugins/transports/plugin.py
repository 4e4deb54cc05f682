"""Registers the transports; none of them is imported before it is used."""

from __future__ import annotations

from cowshed.hookspecs import hookimpl
from cowshed.transport import Transport, TransportSpec


def _oci() -> type[Transport]:
    from .oci_layout import OciTransport

    return OciTransport


def _oci_archive() -> type[Transport]:
    from .oci_layout import OciArchiveTransport

    return OciArchiveTransport


def _docker_archive() -> type[Transport]:
    from .docker_archive import DockerArchiveTransport

    return DockerArchiveTransport


def _directory() -> type[Transport]:
    from .directory import DirectoryTransport

    return DirectoryTransport


def _tarball() -> type[Transport]:
    from .tarball import TarballTransport

    return TarballTransport


@hookimpl
def cowshed_register_transports() -> list[TransportSpec]:
    """Return everything in this package."""
    return [
        TransportSpec(name="oci", summary="OCI image layout: oci:DIRECTORY[:TAG]", load=_oci),
        TransportSpec(
            name="oci-archive",
            summary="OCI image layout in a tar: oci-archive:FILE[:TAG]",
            load=_oci_archive,
        ),
        TransportSpec(
            name="docker-archive",
            summary="what 'docker save' writes: docker-archive:FILE[:NAME]",
            load=_docker_archive,
        ),
        TransportSpec(
            name="dir", summary="a root file system in a directory: dir:PATH", load=_directory
        ),
        TransportSpec(name="tar", summary="a root file system in a tar: tar:FILE", load=_tarball),
    ]
