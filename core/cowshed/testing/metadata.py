"""Metadata: every field of an entry comes back as it was given, with privilege or without."""

from __future__ import annotations

import os
import stat as stat_module

import pytest

from ..entry import Entry, Kind
from .kit import Kit, Store
from .oracle import (
    LONG_AGO,
    Thing,
    assert_same,
    directory,
    file,
    hardlink,
    look,
    sketch,
    special,
    symlink,
)

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")

ACL = bytes.fromhex("0200000001000600ffffffff04000400ffffffff20000400ffffffff")

XATTRS: dict[str, bytes] = {
    "user.text": b"value",
    "user.empty": b"",
    "user.binary": bytes(range(256)),
    "user.\u00fc": b"\xff\x00\xfe",
    "security.capability": CAPABILITY,
    "security.ima": b"\x03\x02" + bytes(20),
    "trusted.overlay.opaque": b"y",
    "trusted.own": b"kept without privilege",
    "system.posix_acl_access": ACL,
    "user.long": b"x" * 3000,
}  # fmt: skip

MTIMES = [0, 1, 999_999_999, -1, -1_500_000_001, LONG_AGO, 4_102_444_800_000_000_007, 2**33 * 10**9]

NAMES = [
    "\udcff\udcfe",
    "caf\udce9",
    "\u00fcml\u00e4ut",
    "\U0001f404",
    " leading and trailing ",
    "new\nline",
    "back\\slash",
    "quote\"'`$(x)",
    "-dash",
    "...",
    ".hidden",
    ".wh.kept",
    "*?[x]",
    "n" * 255,
    "\u00e9" * 127,
    "\x7f\x01\x1b[31m",
]


