"""What goes wrong with registries, each naming the registry.

SourceError
└── RegistryError            it answered something that doesn't help
    ├── UnreachableError     it didn't answer, or broke off too often
    ├── UnauthorisedError    it wants other credentials, or refuses these
    └── RateLimitedError     it wants to be left alone for longer than we wait
"""

from __future__ import annotations

from collections.abc import Iterable

from cowshed.errors import SourceError


class RegistryError(SourceError):
    """A registry answered something that doesn't help; ``registry`` names it."""

    #: Whether it may go well another time.
    passing = False

    def __init__(self, registry: str, reason: str, *, passing: bool = False) -> None:
        super().__init__(f"registry {registry}: {reason}")
        self.registry = registry
        self.reason = reason
        self.passing = self.passing or passing


class UnreachableError(RegistryError):
    """No answer, or one that broke off again and again."""

    passing = True


class UnauthorisedError(RegistryError):
    """Credentials are missing or refused; ``looked`` says where they were looked for."""

    def __init__(
        self, registry: str, reason: str, looked: Iterable[str], *, found: str = ""
    ) -> None:
        self.looked = tuple(looked)
        if found:
            about = f"the credentials came from {found}"
        else:
            about = f"no credentials for it in {', '.join(self.looked) or 'any file'}"
        super().__init__(
            registry, f"unauthorised: {reason}; {about}; 'podman login' or 'docker login' puts "
            "some there"
        )  # fmt: skip


class RateLimitedError(RegistryError):
    """Too many requests, and it asks to wait for longer than is sensible."""

    def __init__(self, registry: str, wait: float | None) -> None:
        when = "later" if wait is None else f"in {wait:,.0f} s"
        super().__init__(registry, f"too many requests; it says to try again {when}")
        self.wait = wait
