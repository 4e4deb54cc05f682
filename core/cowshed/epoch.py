"""Epoch: the time things are said to be made at (reproducible-builds.org, SOURCE_DATE_EPOCH)."""

from __future__ import annotations

import os
import time

from .errors import ConfigError


def timestamp() -> str:
    """Return now, or SOURCE_DATE_EPOCH where it is set, in RFC 3339."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(source_date_epoch()))


def source_date_epoch() -> int | None:
    """Return SOURCE_DATE_EPOCH, seconds since the epoch, where it is set.

    Raises:
        ConfigError: it isn't a number of seconds, or one beyond the year 9999.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) < 253_402_300_800):
        raise ConfigError(f"not a number of seconds: {text!r}", "SOURCE_DATE_EPOCH")
    return int(text)