class MetadataConformance(Kit):
    """What the host's file system can't hold, the driver holds beside the data."""

    group = "metadata"

    def check(self, store: Store, *things: Thing) -> None:
        """Bring ``things`` in by a layer, and by ``Tree.apply``; look, reopen, look again."""
        base = store.layer("base", *things)
        child = store.container("child")
        with store.write(child) as tree:
            for thing in things:
                tree.apply(thing.entry, thing.content())
            assert_same(sketch(things), look(tree), "a tree shows every field as it was applied")
        fork = store.fork(child, "fork")
        store.layers[child] = store.layers[fork] = store.layers[base]
        store.layer("above", file("above", "x"), on=base)
        store.layers[store.container("inherits", base)] = store.layers[base]
        store.assert_layers("every field comes back as it was given")
        store.layers[store.commit(child, "committed")] = store.layers[base]
        store.reopen()
        store.assert_layers("every field comes back as it was given, after reopening")

    @pytest.mark.parametrize("kind", ["file", "directory"])
    def test_xattrs_of_every_namespace(self, store: Store, kind: str) -> None:
        make = file if kind == "file" else directory
        each = [
            make(f"x{number}", xattrs={name: value})
            for number, (name, value) in enumerate(XATTRS.items())
        ]
        self.check(store, *each, make("all", xattrs=XATTRS, uid=1000))

    def test_xattrs_of_the_root_and_of_other_kinds(self, store: Store) -> None:
        own = {"trusted.t": b"1", "security.s": b"2"}
        things = [directory("", xattrs={"user.root": b"1", **own})]
        for kind, target, rdev in (
            (Kind.SYMLINK, "t", 0),
            (Kind.FIFO, "", 0),
            (Kind.CHAR, "", 259),
            (Kind.BLOCK, "", 259),
        ):
            mode = 0o777 if kind is Kind.SYMLINK else 0o640
            common = Entry(path=kind.value, kind=kind, mode=mode, target=target, rdev=rdev)
            things.append(Thing(common))
            things.append(
                Thing(
                    Entry(
                        path=f"{kind.value}-x",
                        kind=kind,
                        mode=mode,
                        target=target,
                        rdev=rdev,
                        xattrs={**own, "user.u": b"3"},
                    )
                )
            )
        self.check(store, *things)

    def test_xattrs_are_set_replaced_and_removed(self, store: Store) -> None:
        base = store.layer("base", file("f", "x", xattrs=XATTRS), symlink("s", "f"))
        child = store.container("child", base)
        with store.write(child) as tree:
            for name in XATTRS:
                tree.setxattr("f", name, b"replaced " + name.encode())
                tree.setxattr("s", name, b"on a link")
            for name in list(XATTRS)[::2]:
                tree.removexattr("f", name)
            expected = {name: b"replaced " + name.encode() for name in list(XATTRS)[1::2]}
            assert dict(tree.stat("f").xattrs) == expected, "xattrs of every namespace can be set"
            assert tree.stat("f").mtime_ns == LONG_AGO, "xattrs leave the mtime alone"
        store.reopen()
        with store.driver.tree(child) as tree:
            assert dict(tree.stat("f").xattrs) == expected, "xattrs survive"
            assert set(tree.stat("s").xattrs) == set(XATTRS), "xattrs of links survive"
        assert store.changes(child) == ["C f", "C s"]
        store.assert_layers()

    def test_xattrs_survive_writing_and_renaming(self, store: Store) -> None:
        base = store.layer("base", file("f", "x", xattrs=XATTRS, uid=8), hardlink("g", "f"))
        child = store.container("child", base)
        with store.write(child) as tree:
            with tree.open("f", "ab") as content:
                content.write(b"more")
            tree.rename("f", "h")
            for name in ("g", "h"):
                assert dict(tree.stat(name).xattrs) == XATTRS, "writing keeps xattrs"
                assert tree.stat(name).uid == 8, "writing keeps the owner"
        store.assert_layers()

    def test_owners_and_modes(self, store: Store) -> None:
        ids = [(0, 0), (0, 1), (1000, 1000), (65534, 65534), (2**31, 5), (2**32 - 2, 2**32 - 2)]
        modes = [0, 0o1, 0o444, 0o644, 0o755, 0o1777, 0o2755, 0o4755, 0o6711, 0o7777]
        self.check(
            store,
            *(file(f"u{uid}-{gid}", "x", uid=uid, gid=gid) for uid, gid in ids),
            *(file(f"m{mode}", "x", mode=mode) for mode in modes),
            *(directory(f"d{mode}", mode=mode, uid=1, gid=1) for mode in modes),
            *(file(f"d{mode}/f", "inside", uid=1) for mode in modes),
            *(symlink(f"s{uid}", "x", uid=uid) for uid, _ in ids[1:]),
        )

    def test_mtimes(self, store: Store) -> None:
        self.check(
            store,
            *(file(f"f{number}", "x", mtime_ns=mtime) for number, mtime in enumerate(MTIMES)),
            *(directory(f"d{number}", mtime_ns=mtime) for number, mtime in enumerate(MTIMES)),
            *(symlink(f"s{number}", "x", mtime_ns=mtime) for number, mtime in enumerate(MTIMES)),
        )

    def test_utime_sets_any_value_of_any_kind(self, store: Store) -> None:
        base = store.layer(
            "base", file("f"), directory("d"), symlink("s", "f"), special("p", Kind.FIFO)
        )
        child = store.container("child", base)
        for mtime in MTIMES:
            with store.write(child) as tree:
                for path in ("", "f", "d", "s", "p"):
                    tree.utime(path, mtime)
            found = {path: seen.mtime_ns for path, seen in store.look(child).items()}
            assert set(found.values()) == {mtime}, f"utime sets {mtime} exactly"

    def test_fifos_and_devices(self, store: Store) -> None:
        numbers = [os.makedev(1, 3), os.makedev(0, 0), os.makedev(259, 70_000), os.makedev(4095, 7)]
        self.check(
            store,
            special("fifo", Kind.FIFO, mode=0o4644),
            *(special(f"c{rdev}", Kind.CHAR, rdev=rdev, mode=0o666) for rdev in numbers),
            *(special(f"b{rdev}", Kind.BLOCK, rdev=rdev) for rdev in numbers),
            hardlink("again", f"c{numbers[0]}"),
        )

    def test_devices_are_made_in_a_container(self, store: Store) -> None:
        child = store.container("child")
        with store.write(child) as tree:
            tree.mknod("null", stat_module.S_IFCHR | 0o666, os.makedev(1, 3))
            tree.mknod("sda", stat_module.S_IFBLK | 0o660, os.makedev(8, 0))
            tree.mknod("pipe", stat_module.S_IFIFO | 0o600)
            tree.mknod("plain", stat_module.S_IFREG | 0o640)
            tree.write_bytes("plain", b"now with content")
            tree.rename("null", "zero")
            tree.link("sda", "sdb")
            tree.chown("sdb", 0, 6)
        store.reopen()
        with store.driver.tree(child) as tree:
            zero, sda = tree.stat("zero"), tree.stat("sda")
            assert (zero.kind, zero.mode, zero.rdev) == (Kind.CHAR, 0o666, os.makedev(1, 3))
            assert (sda.kind, sda.gid, sda.links, sda.rdev) == (Kind.BLOCK, 6, 2, os.makedev(8, 0))
            assert tree.stat("pipe").kind is Kind.FIFO
            assert tree.read_bytes("plain") == b"now with content"
            with pytest.raises(OSError):
                tree.open("sda")

    def test_names(self, store: Store) -> None:
        self.check(
            store,
            *(file(name, name.encode("utf-8", "surrogateescape")) for name in NAMES),
            directory("in"),
            *(directory(f"in/{name}") for name in NAMES),
            *(symlink(f"in/{name}/{name}", name) for name in NAMES),
        )

    def test_names_are_compared_by_bytes(self, store: Store) -> None:
        self.check(store, file("a", "1"), file("A", "2"), file("\u00e9", "3"), file("e\u0301", "4"))

    def test_symlink_targets_are_verbatim(self, store: Store) -> None:
        targets = [
            "relative", "/absolute", "../../../up", "dangling/./x//y/", ".", "..", "/",
            "caf\udce9", "new\nline", "x" * 4095, "a/" * 2000,
        ]  # fmt: skip
        self.check(store, *(symlink(f"s{n}", target) for n, target in enumerate(targets)))
        with store.write(store.container("made")) as tree:
            for number, target in enumerate(targets):
                tree.symlink(target, f"s{number}")
                assert tree.readlink(f"s{number}") == target, "a link says what it was told"
                assert tree.stat(f"s{number}").size == 0, "size is 0 for all but files"
