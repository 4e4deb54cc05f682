"""Referrers: by the registry's own list, or by the tag schema that clients keep up to date."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cowshed.cli.main import main
from cowshed.errors import SourceError
from cowshed_plugins.registry.client import Repository
from cowshed_plugins.registry.endpoint import Endpoint
from cowshed_plugins.registry.errors import RegistryError
from cowshed_plugins.registry.referrers import push_manifest, referrers, tag_of
from cowshed_plugins.registry.settings import Settings
from cowshed_plugins.registry.wire import Wire

from .images import OCI_INDEX, OCI_MANIFEST, Blob, MadeImage, Publisher, make_image
from .services import FaultProxy, RegistryProcess, answer

EMPTY = Blob(b"{}", "application/vnd.oci.empty.v1+json")


def repository(host: str, name: str) -> Repository:
    settings = Settings(pause=0.01, timeout=1, retries=2, auth_file="/nowhere")
    return Repository(Endpoint(host, settings, Wire(1)), name)


@pytest.fixture
def image(publisher: Publisher, name: str) -> MadeImage:
    made = make_image({"a": b"a"})
    publisher.image(name, made, "v1")
    publisher.blob(name, EMPTY.data)
    return made


def statement(image: MadeImage, kind: str, text: str = "") -> Blob:
    """Make an artifact about an image."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": kind,
        "config": EMPTY.descriptor,
        "layers": [],
        "subject": image.manifest.descriptor,
        "annotations": {"text": text},
    }
    return Blob(json.dumps(document).encode(), OCI_MANIFEST)


def test_a_registry_without_the_list_has_it_kept_under_a_tag(
    registry: RegistryProcess, publisher: Publisher, image: MadeImage, name: str
) -> None:
    place = repository(registry.host, name)
    assert referrers(place, image.manifest.digest) == []
    signature = statement(image, "test/signature", "one")
    other = statement(image, "test/sbom", "two")
    for one in (signature, other, signature):
        push_manifest(place, "", one.data, one.media_type)
    found = referrers(place, image.manifest.digest)
    assert [(item.digest, item.artifact_type) for item in found] == [
        (signature.digest, "test/signature"),
        (other.digest, "test/sbom"),
    ]
    assert found[0].annotations == {"text": "one"}
    assert [item.digest for item in referrers(place, image.manifest.digest, "test/sbom")] == [
        other.digest
    ]
    listed = publisher.get_manifest(name, tag_of(image.manifest.digest))
    assert listed.media_type == OCI_INDEX
    assert tag_of(image.manifest.digest) == f"sha256-{image.manifest.digest[7:]}"


def page(item: Blob, **headers: str) -> Any:
    """A page of the list that names one artifact."""
    listed = {**item.descriptor, "artifactType": json.loads(item.data)["artifactType"]}
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [listed]}
    return answer(200, json.dumps(document).encode(), **headers)


def test_a_registry_with_the_list_is_asked_for_all_its_pages(
    proxy: FaultProxy, image: MadeImage, name: str
) -> None:
    one, two = statement(image, "test/signature"), statement(image, "test/sbom")
    path = f"/v2/{name}/referrers/{image.manifest.digest}"

    proxy.on(f"GET {path}\\?page=2", action=page(two))
    proxy.on(f"GET {path}", action=page(one, Link=f'<{path}?page=2>; rel="next"'))
    place = repository(proxy.host, name)
    found = referrers(place, image.manifest.digest)
    assert [item.digest for item in found] == [one.digest, two.digest]


