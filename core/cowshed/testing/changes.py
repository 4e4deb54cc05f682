"""Changes: the exact A/C/D set, in order, and enough to make the same tree again."""

from __future__ import annotations

from collections.abc import Callable

from ..driver import apply_changes
from ..entry import ChangeKind, Kind
from ..tree import Tree
from .isolation import every_write, ground
from .kit import Kit, Store, assert_changes, key
from .oracle import LONG_AGO, Thing, assert_same, directory, file, hardlink, linked, look
from .writes import BODY, Write


class ChangeConformance(Kit):
    """``changes`` is exact, even if every mtime was put back."""

    group = "changes"

    @every_write
    def test_a_write_makes_exactly_these_changes(self, store: Store, write: Write) -> None:
        child = store.container("child", ground(store))
        with store.write(child) as tree:
            write.act(tree)
        promise = f"the changes of {write.name} are exact and in path order"
        assert_changes(store.driver.changes(child), write.changes, promise)
        store.reopen()
        assert_changes(store.driver.changes(child), write.changes, promise)
        self._assert_replays(store, child)

    def _assert_replays(self, store: Store, child: str) -> None:
        """Changes applied to a sibling, and sealed as a layer, must give the child's tree."""
        parent = store.held()[child][1]
        found = store.look(child)
        store.driver.prepare(key("replayed"), parent)
        with store.driver.tree(child) as source, store.write(key("replayed")) as target:
            apply_changes(store.driver.changes(child), source, target)
        replayed = store.look(key("replayed"))
        assert_same(found, replayed, "changes applied to a sibling give the same tree")
        assert store.changes(key("replayed")) == store.changes(child)
        committed = store.look(store.commit(child, "committed"))
        assert_same(found, committed, "changes sealed as a layer give the same tree")
        store.assert_layers("committing leaves the layers below alone")

    def test_each_change_describes_the_object_as_it_is(self, store: Store) -> None:
        child = store.container("child", ground(store))
        with store.write(child) as tree:
            tree.write_bytes("d/new", b"12345")
            tree.setxattr("d/new", "user.n", b"v")
            tree.chown("s", 5, 6)
            tree.unlink("top")
        changes = list(store.driver.changes(child))
        with store.driver.tree(child) as tree:
            for change in changes:
                if change.kind is ChangeKind.DELETED:
                    assert change.entry.kind is Kind.WHITEOUT, "a deletion is a whiteout"
                else:
                    assert change.entry == tree.stat(change.path), "a change is what stat says"

    def test_a_same_size_rewrite_at_once_is_seen(self, store: Store) -> None:
        base = store.layer("base", file("f", "aaaa"))
        child = store.container("child", base)
        with store.write(child) as tree:
            mtime = tree.stat("f").mtime_ns
            tree.write_bytes("f", b"bbbb")
            tree.utime("f", mtime)
        assert store.changes(child) == ["C f"], "a same-size rewrite is seen, whatever the mtime"

    def test_what_is_put_back_is_no_change(self, store: Store) -> None:
        child = store.container("child", ground(store))
        with store.write(child) as tree:
            steps: list[tuple[str, Callable[[], None]]] = [
                ("d/f", lambda: tree.write_bytes("d/f", b"x")),
                ("d/f", lambda: tree.write_bytes("d/f", BODY)),
                ("d/f", lambda: tree.chmod("d/f", 0o777)),
                ("d/f", lambda: tree.chmod("d/f", 0o640)),
                ("d", lambda: tree.mkdir("d/temporary")),
                ("d", lambda: tree.rmdir("d/temporary")),
                ("e", lambda: tree.link("d/f", "e/link")),
                ("e", lambda: tree.unlink("e/link")),
                ("d", lambda: tree.rename("d/f", "d/g")),
                ("d", lambda: tree.rename("d/g", "d/f")),
                ("d", lambda: tree.setxattr("d", "user.new", b"1")),
                ("d", lambda: tree.removexattr("d", "user.new")),
            ]
            for path, change in steps:
                change()
                tree.utime(path if tree.exists(path) else "d", LONG_AGO)
        assert_changes(store.driver.changes(child), [], "what was put back exactly is no change")

    def test_path_order_is_parents_first_and_names_by_bytes(self, store: Store) -> None:
        child = store.container("child")
        names = [
            "a-",
            "a",
            "a.b",
            "é",
            "\udcff",
            "\uffee",
            "\U0001f404",
            "B",
            "a/b",
            "a/B/c",
            "a/B",
        ]
        with store.write(child) as tree:
            for name in ("a", "a/B"):
                tree.mkdir(name)
            for name in names:
                if not tree.exists(name):
                    tree.write_bytes(name, b"")
        expected = ["", "B", "a", "a/B", "a/B/c", "a/b", "a-", "a.b", "é", "\uffee", "\U0001f404"]
        found = [change.path for change in store.driver.changes(child)]
        assert found == [*expected, "\udcff"], "changes are in path order, names by their bytes"

    def test_a_chown_deep_in_the_tree_is_kept(self, store: Store) -> None:
        base = store.layer(
            "base", *(directory("a/b/c/d"[: 2 * n + 1]) for n in range(4)), file("a/b/c/d/f", "x")
        )
        child = store.container("child", base)
        with store.write(child) as tree:
            tree.chown("a/b/c/d/f", 1234, 5678)
            tree.chown("a/b/c", 42, 43)
        expected = ["C a", "C a/b", "C a/b/c", "C a/b/c/d", "C a/b/c/d/f"]
        assert store.changes(child) == expected, "a change of owner alone counts"
        self._assert_replays(store, child)

    def test_deleting_and_making_again_is_exact_at_each_depth(self, store: Store) -> None:
        parts = [f"d{level}" for level in range(10)]
        paths = ["/".join(parts[: level + 1]) for level in range(10)]
        things = [thing for path in paths for thing in (directory(path), file(f"{path}/f", path))]
        base = store.layer("base", directory("", mtime_ns=1), *things)
        for level, path in enumerate(paths):
            child = store.container(f"child{level}", base)
            with store.write(child) as tree:
                tree.remove_tree(path)
                tree.mkdir(path)
                tree.write_bytes(f"{path}/f", b"new")
            root = ["C "] if level == 0 else []
            below = [f"D {paths[level + 1]}"] if level < 9 else []
            expected = [*root, *(f"C {above}" for above in paths[: level + 1]), *below]
            assert store.changes(child) == [*expected, f"C {path}/f"], f"exact at depth {level}"

    def test_a_directory_made_again_hides_its_old_children(self, store: Store) -> None:
        child = store.container("child", ground(store))
        with store.write(child) as tree:
            tree.remove_tree("d")
            tree.mkdir("d", 0o700)
            tree.chown("d", 91, 92)
            tree.write_bytes("d/only", b"1")
            assert [entry.name for entry in tree.scandir("d")] == ["only"]
        layer = store.commit(child, "layer")
        grandchild = store.container("grandchild", layer)
        with store.driver.tree(grandchild) as tree:
            assert [entry.name for entry in tree.scandir("d")] == ["only"], "old children stay away"
            assert (tree.stat("d").uid, tree.stat("d").gid, tree.stat("d").mode) == (91, 92, 0o700)
        store.assert_layers()

    def test_what_moves_out_of_a_lower_directory_arrives_whole(self, store: Store) -> None:
        child = store.container("child", ground(store))
        with store.write(child) as tree:
            tree.mkdir("new")
            tree.rename("d/sub", "new/sub")
            tree.rename("d/h1", "new/h1")
            tree.link("d/f", "new/f")
            tree.remove_tree("d")
            assert tree.read_bytes("new/sub/deep") == b"deep"
            assert tree.read_bytes("new/h1") == b"linked"
            assert tree.read_bytes("new/f") == BODY
            assert tree.stat("new/f").links == 1, "a name that went away isn't counted"
        self._assert_replays(store, child)

    # -- hard links -----------------------------------------------------------------------------

    def test_a_write_through_one_name_shows_under_the_others(self, store: Store) -> None:
        base = store.layer("base", directory("d"), file("d/a", "old"), hardlink("b", "d/a"))
        one, two = store.container("one", base), store.container("two", base)
        with store.write(one) as tree:
            tree.link("b", "c")
            with tree.open("c", "r+b") as content:
                content.write(b"new")
            tree.chmod("d/a", 0o600)
            for name in ("d/a", "b", "c"):
                assert tree.read_bytes(name) == b"new", "a write shows under every name"
                assert tree.stat(name).mode == 0o600, "attributes belong to the file"
                assert tree.stat(name).links == 3
        assert_same(store.layers[base], store.look(two), "a write shows in its container only")
        self._assert_replays(store, one)

    def test_a_changed_partition_into_files_replays(self, store: Store) -> None:
        base = store.layer(
            "base",
            directory(""),
            *(thing for name in "ab" for thing in _pair(name)),
            file("c", "x"),
        )

        def scramble(tree: Tree) -> None:
            tree.rename("a2", "moved")  # still linked with a1
            tree.unlink("b1")
            tree.link("c", "b1")  # b1 belongs to c now

        child = store.container("child", base)
        with store.write(child) as tree:
            scramble(tree)
            assert linked(look(tree)) == {frozenset({"a1", "moved"}), frozenset({"b1", "c"})}
        assert store.changes(child) == ["C ", "C a1", "D a2", "C b1", "C c", "A moved"]
        self._assert_replays(store, child)

    def test_a_name_cut_from_its_file_is_a_change_even_if_all_is_equal(self, store: Store) -> None:
        base = store.layer("base", directory(""), *_pair("a"))
        child = store.container("child", base)
        with store.write(child) as tree:
            tree.unlink("a2")
            tree.apply(file("a2", "a").entry, file("a2", "a").content())
            tree.utime("", LONG_AGO)
            assert linked(look(tree)) == set()
        assert store.changes(child), "two files that were one are a change"
        self._assert_replays(store, child)


def _pair(name: str) -> list[Thing]:
    return [file(f"{name}1", name), hardlink(f"{name}2", f"{name}1")]
