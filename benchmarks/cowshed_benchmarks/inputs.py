"""Inputs: the images of a run, made of what the user chose.

Whatever that is, the same set of tags comes of it: ``v1`` and ``v2``, the image and its update;
``v3`` and more, further versions; ``big-N``, one file of N megabytes; ``deep-N``, N thin layers.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO

import attrs

from .actors.material import Material, open_layer
from .oci_layout import Layer, LayoutWriter
from .results import ImageFacts, Input

MEBI = 1 << 20
SEED = 20_260_101
#: Grows when other images are made of the same wish, so that older ones are made anew.
_MADE = 1
#: In a version derived from another, one file of so many is another.
EDITED = 20


@attrs.frozen(kw_only=True)
class Wish:
    """What the user wants to work on."""

    #: References of one or two images, oldest first; none: files of this machine.
    images: tuple[str, ...] = ()
    #: Bytes of a synthetic image; None: none.
    synthetic: int | None = None
    #: Bytes of files of this machine that a layer gets.
    limit: int = 12 * MEBI
    seed: int = SEED

    @property
    def title(self) -> str:
        """Say what it is."""
        if self.images:
            return " and ".join(self.images)
        if self.synthetic is not None:
            return f"a synthetic image of {self.synthetic / 1e6:.0f} MB"
        return "files of this machine"

    @property
    def key(self) -> str:
        """Return a name for what is made of it; an image that is given may change."""
        words = json.dumps([self.synthetic, self.limit, self.seed, _MADE])
        return hashlib.sha256(words.encode()).hexdigest()[:12]


def make_material(
    wish: Wish,
    root: Path,
    tags: Iterable[str],
    config: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Material:
    """Make the images with these tags below ``root``; those that are there already stay.

    ``config`` and ``overrides`` are Cowshed's, for reading images that were given.

    Raises:
        CowshedError: an image that was asked for can't be read.
    """
    material = Material(root)
    root.mkdir(parents=True, exist_ok=True)
    if not (root / "complete").exists():
        for name in root.iterdir():
            shutil.rmtree(name) if name.is_dir() else name.unlink()
        _make_versions(wish, material, config, overrides)
        (root / "complete").touch()
    writer = LayoutWriter(material.layout)
    known = _tags(material)
    for tag in sorted({*tags} - known):
        _make_one(wish, material, writer, tag)
    writer.finish()
    return material


def facts(wish: Wish, material: Material) -> Input:
    """Say what the images are."""
    return Input(
        title=wish.title,
        images=tuple(_facts_of(material, tag) for tag in ("v1", "v2")),
        seed=wish.seed if wish.synthetic is not None else None,
    )


def _facts_of(material: Material, tag: str) -> ImageFacts:
    unpacked = entries = 0
    layers: list[dict[str, Any]] = material.manifest(tag)["layers"]
    for descriptor in layers:
        with open_layer(material, descriptor) as raw, _reading(raw) as tar:
            for member in tar:
                entries += 1
                unpacked += member.size
    return ImageFacts(
        reference=tag,
        layers=len(layers),
        unpacked=unpacked,
        entries=entries,
        compressed=sum(layer["size"] for layer in layers),
    )


def _tags(material: Material) -> set[str]:
    index = json.loads((material.layout / "index.json").read_text())
    return {
        one.get("annotations", {}).get("org.opencontainers.image.ref.name", "")
        for one in index["manifests"]
    }


def _make_versions(
    wish: Wish, material: Material, config: str | None, overrides: Mapping[str, Any] | None
) -> None:
    if wish.images:
        _take(wish.images, material, config, overrides)
    elif wish.synthetic is not None:
        from .synthetic import make_synthetic

        writer = LayoutWriter(material.layout)
        writer.image("v1", make_synthetic(writer, wish.synthetic, wish.seed))
        writer.finish()
    else:
        from .sample_image import make_sample

        make_sample(material.layout, limit=wish.limit, data=wish.limit)


def _take(
    references: Sequence[str],
    material: Material,
    config: str | None,
    overrides: Mapping[str, Any] | None,
) -> None:
    """Copy what was given into the layout, by Cowshed, whatever it is."""
    from cowshed import Shed

    root = material.root / "copying"
    try:
        with Shed(root, config=config, overrides=overrides) as shed:
            for number, reference in enumerate(references, 1):
                shed.copy(reference, f"oci:{material.layout}:v{number}")
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _make_one(wish: Wish, material: Material, writer: LayoutWriter, tag: str) -> None:
    kind, _, number = tag.rpartition("-")
    if kind == "big":
        from .synthetic import big_file

        size = int(number) * 1000 * 1000
        layer = writer.layer(tag, lambda out: big_file(out, "big", size, wish.seed), compress=False)
        writer.image(tag, [layer])
    elif kind == "deep":
        from .synthetic import thin_layer

        layers: list[Layer] = []
        for depth in range(int(number)):

            def write(out: BinaryIO, depth: int = depth) -> None:
                thin_layer(out, depth, wish.seed)

            layers.append(writer.layer(f"layer {depth}", write))
        writer.image(tag, layers)
    else:
        _derive(material, writer, tag)


def _derive(material: Material, writer: LayoutWriter, tag: str) -> None:
    """Make another version of ``v1``: in its largest layer but the base, some files are edited, as
    a rebuild would; the layers below and above stay."""
    manifest, config = material.manifest("v1"), material.config("v1")
    diff_ids: list[str] = config["rootfs"]["diff_ids"]
    layers = [
        Layer(descriptor, diff_id, f"layer {number}")
        for number, (descriptor, diff_id) in enumerate(
            zip(manifest["layers"], diff_ids, strict=True)
        )
    ]
    sizes = [int(layer.descriptor["size"]) for layer in layers]
    at = max(range(min(1, len(layers) - 1), len(layers)), key=sizes.__getitem__)
    version = int(tag.removeprefix("v"))

    def write(out: BinaryIO) -> None:
        with open_layer(material, dict(layers[at].descriptor)) as raw:
            edit(raw, out, version)

    layers[at] = writer.layer(f"layer {at}, version {version}", write)
    writer.image(tag, layers)


def edit(source: IO[bytes], out: BinaryIO, version: int) -> None:
    """Copy a tar and change some of its files."""
    with (
        _reading(source) as tar,
        tarfile.open(
            fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, errors="surrogateescape"
        ) as edited,
    ):
        for number, member in enumerate(tar):
            content = tar.extractfile(member) if member.isreg() else None
            if content is None:
                edited.addfile(member)
            elif number % EDITED == version % EDITED:
                data = content.read() + f"\n# edited in version {version}\n".encode()
                member.size = len(data)
                edited.addfile(member, io.BytesIO(data))
            else:
                edited.addfile(member, content)


def _reading(raw: IO[bytes]) -> contextlib.AbstractContextManager[tarfile.TarFile]:
    return tarfile.open(fileobj=raw, mode="r|", errors="surrogateescape")
