"""Documents from strangers: what is read, what is refused and how the refusal reads."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowshed.errors import (
    CowshedError,
    LimitExceededError,
    SourceError,
    UnsupportedError,
    UsageError,
)
from cowshed.oci import (
    Descriptor,
    Digest,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    build_manifest,
    chain_ids,
    choose,
    digest_bytes,
    layer_compression,
    media,
    new_config,
    parse_digest,
    parse_document,
)
from cowshed.oci.document import Fields

A = "sha256:" + "a" * 64
B = "sha256:" + "b" * 64
C = "sha256:" + "c" * 64


def manifest(**changes: Any) -> bytes:
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": {"mediaType": media.OCI_CONFIG, "digest": A, "size": 2},
        "layers": [{"mediaType": media.OCI_LAYER_GZIP, "digest": B, "size": 3}],
    }
    document.update(changes)
    return json.dumps({name: value for name, value in document.items() if value != "-"}).encode()


def index(*platforms: str, **changes: Any) -> bytes:
    items = []
    for number, text in enumerate(platforms):
        digest = f"sha256:{number:064x}"
        item: dict[str, Any] = {"mediaType": media.OCI_MANIFEST, "digest": digest, "size": 1}
        if text:
            os, architecture, *variant = text.split("/")
            item["platform"] = {"os": os, "architecture": architecture}
            if variant:
                item["platform"]["variant"] = variant[0]
        items.append(item)
    return json.dumps({"schemaVersion": 2, "manifests": items, **changes}).encode()


def config(**changes: Any) -> bytes:
    document: dict[str, Any] = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [A, B]},
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
    }
    document.update(changes)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 63 + "\n",
        "sha256:" + "a" * 64 + "\n",
        "sha256:../../../../etc/passwd",
        "sha256:" + "../" * 21 + "a",
        "sha256:" + "٠" * 64,
        "md5:" + "a" * 32,
        "SHA256:" + "a" * 64,
        "sha512:" + "a" * 64,
        "x" * 10_000,
    ],
)
def test_what_is_no_digest_never_becomes_one(text: str) -> None:
    with pytest.raises(SourceError, match="invalid digest"):
        parse_digest(text)
    with pytest.raises(SourceError):
        Descriptor(media_type="x", digest=text, size=1)


@given(st.binary(max_size=100))
def test_a_digest_that_is_one_comes_back_unchanged(data: bytes) -> None:
    assert parse_digest(digest_bytes(data)) == digest_bytes(data)
    assert str(Digest.parse("sha512:" + "0f" * 64)) == "sha512:" + "0f" * 64


def test_a_manifest_of_either_kind_is_read() -> None:
    parsed = Manifest.parse(manifest(annotations={"a": "b"}))
    assert parsed.config.digest == A
    assert [layer.digest for layer in parsed.layers] == [B]
    assert parsed.annotations == {"a": "b"}
    docker = manifest(
        mediaType=media.DOCKER_MANIFEST,
        config={"mediaType": media.DOCKER_CONFIG, "digest": A, "size": 2},
        layers=[{"mediaType": media.DOCKER_LAYER_GZIP, "digest": B, "size": 3}],
    )
    assert Manifest.parse(docker, media.DOCKER_MANIFEST).media_type == media.DOCKER_MANIFEST
    assert Manifest.parse(manifest(mediaType="-")).media_type == media.OCI_MANIFEST


@pytest.mark.parametrize(
    ("raw", "given_type", "says"),
    [
        (manifest(manifests=[]), None, "both manifest and index"),
        (manifest(), media.DOCKER_MANIFEST, "announced as"),
        (manifest(mediaType=media.OCI_INDEX), None, "is not|isn't|doesn't contain|isn't read"),
        (index("linux/amd64"), media.OCI_MANIFEST, "doesn't contain"),
        (manifest(schemaVersion=3), None, "schemaVersion"),
        (manifest(schemaVersion="2"), None, "schemaVersion"),
        (manifest(config=None), None, "lacks 'config'"),
        (manifest(config=[]), None, "should be an object"),
        (manifest(layers={}), None, "should be a list"),
        (manifest(layers=[1]), None, "list of objects"),
        (
            manifest(layers=[{"mediaType": media.OCI_LAYER, "digest": "sha256:..", "size": 1}]),
            None,
            "invalid digest",
        ),
        (
            manifest(layers=[{"mediaType": media.OCI_LAYER, "digest": A, "size": -1}]),
            None,
            "whole number",
        ),
        (
            manifest(layers=[{"mediaType": media.OCI_LAYER, "digest": A, "size": True}]),
            None,
            "whole number",
        ),
        (manifest(annotations={"a": 1}), None, "object of strings"),
        (b"[]", None, "not a JSON object"),
        (b"{", None, "not valid JSON"),
        (b"\xff\xfe", None, "not valid JSON"),
        (b'{"schemaVersion": 2, "schemaVersion": 1}', None, "twice"),
        (b'{"schemaVersion": NaN}', None, "not JSON"),
        (b'{"a": "\\ud800"}', None, "not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", None, "not valid JSON"),
        (b'{"a":' * 100_000, None, "nested too deeply|not valid JSON"),
    ],
)
def test_a_hostile_manifest_is_refused(raw: bytes, given_type: str | None, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        Manifest.parse(raw, given_type)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (json.dumps({"schemaVersion": 1, "fsLayers": []}).encode(), "schema 1.*skopeo"),
        (
            manifest(config={"mediaType": "application/vnd.cncf.helm", "digest": A, "size": 1}),
            "artifact of type 'application/vnd.cncf.helm'",
        ),
        (
            manifest(
                layers=[
                    {
                        "mediaType": media.DOCKER_FOREIGN + ".gzip",
                        "digest": A,
                        "size": 1,
                        "urls": ["https://example.org/layer"],
                    }
                ]
            ),
            "foreign.*" + media.DOCKER_FOREIGN,
        ),
        (
            manifest(layers=[{"mediaType": "application/x-lzma", "digest": A, "size": 1}]),
            "application/x-lzma",
        ),
        (
            manifest(
                layers=[{"mediaType": media.OCI_LAYER_GZIP + "+encrypted", "digest": A, "size": 1}]
            ),
            "encrypted",
        ),
    ],
)
def test_what_is_not_supported_is_named(raw: bytes, says: str) -> None:
    with pytest.raises(UnsupportedError, match=says):
        Manifest.parse(raw)


def test_documents_are_bounded_at_four_mebibytes() -> None:
    with pytest.raises(LimitExceededError):
        Manifest.parse(manifest(annotations={"a": "x" * (4 << 20)}))
    with pytest.raises(LimitExceededError):
        ImageConfig.parse(config(author="x" * (4 << 20)))
    with pytest.raises(SourceError, match="4 MiB"):
        Manifest.parse(
            manifest(config={"mediaType": media.OCI_CONFIG, "digest": A, "size": 5 << 20})
        )


@given(st.binary(max_size=300))
def test_bytes_of_any_kind_are_read_or_refused(raw: bytes) -> None:
    for parse in (parse_document, Index.parse, ImageConfig.parse):
        with contextlib.suppress(CowshedError):
            parse(raw)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(
    st.sampled_from(["schemaVersion", "mediaType", "config", "layers", "manifests", "annotations"]),
    _json,
)
def test_a_field_of_any_type_is_read_or_refused(field: str, value: object) -> None:
    with contextlib.suppress(CowshedError):
        parse_document(manifest(**{field: value}))


@given(
    st.sampled_from(["created", "author", "os", "architecture", "config", "rootfs", "history"]),
    _json,
)
def test_a_config_of_any_type_is_read_or_refused(field: str, value: object) -> None:
    with contextlib.suppress(CowshedError):
        new_config(ImageConfig.parse(config(**{field: value})), C, created="2024-01-01T00:00:00Z")


def test_a_manifest_is_written_the_same_every_time() -> None:
    descriptor = Descriptor(media_type=media.OCI_CONFIG, digest=A, size=2)
    layer = Descriptor(media_type=media.OCI_LAYER_GZIP, digest=B, size=3)
    raw = build_manifest(descriptor, [layer], {"b": "2", "a": "1"})
    assert raw == build_manifest(descriptor, [layer], {"a": "1", "b": "2"})
    assert Manifest.parse(raw, media.OCI_MANIFEST).layers == (layer,)


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], 1),
        ("linux/amd64", ["linux/386", "linux/amd64"], 1),
        ("linux/amd64", ["linux/386"], 0),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], 1),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64/v8"], 1),
        ("linux/arm64/v8", ["linux/arm64"], 0),
        ("linux/arm64", ["linux/arm/v6", "linux/arm/v7"], 1),
        ("linux/arm", ["linux/arm/v6", "linux/arm/v5"], 0),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm/v6"], 1),
        ("linux/aarch64", ["linux/amd64", "linux/arm64"], 1),
        ("x86_64", ["linux/arm64", "linux/amd64"], 1),
        ("linux/amd64", ["", "linux/amd64"], 1),
        ("linux/amd64", ["linux/arm64", ""], 1),
        ("linux/amd64", ["linux/amd64", "linux/amd64"], 0),
    ],
)
def test_the_platform_that_runs_best_is_chosen(
    wanted: str, offered: list[str], chosen: int
) -> None:
    found = Index.parse(index(*offered)).choose(Platform.parse(wanted))
    assert found.digest == f"sha256:{chosen:064x}"


@pytest.mark.parametrize(
    ("wanted", "offered"),
    [
        ("linux/386", ["linux/amd64"]),
        ("linux/arm64", ["linux/amd64", "windows/arm64"]),
        ("linux/arm/v6", ["linux/arm/v7"]),
        ("linux/amd64", ["linux/amd64/v2"]),
        ("linux/amd64", ["unknown/unknown"]),
        ("linux/amd64", []),
    ],
)
def test_where_nothing_runs_the_error_lists_what_there_is(wanted: str, offered: list[str]) -> None:
    with pytest.raises(UnsupportedError) as caught:
        Index.parse(index(*offered)).choose(Platform.parse(wanted))
    for text in offered:
        if not text.startswith("unknown"):
            assert text in str(caught.value)


def test_of_very_many_none_but_the_best_is_kept() -> None:
    items = [
        {"mediaType": media.OCI_MANIFEST, "digest": A, "size": 1, "platform": platform}
        for platform in ({"os": "linux", "architecture": f"a{n}"} for n in range(1000))
    ]
    fields = Fields({"manifests": items}, "index").objects("manifests")
    offered = (Descriptor.from_json(one) for _ in range(20) for one in fields)
    tracemalloc.start()
    try:
        with pytest.raises(UnsupportedError, match="there is linux/a0, ") as caught:
            choose(offered, Platform.parse("linux/amd64"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 1000
    assert peak < 200_000


def test_this_machine_has_a_platform() -> None:
    assert Platform.host().os == "linux"
    assert Platform.host().matches(Platform.host())
    for bad in ("", "linux/", "a/b/c/d", "linux/am d64"):
        with pytest.raises(UsageError, match="invalid platform"):
            Platform.parse(bad)


def test_chain_ids_are_those_of_the_specification() -> None:
    import hashlib

    two = hashlib.sha256(f"{A} {B}".encode()).hexdigest()
    three = hashlib.sha256(f"sha256:{two} {C}".encode()).hexdigest()
    assert chain_ids([A, B, C]) == (A, f"sha256:{two}", f"sha256:{three}")
    assert chain_ids([]) == ()


def test_layer_compression_follows_the_media_type() -> None:
    assert layer_compression(media.OCI_LAYER) == "none"
    assert layer_compression(media.DOCKER_LAYER_GZIP) == "gzip"
    assert layer_compression(media.OCI_LAYER_ZSTD) == "zstd"
    with pytest.raises(UnsupportedError, match="'tar/'"):
        layer_compression("tar/")


def test_a_config_with_the_wrong_number_of_layers_is_refused() -> None:
    parsed = ImageConfig.parse(config())
    parsed.check_layers(2)
    with pytest.raises(SourceError, match="3 layers, but its config has 2"):
        parsed.check_layers(3)
    with pytest.raises(SourceError, match="invalid digest"):
        ImageConfig.parse(config(rootfs={"type": "layers", "diff_ids": ["sha256:/"]}))
    with pytest.raises(UnsupportedError, match=r"layers\+base"):
        ImageConfig.parse(config(rootfs={"type": "layers+base", "diff_ids": []}))


def test_history_pairs_each_layer_once_even_where_it_is_too_short_or_too_long() -> None:
    def pairs(*empty: bool) -> list[str | None]:
        history = [{"created_by": "x", "empty_layer": value} for value in empty]
        return [diff for _, diff in ImageConfig.parse(config(history=history)).steps()]

    assert pairs(False, True, False) == [A, None, B]
    assert pairs() == [A, B]
    assert pairs(True, False) == [None, A, B]
    assert pairs(False, False, False) == [A, B, None]


def test_a_commit_adds_one_layer_and_one_step_and_keeps_the_rest() -> None:
    base = ImageConfig.parse(config(author="ann", **{"os.version": "1", "x-extra": [1]}))
    made = new_config(
        base,
        C,
        created="2024-02-03T04:05:06Z",
        author="",
        comment="why",
        created_by="make",
        changes=["ENV A=1"],
    )
    assert made.diff_ids == (A, B, C)
    assert made.author == "ann"
    assert json.loads(made.raw)["x-extra"] == [1]
    assert made.config == {"Env": ["PATH=/bin", "A=1"], "Cmd": ["sh"]}
    assert [diff for _, diff in made.steps()] == [A, B, C]
    assert made.history[-1].comment == "why"
    again = new_config(made, None, created="2024-02-03T04:05:06Z")
    assert again.diff_ids == made.diff_ids
    assert again.history[-1].empty_layer
    alone = new_config(None, C, created="2024-02-03T04:05:06Z")
    assert (alone.os, alone.diff_ids) == ("linux", (C,))


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ('CMD ["a", "b c"]', "Cmd", ["a", "b c"]),
        ("cmd echo $HOME", "Cmd", ["/bin/sh", "-c", "echo $HOME"]),
        ('ENTRYPOINT ["/x"]', "Entrypoint", ["/x"]),
        ("ENV PATH=/opt/bin:$PATH", "Env", ["PATH=/opt/bin:/bin"]),
        (
            "ENV A='$PATH' B=\"${PATH}\" C=\\$PATH",
            "Env",
            ["PATH=/bin", "A=$PATH", "B=/bin", "C=$PATH"],
        ),
        ("ENV A=${NO:-d} B=${PATH:+y}", "Env", ["PATH=/bin", "A=d", "B=y"]),
        ("ENV A some  words", "Env", ["PATH=/bin", "A=some words"]),
        ("EXPOSE 80 53/udp", "ExposedPorts", {"80/tcp": {}, "53/udp": {}}),
        ("EXPOSE 80-82/tcp", "ExposedPorts", {"80/tcp": {}, "81/tcp": {}, "82/tcp": {}}),
        ('LABEL a="b c" d=e', "Labels", {"a": "b c", "d": "e"}),
        ("ONBUILD RUN make", "OnBuild", ["RUN make"]),
        ("USER nobody:nogroup", "User", "nobody:nogroup"),
        ('VOLUME ["/a", "/b"]', "Volumes", {"/a": {}, "/b": {}}),
        ("VOLUME /a /b", "Volumes", {"/a": {}, "/b": {}}),
        ("WORKDIR srv/../x", "WorkingDir", "/x"),
        ("STOPSIGNAL SIGRTMIN+3", "StopSignal", "SIGRTMIN+3"),
        ("STOPSIGNAL 9", "StopSignal", "9"),
    ],
)
def test_changes_are_made_as_docker_makes_them(change: str, field: str, value: object) -> None:
    made = new_config(ImageConfig.parse(config()), None, created="x", changes=[change])
    assert made.config[field] == value


def test_a_new_entry_point_forgets_the_inherited_command_only() -> None:
    base = ImageConfig.parse(config())
    made = new_config(base, None, created="x", changes=['ENTRYPOINT ["/x"]'])
    assert "Cmd" not in made.config
    made = new_config(base, None, created="x", changes=['CMD ["y"]', 'ENTRYPOINT ["/x"]'])
    assert made.config["Cmd"] == ["y"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("RUN make", "can't change 'RUN'"),
        ("CMDD x", "did you mean 'CMD'"),
        ("", "can't change ''"),
        ("CMD", "needs a value"),
        ("CMD [1]", "isn't a string"),
        ("ENV A", "no value"),
        ("ENV A=1 B", "NAME=VALUE"),
        ("ENV A='1", "isn't closed"),
        ("EXPOSE 0", "out of range"),
        ("EXPOSE 70000", "out of range"),
        ("EXPOSE http", "is no port"),
        ("ONBUILD ONBUILD RUN x", "can't be triggered"),
        ("USER a b", "one word"),
        ("STOPSIGNAL a/b", "no signal"),
        ("LABEL a=\udcff", "valid Unicode"),
    ],
)
def test_a_change_that_makes_no_sense_is_a_usage_error(change: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        new_config(ImageConfig.parse(config()), None, created="x", changes=[change])
