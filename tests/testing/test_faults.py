"""The kit catches planted faults: each faulty driver fails the tests that are there for it."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from cowshed.driver import Capability, Driver, DriverSpec
from cowshed.testing import DriverConformance, MemoryDriver
from cowshed.testing.acts import CALLS, SESSIONS
from cowshed.testing.kit import Store
from cowshed.testing.round_trips import TRIPS
from cowshed.testing.writes import WRITES

from . import faults, shelved

BY_NAME = {write.name: write for write in WRITES}
BY_TRIP = {trip.name: trip for trip in TRIPS}
BY_ACT = {act.name: act for act in [*CALLS, *SESSIONS]}

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
    (
        faults.ListsEmptyFiles,
        "test_a_write_makes_exactly_these_changes",
        {"write": BY_NAME["a new file"]},
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
    (
        faults.ReplacesWhatIsThere,
        "test_a_taken_id_is_refused_for_another_thing",
        {"old": "a container", "new": "a fork"},
    ),
    (
        faults.ReplacesWhatIsThere,
        "test_a_taken_id_is_refused_for_another_thing",
        {"old": "a container", "new": "a layer"},
    ),
    (
        faults.LeaksOnRemove,
        "test_a_removed_id_is_free_for_any_thing",
        {"old": "a fork", "new": "a container"},
    ),
    (faults.ForgetsParents, "test_items_is_exactly_what_was_made", {}),
    (faults.PreparesHalf, "test_preparing_many_is_all_or_none", {}),
    (faults.RecoversTooMuch, "test_recover_leaves_live_stages_and_trees_alone", {}),
    (faults.CachesTrees, "test_written_things_show_after_sync", {}),
    (faults.CachesTrees, "test_another_driver_object_sees_everything", {}),
    (faults.LosesDeepLayers, "test_a_bottom_file_reads_through_five_hundred_layers", {}),
    (
        faults.HidesLinksInChanges,
        "test_changes_go_out_as_a_layer_and_come_in_again",
        {"trip": BY_TRIP["a hard link before an unmodified file"]},
    ),
    (
        faults.ListsOnlyNewNames,
        "test_changes_go_out_as_a_layer_and_come_in_again",
        {"trip": BY_TRIP["a hard link before an unmodified file"]},
    ),
    (
        faults.IgnoresOpaque,
        "test_opaque_acts_at_its_moment",
        {},
    ),
    (faults.CountsLinksAsFiles, "test_what_a_layer_brings_is_what_its_changes_said", {}),
    (faults.JoinsEqualFiles, "test_equal_files_are_files_of_their_own", {}),
    (faults.ObeysUmask, "test_new_objects_belong_to_root_and_have_the_mode_asked_for", {}),
    (faults.ForgetsDirectoryTimes, "test_directories_and_files_get_a_fresh_mtime", {}),
    (faults.WalksThroughLinks, "test_symbolic_links_are_never_followed", {}),
    (
        faults.OverwritesInsteadOfAppending,
        "test_a_file_is_overwritten_extended_and_cut",
        {"size": 4096, "own": True},
    ),
    (faults.RenamesAwayOneOfTwoNames, "test_rename_replaces_as_rename_does", {}),
    (faults.ClampsTimes, "test_mtimes", {}),
    (faults.MakesDevicesFiles, "test_fifos_and_devices", {}),
    (faults.ReplacesUndecodableNames, "test_names", {}),
    (faults.KeepsReferences, "test_a_stage_reads_content_to_its_end_and_keeps_no_reference", {}),
    (faults.ForkShares, "test_random_histories_agree_with_the_model", {}),
    (faults.RemovesParents, "test_random_histories_agree_with_the_model", {}),
    (faults.CopiesHardLinks, "test_random_histories_agree_with_the_model", {}),
]

#: Faults that show only when something goes wrong at the wrong moment.
_KILL = "test_a_kill_before_any_write_leaves_before_or_after"
_FULL = "test_a_full_disk_at_any_write_leaves_before_or_after"
_ERROR = "test_an_io_error_at_any_write_leaves_before_or_after"
_POWER = "test_a_power_cut_loses_nothing_that_was_acknowledged"
INJECTED: list[tuple[type[shelved.Shelved], str, str]] = [
    (shelved.WritesInPlace, _KILL, "preparing a container"),
    (shelved.WritesInPlace, _FULL, "sealing a layer"),
    (shelved.RemovesBeforeRenaming, _KILL, "chmod"),
    (shelved.CommitsTwice, _KILL, "sealing a layer"),
    (shelved.CommitsTwice, _KILL, "forking"),
    (shelved.PublishesOneByOne, _ERROR, "preparing many containers"),
    (shelved.AcknowledgesEarly, _KILL, "sealing a layer"),
    (shelved.IgnoresFullDisks, _FULL, "sealing a layer"),
    (shelved.IgnoresFullDisks, _ERROR, "rename"),
    (shelved.SaysNothingInParticular, _FULL, "setxattr"),
    (shelved.StaysBroken, _FULL, "preparing a container"),
    (shelved.LeaksOnFailure, _KILL, "preparing a container"),
    (shelved.LeaksOnFailure, _FULL, "sealing a base"),
    (shelved.LocksByAFile, _KILL, "overwriting"),
    (shelved.RenamesBeforeSyncing, _POWER, "preparing a container"),
    (shelved.SyncsNamesOnly, _POWER, "sealing a layer"),
    (shelved.SyncsWhenClosed, _POWER, "chown"),
]

#: The model keeps everything in full copies: whoever declares more for it is a liar.
LIES: list[tuple[Capability, str]] = [
    (Capability.NATIVE_PATH, "test_a_native_path_is_there_if_declared"),
    (Capability.INSTANT_PREPARE, "test_creating_a_container_doesnt_depend_on_the_image"),
    (Capability.INSTANT_FORK, "test_forking_doesnt_depend_on_the_image"),
    (Capability.INSTANT_FORK, "test_forking_doesnt_depend_on_what_the_container_holds"),
    (Capability.NATIVE_CHANGES, "test_finding_changes_doesnt_depend_on_the_image"),
    (Capability.SHARES_INODES, "test_equal_files_are_stored_once"),
    (Capability.SHARES_CHUNKS, "test_equal_parts_of_files_are_stored_once"),
    (Capability.COMPRESSES, "test_what_can_be_compressed_is"),
]


def run(
    driver: type[MemoryDriver],
    test: str,
    arguments: dict[str, object],
    root: Path,
    *capabilities: Capability,
) -> None:
    """Run one test of the kit on ``driver``."""
    shared = issubclass(driver, shelved.Shelved)

    class Kit(DriverConformance):
        processes = shared
        on_disk = shared
        spec = DriverSpec(
            name="faulty",
            summary="",
            load=lambda: lambda root, options: driver(root),
            capabilities=frozenset(capabilities),
        )

        def open_driver(self, root: Path) -> Driver:
            return driver(root)

    method = getattr(Kit(), test)
    (root / "driver").mkdir(parents=True)
    store = Store(root / "driver", Kit().open_driver)
    known = {"store": store, "tmp_path": root, **arguments}
    method(**{name: known[name] for name in inspect.signature(method).parameters})


def assert_names_the_promise(error: BaseException, test: str) -> None:
    assert str(error), "a failure says what differs"
    (note,) = [note for note in error.__notes__ if note.startswith("broken promise (")]
    said = note.partition("): ")[2].replace("'", "").replace(" ", "_")
    assert said == test.removeprefix("test_"), "a failure names the promise"


@pytest.mark.parametrize(
    ("fault", "test", "arguments"), CAUGHT, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_planted_fault_is_caught(
    fault: type[MemoryDriver], test: str, arguments: dict[str, object], tmp_path: Path
) -> None:
    run(MemoryDriver, test, arguments, tmp_path / "sound")
    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        run(fault, test, arguments, tmp_path / "faulty")
    assert_names_the_promise(caught.value, test)


@pytest.mark.parametrize(
    ("fault", "test", "act"), INJECTED, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_fault_that_shows_only_when_something_goes_wrong_is_caught(
    fault: type[shelved.Shelved], test: str, act: str, tmp_path: Path
) -> None:
    arguments: dict[str, object] = {"act": BY_ACT[act]}
    run(shelved.Shelved, test, arguments, tmp_path / "sound")
    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        run(fault, test, arguments, tmp_path / "faulty")
    assert_names_the_promise(caught.value, test)
    said = f"{caught.value} {caught.value.__notes__}"
    assert "after " in said or "nothing behind" in said, "a failure says what went wrong before"


@pytest.mark.parametrize("fault", {fault: None for fault, _, _ in INJECTED})
def test_nothing_but_the_fault_injector_catches_it(
    fault: type[shelved.Shelved], tmp_path: Path
) -> None:
    for test in ("test_items_is_exactly_what_was_made", "test_everything_survives_reopening"):
        run(fault, test, {}, tmp_path / test)


@pytest.mark.parametrize(("capability", "test"), LIES, ids=lambda value: getattr(value, "name", ""))
def test_a_capability_that_isn_t_so_is_caught(
    capability: Capability, test: str, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError) as caught:
        run(MemoryDriver, test, {}, tmp_path, capability)
    assert_names_the_promise(caught.value, test)


def test_every_planted_fault_is_caught_by_something() -> None:
    planted = {
        found
        for found in vars(faults).values()
        if isinstance(found, type)
        and issubclass(found, MemoryDriver)
        and found.__doc__
        and found.__module__ == faults.__name__
    } - {faults.StagesFaultily, faults.ChangedTree}
    caught = {fault for fault, _, _ in CAUGHT}
    assert planted == caught
    assert len(caught) >= 40
