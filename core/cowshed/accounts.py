"""Accounts: where the bytes on disk are, in parts that add up.

Every figure is allocated space (``st_blocks``), each inode counted once, as ``du`` counts, except
that a driver says itself what its directory takes: it knows what its files share. Inside
a driver, what one layer or container alone holds is its *unique* share; what several hold, and
what the driver itself needs, is the driver's *shared* part: disk − Σ unique.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from .driver import Usage
from .errors import CowshedError
from .image import Image, list_images
from .records import LayerRecord

if TYPE_CHECKING:
    from .catalog import Transaction
    from .shed import Shed


@attrs.frozen(kw_only=True)
class ImageUsage:
    """What one image costs."""

    id: str
    names: tuple[str, ...]
    created: str
    #: Bytes of its layers' files, as ``images`` shows it.
    size: int
    #: Bytes on disk of layers that only this image has: at least that much goes with it.
    unique: int
    #: Bytes of files in layers that other images or containers' images have too.
    shared: int
    containers: int


@attrs.frozen(kw_only=True)
class DriverUsage:
    """What one driver holds."""

    name: str
    #: Bytes on disk: ``layers`` + ``containers`` + ``shared``.
    disk: int
    layer_count: int
    #: Bytes on disk that single layers hold alone.
    layers: int
    container_count: int
    #: Bytes on disk that single containers hold alone.
    containers: int
    #: Bytes on disk held by several, and the driver's own index and slack.
    shared: int


@attrs.frozen(kw_only=True)
class DiskUsage:
    """What a shed takes. ``total`` = drivers' ``disk`` + ``recipes`` + ``blobs`` + ``partial`` +
    ``catalog`` + ``temporary`` + ``other``."""

    total: int
    drivers: tuple[DriverUsage, ...]
    recipes: int
    blobs: int
    #: Downloads that broke off and are kept to be resumed, or are under way.
    partial: int
    catalog: int
    temporary: int
    #: The shed's own few files and directories.
    other: int
    images: tuple[ImageUsage, ...]
    #: Bytes on disk of layers that no container needs: at least that much comes back without them.
    reclaimable: int
    image_count: int
    #: Images that containers use.
    active_images: int
    container_count: int


def disk_usage(shed: Shed) -> DiskUsage:
    """See ``Shed.df``."""
    home = shed.home
    shed.mounting.settle_all()
    with shed.catalog.read() as transaction:
        layers = list(transaction.layers())
        records = list(transaction.containers())
        images = list_images(shed)
        uses = {image.id: transaction.image_uses(image.id) for image in images}
        alone = {image.id: _alone(transaction, image) for image in images}
    usages = _Usages(shed)
    containers = [(record.driver, record.id) for record in records]
    drivers = tuple(
        _driver_usage(shed, usages, name, layers, containers) for name in shed.drivers_in_use()
    )
    needed = _needed(layers, {(record.driver, record.chain) for record in records})
    image_usages: list[ImageUsage] = []
    for image in images:
        unique = sum(usages.of(record.driver, record.chain) for record in alone[image.id])
        files = sum(record.size for record in alone[image.id] if record.driver in _first(image))
        image_usages.append(
            ImageUsage(
                id=image.id,
                names=image.names,
                created=image.created,
                size=image.size,
                unique=unique,
                shared=max(0, image.size - files),
                containers=uses[image.id],
            )
        )
    partial = shed.blobs.partials.usage()
    parts = {
        "recipes": allocated(home.recipes),
        "blobs": max(0, allocated(home.blobs) - partial),
        "partial": partial,
        "catalog": allocated(home.catalog),
        "temporary": allocated(home.temporary),
    }
    elsewhere = _outside_drivers(shed)
    return DiskUsage(
        total=elsewhere + sum(driver.disk for driver in drivers),
        drivers=drivers,
        **parts,
        other=elsewhere - sum(parts.values()),
        images=tuple(image_usages),
        reclaimable=sum(_reclaimable(driver, usages, layers, needed) for driver in drivers),
        image_count=len(images),
        active_images=sum(1 for count in uses.values() if count),
        container_count=len(containers),
    )


def _driver_usage(
    shed: Shed,
    usages: _Usages,
    name: str,
    layers: list[LayerRecord],
    containers: list[tuple[str, str]],
) -> DriverUsage:
    own_layers = [record.chain for record in layers if record.driver == name]
    own_containers = [id for driver, id in containers if driver == name]
    in_layers = sum(usages.of(name, chain) for chain in own_layers)
    in_containers = sum(usages.of(name, id) for id in own_containers)
    disk = _disk(shed, name)  # after what asking for usages may leave on disk
    return DriverUsage(
        name=name,
        disk=disk,
        layer_count=len(own_layers),
        layers=in_layers,
        container_count=len(own_containers),
        containers=in_containers,
        shared=disk - in_layers - in_containers,
    )


def _needed(
    layers: Iterable[LayerRecord], places: Iterable[tuple[str, str]]
) -> set[tuple[str, str]]:
    """Return, by driver and chain, what stands below ``places``, with these."""
    below = {(record.driver, record.chain): record.parent for record in layers}
    needed: set[tuple[str, str]] = set()
    for driver, chain in places:
        while chain and (driver, chain) not in needed:
            needed.add((driver, chain))
            chain = below.get((driver, chain), "")
    return needed


def _reclaimable(
    driver: DriverUsage,
    usages: _Usages,
    layers: Iterable[LayerRecord],
    needed: Collection[tuple[str, str]],
) -> int:
    own = [record for record in layers if record.driver == driver.name]
    idle = [record.chain for record in own if (record.driver, record.chain) not in needed]
    if own and len(idle) == len(own) and not driver.container_count:
        return driver.disk  # with what they share among themselves
    return sum(usages.of(driver.name, chain) for chain in idle)


def whole(shed: Shed) -> int:
    """Return all bytes allocated below the shed's directory."""
    return _outside_drivers(shed) + sum(_disk(shed, name) for name in shed.drivers_in_use())


