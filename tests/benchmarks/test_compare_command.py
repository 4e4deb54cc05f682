"""``cowshed bench compare`` as people and CI meet it."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest

from cowshed_benchmarks.judging.command import compare_command
from cowshed_benchmarks.judging.lines import lines
from cowshed_benchmarks.results import FORMAT

from .conftest import Call, Store
from .scripted import MACHINE, SUBJECTS, scripted_run

DRIVERS = tuple(one for one in SUBJECTS if one.kind == "driver")
LINES = len(lines(scripted_run(rounds=1, subjects=DRIVERS)))


def test_a_slowdown_is_shown_and_fails_where_the_limit_is_below_it(
    call: Call, store: Store
) -> None:
    slower = {("overlayfs", "fork"): 1.5}
    old = store("a.json", scripted_run(1, rounds=10, subjects=DRIVERS))
    new = store("b.json", scripted_run(2, rounds=10, subjects=DRIVERS, slower=slower))
    status, printed, error = call(compare_command, old, new)
    assert (status, error) == (0, "")
    (row,) = [line for line in printed.splitlines() if "SLOWER" in line]
    assert row.split()[:3] == ["overlayfs", "fork", "time"]
    assert " 20" in row  # from about 20 to about 30 ms
    status, _, error = call(compare_command, old, new, "--fail-over", "1.1")
    assert status == 1
    assert error.startswith("worse than 1.1× for certain: overlayfs fork 1.")
    assert call(compare_command, old, new, "--fail-over", "2")[0] == 0
    assert call(compare_command, new, old, "--fail-over", "1.1")[0] == 0


def test_nothing_new_is_said_in_one_line(call: Call, store: Store) -> None:
    path = store("a.json", scripted_run(1, rounds=10, subjects=DRIVERS))
    status, printed, _ = call(compare_command, path, path, "--fail-over", "1")
    assert status == 0
    assert f"{LINES} lines: 0 changed for certain, 0 perhaps, {LINES} didn't" in printed
    assert "SUBJECT" not in printed
    assert len(call(compare_command, path, path, "--all")[1].splitlines()) > LINES


def test_json_holds_every_line_with_its_interval(call: Call, store: Store) -> None:
    old = store("a.json", scripted_run(1, rounds=5, subjects=DRIVERS))
    new = store("b.json", scripted_run(2, rounds=5, subjects=DRIVERS))
    document = json.loads(call(compare_command, old, new, "--json")[1])
    assert set(document) == {"differences", "notes", "subjects", "lines"}
    assert len(document["lines"]) == LINES
    for line in document["lines"]:
        ratio = line["ratio"]
        assert ratio["low"] <= ratio["estimate"] <= ratio["high"]
        assert ratio["confidence"] == pytest.approx(0.968, abs=0.001)


def test_another_machine_is_refused_by_name_unless_asked_for(call: Call, store: Store) -> None:
    run = scripted_run(rounds=5, subjects=DRIVERS)
    other = attrs.evolve(run, machine=attrs.evolve(MACHINE, cpu="Another CPU"))
    old, new = store("a.json", run), store("b.json", other)
    status, printed, error = call(compare_command, old, new)
    assert (status, printed) == (1, "")
    assert "machine, cpu: Scripted CPU at 3 GHz in A, Another CPU in B" in error
    assert "--anyway" in error
    status, printed, error = call(compare_command, old, new, "--anyway")
    assert status == 0
    assert "differs: machine, cpu" in error
    assert f"{LINES} lines" in printed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no result of 'cowshed bench'"),
        ("{", "is no result of 'cowshed bench'"),
        ("[]", "it says no format"),
        (json.dumps({"format": FORMAT + 1}), "upgrade Cowshed"),
        (json.dumps({"format": FORMAT}), "is missing"),
    ],
)
def test_what_is_no_run_is_refused_in_one_line(
    call: Call, store: Store, tmp_path: Path, text: str, said: str
) -> None:
    good = store("a.json", scripted_run(rounds=1, subjects=DRIVERS))
    bad = tmp_path / "bad.json"
    bad.write_text(text)
    for arguments in ((good, str(bad)), (str(bad), good)):
        status, printed, error = call(compare_command, *arguments)
        assert (status, printed) == (1, "")
        assert str(bad) in error
        assert said in error
        assert "\n" not in error


def test_wrong_calls_are_refused(call: Call, store: Store, tmp_path: Path) -> None:
    run = store("a.json", scripted_run(rounds=1, subjects=DRIVERS))
    status, _, error = call(compare_command, run, str(tmp_path / "none.json"))
    assert (status, "none.json: No such file" in error) == (1, True)
    status, _, error = call(compare_command, run, run, "--subject", "overlay")
    assert (status, error) == (1, "no such subject: overlay; did you mean 'overlayfs'?")
    status, _, error = call(compare_command, run, run, "--workload", "frok")
    assert (status, "did you mean 'fork'?" in error) == (1, True)
    assert call(compare_command, run, run, "--fail-over", "0.5")[0] == 2
    assert call(compare_command, run, run, "--measure", "luck")[0] == 2
    assert call(compare_command, run)[0] == 2


def test_compare_and_report_stand_below_bench(call: Call, store: Store) -> None:
    from cowshed_benchmarks.command import bench

    path = store("a.json", scripted_run(1, rounds=1, subjects=DRIVERS))
    status, printed, _ = call(bench, "compare", path, path)
    assert (status, f"{LINES} lines" in printed) == (0, True)
    status, printed, _ = call(bench, "report", path, "--markdown")
    assert (status, printed.startswith("|")) == (0, True)
    status, _, error = call(bench, "compared", path, path)
    assert (status, "No such command 'compared'" in error) == (2, True)
