"""What the catalog remembers of images, layers, containers and leases, and how it is encoded.

Images, layers and leases are few: compact JSON. Containers come by the ten thousand: a fixed
binary head of 82 bytes and the name, so that one costs about 150 bytes in the catalog.

They are named tuples, not attrs classes: a short command such as ``cowshed ps`` needs nothing else
of attrs, whose import and classes would be a quarter of its time.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from .errors import CorruptError

#: Version, driver number, created (ns), image ID, chain ID.
_CONTAINER_HEAD = struct.Struct(">BBq32s32s")
_CONTAINER_VERSION = 1
_NONE = bytes(32)


def _encode(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def _without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def _decode(data: bytes, what: str) -> dict[str, Any]:
    try:
        decoded: dict[str, Any] = json.loads(bytes(data))
    except ValueError:
        raise CorruptError("catalog", f"unreadable record of {what}") from None
    return decoded


class ImageRecord(NamedTuple):
    """An image: its ID is the digest of its config (image-spec, config.md, "ImageID"), in hex."""

    id: str
    #: As the config says it: RFC 3339, or empty.
    created: str = ""
    #: Diff IDs of its layers, base first, ``sha256:…``.
    diff_ids: tuple[str, ...] = ()
    #: Chain IDs in hex, base first: the IDs its layers have in every driver.
    chains: tuple[str, ...] = ()
    #: Names of the drivers that hold its layers.
    drivers: tuple[str, ...] = ()
    #: Bytes of all its layers' files.
    size: int = 0
    platform: str = ""
    #: Digest of the manifest it came with, kept as a blob; empty if it was made here.
    manifest: str = ""
    #: When it came into this shed, ns since the epoch.
    added_ns: int = 0

    @property
    def chain(self) -> str | None:
        """Chain ID of the top layer; None for an image without layers."""
        return self.chains[-1] if self.chains else None

    def encode(self) -> bytes:
        return _encode(_without(self._asdict(), "id"))

    @classmethod
    def decode(cls, id: str, data: bytes) -> ImageRecord:
        fields = _decode(data, f"image {id[:12]}")
        for name in ("diff_ids", "chains", "drivers"):
            fields[name] = tuple(fields[name])
        return cls(id=id, **fields)


class LayerRecord(NamedTuple):
    """A layer as one driver holds it."""

    driver: str
    #: Chain ID in hex.
    chain: str
    diff_id: str
    #: Chain ID of the layer below; empty for a base.
    parent: str = ""
    #: Bytes of its files.
    size: int = 0
    #: Bytes of its uncompressed tar.
    tar_size: int = 0
    entries: int = 0
    #: Images and containers directly on it, layers directly on it, and leases.
    references: int = 0

    def encode(self) -> bytes:
        return _encode(_without(self._asdict(), "driver", "chain"))

    @classmethod
    def decode(cls, driver: str, chain: str, data: bytes) -> LayerRecord:
        return cls(driver=driver, chain=chain, **_decode(data, f"layer {chain[:12]}"))


class ContainerRecord(NamedTuple):
    """A container: an image and one read-write layer in one driver."""

    id: str
    name: str
    #: Image ID; empty for a container made on nothing.
    image: str
    #: Chain ID of the layer it stands on; empty: on nothing.
    chain: str
    driver: str
    created_ns: int

    def encode(self, driver_number: int) -> bytes:
        head = _CONTAINER_HEAD.pack(
            _CONTAINER_VERSION,
            driver_number,
            self.created_ns,
            bytes.fromhex(self.image) or _NONE,
            bytes.fromhex(self.chain) or _NONE,
        )
        return head + self.name.encode()

    @classmethod
    def decode(cls, id: str, data: bytes, drivers: Mapping[int, str]) -> ContainerRecord:
        try:
            version, number, created, image, chain = _CONTAINER_HEAD.unpack_from(data)
            if version != _CONTAINER_VERSION:
                raise ValueError(version)
            driver = drivers[number]
            name = bytes(data[_CONTAINER_HEAD.size :]).decode()
        except (struct.error, ValueError, KeyError):
            raise CorruptError("catalog", f"unreadable record of container {id[:12]}") from None
        return cls(
            id=id,
            name=name,
            image="" if image == _NONE else image.hex(),
            chain="" if chain == _NONE else chain.hex(),
            driver=driver,
            created_ns=created,
        )


#: What the ID of a temporary container's lease begins with, to stand behind all others.
OF_CONTAINER = "~"


class LeaseRecord(NamedTuple):
    """What an operation under way has made or relies on.

    Its owner holds the lock ``lease:ID``; a lease whose lock is free belongs to a dead process.
    """

    id: str
    operation: str
    #: Layers it holds a reference on, as (driver, chain).
    layers: tuple[tuple[str, str], ...] = ()
    #: Layers and containers it is making, as (driver, ID).
    making: tuple[tuple[str, str], ...] = ()

    def encode(self) -> bytes:
        return _encode({"operation": self.operation, "layers": self.layers, "making": self.making})

    @classmethod
    def decode(cls, id: str, data: bytes) -> LeaseRecord:
        fields = _decode(data, f"lease {id[:12]}")
        return cls(
            id=id,
            operation=fields["operation"],
            layers=tuple((driver, chain) for driver, chain in fields["layers"]),
            making=tuple((driver, id) for driver, id in fields["making"]),
        )
