"""RegistryTransport: ``docker://[HOST/]REPOSITORY[:TAG][@DIGEST]``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cowshed.errors import UsageError
from cowshed.oci import Descriptor
from cowshed.transport import Source, Transport

from .client import Repository
from .endpoint import Endpoint
from .reference import Reference
from .settings import Settings, settings_from
from .source import RegistrySource
from .wire import Wire

if TYPE_CHECKING:
    from cowshed.target import Target


def _nothing(digest: str) -> bytes | None:
    return None


class RegistryTransport(Transport):
    """Images in registries that speak OCI's distribution-spec or Docker's registry API 2."""

    far = True

    def __init__(self) -> None:
        self._settings = Settings()
        self._known: Callable[[str], bytes | None] = _nothing

    def configure(
        self, options: Mapping[str, Any], known: Callable[[str], bytes | None] | None = None
    ) -> None:
        self._settings = settings_from(options)
        self._known = known or _nothing

    def open_source(self, rest: str) -> Source:
        reference = parse_rest(rest)
        wire = Wire(self._settings.timeout, self._settings.certs)
        mirrors = self._settings.mirrors.get(reference.registry, ())
        places = [
            self._repository(place, reference, wire) for place in (*mirrors, reference.registry)
        ]
        return RegistrySource(reference, places, self._known, wire.close)

    def open_target(
        self, rest: str, *, compression: str | None = None, level: int | None = None
    ) -> Target:
        from .target import RegistryTarget

        reference = parse_rest(rest)
        if reference.digest:
            raise UsageError("a digest can't be chosen for what is pushed; give a tag or nothing")
        wire = Wire(self._settings.timeout, self._settings.certs)
        repository = self._repository(reference.registry, reference, wire)
        return RegistryTarget(reference, repository, wire, compression, level)

    def referrers(self, reference: Reference, artifact_type: str = "") -> list[Descriptor]:
        """Return what the registry knows to refer to an image, of one type or of all.

        Raises:
            NotFoundError: there is no such image.
        """
        from .referrers import referrers

        wire = Wire(self._settings.timeout, self._settings.certs)
        try:
            # Not from mirrors: they hold images, seldom what came about these later.
            repository = self._repository(reference.registry, reference, wire)
            digest = reference.digest or repository.manifest(reference.tag).digest
            return referrers(repository, digest, artifact_type)
        finally:
            wire.close()

    def _repository(self, place: str, reference: Reference, wire: Wire) -> Repository:
        return Repository(Endpoint(place, self._settings, wire), reference.repository)


def parse_rest(rest: str) -> Reference:
    """Read what follows ``docker:``.

    Raises:
        UsageError: the slashes or the reference are missing.
    """
    if not rest.startswith("//") or not rest[2:]:
        raise UsageError(f"'docker:{rest}' isn't a reference; write docker://[HOST/]NAME[:TAG]")
    return Reference.parse(rest[2:])
