"""What a run's file holds, and what is said about files that aren't one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from cowshed_benchmarks.results import (
    FORMAT,
    ImageFacts,
    Input,
    Machine,
    ResultError,
    Run,
    Sample,
    Subject,
    Workload,
    load,
)

RUN = Run(
    started="2026-01-02T03:04:05Z",
    finished="2026-01-02T03:05:05Z",
    command=("cowshed", "bench", "--quick"),
    machine=Machine(
        cpu="a processor",
        cores=2,
        memory=4 << 30,
        kernel="6.18",
        file_system="ext4 on /dev/vda",
        python="3.11.2",
        privileged=True,
        load=0.5,
    ),
    versions={"cowshed": "0.1.0"},
    input=Input(
        title="files of this machine",
        images=(ImageFacts(reference="v1", layers=4, unpacked=10, entries=3, compressed=5),),
    ),
    options={"quick": True, "drivers": ["naive-copy"]},
    subjects=(Subject(name="naive-copy", kind="driver", version="0.1.0", durable="yes"),),
    workloads=(Workload(name="create", title="Create", question="How long?", group="containers"),),
    samples=(
        Sample(
            subject="naive-copy",
            workload="create",
            parameter=100,
            round=0,
            order=0,
            outcome="ok",
            wall=0.25,
            cpu=0.2,
            disk=-4096,
            operations=100,
            extra={"hooks": 3.0},
        ),
        Sample(
            subject="naive-copy",
            workload="create",
            round=1,
            order=1,
            outcome="failed",
            reason="disk full",
        ),
    ),
)


def test_a_run_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    RUN.write(tmp_path / "run.json")
    assert load(tmp_path / "run.json") == RUN
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_what_was_not_measured_is_null_in_the_file(tmp_path: Path) -> None:
    RUN.write(tmp_path / "run.json")
    sample = json.loads((tmp_path / "run.json").read_text())["samples"][0]
    assert sample["syncs"] is None
    assert sample["wall"] == 0.25


def test_fields_that_a_later_version_added_are_passed_over(tmp_path: Path) -> None:
    document: Any = attrs.asdict(RUN)
    document["weather"] = "fine"
    document["samples"][0]["joules"] = 3
    (tmp_path / "run.json").write_text(json.dumps(document))
    assert load(tmp_path / "run.json") == RUN


def change(*keys: Any, to: Any) -> Any:
    def apply(document: Any) -> Any:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = to

    return apply


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (change("format", to=FORMAT + 1), "reads up to 1; upgrade Cowshed"),
        (change("format", to="1"), "its format is '1', not a number from 1"),
        (change("samples", 0, "wall", to="fast"), "samples[0].wall is 'fast', not a number"),
        (change("samples", 0, "wall", to=True), "samples[0].wall is True, not a number"),
        (change("samples", 0, "wall", to=float("inf")), "samples[0].wall is inf, not a finite"),
        (change("samples", 1, "round", to=1.5), "samples[1].round is 1.5, not a whole number"),
        (change("samples", 1, "outcome", to="meh"), "not one of 'ok', 'skipped', 'failed'"),
        (change("samples", 0, "subject", to="nobody"), "which the run doesn't list"),
        (change("machine", to=[]), "machine is [], not an object"),
        (change("samples", to={}), "samples is {}, not a list"),
        (lambda document: document["machine"].pop("cores"), "machine.cores is missing"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line_that_names_it(
    tmp_path: Path, damage: Any, said: str
) -> None:
    document: Any = json.loads(json.dumps(attrs.asdict(RUN)))
    damage(document)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ResultError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"samples": []}', "[" * 100_000, "\x00\xff"])
def test_what_is_no_run_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(ResultError, match="no result of 'cowshed bench'"):
        load(path)


def test_a_missing_file_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"none\.json: No such file"):
        load(tmp_path / "none.json")


def test_a_number_that_json_lacks_is_never_written(tmp_path: Path) -> None:
    sample = attrs.evolve(RUN.samples[0], wall=float("nan"))
    with pytest.raises(ValueError, match="Out of range"):
        attrs.evolve(RUN, samples=(sample,)).write(tmp_path / "run.json")
    assert not list(tmp_path.iterdir())
