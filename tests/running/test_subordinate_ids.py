"""An ordinary user's containers with more users than one (subuid(5))."""

from __future__ import annotations

import os

import pytest

from cowshed import Container
from cowshed.errors import StoreError
from cowshed.running.identity import find_identity

from .helpers import sh


@pytest.fixture(autouse=True)
def mapped() -> None:
    identity = find_identity()
    if identity is None:
        pytest.skip("root's containers use the host's numbers")
    if identity.single:
        pytest.skip("no subordinate IDs are set up, or newuidmap isn't installed")


@pytest.fixture
def several(runtime: str) -> str:
    if runtime == "bubblewrap":
        pytest.skip("bubblewrap maps one user")
    return runtime


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("www", "uid=33(www) gid=33(www) groups=33(www),44(extra),50(staff) /var/www"),
        ("www:extra", "uid=33(www) gid=44(extra) groups=44(extra) /var/www"),
        ("1234:5678", "uid=1234 gid=5678 groups=5678 /"),
        (None, "uid=0(root) gid=0(root) groups=0(root) /root"),
    ],
)
def test_users_are_the_containers_own(
    box: Container, several: str, user: str | None, said: str
) -> None:
    how = {} if user is None else {"user": user}
    if several == "runc" and user == "www":
        with pytest.raises(StoreError, match=r"processes one group only; .*plain can"):
            box.run(["id"], runtime=several, user=user)
        assert sh(box, "echo $(id) $HOME", **how).strip() == said
        return
    assert sh(box, "echo $(id) $HOME", runtime=several, **how).strip() == said


def test_a_user_beyond_the_range_is_refused(box: Container) -> None:
    with pytest.raises(StoreError, match="can't be had here without subordinate IDs"):
        box.run(["true"], user="70000")
    assert os.geteuid() != 0
