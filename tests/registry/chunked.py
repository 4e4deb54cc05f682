"""zstd:chunked and eStargz written by hand from their descriptions, so that they can lie, too."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import zstandard

from .images import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Blob, MadeImage, digest_of

ZSTD = "io.github.containers.zstd-chunked"
STARGZ = "containerd.io/snapshot/stargz/toc.digest"
Mangle = Callable[[dict[str, Any]], Any]


@attrs.frozen
class Layer:
    tar: bytes = attrs.field(repr=False)
    blob: Blob


def image_of(*layers: Layer) -> MadeImage:
    config = Blob(
        json.dumps(
            {
                "os": "linux",
                "architecture": "amd64",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [digest_of(one.tar) for one in layers]},
            }
        ).encode(),
        OCI_CONFIG,
    )
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.descriptor,
        "layers": [one.blob.descriptor for one in layers],
    }
    manifest = Blob(json.dumps(document).encode(), OCI_MANIFEST)
    return MadeImage(
        manifest, config, tuple(one.blob for one in layers), tuple(one.tar for one in layers)
    )


def members(tar: bytes) -> Iterator[tuple[tarfile.TarInfo, bytes, bytes]]:
    """Yield members with what stands before their content and with that."""
    at = 0
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        for info in opened:
            size = info.size if info.isreg() else 0
            yield info, tar[at : info.offset_data], tar[info.offset_data : info.offset_data + size]
            at = info.offset_data + size
    yield tarfile.TarInfo(""), tar[at:], b""


def fields(info: tarfile.TarInfo) -> dict[str, Any]:
    kinds = {tarfile.REGTYPE: "reg", tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "symlink"}
    found: dict[str, Any] = {"type": kinds[info.type], "name": info.name, "mode": info.mode}
    if info.size:
        found["size"] = info.size
    if info.linkname:
        found["linkName"] = info.linkname
    return found


def zstd_chunked(
    tar: bytes,
    *,
    mangle: Mangle = lambda table: table,
    split: bool = True,
    mangle_split: Callable[[list[dict[str, Any]]], Any] = lambda lines: lines,
    notes: Callable[[dict[str, str]], Any] = lambda notes: notes,
    pack: Callable[[bytes], bytes] = lambda table: zstandard.compress(table),
) -> Layer:
    """Make a layer; the functions change what they are given before it is packed."""
    out = bytearray()
    entries: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    for info, before, content in members(tar):
        out += zstandard.compress(before)
        lines.append({"type": 2, "payload": base64.b64encode(before).decode()})
        if not info.name:
            break
        entry = fields(info)
        lines.append({"type": 1, "name": info.name, "size": info.size, "payload": "AAAAAAAAAAA="})
        if content:
            entry |= {"digest": digest_of(content), "offset": len(out)}
            out += zstandard.compress(content)
            entry["endOffset"] = len(out)
        entries.append(entry)
    mangle_split(lines)
    packed_split = zstandard.compress(b"".join(json.dumps(one).encode() + b"\n" for one in lines))
    table: dict[str, Any] = {"version": 1, "entries": entries}
    if split:
        table["tarSplitDigest"] = digest_of(packed_split)
    changed = mangle(table)
    plain = changed if isinstance(changed, bytes) else json.dumps(table).encode()
    packed = pack(plain)
    out += _skippable(packed)
    annotations = {
        f"{ZSTD}.manifest-checksum": digest_of(packed),
        f"{ZSTD}.manifest-position": f"{len(out) - len(packed)}:{len(packed)}:{len(plain)}:1",
    }
    if split:
        out += _skippable(packed_split)
        start = len(out) - len(packed_split)
        annotations[f"{ZSTD}.tarsplit-position"] = f"{start}:{len(packed_split)}:1"
    out += _skippable(bytes(64))
    notes(annotations)
    return Layer(tar, Blob(bytes(out), f"{OCI_LAYER}+zstd", annotations))


def _skippable(data: bytes) -> bytes:
    return b"\x50\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data


def stargz(tar: bytes, *, chunk: int = 1 << 20, mangle: Mangle = lambda table: table) -> Layer:
    """Make an eStargz layer of what ``tar`` holds; its own tar has the table at its end."""
    out = bytearray()
    entries: list[dict[str, Any]] = []
    plain = bytearray()
    member = bytearray()

    def close() -> None:
        out.extend(gzip.compress(bytes(member), 6, mtime=0))
        plain.extend(member)
        member.clear()

    for info, before, content in members(tar):
        if not info.name:
            at = len(plain) + len(member)
            member += bytes(-at % 512)  # the padding, without the end
            break
        member += before
        entry = fields(info)
        if content:
            entry["digest"] = digest_of(content)
        for at in range(0, len(content), chunk):
            piece = content[at : at + chunk]
            close()
            entry |= {"offset": len(out), "chunkDigest": digest_of(piece)}
            if at:
                entry["chunkOffset"] = at
            if at + chunk < len(content):
                entry["chunkSize"] = len(piece)
            member += piece
            entries.append(entry)
            entry = {"type": "chunk", "name": info.name}
        if not content:
            entries.append(entry)
    close()
    table: dict[str, Any] = {"version": 1, "entries": entries}
    changed = mangle(table)
    raw = changed if isinstance(changed, bytes) else json.dumps(table).encode()
    info = tarfile.TarInfo("stargz.index.json")
    info.size = len(raw)
    start = len(out)
    member += info.tobuf() + raw + bytes(-len(raw) % 512 + 1024)
    close()
    extra = b"SG\x16\x00" + f"{start:016x}STARGZ".encode()
    out += b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0" + extra + b"\x01\0\0\xff\xff" + bytes(8)
    notes = {STARGZ: f"sha256:{hashlib.sha256(raw).hexdigest()}"}
    return Layer(bytes(plain), Blob(bytes(out), f"{OCI_LAYER}+gzip", notes))
