"""The kit catches planted faults: each faulty driver fails the tests that are there for it."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from cowshed.driver import Driver
from cowshed.testing import DriverConformance, MemoryDriver
from cowshed.testing.kit import Store
from cowshed.testing.writes import WRITES

from . import faults

BY_NAME = {write.name: write for write in WRITES}

CAUGHT: list[tuple[type[MemoryDriver], str, dict[str, object]]] = [
    (
        faults.WritesThrough,
        "test_a_write_in_a_child_leaves_every_ancestor_alone",
        {"write": BY_NAME["overwriting in the middle"]},
    ),
    (
        faults.WritesThrough,
        "test_a_write_in_a_child_leaves_every_ancestor_alone",
        {"write": BY_NAME["writing with the mtime put back"]},
    ),
    (faults.WritesThrough, "test_random_histories_agree_with_the_model", {}),
    (
        faults.AttributesWriteThrough,
        "test_a_write_in_a_child_leaves_every_ancestor_alone",
        {"write": BY_NAME["chmod of a file"]},
    ),
    (faults.ForkShares, "test_a_fork_and_its_origin_are_independent", {}),
    (
        faults.ForkShares,
        "test_a_write_in_a_fork_leaves_its_origin_alone",
        {"write": BY_NAME["unlink"]},
    ),
    (faults.ForgetsWhiteouts, "test_a_child_replaces_adds_and_removes", {}),
    (faults.ForgetsWhiteouts, "test_deleted_files_stay_deleted_through_an_empty_child", {}),
    (faults.IgnoresOpaque, "test_opaque_empties_a_directory_and_keeps_its_attributes", {}),
    (faults.LosesTrustedXattrs, "test_xattrs_of_every_namespace", {"kind": "file"}),
    (faults.ForgetsDirectoryOwners, "test_entries_of_every_shape_are_kept", {}),
    (faults.ForgetsDirectoryOwners, "test_owners_and_modes", {}),
    (faults.RoundsTimes, "test_mtimes", {}),
    (faults.CopiesHardLinks, "test_hard_links_in_a_layer_are_one_file", {}),
    (faults.ComparesByMtime, "test_a_same_size_rewrite_at_once_is_seen", {}),
    (faults.ComparesByMtime, "test_a_chown_deep_in_the_tree_is_kept", {}),
    (
        faults.OmitsTouchedDirectories,
        "test_a_write_makes_exactly_these_changes",
        {"write": BY_NAME["a new file"]},
    ),
    (
        faults.ListsDeletedChildren,
        "test_a_write_makes_exactly_these_changes",
        {"write": BY_NAME["removing a full directory"]},
    ),
    (faults.LeaksOnRemove, "test_a_removed_container_leaves_nothing_for_its_successor", {}),
    (faults.RemovesParents, "test_removing_a_layer_with_dependants_is_refused", {}),
    (faults.StandsOnContainers, "test_a_container_is_no_parent", {}),
    (faults.PublishesEarly, "test_a_stage_is_invisible_until_sealed", {}),
    (faults.WritableLayers, "test_a_layer_refuses_writes", {}),
    (faults.FollowsLinks, "test_modes_of_opening_do_what_they_say", {}),
    (faults.DropsSetuidOnChown, "test_chown_and_writing_keep_setuid", {}),
    (faults.LeavesStaleTail, "test_what_a_cut_removed_doesnt_come_back", {}),
    (faults.SortsByText, "test_names", {}),
    (faults.CountsTwice, "test_apparent_is_what_was_brought", {}),
    (faults.ForgetsOnClose, "test_items_is_exactly_what_was_made", {}),
    (faults.ForgetsOnClose, "test_everything_survives_reopening", {}),
]


def run(driver: type[MemoryDriver], test: str, arguments: dict[str, object], root: Path) -> None:
    """Run one test of the kit on ``driver``."""

    class Kit(DriverConformance):
        processes = False

        def open_driver(self, root: Path) -> Driver:
            return driver(root)

    method = getattr(Kit(), test)
    store = Store(root / "driver", Kit().open_driver)
    known = {"store": store, "tmp_path": root, **arguments}
    method(**{name: known[name] for name in inspect.signature(method).parameters})


@pytest.mark.parametrize(
    ("fault", "test", "arguments"), CAUGHT, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_planted_fault_is_caught(
    fault: type[MemoryDriver], test: str, arguments: dict[str, object], tmp_path: Path
) -> None:
    run(MemoryDriver, test, arguments, tmp_path / "sound")
    with pytest.raises((AssertionError, pytest.fail.Exception)) as caught:
        run(fault, test, arguments, tmp_path / "faulty")
    assert str(caught.value), "a failure names the promise"
