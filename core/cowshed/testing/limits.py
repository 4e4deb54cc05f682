"""Limits: many, long and large, as far as a test may go."""

from __future__ import annotations

import pytest

from ..driver import Capability
from .files import pattern
from .kit import Kit, Store, key
from .oracle import assert_same, directory, file, hardlink, symlink


class LimitConformance(Kit):
    """Nothing breaks at the sizes that images and fleets of containers really have."""

    group = "limits"

    #: Whether the driver keeps its data below its root, so that space can be measured there.
    on_disk = True

    def test_paths_beyond_4096_bytes(self, store: Store) -> None:
        parts = [f"{level:03}" + "x" * 247 for level in range(24)]
        paths = ["/".join(parts[: level + 1]) for level in range(24)]
        assert len(paths[-1]) > 6000
        base = store.layer(
            "base",
            *(directory(path, mode=0o750, uid=level) for level, path in enumerate(paths)),
            file(f"{paths[-1]}/deep", "bottom", xattrs={"user.deep": b"1"}, uid=5),
            hardlink(f"{paths[-1]}/again", f"{paths[-1]}/deep"),
            symlink(f"{paths[-1]}/link", "deep"),
        )
        store.assert_layers("paths may be longer than PATH_MAX")
        child = store.container("child", base)
        with store.write(child) as tree:
            with tree.open(f"{paths[-1]}/deep", "ab") as content:
                content.write(b" more")
            tree.chown(f"{paths[-1]}/deep", 9, 9)
            tree.mkdir(f"{paths[-1]}/d")
            tree.rename(f"{paths[-1]}/link", f"{paths[-1]}/d/link")
            assert tree.read_bytes(f"{paths[-1]}/again") == b"bottom more"
        fork = store.fork(child, "fork")
        assert_same(store.look(child), store.look(fork), "deep trees can be forked")
        assert_same(store.look(child), store.look(store.commit(child, "new")), "and committed")
        with store.write(fork) as tree:
            tree.rename(paths[-1], "up")
            assert tree.read_bytes("up/deep") == b"bottom more"
            tree.remove_tree(paths[0])
            assert [entry.name for entry in tree.scandir("")] == ["up"]
        store.assert_layers()
        store.driver.remove_many([child, fork, key("new"), base])

    def test_hundreds_of_levels_of_directories(self, store: Store) -> None:
        paths = ["/".join(["d"] * level) for level in range(1, 300)]
        base = store.layer("base", *(directory(path) for path in paths), file(f"{paths[-1]}/f"))
        store.assert_layers("trees may be deeper than a stack")
        child = store.container("child", base)
        with store.write(child) as tree:
            tree.write_bytes(f"{paths[-1]}/f", b"new")
        assert len(store.changes(child)) == 300
        with store.write(child) as tree:
            tree.remove_tree("d")
        assert store.changes(child) == ["C ", "D d"]

    def test_a_thousand_files_in_one_directory(self, store: Store) -> None:
        names = [f"d/{number * 7919 % 10007:05}" for number in range(1000)]
        base = store.layer("base", directory("d"), *(file(name, name) for name in names))
        child = store.container("child", base)
        with store.write(child) as tree:
            assert [entry.path for entry in tree.scandir("d")] == sorted(names)
            assert sorted(f"d/{name}" for name in tree.listdir("d")) == sorted(names)
            for name in names[::3]:
                tree.unlink(name)
        with store.driver.tree(child) as tree:
            assert len(list(tree.scandir("d"))) == len(set(tree.listdir("d"))) == 666
        changes = store.changes(child)
        assert changes == ["C d", *(f"D {name}" for name in sorted(names[::3]))]
        store.assert_layers()

    def test_a_file_with_hundreds_of_names(self, store: Store) -> None:
        names = [f"n{number:03}" for number in range(400)]
        base = store.layer("base", file("f", "x"), *(hardlink(name, "f") for name in names))
        store.assert_layers("a file has as many names as it was given")
        child = store.container("child", base)
        with store.write(child) as tree:
            tree.write_bytes("n200", b"new")
            assert tree.read_bytes("n399") == b"new"
            assert tree.stat("f").links == 401
        assert len(store.changes(child)) == 401
        store.assert_layers()

    def test_hundreds_of_containers(self, store: Store) -> None:
        base = store.layer("base", directory("d"), file("d/f", "x"))
        many = [key(f"many{number}") for number in range(300)]
        store.driver.prepare_many(many, base)
        for id in many[:3]:
            with store.write(id) as tree:
                tree.write_bytes("d/f", id.encode())
        assert set(store.held()) == {base, *many}
        store.driver.remove_many(many[:150])
        assert set(store.held()) == {base, *many[150:]}
        assert_same(store.layers[base], store.look(many[200]), "each container is its own")

    @pytest.mark.parametrize("distinct", [False, True], ids=["equal files", "different files"])
    def test_many_small_files(self, store: Store, distinct: bool) -> None:
        store.layer(
            "base",
            *(file(f"f{number}", str(number) if distinct else "same") for number in range(500)),
        )
        store.assert_layers("many small files stay apart")

    def test_a_large_hole_costs_no_space(self, store: Store) -> None:
        child = store.container("child", store.layer("base", file("f", "start")))
        before = store.driver.disk_usage()
        with store.write(child) as tree:
            tree.truncate("f", 256 << 20)
            with tree.open("g", "wb") as content:
                content.seek(64 << 20)
                content.write(b"end")
            with tree.open("f") as content:
                assert content.read(5) == b"start"
                content.seek(200 << 20)
                assert content.read(1000) == bytes(1000), "a hole reads zeros"
            assert (tree.stat("f").size, tree.stat("g").size) == (256 << 20, (64 << 20) + 3)
            assert tree.read_bytes("g")[-4:] == b"\0end"
        if self.on_disk:
            assert store.driver.disk_usage() - before < 32 << 20, "a hole costs no space"
        store.assert_layers()

    # -- space ----------------------------------------------------------------------------------

    def test_apparent_is_what_was_brought(self, store: Store) -> None:
        base = store.layer("base", file("a", pattern(10_000)), file("b", pattern(5000, 2)))
        top = store.layer(
            "top",
            file("a", pattern(7000, 3)),
            file("c", pattern(50, 4)),
            hardlink("d", "c"),
            on=base,
        )
        child = store.container("child", top)
        usage = store.driver.usage
        assert usage(base).apparent == 15_000, "apparent is the content that a layer brought"
        assert usage(top).apparent == 7050, "a file of two names counts once, a parent's not at all"
        assert usage(child).apparent == 0, "a fresh container brought nothing"
        with store.write(child) as tree:
            tree.write_bytes("new", pattern(3000))
            tree.write_bytes("gone", pattern(9000))
            with tree.open("b", "ab") as content:
                content.write(b"12345")
            tree.link("new", "new2")
            tree.unlink("gone")
            tree.unlink("a")
            tree.mkdir("d2")
        assert usage(child).apparent == 8005, "apparent is the content of the files in changes"
        fork = store.fork(child, "fork")
        assert usage(fork).apparent == 8005
        store.reopen()
        found = [store.driver.usage(id).apparent for id in (base, top, child, fork)]
        assert found == [15_000, 7050, 8005, 8005], "usage survives reopening"
        for id in (base, top, child, fork):
            assert store.driver.usage(id).exclusive >= 0, "exclusive is never negative"
            assert store.driver.usage(id).inodes >= 0

    def test_what_is_shared_is_exclusive_to_nobody(self, store: Store) -> None:
        data = pattern(1 << 20)
        one = store.layer("one", file("f", data))
        alone = store.driver.usage(one).exclusive
        assert alone >= 1 << 20, "what only one layer holds goes away with it"
        two = store.layer("two", file("f", data), file("own", "x"))
        sharing = {Capability.SHARES_CHUNKS, Capability.SHARES_INODES}
        if any(map(self.can, sharing)):
            assert store.driver.usage(one).exclusive < 1 << 19, "what two hold goes with neither"
            assert store.driver.usage(two).exclusive < 1 << 19, "what two hold goes with neither"
        store.driver.remove(two)
        store.driver.collect()
        assert store.driver.usage(one).exclusive >= 1 << 20, "it is exclusive again"

    def test_space_comes_back(self, store: Store) -> None:
        if not self.on_disk:
            pytest.skip("nothing is on disk")
        keep = store.layer("keep", file("f", pattern(100_000)))
        before = store.driver.disk_usage()
        for number in range(3):
            store.layer(f"layer{number}", file("big", pattern(2 << 20, number + 10)), on=keep)
            child = store.container(f"child{number}", key(f"layer{number}"))
            with store.write(child) as tree:
                tree.write_bytes("own", pattern(1 << 20, number + 20))
        full = store.driver.disk_usage()
        assert full - before >= 9 << 20, "disk_usage counts what is stored"
        for number in range(3):
            store.driver.remove(key(f"child{number}"))
            store.driver.remove(key(f"layer{number}"))
            del store.layers[key(f"layer{number}")]
        store.driver.collect()
        assert store.driver.disk_usage() - before < 2 << 20, "removed bytes come back"
        store.assert_layers()

    def test_a_sound_store_verifies(self, store: Store) -> None:
        base = store.layer("base", file("a", pattern(300_000)), directory("d"), hardlink("b", "a"))
        child = store.container("child", base)
        with store.write(child) as tree:
            tree.write_bytes("d/f", pattern(1000))
            tree.chown("a", 3, 4)
        for deep in (False, True):
            for id in (base, child):
                assert list(store.driver.verify(id, deep=deep)) == [], "a sound store verifies"
