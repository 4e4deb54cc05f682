"""The kit catches planted faults: each faulty driver fails the tests that are there for it."""

from __future__ import annotations

import inspect
import tarfile
from pathlib import Path

import pytest

from cowshed.driver import Capability, Driver, DriverSpec
from cowshed.testing import DriverConformance, MemoryDriver
from cowshed.testing.acts import CALLS, SESSIONS
from cowshed.testing.kit import Store
from cowshed.testing.round_trips import TRIPS
from cowshed.testing.writes import WRITES

from . import faults, shelved, stage_faults, store_faults, tree_faults

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
    # Those that nothing else in the kit is there for.
    (faults.ForgetsWhiteouts, "test_a_whiteout_of_a_directory_takes_what_is_below", {}),
    (faults.ForgetsWhiteouts, "test_deleting_and_making_again_works_at_each_depth", {}),
    (faults.CopiesHardLinks, "test_a_hard_link_may_reach_into_the_parent", {}),
    (faults.CopiesHardLinks, "test_a_whole_tree_goes_out_and_comes_in_as_a_base", {}),
    (faults.WritesThrough, "test_siblings_do_not_see_each_other", {}),
    (faults.WritesThrough, "test_all_writes_in_a_row_leave_every_ancestor_alone", {}),
    (faults.LosesTrustedXattrs, "test_xattrs_of_the_root_and_of_other_kinds", {}),
    (faults.LosesDeepLayers, "test_a_deep_chain_equals_a_flat_reference_at_every_step", {}),
    (faults.ReplacesWhatIsThere, "test_taken_ids_conflict", {}),
    (faults.ReplacesWhatIsThere, "test_a_containers_id_is_taken_for_layers", {}),
    (faults.ReplacesWhatIsThere, "test_forking_refuses_unknown_taken_and_layers", {}),
    (faults.LeaksOnRemove, "test_a_removed_id_can_be_used_again_for_another_kind", {}),
    (faults.OmitsTouchedDirectories, "test_deleting_and_making_again_is_exact_at_each_depth", {}),
    (faults.HidesLinksInChanges, "test_a_changed_partition_into_files_replays", {}),
    (
        faults.ListsOnlyNewNames,
        "test_a_name_cut_from_its_file_is_a_change_even_if_all_is_equal",
        {},
    ),
    (stage_faults.SealsWhatIsLeft, "test_a_stage_not_sealed_leaves_nothing", {"how": "leave"}),
    (stage_faults.DiscardsWhatIsSealed, "test_discard_after_seal_does_nothing", {}),
    (stage_faults.ReadsBackWhatWasReplaced, "test_a_stage_reads_back_what_it_was_given", {}),
    (stage_faults.KeepsTheFirst, "test_an_entry_may_replace_one_of_the_same_stage", {}),
    (
        stage_faults.KeepsDirectories,
        "test_any_kind_replaces_any_other",
        {"old": "directory", "new": "file"},
    ),
    (stage_faults.StagesThroughLinks, "test_replacing_one_name_leaves_the_other", {}),
    (stage_faults.ComposesNames, "test_names_are_compared_by_bytes", {}),
    (stage_faults.TidiesTargets, "test_symlink_targets_are_verbatim", {}),
    (stage_faults.HasFewLinks, "test_a_file_with_hundreds_of_names", {}),
    (stage_faults.TakesEqualFilesForOne, "test_many_small_files", {"distinct": False}),
    (stage_faults.ResetsTheRoot, "test_a_chmod_of_the_root_is_inherited_by_the_grandchild", {}),
    (stage_faults.StagesOnNothing, "test_a_layer_without_entries_equals_its_parent", {}),
    (
        stage_faults.LosesTheLastByte,
        "test_content_of_any_size_reads_back_from_anywhere",
        {"size": 4097},
    ),
    (
        stage_faults.LosesTheLastByte,
        "test_a_layers_tar_comes_back_byte_for_byte",
        {"format": tarfile.PAX_FORMAT},
    ),
    (stage_faults.HasAPrivateRoot, "test_an_empty_layer_exists_and_is_empty", {}),
    (stage_faults.HasAPrivateRoot, "test_a_container_without_parent_is_an_empty_root", {}),
    (store_faults.SealsOnlyOnce, "test_sealing_what_exists_changes_nothing", {}),
    (store_faults.SealsOnlyOnce, "test_two_may_stage_the_same_layer", {}),
    (store_faults.SealsOnlyOnce, "test_threads_with_a_driver_each_dont_disturb_each_other", {}),
    (store_faults.SealsOrphans, "test_a_parent_that_goes_away_under_a_stage_leaves_no_orphan", {}),
    (store_faults.FailsInItsOwnWay, "test_unknown_ids_are_not_found", {}),
    (store_faults.FailsInItsOwnWay, "test_staging_on_an_unknown_parent_is_not_found", {}),
    (store_faults.StartsEmpty, "test_a_container_equals_its_parent", {}),
    (
        store_faults.StartsWhatIsThrownAwayEmpty,
        "test_a_container_that_isnt_synced_is_as_others_are",
        {},
    ),
    (
        shelved.SyncsNothingWithIt,
        "test_after_a_power_cut_what_wasnt_synced_can_be_removed",
        {},
    ),
    (store_faults.PreparesOneForAll, "test_many_are_prepared_and_removed_at_once", {}),
    (store_faults.RemovesAllButTheLast, "test_thousands_of_containers_cost_what_one_costs", {}),
    (store_faults.HasRoomForAHundred, "test_hundreds_of_containers", {}),
    (store_faults.ForkDiesWithItsOrigin, "test_a_fork_outlives_its_origin", {}),
    (store_faults.ForksTheBeginning, "test_a_fork_is_equal_in_content_and_changes", {}),
    (
        store_faults.EmptiesSiblings,
        "test_removing_a_container_leaves_its_parent_and_siblings",
        {},
    ),
    (
        store_faults.CountsNoSiblings,
        "test_layers_go_as_soon_as_nothing_stands_on_them_and_no_sooner",
        {},
    ),
    (store_faults.TakesContainersForGarbage, "test_recover_is_idempotent", {}),
    (store_faults.CriesWolf, "test_a_sound_store_verifies", {}),
    (tree_faults.DescribesHalf, "test_each_change_describes_the_object_as_it_is", {}),
    (
        tree_faults.ListsChangesByText,
        "test_path_order_is_parents_first_and_names_by_bytes",
        {},
    ),
    (tree_faults.RemembersTouching, "test_what_is_put_back_is_no_change", {}),
    (tree_faults.WritableViews, "test_a_view_of_a_container_refuses_writes", {}),
    (tree_faults.RevivesChildren, "test_a_directory_made_again_hides_its_old_children", {}),
    (
        tree_faults.MovesDirectoriesOnly,
        "test_what_moves_out_of_a_lower_directory_arrives_whole",
        {},
    ),
    (
        tree_faults.BreaksHardLinks,
        "test_a_write_through_one_name_shows_under_the_others",
        {},
    ),
    (
        tree_faults.BreaksHardLinks,
        "test_a_write_does_what_the_model_does",
        {"write": BY_NAME["writing through a hard link"]},
    ),
    (tree_faults.WritingLosesXattrs, "test_xattrs_survive_writing_and_renaming", {}),
    (tree_faults.NeverReplacesXattrs, "test_xattrs_are_set_replaced_and_removed", {}),
    (tree_faults.SetsTimesOfFilesOnly, "test_utime_sets_any_value_of_any_kind", {}),
    (tree_faults.MakesEverythingAPipe, "test_devices_are_made_in_a_container", {}),
    (
        tree_faults.RemovesFullDirectories,
        "test_what_doesnt_fit_is_refused_and_changes_nothing",
        {},
    ),
    (tree_faults.MakesParents, "test_missing_paths_are_file_not_found", {}),
    (
        tree_faults.ApplyTouchesParents,
        "test_apply_makes_exactly_the_entry_and_leaves_the_parents_mtime",
        {},
    ),
    (tree_faults.WalksBackwards, "test_walk_is_parents_first_and_reaches_everything", {}),
    (tree_faults.ListsFewerThanItDescribes, "test_a_thousand_files_in_one_directory", {}),
    (tree_faults.ListsOnePage, "test_a_thousand_files_in_one_directory", {}),
    (tree_faults.IsAHundredLevelsDeep, "test_hundreds_of_levels_of_directories", {}),
    (tree_faults.HandsWholePathsOver, "test_paths_beyond_4096_bytes", {}),
    (tree_faults.ClosesOnce, "test_closing_twice_is_fine", {}),
    (shelved.KeepsTheSpace, "test_space_comes_back", {}),
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

