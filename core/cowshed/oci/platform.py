"""Platforms, and which of an index's manifests runs on one (image-spec, image-index.md).

The rules for variants are containerd's (platforms/platforms.go, compare.go): arm without a
variant is v7, arm64's v8 and amd64's v1 go unsaid, and a machine also runs what its older
variants run, then the 32-bit programs of its family.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from ..errors import UsageError
from .document import Fields

_OPERATING_SYSTEMS = {"macos": "darwin"}
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv6l": ("arm", "v6"),
    "armv5tel": ("arm", "v5"),
    "ppc64el": ("ppc64le", ""),
}
_PART = re.compile(r"[A-Za-z0-9_.+-]+\Z")


class Platform(NamedTuple):
    """What a machine is, or what an image was built for."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read ``linux/arm64/v8``, ``linux/amd64`` or an architecture alone.

        Raises:
            UsageError: anything else.
        """
        parts = text.split("/")
        if len(parts) > 3 or not all(_PART.match(part) for part in parts):
            raise UsageError(
                f"invalid platform {text!r}; write OS/ARCHITECTURE[/VARIANT], as in linux/arm64/v8"
            )
        if len(parts) == 1:
            parts.insert(0, "linux")
        variant = parts[2] if len(parts) > 2 else ""
        return cls(parts[0], parts[1], variant).normalised()

    @classmethod
    def host(cls) -> Platform:
        """Return this machine's platform."""
        return cls("linux", os.uname().machine).normalised()

    @classmethod
    def from_json(cls, fields: Fields) -> Platform:
        """Read an index entry's ``platform``, or the same fields of an image's config."""
        return cls(
            os=fields.text("os"),
            architecture=fields.text("architecture"),
            variant=fields.text("variant"),
            os_version=fields.text("os.version"),
            os_features=fields.texts("os.features"),
        )

    def to_json(self) -> dict[str, object]:
        """Return the object that stands in an index."""
        found: dict[str, object] = {"os": self.os, "architecture": self.architecture}
        if self.variant:
            found["variant"] = self.variant
        if self.os_version:
            found["os.version"] = self.os_version
        if self.os_features:
            found["os.features"] = list(self.os_features)
        return found

    def normalised(self) -> Platform:
        """Return the same platform under the names that images use."""
        system = _OPERATING_SYSTEMS.get(self.os.lower(), self.os.lower())
        architecture = self.architecture.lower()
        variant = self.variant.lower()
        architecture, implied = _ARCHITECTURES.get(architecture, (architecture, ""))
        variant = variant or implied
        if variant.isdigit():
            variant = f"v{variant}"
        if architecture == "arm":
            variant = variant or "v7"
        elif (architecture, variant) in {("arm64", "v8"), ("arm64", "v8.0"), ("amd64", "v1")}:
            variant = ""
        return self._replace(os=system, architecture=architecture, variant=variant)

    def matches(self, offered: Platform) -> bool:
        """Say whether something built for ``offered`` runs on this platform."""
        return self.rank(offered) is not None

    def rank(self, offered: Platform) -> int | None:
        """Return how far from ideal ``offered`` is here: 0 is best, None doesn't run at all."""
        offered = offered.normalised()
        wanted = self.normalised()
        if offered.os != wanted.os:
            return None
        if self.os_version and not offered.os_version.startswith(self.os_version):
            return None
        for rank, (architecture, variant) in enumerate(_runnable(wanted)):
            if (offered.architecture, offered.variant) == (architecture, variant):
                return rank
        return None

    def __str__(self) -> str:
        text = "/".join(filter(None, (self.os, self.architecture, self.variant)))
        return f"{text} ({self.os_version})" if self.os_version else text


def _runnable(wanted: Platform) -> Iterator[tuple[str, str]]:
    """Yield (architecture, variant), best first, of what runs on a normalised platform."""
    architecture, variant = wanted.architecture, wanted.variant
    yield architecture, variant
    if architecture == "amd64":
        for older in range(_number(variant) - 1, 0, -1):
            yield "amd64", f"v{older}" if older > 1 else ""
        yield "386", ""
    elif architecture == "arm64":
        if variant:
            major, _, minor = variant.removeprefix("v").partition(".")
            for older in range(_number(minor) - 1, 0, -1):
                yield "arm64", f"v{major}.{older}"
            if major == "9":
                yield "arm64", "v9"
            yield "arm64", ""
        for number in (8, 7, 6, 5):
            yield "arm", f"v{number}"
    elif architecture == "arm":
        for older in range(_number(variant) - 1, 4, -1):
            yield "arm", f"v{older}"


def _number(text: str) -> int:
    digits = text.removeprefix("v")
    return int(digits) if digits.isdigit() and len(digits) < 3 else 0
