"""JSON from strangers, read with bounds and with types.

Every manifest, index and config passes through here: at most 4 MiB (CVE-2020-1702), UTF-8, no
duplicate keys (two parsers would see two documents), no nesting that overflows a stack, and each
field has the type the specification gives it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from ..errors import LimitExceededError, SourceError

#: distribution-spec, "Pushing Manifests", asks registries for at least this much.
MAX_DOCUMENT = 4 << 20


def dump(document: object) -> bytes:
    """Return canonical JSON: sorted keys, no white space, UTF-8."""
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def load(raw: bytes, what: str) -> Fields:
    """Parse ``raw``, which has to be one JSON object; ``what`` names it in errors."""
    value = load_any(raw, what)
    if not isinstance(value, dict):
        raise SourceError(f"{what} is not a JSON object")
    return Fields(cast("dict[str, object]", value), what)


def load_any(raw: bytes, what: str) -> object:
    """Parse ``raw`` with every bound of this module."""
    if len(raw) > MAX_DOCUMENT:
        raise LimitExceededError(f"{what}", MAX_DOCUMENT)
    try:
        value: object = json.loads(
            raw.decode(), object_pairs_hook=_unique, parse_constant=_no_constant
        )
        if b"\\ud" in raw.lower():
            dump(value)  # half a surrogate pair can't be written out again
    except RecursionError:
        raise SourceError(f"{what} is nested too deeply") from None
    except ValueError as error:  # JSONDecodeError and UnicodeError are both
        raise SourceError(f"{what} is not valid JSON: {error}") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return values


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


class Fields:
    """One JSON object whose fields are asked for by type; ``null`` counts as missing."""

    def __init__(self, values: Mapping[str, object], what: str) -> None:
        self.values = values
        self.what = what

    def has(self, key: str) -> bool:
        """Say whether the field is there and not null."""
        return self.values.get(key) is not None

    def text(self, key: str, default: str | None = "") -> str:
        """Return a string; ``default`` None makes it required."""
        value = self.values.get(key)
        if value is None:
            if default is None:
                raise SourceError(f"{self.what} lacks {key!r}")
            return default
        if not isinstance(value, str):
            raise self._wrong(key, "a string")
        return value

    def integer(self, key: str) -> int:
        """Return a required integer that isn't negative."""
        value = self.values.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self._wrong(key, "a whole number, 0 or more")
        return value

    def boolean(self, key: str) -> bool:
        """Return a truth value; missing means false."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return bool(value)

    def mapping(self, key: str) -> Mapping[str, object]:
        """Return an object's fields as they are; missing means none."""
        value = self.values.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._wrong(key, "an object")
        return cast("dict[str, object]", value)

    def texts_by_key(self, key: str) -> dict[str, str]:
        """Return an object whose values are all strings; missing means none."""
        values = self.mapping(key)
        texts = {name: value for name, value in values.items() if isinstance(value, str)}
        if len(texts) != len(values):
            raise self._wrong(key, "an object of strings")
        return texts

    def child(self, key: str) -> Fields:
        """Return a required object."""
        if not self.has(key):
            raise SourceError(f"{self.what} lacks {key!r}")
        return Fields(self.mapping(key), f"{key!r} of {self.what}")

    def array(self, key: str) -> list[object]:
        """Return a list; missing means empty."""
        value = self.values.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._wrong(key, "a list")
        return cast("list[object]", value)

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings; missing means empty."""
        values = self.array(key)
        texts = tuple(value for value in values if isinstance(value, str))
        if len(texts) != len(values):
            raise self._wrong(key, "a list of strings")
        return texts

    def objects(self, key: str) -> list[Fields]:
        """Return a list of objects; missing means empty."""
        found: list[Fields] = []
        for number, value in enumerate(self.array(key)):
            if not isinstance(value, dict):
                raise self._wrong(key, "a list of objects")
            fields = cast("dict[str, object]", value)
            found.append(Fields(fields, f"{key}[{number}] of {self.what}"))
        return found

    def _wrong(self, key: str, wanted: str) -> SourceError:
        return SourceError(f"{key!r} of {self.what} should be {wanted}")
