"""Every way we know in which a layer tried to leave its root, and what happens instead.

The cases are those of containerd's archive tests, of moby's breakout tests and of the CVEs that
each group names.
"""

from __future__ import annotations

import tarfile

import pytest

from archive.helpers import Member, Stack, directory, file, link, listing, member, symlink, tar
from cowshed.errors import ArchiveError, UnsafeEntryError

Expected = dict[str, "str | bytes"] | type[ArchiveError]

ETC = (directory("etc"), file("/etc/passwd", b"inside"))
USERS = (directory("/etc/"), file("/etc/passwd", b"all users"))

ONE_LAYER: dict[str, tuple[tuple[Member, ...], Expected]] = {
    "symlink_absolute": (
        (directory("etc"), symlink("/etc", "localetc"), file("/localetc/unbroken", b"u")),
        {"etc/unbroken": b"u", "localetc": "-> /etc"},
    ),
    "symlink_up_and_out": (
        (
            directory("etc"),
            directory("dummy"),
            symlink("/dummy/../etc", "localetc"),
            file("/localetc/unbroken", b"u"),
        ),
        {"etc/unbroken": b"u"},
    ),
    "symlink_multiple_absolute": (
        (
            directory("etc"),
            directory("dummy"),
            symlink("/etc", "/dummy/etc"),
            symlink("/dummy/etc", "localetc"),
            file("/localetc/unbroken", b"u"),
        ),
        {"etc/unbroken": b"u", "dummy/etc": "-> /etc"},
    ),
    "symlink_multiple_relative": (
        (
            directory("etc"),
            directory("dummy"),
            symlink("/etc", "/dummy/etc"),
            symlink("./dummy/etc", "localetc"),
            file("/localetc/unbroken", b"u"),
        ),
        {"etc/unbroken": b"u"},
    ),
    "symlink_empty_file": (
        (
            directory("etc"),
            file("etc/emptied", b"notempty"),
            symlink("/etc", "localetc"),
            file("/localetc/emptied"),
        ),
        {"etc/emptied": b""},
    ),
    "hardlink_relative": (
        (
            *ETC,
            directory("breakouts"),
            symlink("../../etc", "breakouts/d1"),
            link("/breakouts/d1/passwd", "breakouts/mypasswd"),
        ),
        {"breakouts/mypasswd": b"inside"},
    ),
    "hardlink_down_and_out": (
        (
            *ETC,
            directory("breakouts"),
            directory("downandout"),
            symlink("../downandout/../../etc", "breakouts/d1"),
            link("/breakouts/d1/passwd", "breakouts/mypasswd"),
        ),
        {"breakouts/mypasswd": b"inside"},
    ),
    "hardlink_absolute": (
        (*ETC, symlink("/etc", "localetc"), link("/localetc/passwd", "localpasswd")),
        {"localpasswd": b"inside"},
    ),
    "hardlink_relative_long": (
        (*ETC, symlink("../../../../../../../etc", "localetc"), link("/localetc/passwd", "lp")),
        {"lp": b"inside"},
    ),
    "hardlink_relative_up_and_out": (
        (
            *ETC,
            directory("upandout"),
            symlink("upandout/../../../etc", "localetc"),
            link("/localetc/passwd", "lp"),
        ),
        {"lp": b"inside"},
    ),
    "hardlink_direct_relative": ((*ETC, link("../../../../etc/passwd", "lp")), {"lp": b"inside"}),
    "hardlink_direct_absolute": ((*ETC, link("/etc/passwd", "lp")), {"lp": b"inside"}),
    "hardlink_to_symlink_before_its_target": (
        (
            directory("etc"),
            symlink("/etc/passwd", "localpasswd"),
            link("localpasswd", "dup"),
            file("/etc/passwd", b"after"),
        ),
        {"dup": "-> /etc/passwd", "localpasswd": "-> /etc/passwd", "etc/passwd": b"after"},
    ),
    "hardlink_to_relative_symlink": (
        (*ETC, symlink("../../../../../etc/passwd", "pl"), link("/pl", "lp")),
        {"lp": "-> ../../../../../etc/passwd", "etc/passwd": b"inside"},
    ),
    "hardlink_to_absolute_symlink": (
        (*ETC, symlink("/etc/passwd", "pl"), link("/pl", "lp")),
        {"lp": "-> /etc/passwd"},
    ),
    "symlink_named_parent": ((*ETC, symlink("/etc/", "..")), UnsafeEntryError),
    "symlink_without_name": ((*ETC, symlink("/etc/", "")), UnsafeEntryError),
    "symlink_named_below_and_up": (
        (*ETC, symlink("/etc/", "localetc/sub/.."), link("/etc/passwd", "/localetc/lp")),
        {"localetc": "-> /etc/", "etc/lp": b"inside"},
    ),
    "directory_with_slash": (
        (*ETC, directory("localetc/"), link("/etc/passwd", "/localetc/lp")),
        {"localetc/lp": b"inside"},
    ),
    "file_with_slash": ((file("new/", b"x"),), {"new": b"x"}),
    "file_with_slash_in_an_old_header": (
        (member("old/", tarfile.AREGTYPE, mode=0o755), file("old/x", b"x")),
        {"old": "directory", "old/x": b"x"},
    ),
    # moby: parents and absolute names
    "name_leads_out": ((file("../victim", b"x"),), UnsafeEntryError),
    "name_leads_out_late": ((file("a/../../victim", b"x"),), UnsafeEntryError),
    "directory_leads_out": ((directory("../victim/"),), UnsafeEntryError),
    "absolute_name_stays": ((file("/../victim", b"x"),), {"victim": b"x"}),
    "many_slashes": ((file("//a///b", b"x"),), {"a/b": b"x"}),
    "symlink_then_file_through_it": (
        (symlink("../../victim", "out"), file("out/hello", b"x")),
        {"out": "-> ../../victim", "victim/hello": b"x"},
    ),
    # CVE-2021-29136: the root's type
    "root_as_symlink": ((symlink("/etc", "."),), UnsafeEntryError),
    "root_as_file": ((file("./", b""),), UnsafeEntryError),
    "root_as_hardlink": ((*ETC, link("etc/passwd", "/")), UnsafeEntryError),
    # CVE-2021-21272, CVE-2018-20225: the leaf is replaced, never written through
    "file_over_symlink": (
        (*ETC, symlink("/etc/passwd", "x"), file("x", b"mine")),
        {"x": b"mine", "etc/passwd": b"inside"},
    ),
    "parent_replaced_by_symlink": (
        (directory("a"), directory("b"), file("a/f", b"1"), symlink("b", "a"), file("a/f", b"2")),
        {"a": "-> b", "b/f": b"2"},
    ),
    "parent_symlink_replaced_by_directory": (
        (directory("b"), symlink("b", "a"), file("a/f", b"1"), directory("a"), file("a/f", b"2")),
        {"a": "directory", "a/f": b"2", "b/f": b"1"},
    ),
    "symlinks_in_circles": ((symlink("b", "a"), symlink("a", "b"), file("a/f")), ArchiveError),
    "file_below_a_file": ((file("a"), file("a/b")), ArchiveError),
    # Hard links: CVE-2021-32760, CVE-2014-6407, CVE-2025-4330
    "hardlink_to_nothing": ((link("missing", "x"),), ArchiveError),
    "hardlink_to_directory": ((directory("d"), link("d", "x")), ArchiveError),
    "hardlink_to_root": ((link("/", "x"),), ArchiveError),
    "hardlink_to_itself": ((file("x", b"1"), link("x", "./x")), {"x": b"1"}),
    "hardlink_over_its_holder": ((file("d/x", b"1"), link("d/x", "d")), UnsafeEntryError),
    # Whiteouts
    "whiteout_of_parent_at_root": ((file(".wh..."),), UnsafeEntryError),
    "whiteout_of_parent": ((*ETC, file("etc/.wh...")), UnsafeEntryError),
    "whiteout_of_root": ((file(".wh.."),), UnsafeEntryError),
    "whiteout_of_directory_itself": ((*ETC, file("etc/.wh..")), UnsafeEntryError),
    "whiteout_of_nothing": ((*ETC, file("etc/.wh.")), UnsafeEntryError),
    "whiteout_leads_out": ((file("../.wh.victim"),), UnsafeEntryError),
    "whiteout_spares_its_own_layer": ((*ETC, file(".wh.etc")), {"etc/passwd": b"inside"}),
    "aufs_metadata": ((file(".wh..wh.aufs"), directory(".wh..wh.plnk/")), {}),
}


