"""Hostile and malformed headers are refused in one line; nothing hangs or escapes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archive.helpers import Member, Stack, directory, file, link, listing, member, symlink, tar
from cowshed.archive import Limits
from cowshed.archive.header import read_number, write_header
from cowshed.archive.pax import read_records, read_time, write_records, write_time
from cowshed.entry import Kind
from cowshed.errors import (
    ArchiveError,
    CowshedError,
    LimitExceededError,
    SourceError,
    UnsupportedError,
)


def raw(header: bytes, data: bytes = b"") -> bytes:
    return header + data + bytes(-len(data) % 512) + bytes(1024)


def pax(records: dict[bytes, bytes] | bytes, name: bytes = b"f", size: int = 0) -> bytes:
    data = records if isinstance(records, bytes) else write_records(records)
    extended = write_header(name=b"pax", flag=b"x", size=len(data)) + data + bytes(-len(data) % 512)
    return extended + write_header(name=name, flag=b"0", size=size)


def with_field(start: int, value: bytes, flag: bytes = b"0") -> bytes:
    block = bytearray(write_header(name=b"f", flag=flag))
    block[start : start + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def old_sparse(runs: bytes, real: bytes, stored: int) -> bytes:
    block = bytearray(write_header(name=b"f", flag=b"S", size=stored))
    block[257:265] = b"ustar  \0"
    block[345:500] = bytes(155)
    block[386 : 386 + len(runs)] = runs
    block[483:495] = real
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def octal(*numbers: int) -> bytes:
    return b"".join(b"%011o\0" % number for number in numbers)


DAMAGED: dict[str, bytes] = {
    "not_a_tar": b"x" * 2048,
    "part_of_a_header": b"x" * 100,
    "wrong_checksum": raw(write_header(name=b"f", flag=b"0").replace(b"f", b"g", 1)),
    "cut_in_content": raw(write_header(name=b"f", flag=b"0", size=5000))[:1000],
    "cut_in_extended_header": pax({b"path": b"x" * 2000})[:1000],
    "lone_zero_block_with_more": bytes(512) + write_header(name=b"f", flag=b"0"),
    "negative_size": raw(with_field(124, b"\xff" * 12)),
    "size_beyond_64_bits": raw(with_field(124, b"\x80" + b"\xff" * 11)),
    "underscore_in_number": raw(with_field(124, b"1_0\0")),
    "sign_in_number": raw(with_field(108, b"-1\0")),
    "digit_eight": raw(with_field(100, b"8888888\0")),
    "uid_negative": raw(with_field(108, b"\xff" * 8)),
    "uid_for_leave_it": raw(pax({b"uid": b"%d" % (2**32 - 1)})),
    "device_too_large": raw(with_field(329, b"7777777\0", b"3")),
    "pax_length_too_long": raw(pax(b"99 path=x\n")),
    "pax_length_zero": raw(pax(b"0 path=x\n")),
    "pax_length_negative": raw(pax(b"-9 path=x\n")),
    "pax_without_newline": raw(pax(b"9 path=xy")),
    "pax_without_equals": raw(pax(b"7 path\n")),
    "pax_without_key": raw(pax(b"5 =x\n")),
    "pax_size_not_a_number": raw(pax({b"size": b"1e3"})),
    "pax_size_negative": raw(pax({b"size": b"-1"})),
    "pax_size_huge": raw(pax({b"size": b"9" * 18})),
    "pax_mtime_no_number": raw(pax({b"mtime": b"now"})),
    "pax_nul_in_path": raw(pax({b"path": b"a\0b"})),
    "pax_long_component": raw(pax({b"path": b"a" * 256})),
    "pax_xattr_name_too_long": raw(pax({b"SCHILY.xattr.user." + b"n" * 255: b""})),
    "pax_xattr_value_too_long": raw(pax({b"SCHILY.xattr.user.a": b"n" * 65_537})),
    "sparse_overlap": raw(old_sparse(octal(0, 4, 2, 4), octal(100), 8), b"12345678"),
    "sparse_beyond_size": raw(old_sparse(octal(99, 4), octal(100), 4), b"1234"),
    "sparse_less_than_stored": raw(old_sparse(octal(0, 4), octal(100), 8), b"12345678"),
    "sparse_overflow": raw(
        old_sparse(b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7 + octal(4), octal(100), 4), b"1234"
    ),
    "sparse_in_a_ustar_header": raw(write_header(name=b"f", flag=b"S")),
    "sparse_pax_odd_map": raw(pax({b"GNU.sparse.size": b"9", b"GNU.sparse.map": b"1"})),
    "sparse_pax_without_size": raw(pax({b"GNU.sparse.map": b"1,2"})),
    "sparse_pax_empty_items": raw(pax({b"GNU.sparse.size": b"9", b"GNU.sparse.map": b",,,"})),
    "sparse_1_0_endless_map": raw(
        pax({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"1"}),
        b"9999999999\n" * 100,
    ),
    "sparse_1_0_endless_number": raw(
        pax({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"1"}),
        b"9" * 5000,
    ),
    "symlink_to_nothing": tar(symlink("", "a")),
    "symlink_to_a_novel": tar(symlink("x" * 4096, "a")),
    "hardlink_to_nothing_at_all": tar(link("", "a")),
    "long_name_of_nothing": raw(
        write_header(name=b"L", flag=b"L", size=1) + bytes(512) + write_header(name=b"", flag=b"0")
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ArchiveError) as caught:
        Stack().apply(DAMAGED[name])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("flag", [b"V", b"M", b"N", b"D", b"X", b"9", b"\xff"])
def test_types_that_no_layer_holds_are_refused(flag: bytes) -> None:
    with pytest.raises(UnsupportedError):
        Stack().apply(raw(write_header(name=b"f", flag=flag)))


def deep(depth: int) -> Member:
    return file("/".join("d" * depth))


def circle(stack: Stack) -> None:
    """Each round goes deeper through a link into what the round before made."""
    step = "/".join("d" * 60)
    rounds = [m for n in range(60) for m in (symlink(f"a/{step}", f"l{n}"), file(f"l{n}/f{n}"))]
    stack.apply(tar(*rounds), Limits(depth=200))
    grow = [symlink("l0/" + step, "m0")]
    for n in range(60):
        grow += [file(f"m{n}/x"), symlink(f"m{n}/" + step, f"m{n + 1}")]
    stack.apply(tar(*grow), Limits(depth=200))


BOUNDS: dict[str, Callable[[Stack], object]] = {
    "bytes": lambda stack: stack.apply(tar(file("a", b"x" * 9000)), Limits(bytes=8192)),
    "entries": lambda stack: stack.apply(tar(file("a"), file("b")), Limits(entries=1)),
    "depth": lambda stack: stack.apply(tar(deep(41)), Limits(depth=40)),
    "path": lambda stack: stack.apply(tar(file("/".join(["n" * 250] * 140)))),
    "header": lambda stack: stack.apply(raw(pax({b"comment": b"x" * (1 << 20)}))),
    "xattrs": lambda stack: stack.apply(
        raw(pax({b"SCHILY.xattr.user.%d" % n: b"x" * 60_000 for n in range(5)}))
    ),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_limits_are_enforced_and_named(name: str) -> None:
    with pytest.raises(LimitExceededError) as caught:
        BOUNDS[name](Stack())
    assert caught.value.option == f"limits.{name}"


def test_links_cannot_grow_paths_beyond_the_limit() -> None:
    with pytest.raises(ArchiveError):
        circle(Stack())


def test_a_sparse_bomb_is_bounded_by_what_it_expands_to() -> None:
    bomb = old_sparse(b"", b"\x80" + b"\0" * 5 + b"\x10" + b"\0" * 5, 0)
    with pytest.raises(LimitExceededError, match="content of layer"):
        Stack().apply(raw(bomb), Limits(bytes=1 << 20))


def test_fields_arrive() -> None:
    members = [
        member("c", tarfile.CHRTYPE, devmajor=10, devminor=200, mode=0o640),
        member("p", tarfile.FIFOTYPE, uid=3_000_000, gid=2**32 - 2),
        directory("d", 0o1777, mtime=-1.5),
        file("x", b"1", pax_headers={"mtime": "1600000000.123456789123"}),
        member("contiguous", tarfile.CONTTYPE, b"7"),
        directory("./", 0o700, uid=5),
    ]
    tree = Stack().apply(tar(*members))
    assert (tree.stat("c").kind, tree.stat("c").rdev) == (Kind.CHAR, 10 << 8 | 200)
    assert (tree.stat("p").uid, tree.stat("p").gid) == (3_000_000, 2**32 - 2)
    assert (tree.stat("d").mode, tree.stat("d").mtime_ns) == (0o1777, -1_500_000_000)
    assert tree.stat("x").mtime_ns == 1_600_000_000_123_456_789
    assert tree.read_bytes("contiguous") == b"7"
    assert (tree.stat("").mode, tree.stat("").uid) == (0o700, 5)


def test_xattrs_arrive_except_the_selinux_label() -> None:
    records = {
        b"SCHILY.xattr.user.binary": b"\0\xff\n",
        b"SCHILY.xattr.user.empty": b"",
        b"SCHILY.xattr.security.capability": b"\1\0\0\2",
        b"SCHILY.xattr.security.selinux": b"label",
    }
    assert Stack().apply(raw(pax(records))).stat("f").xattrs == {
        "user.binary": b"\0\xff\n",
        "user.empty": b"",
        "security.capability": b"\1\0\0\2",
    }


def test_global_headers_change_nothing_as_in_go() -> None:
    data = write_records({b"path": b"other", b"uid": b"7"})
    head = write_header(name=b"g", flag=b"g", size=len(data)) + data + bytes(-len(data) % 512)
    assert listing(Stack().apply(head + tar(file("f")))) == {"f": b""}


def test_gnu_names_beat_pax_as_in_go() -> None:
    long = write_header(name=b"L", flag=b"L", size=4) + b"gnu\0" + bytes(508)
    assert set(listing(Stack().apply(long + raw(pax({b"path": b"pax"}))))) == {"gnu"}


@given(st.integers(-(2**63), 2**63 - 1))
def test_times_survive(mtime_ns: int) -> None:
    assert read_time(write_time(mtime_ns)) == mtime_ns


@given(st.dictionaries(st.binary(min_size=1).filter(lambda key: b"=" not in key), st.binary()))
def test_records_survive(records: dict[bytes, bytes]) -> None:
    wanted = {b"SCHILY.xattr." + key: value for key, value in records.items()}
    assert read_records(write_records(wanted), 0) == wanted


@given(st.binary(min_size=8, max_size=12))
def test_numbers_are_read_or_refused(field: bytes) -> None:
    try:
        read_number(field)
    except ValueError:
        return
    assert field[0] & 0x80 or not field.strip(b" 01234567\0").strip(b"\0")[:0]


GOOD = tar(
    directory("usr/bin"),
    symlink("usr/bin", "bin"),
    file("bin/sh", b"#!" * 300, mode=0o755),
    link("bin/sh", "bin/bash"),
    file("x" * 150, b"long", pax_headers={"SCHILY.xattr.user.a": "b"}),
    file("usr/.wh..wh..opq"),
    file(".wh.gone"),
    file("bin/sh", b"again"),
) + old_sparse(octal(0, 4, 90, 4), octal(100), 8)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=6))
def test_a_mutated_tar_is_applied_exactly_or_refused(changes: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD)
    for at, value in changes:
        data[at] = value
    for block in range(0, len(data) - 511, 512):  # repair checksums so that damage gets further
        if data[block + 257 : block + 262] == b"ustar":
            data[block + 148 : block + 156] = b" " * 8
            data[block + 148 : block + 156] = b"%06o\0 " % sum(data[block : block + 512])
    attempt(bytes(data))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=4096))
def test_noise_is_refused(data: bytes) -> None:
    attempt(data)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(GOOD)))
def test_a_cut_tar_is_applied_exactly_or_refused(length: int) -> None:
    attempt(GOOD[:length])


NAMES = st.sampled_from(["a", "b", "a/b", "b/a", "a/b/a", "../a", "/b", ".", "a/..", "./a/", "b/c"])
MEMBERS = st.one_of(
    st.builds(file, NAMES, st.binary(max_size=3)),
    st.builds(directory, NAMES),
    st.builds(symlink, NAMES, NAMES),
    st.builds(link, NAMES, NAMES),
    st.builds(file, st.sampled_from([".wh.a", "a/.wh.b", "b/.wh.a", "a/b/.wh.a", ".wh.b"])),
    st.builds(file, st.sampled_from([".wh..wh..opq", "a/.wh..wh..opq", "b/.wh..wh..opq"])),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(MEMBERS, max_size=8), st.lists(MEMBERS, max_size=10))
def test_any_layer_on_any_layer_is_applied_exactly_or_refused(
    below: list[Member], above: list[Member]
) -> None:
    stack = Stack()
    for members in (below, above):
        try:
            stack.apply(tar(*members))
        except SourceError:
            return


def attempt(data: bytes) -> None:
    try:
        Stack().apply(data, attrs.evolve(Limits(), bytes=1 << 26))
    except SourceError as error:
        assert "\n" not in str(error)
    except CowshedError as error:  # a driver's or the store's error would be ours to prevent
        raise AssertionError(error) from error


def test_errors_of_the_source_pass_and_the_thread_is_gone() -> None:
    import threading

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError("connection lost")

    from cowshed.archive import apply_layer

    driver = Stack().driver
    with driver.stage(None) as stage, pytest.raises(OSError, match="connection lost"):
        apply_layer(Broken(), stage, None)
    assert not [t for t in threading.enumerate() if t.name == "cowshed-read-ahead"]
