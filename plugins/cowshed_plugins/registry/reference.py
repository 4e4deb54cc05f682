"""Reference: ``[HOST/]REPOSITORY[:TAG][@DIGEST]``, read as Docker does."""

from __future__ import annotations

import re
from typing import NamedTuple

from cowshed.errors import SourceError, UsageError
from cowshed.oci import parse_digest

DOCKER_HUB = "docker.io"
_OTHER_NAMES = ("index.docker.io", "registry-1.docker.io")
#: distribution-spec, "Pulling manifests".
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.A)
_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.A
)
_MAX_REPOSITORY = 255


class Reference(NamedTuple):
    """What names one image in one registry."""

    #: Host and port as people write them; Docker Hub is ``docker.io``.
    registry: str
    repository: str
    #: Empty only beside a digest.
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference; without host it is Docker Hub's, without tag or digest ``latest``.

        Raises:
            UsageError: it isn't one.
        """
        name, at, digest = text.partition("@")
        if at:
            try:
                digest = parse_digest(digest)
            except SourceError as error:
                raise UsageError(f"invalid reference {text!r}: {error}") from None
        first, slash, rest = name.partition("/")
        # Docker's rule: a first component is a host if it couldn't be a name on Docker Hub.
        if slash and (
            "." in first or ":" in first or first == "localhost" or first != first.lower()
        ):
            registry, path = first, rest
        else:
            registry, path = DOCKER_HUB, name
        path, _, tag = path.partition(":")
        if registry in _OTHER_NAMES:
            registry = DOCKER_HUB
        if registry == DOCKER_HUB and "/" not in path:
            path = f"library/{path}"
        if not _HOST.fullmatch(registry):
            raise UsageError(f"invalid reference {text!r}: {registry!r} is no host")
        if not _REPOSITORY.fullmatch(path) or len(path) > _MAX_REPOSITORY:
            raise UsageError(
                f"invalid reference {text!r}: a repository has lower-case letters, digits and "
                ". _ - between slashes"
            )
        if ":" in name.rpartition("/")[2] and not _TAG.fullmatch(tag):
            raise UsageError(f"invalid reference {text!r}: {tag!r} is no tag")
        return cls(
            registry=registry,
            repository=path,
            tag=tag or ("" if digest else "latest"),
            digest=digest,
        )

    @property
    def locator(self) -> str:
        """What the registry is asked for: the digest, which can't change, before the tag."""
        return self.digest or self.tag

    @property
    def familiar(self) -> str:
        """The name that an image of this reference gets in a shed; empty without a tag."""
        if not self.tag:
            return ""
        name = f"{self.registry}/{self.repository}"
        name = name.removeprefix(f"{DOCKER_HUB}/library/").removeprefix(f"{DOCKER_HUB}/")
        return f"{name}:{self.tag}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"
