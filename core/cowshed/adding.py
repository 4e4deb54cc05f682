"""Adding: what makes layers an image, whoever made them: an import, a commit, a migration."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .errors import DriverError
from .lease import Lease
from .oci import ImageConfig, digest_bytes
from .records import ImageRecord

if TYPE_CHECKING:
    from .shed import Shed


def add_image(
    shed: Shed,
    lease: Lease,
    config: ImageConfig,
    names: Sequence[str],
    chains: Sequence[str],
    diff_ids: Sequence[str],
    size: int,
    driver: str,
    manifest: str = "",
) -> ImageRecord:
    """Make the image known, its layers held by it, the lease finished: the commit point."""
    id = digest_bytes(config.raw).removeprefix("sha256:")
    with shed.catalog.write() as transaction:
        record = transaction.image(id)
        if record is None:
            record = ImageRecord(
                id=id,
                created=config.created or "",
                diff_ids=tuple(diff_ids),
                chains=tuple(chains),
                drivers=(),
                size=size,
                platform=str(config.platform),
                manifest=manifest,
                added_ns=time.time_ns(),
            )
        if driver not in record.drivers:
            record = record._replace(drivers=(*record.drivers, driver))
            if record.chain:
                transaction.hold_layer(driver, record.chain)
        transaction.put_image(record)
        for name in names:
            transaction.name_image(name, id)
        lease.finish(transaction)
    shed.plugins.notify("image_added", shed=shed, image=id, names=tuple(names))
    return record


def chain_id_above(parent: str, diff_id: str) -> str:
    """Return the chain ID in hex of ``diff_id`` on ``parent`` (image-spec, config.md, ChainID)."""
    if not parent:
        return diff_id.removeprefix("sha256:")
    return digest_bytes(f"sha256:{parent} {diff_id}".encode()).removeprefix("sha256:")


def require_depth(shed: Shed, driver: str, layers: int) -> None:
    """Raise DriverError if a driver can't hold a chain of so many layers."""
    most = shed.driver_spec(driver).max_depth
    if most is not None and layers > most:
        raise DriverError(
            driver, f"holds {most} layers in a chain, not {layers}; choose another driver"
        )


def layer_lock(driver: str, chain: str) -> str:
    """Return the key of the lock under which a layer is made or dropped."""
    return f"layer:{driver}:{chain}"
