"""Proxies: which one the environment names for a URL, if any."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from .urls import is_loopback

if TYPE_CHECKING:
    from .urls import Url


def proxy_of(url: Url) -> SplitResult | None:
    """Return the proxy on the way to a URL."""
    if not any(name.lower().endswith("_proxy") and os.environ[name] for name in os.environ):
        return None
    if is_loopback(url.host):
        return None  # another machine's loopback is never meant
    from urllib.request import getproxies, proxy_bypass

    found = getproxies().get(url.scheme) or getproxies().get("all")
    if not found or proxy_bypass(url.netloc):
        return None
    return urlsplit(found if "://" in found else f"http://{found}")


def proxy_headers(proxy: SplitResult) -> dict[str, str] | None:
    """Return what shows a proxy its credentials, if its URL has some."""
    if proxy.username is None:
        return None
    from base64 import b64encode
    from urllib.parse import unquote

    # Not by urllib3, which knows Latin-1 only.
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
