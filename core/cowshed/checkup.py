"""Check: does every part of the shed agree with the others, and, deep, is every byte right?"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs

from .errors import CowshedError, NotFoundError
from .records import LayerRecord

if TYPE_CHECKING:
    from .shed import Shed


@attrs.frozen(kw_only=True)
class Finding:
    """One thing that isn't as it should be."""

    #: ``image …``, ``layer …``, ``container …``, ``driver …``, ``blob …``.
    where: str
    problem: str
    #: ``damage`` costs data; ``litter`` is what ``gc`` sweeps; ``notice`` is worth knowing.
    severity: str = "damage"


def check(shed: Shed, *, deep: bool) -> list[Finding]:
    """See ``Shed.check``."""
    findings: list[Finding] = []
    if not shed.config.durable:
        findings.append(
            Finding(
                where="configuration",
                problem='durability is "none": a power cut may lose what was acknowledged',
                severity="notice",
            )
        )
    if not shed.read_only:
        shed.mounting.sweep()
        shed.running.sweep()
    findings += _catalog(shed)
    findings += _drivers(shed, deep=deep)
    findings += _blobs(shed, deep=deep)
    if deep:
        findings += _tars(shed)
    return findings


def _catalog(shed: Shed) -> Iterator[Finding]:
    """Count every reference again and compare."""
    with shed.catalog.read() as transaction:
        counted: dict[tuple[str, str], int] = {}

        def refer(driver: str, chain: str) -> None:
            if chain:
                counted[driver, chain] = counted.get((driver, chain), 0) + 1

        for image in transaction.images():
            for driver in image.drivers:
                refer(driver, image.chain or "")
        uses: dict[str, int] = {}
        for container in transaction.containers():
            refer(container.driver, container.chain)
            uses[container.image] = uses.get(container.image, 0) + 1
            if transaction.container_named(container.name) != container.id:
                yield Finding(
                    where=f"container {container.id[:12]}",
                    problem=f"its name {container.name!r} leads elsewhere",
                )
        for lease in transaction.leases():
            for driver, chain in lease.layers:
                refer(driver, chain)
        layers = list(transaction.layers())
        for layer in layers:
            refer(layer.driver, layer.parent)
        for layer in layers:
            expected = counted.pop((layer.driver, layer.chain), 0)
            if layer.references != expected:
                yield Finding(
                    where=_name(layer),
                    problem=f"has {layer.references} references, {expected} were found",
                )
        for (driver, chain), count in counted.items():
            yield Finding(
                where=f"layer {chain[:12]} ({driver})",
                problem=f"is referred to {count} times but has no record",
            )
        for id, count in uses.items():
            if id and transaction.image_uses(id) != count:
                yield Finding(
                    where=f"image {id[:12]}",
                    problem=f"counts {transaction.image_uses(id)} containers, has {count}",
                )
        for name, id in transaction.image_names():
            if transaction.image(id) is None:
                yield Finding(where=f"image name {name}", problem=f"leads to no image ({id[:12]})")


def _name(layer: LayerRecord) -> str:
    return f"layer {layer.chain[:12]} ({layer.driver})"


def _drivers(shed: Shed, *, deep: bool) -> Iterator[Finding]:
    with shed.catalog.read() as transaction:
        layers = {(record.driver, record.chain): record for record in transaction.layers()}
        containers = {(record.driver, record.id): record for record in transaction.containers()}
        labels = _labels(shed)
    names = {driver for driver, _ in (*layers, *containers)} | set(shed.drivers_in_use())
    for name in sorted(names):
        try:
            driver = shed.driver(name)
            held = {item.id for item in driver.items()}
        except CowshedError as error:
            yield Finding(where=f"driver {name}", problem=str(error))
            continue
        wanted = {id for owner, id in (*layers, *containers) if owner == name}
        for id in sorted(wanted - held):
            what = "layer" if (name, id) in layers else "container"
            if _still_wanted(shed, name, id):
                yield Finding(where=f"{what} {id[:12]} ({name})", problem="missing in the driver")
        for id in sorted(held - wanted):
            yield Finding(
                where=f"driver {name}",
                problem=f"holds {id[:12]}, which the catalog doesn't know; gc removes it",
                severity="litter",
            )
        for id in sorted(wanted & held):
            what = "layer" if (name, id) in layers else "container"
            where = f"{what} {id[:12]}{labels.get(id, '')} ({name})"
            try:
                for problem in driver.verify(id, deep=deep):
                    path = f", /{problem.path}" if problem.path else ""
                    yield Finding(where=f"{where}{path}", problem=problem.what)
            except (CowshedError, OSError) as error:
                if _still_wanted(shed, name, id):
                    yield Finding(where=where, problem=str(error))


def _still_wanted(shed: Shed, driver: str, id: str) -> bool:
    """Say whether what seems damaged wasn't just removed by another process."""
    with shed.catalog.read() as transaction:
        return transaction.wants(driver, id)


def _labels(shed: Shed) -> dict[str, str]:
    """Return for each layer the name of an image that has it, for people to recognise it."""
    labels: dict[str, str] = {}
    for image in shed.images():
        for chain in image.record.chains:
            labels.setdefault(chain, f" of {image.names[0] if image.names else image.id[:12]}")
    return labels


def _blobs(shed: Shed, *, deep: bool) -> Iterator[Finding]:
    for image in shed.images():
        try:
            _ = image.config
        except CowshedError as error:
            with shed.catalog.read() as transaction:
                removed = transaction.image(image.id) is None
            if not removed:
                yield Finding(where=f"image {image.id[:12]}", problem=str(error))
    with shed.catalog.read() as transaction:
        layers = {record.diff_id: record for record in transaction.layers()}
    for diff_id, layer in sorted(layers.items()):
        if not shed.recipes.has(diff_id) and _still_wanted(shed, layer.driver, layer.chain):
            yield Finding(
                where=f"layer {diff_id[:19]}",
                problem="its tar recipe is missing: it can't be saved byte for byte",
            )
    if deep:
        for digest in shed.blobs.iter():
            try:
                actual = hashlib.new(digest.partition(":")[0])
                with shed.blobs.open(digest) as file:
                    while chunk := file.read(1 << 20):
                        actual.update(chunk)
            except NotFoundError:
                continue  # removed meanwhile; an image that misses it was named above
            except (OSError, CowshedError) as error:
                yield Finding(where=f"blob {digest}", problem=str(error))
                continue
            if actual.hexdigest() != digest.partition(":")[2]:
                yield Finding(where=f"blob {digest}", problem="its content has another digest")


def _tars(shed: Shed) -> Iterator[Finding]:
    """Put every layer's tar together and compare its diff ID."""
    with shed.catalog.read() as transaction:
        layers = list(transaction.layers())
    for layer in layers:
        try:
            with open(os.devnull, "wb") as nowhere:
                shed.write_layer_tar(layer, nowhere)
        except (CowshedError, OSError) as error:
            if _still_wanted(shed, layer.driver, layer.chain):
                yield Finding(where=_name(layer), problem=f"its tar: {error}")