_DAMAGE = "test_damage_is_never_read_as_if_it_were_content"

#: The model keeps everything in full copies: whoever declares more for it is a liar.
LIES: list[tuple[Capability, str]] = [
    (Capability.NATIVE_PATH, "test_a_native_path_is_there_if_declared"),
    (Capability.INSTANT_PREPARE, "test_creating_a_container_doesnt_depend_on_the_image"),
    (Capability.INSTANT_FORK, "test_forking_doesnt_depend_on_the_image"),
    (Capability.INSTANT_FORK, "test_forking_doesnt_depend_on_what_the_container_holds"),
    (Capability.NATIVE_CHANGES, "test_finding_changes_doesnt_depend_on_the_image"),
    (Capability.SHARES_INODES, "test_equal_files_are_stored_once"),
    (Capability.SHARES_CHUNKS, "test_equal_parts_of_files_are_stored_once"),
    (Capability.SHARES_CHUNKS, "test_what_is_shared_is_exclusive_to_nobody"),
    (Capability.SHARES_EXTENTS, "test_what_nobody_wrote_is_on_disk_once"),
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
        fleet = 300  # the model counts all its bytes whenever it is asked
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
    sound = shelved.Shelved if issubclass(fault, shelved.Shelved) else MemoryDriver
    run(sound, test, arguments, tmp_path / "sound")
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


def test_damage_that_is_read_as_content_is_caught(tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as caught:
        run(shelved.Shelved, _DAMAGE, {}, tmp_path, Capability.VERIFIES_READS)
    assert_names_the_promise(caught.value, _DAMAGE)


def test_what_costs_more_the_more_containers_there_are_is_caught(tmp_path: Path) -> None:
    test = "test_thousands_of_containers_cost_what_one_costs"
    run(MemoryDriver, test, {}, tmp_path / "sound", Capability.INSTANT_PREPARE)
    with pytest.raises(AssertionError) as caught:
        run(store_faults.MeasuresAll, test, {}, tmp_path / "faulty", Capability.INSTANT_PREPARE)
    assert_names_the_promise(caught.value, test)


def test_what_a_killed_process_leaves_is_caught(tmp_path: Path) -> None:
    test = "test_what_a_killed_process_staged_is_swept"
    for kit in (shelved.Sound(), shelved.Leaving()):
        root = tmp_path / type(kit).__name__
        root.mkdir()
        store = Store(root, kit.open_driver)
        if isinstance(kit, shelved.Sound):
            kit.test_what_a_killed_process_staged_is_swept(store)
            continue
        with pytest.raises(AssertionError) as caught:
            kit.test_what_a_killed_process_staged_is_swept(store)
        assert_names_the_promise(caught.value, test)


#: Caught by tests of their own, above.
APART: set[type[MemoryDriver]] = {store_faults.MeasuresAll, shelved.LeavesStages}


def test_every_planted_fault_is_caught_by_something() -> None:
    modules = (faults, stage_faults, store_faults, tree_faults, shelved)
    planted = {
        found
        for module in modules
        for found in vars(module).values()
        if isinstance(found, type)
        and issubclass(found, MemoryDriver)
        and found.__doc__
        and found.__module__ == module.__name__
    } - {faults.StagesFaultily, faults.ChangedTree, shelved.Shelved}
    caught = {fault for fault, _, _ in [*CAUGHT, *INJECTED]} | APART
    assert planted == caught
    assert len(caught) >= 90


def test_every_promise_of_the_kit_is_broken_by_a_planted_fault() -> None:
    """Or it needs what the model hasn't: processes, a native path, bytes on disk."""
    promises = {name for name in dir(DriverConformance) if name.startswith("test_")}
    shown = {test for _, test, _ in [*CAUGHT, *INJECTED]} | {test for _, test in LIES}
    shown |= {"test_what_a_killed_process_staged_is_swept", _DAMAGE}
    assert promises - shown == {
        "test_a_kill_at_any_moment_leaves_whole_things",
        "test_a_large_hole_costs_no_space",
        "test_a_native_path_shows_the_tree_and_reaches_no_ancestor",
        "test_a_reader_isnt_disturbed_by_a_writer",
        "test_building_on_a_layer_that_another_removes_leaves_no_orphan",
        "test_more_containers_than_a_file_can_have_links",
        "test_more_equal_files_than_a_file_can_have_links",
        "test_sockets_that_a_process_leaves_are_in_no_tree",
        "test_two_processes_seal_the_same_layers_at_once",
        "test_what_a_process_maps_and_writes_reaches_no_ancestor",
    }
