"""``docker-archive:FILE[:NAME]``: what ``docker save`` writes and ``docker load`` reads.

``manifest.json`` lists images as ``{"Config": …, "RepoTags": […], "Layers": […]}`` (moby,
image/tarexport). Since Docker 25 such an archive is an OCI layout too, and both views name the same
blobs; ours is. The older ``repositories`` file is written, for the oldest readers, and not read.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from cowshed.errors import NotFoundError, SourceError, UsageError
from cowshed.names import image_name
from cowshed.oci import Descriptor, ImageConfig, Platform, build_index
from cowshed.oci.document import Fields, dump, load_any
from cowshed.target import SavedImage, Target, Written
from cowshed.transport import Source, SourceImage, SourceLayer, Transport

from .archive_files import open_archive
from .compression import check_compression, layer_bytes, sniff
from .files import Files
from .layout import (
    CONTAINERD_NAME,
    REF_NAME,
    LayoutSource,
    blob_name,
    familiar,
    qualified,
    split_place,
    title_of,
    valid_name,
)
from .oci_layout import LAYOUT_FILE, Output
from .staging import Staging, write_archive


class DockerArchiveTransport(Transport):
    """Archives of ``docker save``; ``-`` is standard input or output."""

    def open_source(self, rest: str) -> Source:
        path, wanted = split_place(rest)
        files = open_archive(path)
        if files.size("manifest.json") is None and files.size("index.json") is not None:
            return LayoutSource(files, title_of(path), wanted, every=True)
        return DockerArchiveSource(files, wanted)

    def open_target(
        self, rest: str, *, compression: str | None = None, level: int | None = None
    ) -> Target:
        path, name = split_place(rest)
        return DockerArchiveTarget(path, image_name(name) if name else "", compression, level)


class DockerArchiveSource(Source):
    """All images of an archive, or the one called ``wanted`` or, as skopeo has it, ``@NUMBER``."""

    def __init__(self, files: Files, wanted: str) -> None:
        self._files = files
        self._wanted = wanted

    def close(self) -> None:
        self._files.close()

    def images(self, platform: Platform | None = None) -> list[SourceImage]:
        name = f"manifest.json of {self._files.where}"
        if self._files.size("manifest.json") is None:
            raise SourceError(
                f"{self._files.where} is neither a docker archive nor an OCI layout: it has "
                "no 'manifest.json'; for the tar of a root file system use tar:"
            )
        listed = load_any(self._files.read("manifest.json"), name)
        items = Fields({"images": listed}, name).objects("images")
        if not items:
            raise SourceError(f"{self._files.where} holds no image")
        return [self._image(item, platform) for item in self._choose(items)]

    def _choose(self, items: list[Fields]) -> list[Fields]:
        if not self._wanted:
            return items
        if self._wanted.startswith("@") and self._wanted[1:].isdecimal():
            number = int(self._wanted[1:6])
            if number < len(items):
                return [items[number]]
        wanted = self._wanted if self._wanted.startswith("@") else image_name(self._wanted)
        for item in items:
            if familiar(wanted) in map(familiar, item.texts("RepoTags")):
                # The other names weren't asked for.
                return [Fields({**item.values, "RepoTags": [familiar(wanted)]}, item.what)]
        known = [tag for item in items for tag in item.texts("RepoTags")]
        raise NotFoundError(f"image in {self._files.where}", self._wanted, known)

    def _image(self, item: Fields, platform: Platform | None) -> SourceImage:
        config = ImageConfig.parse(self._files.read(item.text("Config", None)))
        layers = item.texts("Layers")
        config.check_layers(len(layers))
        config.check_platform(platform, self._files.where)
        names = tuple(filter(None, (valid_name(familiar(tag)) for tag in item.texts("RepoTags"))))
        return SourceImage(
            reference=names[0] if names else "",
            names=names,
            manifest=None,
            config=config,
            layers=tuple(
                self._layer(path, diff_id)
                for path, diff_id in zip(layers, config.diff_ids, strict=True)
            ),
            origin=self._files.where,
        )

    def _layer(self, path: str, diff_id: str) -> SourceLayer:
        # Called .tar whatever they are: some writers keep the registry's compressed bytes.
        with self._files.open(path) as file:
            found = sniff(file.read(512))
        compression, opened = layer_bytes(found, lambda: self._files.open(path))
        return SourceLayer(diff_id=diff_id, compression=compression, open=opened)


class DockerArchiveTarget(Target):
    """One new archive, readable as ``docker save``'s and as an OCI layout."""

    def __init__(self, path: str, name: str, compression: str | None, level: int | None) -> None:
        check_compression(compression, level)
        self._name = name
        self._output = Output(path)
        # Uncompressed whatever is asked for: that is what the format has always held.
        self._staging = Staging(self._output.directory, "none", 0)

    def written(self) -> Sequence[Written]:
        return self._staging.written

    def write_image(self, image: SavedImage) -> None:
        self._staging.listener = self.listener
        if self._name:
            if self._staging.images:
                raise UsageError(f"several images can't all be called {self._name!r}")
            image = attrs.evolve(image, names=(self._name,))
        self._staging.add(image)

    def commit(self) -> None:
        repositories: dict[str, dict[str, str]] = {}
        listed: dict[str, dict[str, object]] = {}
        tags_of: dict[str, list[str]] = {}
        entries: list[Descriptor] = []
        for staged in self._staging.images:
            config = staged.image.config.digest
            names = [familiar(name) for name in staged.image.names]
            tags = tags_of.setdefault(config, [])
            tags.extend(name for name in names if name not in tags)
            listed[config] = {
                "Config": blob_name(config),
                "RepoTags": tags,
                "Layers": [blob_name(layer.digest) for layer in staged.layers],
                "LayerSources": {layer.digest: layer.to_json() for layer in staged.layers},
            }
            for name in names:
                repository, _, tag = name.rpartition(":")
                top = staged.layers[-1].digest if staged.layers else config
                repositories.setdefault(repository, {})[tag] = top.partition(":")[2]
                annotations = {CONTAINERD_NAME: qualified(name), REF_NAME: tag}
                entries.append(attrs.evolve(staged.manifest, annotations=annotations))
            if not names:
                entries.append(staged.manifest)
        documents = {
            "oci-layout": LAYOUT_FILE,
            "index.json": build_index(entries),
            "manifest.json": dump(list(listed.values())),
            "repositories": dump(repositories),
        }
        self._output.publish(lambda out: write_archive(out, self._staging, documents))

    def close(self) -> None:
        self._staging.close()
