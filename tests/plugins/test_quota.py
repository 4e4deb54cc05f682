"""The quota."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cowshed import Shed
from cowshed.errors import ConfigError, VetoError
from cowshed_plugins.settings import byte_count


def test_containers_are_counted_batch_and_fork_included(open_shed: Callable[..., Shed]) -> None:
    shed = open_shed(quota={"max_containers": 3})
    first = shed.create_many("scratch", 2)[0]
    with pytest.raises(VetoError, match="allows 3 containers, there are 2"):
        shed.create_many("scratch", 2)
    first.fork()
    with pytest.raises(VetoError):
        first.fork()
    first.remove()
    shed.create("scratch")


def test_images_are_counted(open_shed: Callable[..., Shed], tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    shed = open_shed(quota={"max_images": 1})
    shed.import_image(f"dir:{tmp_path}/root", "one")
    with pytest.raises(VetoError, match="raise max_images"):
        shed.import_image(f"dir:{tmp_path}/root", "two")
    with pytest.raises(VetoError):
        shed.create("one").commit("three")


def test_bytes_on_disk_are_measured_when_bounded(open_shed: Callable[..., Shed]) -> None:
    with pytest.raises(VetoError, match="allows 1,000 bytes"):
        open_shed(quota={"max_bytes": "1 kB"}).create("scratch")
    open_shed(quota={"max_bytes": "1 GB"}).create("scratch")


@pytest.mark.parametrize(
    ("text", "count"),
    [(5, 5), ("5", 5), ("20 GB", 20 * 10**9), ("1.5MiB", 3 << 19), ("512 kib", 512 << 10)],
)
def test_bytes_are_written_as_people_do(text: object, count: int) -> None:
    assert byte_count(text) == count


@pytest.mark.parametrize("text", ["", "GB", "20 XB", "-1", -1, True, "nan"])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        byte_count(text)


def test_a_wrong_setting_refuses_rather_than_lets_through(open_shed: Callable[..., Shed]) -> None:
    with pytest.raises(ConfigError, match="max_containers"):
        open_shed(quota={"max_containers": "many"}).create("scratch")