@pytest.mark.parametrize(
    "header",
    [
        "<{path}?page=2>;rel=next",
        '<?page=2>; title="a, <b>; rel=last"; REL="last next"',
        '</v2/other>; rel="first", <http://{host}{path}?page=2>; rel="next"; title="x"',
    ],
)
def test_the_next_page_is_found_in_every_form_of_the_header(
    proxy: FaultProxy, image: MadeImage, name: str, header: str
) -> None:
    one, two = statement(image, "test/signature"), statement(image, "test/sbom")
    path = f"/v2/{name}/referrers/{image.manifest.digest}"
    link = header.format(path=path, host=proxy.host)
    proxy.on(f"GET {path}\\?page=2", action=page(two, Link=f'<{path}>; rel="prev"'))
    proxy.on(f"GET {path}", action=page(one, Link=link))
    found = referrers(repository(proxy.host, name), image.manifest.digest)
    assert [item.digest for item in found] == [one.digest, two.digest]


@pytest.mark.parametrize(
    "link", ["//example.invalid/v2/", "http://127.0.0.1:1/", "file:///x", "http://{host}//one/v2/"]
)
def test_a_next_page_at_another_host_is_an_error(
    proxy: FaultProxy, image: MadeImage, name: str, link: str
) -> None:
    link = link.format(host=proxy.host)
    proxy.on("GET .*/referrers/", action=page(statement(image, "x"), Link=f'<{link}>; rel="next"'))
    with pytest.raises(RegistryError, match="its next page would be at"):
        referrers(repository(proxy.host, name), image.manifest.digest)


def test_pages_without_end_are_an_error(proxy: FaultProxy, image: MadeImage, name: str) -> None:
    proxy.on("GET .*/referrers/", action=page(statement(image, "x"), Link='<?n=1>; rel="next"'))
    with pytest.raises(RegistryError, match="have more than 100 pages"):
        referrers(repository(proxy.host, name), image.manifest.digest)


def test_a_registry_that_notes_the_subject_needs_no_tag(
    proxy: FaultProxy, image: MadeImage, name: str
) -> None:
    made = statement(image, "test/signature")
    proxy.on("PUT", action=answer(201, OCI_Subject=image.manifest.digest))
    push_manifest(repository(proxy.host, name), "", made.data, made.media_type)
    assert [one.path for one in proxy.requests("PUT")] == [f"/v2/{name}/manifests/{made.digest}"]


def test_a_tag_that_is_no_list_is_left_alone(
    registry: RegistryProcess, publisher: Publisher, image: MadeImage, name: str
) -> None:
    tag = tag_of(image.manifest.digest)
    publisher.image(name, image, tag)
    made = statement(image, "test/signature")
    with pytest.raises(SourceError, match="should list referrers"):
        push_manifest(repository(registry.host, name), "", made.data, made.media_type)
    assert publisher.get_manifest(name, tag) == image.manifest


def test_people_see_what_refers_to_an_image(
    registry: RegistryProcess,
    image: MadeImage,
    name: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    place = repository(registry.host, name)
    signature = statement(image, "test/signature", "by alice")
    bad = statement(image, "test/\x1b[31mred")
    for one in (signature, bad):
        push_manifest(place, "", one.data, one.media_type)
    root = tmp_path / "never made"

    def run(*words: str) -> str:
        assert main(["--root", str(root), "referrers", *words]) == 0
        return capsys.readouterr().out

    assert run(f"{registry.host}/{name}:v1").splitlines() == [
        f"DIGEST{' ' * 68}TYPE               SIZE",
        f"{signature.digest}   test/signature     {len(signature.data)}B",
        f"{bad.digest}   test/\\x1b[31mred   {len(bad.data)}B",
    ]
    by_digest = f"docker://{registry.host}/{name}@{image.manifest.digest}"
    assert run("-q", "--type", "test/signature", by_digest) == f"{signature.digest}\n"
    (listed,) = json.loads(run("--json", "--type", "test/signature", by_digest))
    assert listed["annotations"] == {"text": "by alice"}
    assert main(["referrers", f"{registry.host}/{name}:v2"]) == 1
    assert capsys.readouterr().err == f"cowshed: no such image: {registry.host}/{name}:v2\n"
    assert not root.exists()
