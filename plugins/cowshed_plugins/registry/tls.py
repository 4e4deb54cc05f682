"""TLS: which authorities a registry's certificate may come from, and what we show it.

Besides the system's authorities, a directory ``HOST`` or ``HOST:PORT`` in one of Docker's and
podman's ``certs.d`` directories may hold ``*.crt``, further authorities for this registry, and
``NAME.cert`` with ``NAME.key``, a client's certificate.
"""

from __future__ import annotations

import os
import ssl

from cowshed.errors import ConfigError

_USUAL = ("/etc/containers/certs.d", "/etc/docker/certs.d")


def directories(registry: str, configured: str = "") -> list[str]:
    """Return the directories with certificates for a registry; those that exist."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    places = [configured, os.path.join(home, "containers/certs.d"), *_USUAL]
    candidates = [os.path.join(place, registry) for place in places if place]
    return [place for place in candidates if os.path.isdir(place)]


def context(places: list[str]) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities and those in ``places``.

    Raises:
        ConfigError: a certificate there can't be used.
    """
    made = ssl.create_default_context()
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    for place in places:
        for name in sorted(os.listdir(place)):
            path = os.path.join(place, name)
            try:
                if name.endswith(".crt"):
                    made.load_verify_locations(path)
                elif name.endswith(".cert"):
                    made.load_cert_chain(path, f"{path.removesuffix('.cert')}.key")
            except (ssl.SSLError, OSError) as error:
                reason = error.strerror or str(error)
                raise ConfigError(f"certificate can't be used: {reason}", path) from None
    return made
