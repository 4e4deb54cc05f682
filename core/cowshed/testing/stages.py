"""Stages: written aside, invisible until sealed, gone without a trace if not."""

from __future__ import annotations

from io import BytesIO

import pytest

from ..driver import Held
from ..errors import NotFoundError
from .kit import Kit, Store, key
from .oracle import (
    assert_same,
    digest,
    directory,
    file,
    hardlink,
    sketch,
    symlink,
)


class StageConformance(Kit):
    """A stage publishes whole or leaves nothing."""

    group = "layers"

    def test_an_entry_may_replace_one_of_the_same_stage(self, store: Store) -> None:
        store.layer(
            "base",
            file("a", "first"),
            hardlink("b", "a"),
            file("a", "second and longer"),
            directory("d"),
            file("d/f", "x"),
            symlink("d", "a"),
            directory("", mode=0o700),
        )
        store.assert_layers("a later entry of a stage replaces an earlier one")

    def test_a_stage_reads_back_what_it_was_given(self, store: Store) -> None:
        base = store.layer("base", file("old", "parent"))
        big = bytes(range(256)) * 4096
        with store.driver.stage(base) as stage:
            for thing in (file("new", "mine"), file("big", big), file("new", "mine again")):
                stage.add(thing.entry, thing.content())
            with stage.open("new") as content:
                assert content.read() == b"mine again", "a stage reads back what it was given"
            with stage.open("big") as content:
                assert digest(content.read()) == digest(big), "a stage reads back what it was given"
            with pytest.raises(FileNotFoundError):
                stage.open("never")

    def test_a_stage_reads_content_to_its_end_and_keeps_no_reference(self, store: Store) -> None:
        content = BytesIO(b"four")
        with store.driver.stage(None) as stage:
            stage.add(file("f", "four").entry, content)
            assert content.read() == b"", "add reads content to its end"
            content.seek(0)
            content.write(b"FOUR")
            content.close()
            stage.seal(key("layer"))
        with store.driver.tree(key("layer")) as tree:
            assert tree.read_bytes("f") == b"four", "add keeps no reference to content"

    def test_a_stage_is_invisible_until_sealed(self, store: Store) -> None:
        with store.driver.stage(None) as stage:
            stage.add(file("f", "x").entry, BytesIO(b"x"))
            assert store.held() == {}, "a stage is invisible until sealed"
            with pytest.raises(NotFoundError):
                store.driver.tree(key("layer"))
            stage.seal(key("layer"))
        assert store.held() == {key("layer"): (Held.LAYER, None)}

    @pytest.mark.parametrize("how", ["discard", "leave", "raise"])
    def test_a_stage_not_sealed_leaves_nothing(self, store: Store, how: str) -> None:
        base = store.layer("base", file("f", "base"))
        try:
            with store.driver.stage(base) as stage:
                stage.add(file("f", "x").entry, BytesIO(b"x"))
                if how == "discard":
                    stage.discard()
                    stage.discard()
                elif how == "raise":
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
        assert store.held() == {base: (Held.LAYER, None)}, "a stage not sealed leaves nothing"
        store.assert_layers("a stage not sealed leaves its parent alone")
        store.driver.remove(base)

    def test_discard_after_seal_does_nothing(self, store: Store) -> None:
        stage = store.driver.stage(None)
        stage.add(file("f", "x").entry, BytesIO(b"x"))
        stage.seal(key("layer"))
        stage.discard()
        stage.discard()
        assert_same(sketch([file("f", "x")]), store.look(key("layer")), "sealed is sealed")

    def test_sealing_what_exists_changes_nothing(self, store: Store) -> None:
        first = store.driver.stage(None)
        second = store.driver.stage(None)
        for stage in (first, second):
            stage.add(file("f", "x").entry, BytesIO(b"x"))
        first.seal(key("layer"))
        second.seal(key("layer"))
        third = store.layer("layer", file("f", "x"))
        assert store.held() == {third: (Held.LAYER, None)}, "sealing what exists is normal"
        store.assert_layers("sealing what exists changes nothing")
