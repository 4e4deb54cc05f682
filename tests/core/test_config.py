"""Configuration: precedence, sources, and clear refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from cowshed.config import load_config
from cowshed.errors import ConfigError


def toml(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_arguments_go_over_environment_over_file_over_default(tmp_path: Path) -> None:
    file = toml(tmp_path / "c.toml", 'driver = "naive-copy"\nroot = "/from/file"\n')
    environment = {"COWSHED_ROOT": "/from/environment", "HOME": "/home/x"}
    config = load_config({"driver": "hardlink-farm"}, file=file, environment=environment)
    assert config["driver"] == "hardlink-farm"
    assert config.sources["driver"] == "argument"
    assert str(config.root) == "/from/environment"
    assert config.sources["root"] == "COWSHED_ROOT"
    assert config["durability"] == "full"
    assert config.sources["durability"] == "default"
    assert load_config({}, file=file, environment={})["driver"] == "naive-copy"


def test_the_file_in_the_user_configuration_directory_is_found(tmp_path: Path) -> None:
    (tmp_path / "cowshed").mkdir()
    toml(tmp_path / "cowshed" / "cowshed.toml", 'driver = "naive-copy"')
    config = load_config(environment={"XDG_CONFIG_HOME": str(tmp_path)})
    assert config["driver"] == "naive-copy"


def test_the_shed_lies_in_the_user_data_directory_by_default(tmp_path: Path) -> None:
    config = load_config(
        environment={"XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    )
    assert config.root == tmp_path / "cowshed"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drvier = 'x'", "unknown setting 'drvier'; did you mean 'driver'"),
        ("durability = 'some'", 'durability must be "full" or "none"'),
        ("keep_blobs = 'perhaps'", "keep_blobs must be true or false"),
        ("driver = 3", "driver must be a non-empty string"),
        ("driver = ", "not TOML"),
        ("plugins = [1]", "plugins must be a non-empty string"),
        ("drivers = 1", "drivers must be a table"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    file = toml(tmp_path / "c.toml", text)
    with pytest.raises(ConfigError) as caught:
        load_config(file=file, environment={})
    assert str(caught.value).startswith(str(file))
    assert message in str(caught.value)
    assert caught.value.exit_status == 2


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"/no/such.toml: no such configuration file"):
        load_config(file="/no/such.toml", environment={})


def test_dotted_overrides_merge_into_tables(tmp_path: Path) -> None:
    file = toml(tmp_path / "c.toml", "[drivers.chunk-dedup]\na = 1\nb = 2\n")
    config = load_config(
        file=file, environment={}, overrides={"drivers.chunk-dedup.b": 3, "keep_blobs": True}
    )
    assert config.driver_options("chunk-dedup") == {"a": 1, "b": 3}
    assert config["keep_blobs"] is True
    assert config.sources["drivers"] == "--set"
    with pytest.raises(ConfigError, match="unknown setting 'nope'"):
        load_config(environment={}, overrides={"nope.x": 1})


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    environment = {"COWSHED_DRIVER": "", "XDG_CONFIG_HOME": str(tmp_path), "HOME": "/x"}
    assert load_config(environment=environment).sources["driver"] == "default"