def _disk(shed: Shed, driver: str) -> int:
    # A driver knows what its files share; `du` counts an extent for every file that has it.
    try:
        return shed.driver(driver).disk_usage()
    except CowshedError:
        return allocated(shed.home.drivers / driver)


def _outside_drivers(shed: Shed) -> int:
    drivers = {os.fspath(shed.home.drivers / name) for name in shed.drivers_in_use()}
    return allocated(shed.home.root, without=drivers | shed.mounting.points())


class _Usages:
    """Exclusive bytes by driver and ID, asked once; 0 where the driver can't say."""

    def __init__(self, shed: Shed) -> None:
        self._shed = shed
        self._known: dict[tuple[str, str], int] = {}

    def of(self, driver: str, id: str) -> int:
        key = driver, id
        if key not in self._known:
            try:
                usage: Usage | None = self._shed.driver(driver).usage(id)
            except (CowshedError, OSError):  # removed meanwhile
                usage = None
            self._known[key] = 0 if usage is None else usage.exclusive
        return self._known[key]


def _alone(transaction: Transaction, image: Image) -> list[LayerRecord]:
    """Return the layers that nothing but this image needs, in every driver, top first."""
    found: list[LayerRecord] = []
    for driver in image.record.drivers:
        for chain in reversed(image.record.chains):
            record = transaction.layer(driver, chain)
            if record is None or record.references > 1:
                break
            found.append(record)
    return found


def _first(image: Image) -> tuple[str, ...]:
    return image.record.drivers[:1]


def allocated(root: Path, *, without: Collection[str] = ()) -> int:
    """Return the bytes allocated to everything below and including ``root``, as ``du`` counts."""
    seen: set[tuple[int, int]] = set()
    total = 0
    try:
        total = os.lstat(root).st_blocks * 512
    except FileNotFoundError:
        return 0
    todo = [os.fspath(root)]
    while todo:
        try:
            entries = list(os.scandir(todo.pop()))
        except (FileNotFoundError, PermissionError):
            continue  # removed meanwhile, or a driver's mode-less directory
        for entry in entries:
            if entry.path in without:
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if entry.is_dir(follow_symlinks=False):
                todo.append(entry.path)
            elif status.st_nlink > 1:
                key = status.st_dev, status.st_ino
                if key in seen:
                    continue
                seen.add(key)
            total += status.st_blocks * 512
    return total