@pytest.mark.parametrize("name", ONE_LAYER)
def test_one_layer_stays_inside_its_root(name: str) -> None:
    members, expected = ONE_LAYER[name]
    check(Stack(), members, expected)


TWO_LAYERS: dict[str, tuple[tuple[Member, ...], tuple[Member, ...], Expected]] = {
    "symlink_overrides_directory": (
        (*ETC, directory("/localetc/")),
        (symlink("/etc", "localetc"), link("/etc/passwd", "/localetc/lp")),
        {"localetc": "-> /etc", "etc/lp": b"inside"},
    ),
    "relative_symlink_overrides_directory": (
        (*ETC, directory("/localetc/")),
        (symlink("../../etc", "localetc"), link("/etc/passwd", "/localetc/lp")),
        {"localetc": "-> ../../etc", "etc/lp": b"inside"},
    ),
    "directory_overrides_symlink": (
        (*ETC, symlink("/etc", "localetc")),
        (directory("/localetc/"), link("/etc/passwd", "/localetc/lp")),
        {"localetc": "directory", "localetc/lp": b"inside"},
    ),
    "directory_overrides_symlink_and_hardlink": (
        (*ETC, symlink("etc", "localetc"), link("/etc/passwd", "/localetc/lp")),
        (directory("/localetc/"), file("/localetc/lp", b"different")),
        {"localetc/lp": b"different", "etc/passwd": b"inside", "etc/lp": b"inside"},
    ),
    "whiteout_of_symlink": (
        (*USERS, symlink("/etc", "localetc")),
        (file(".wh.localetc"),),
        {"etc": "directory", "etc/passwd": b"all users"},
    ),
    "whiteout_through_symlink": (
        (*USERS, file("etc/whitedout", b"x"), symlink("/etc", "localetc")),
        (file("localetc/.wh.whitedout"),),
        {"etc": "directory", "etc/passwd": b"all users", "localetc": "-> /etc"},
    ),
    "directory_with_a_whiteout_name": (
        USERS,
        (file(".wh.etc/somefile", b"non-empty"),),
        {"etc/passwd": b"all users", ".wh.etc/somefile": b"non-empty"},
    ),
    "whiteout_below_dead_symlink": (
        (*USERS, symlink("/dne", "localetc")),
        (file("localetc/.wh.etc"),),
        {"etc/passwd": b"all users"},
    ),
    "whiteout_by_relative_path": (
        USERS,
        (file("dne/../.wh.etc"),),
        {},
    ),
    # usr-merge: the parent's links are followed, inside
    "file_below_the_parents_symlink": (
        (directory("usr/bin"), symlink("usr/bin", "bin")),
        (file("bin/sh", b"sh"),),
        {"usr/bin/sh": b"sh", "bin": "-> usr/bin"},
    ),
    "parents_symlink_replaced_between": (
        (directory("usr/bin"), directory("other"), symlink("usr/bin", "bin")),
        (file("bin/a", b"a"), symlink("other", "bin"), file("bin/b", b"b")),
        {"usr/bin/a": b"a", "other/b": b"b", "bin": "-> other"},
    ),
    "parents_symlink_whited_out_between": (
        (directory("usr/bin"), symlink("usr/bin", "bin")),
        (file("bin/a", b"a"), file(".wh.bin"), file("bin/b", b"b")),
        {"usr/bin/a": b"a", "bin": "directory", "bin/b": b"b"},
    ),
    "symlink_in_a_chain_replaced_between": (
        (directory("x/y"), directory("z"), symlink("m", "l"), symlink("x/y", "m")),
        (file("l/a", b"a"), symlink("z", "m"), file("l/b", b"b")),
        {"x/y/a": b"a", "z/b": b"b"},
    ),
    "directory_in_a_chain_replaced_between": (
        (directory("x/y"), directory("z/y"), symlink("x/y", "l")),
        (file("l/a", b"a"), symlink("z", "x"), file("l/b", b"b")),
        {"z/y/b": b"b", "x": "-> z"},
    ),
    "hardlink_to_the_parents_file": (USERS, (link("etc/passwd", "p"),), {"p": b"all users"}),
    "hardlink_to_a_whited_out_file": (
        USERS,
        (file("etc/.wh.passwd"), link("etc/passwd", "p")),
        ArchiveError,
    ),
}


@pytest.mark.parametrize("name", TWO_LAYERS)
def test_two_layers_stay_inside_their_root(name: str) -> None:
    below, above, expected = TWO_LAYERS[name]
    stack = Stack()
    stack.apply(tar(*below))
    check(stack, above, expected)


def check(stack: Stack, members: tuple[Member, ...], expected: Expected) -> None:
    if isinstance(expected, type):
        with pytest.raises(expected):
            stack.apply(tar(*members))
        return
    found = listing(stack.apply(tar(*members)))
    if len(expected) < 1 or (len(expected) > 1 and set(found) == set(expected)):
        assert found == expected
    assert {path: found.get(path) for path in expected} == expected
