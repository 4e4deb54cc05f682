"""The report of a scripted run: its structure, its numbers, and that it needs nobody else."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import attrs
import pytest

from cowshed_benchmarks.judging.lines import MEASURES, Key, lines
from cowshed_benchmarks.quantities import quantity
from cowshed_benchmarks.reporting import NotInstalledError, report_beside
from cowshed_benchmarks.reporting.command import report_command
from cowshed_benchmarks.reporting.decision import Choice, choices
from cowshed_benchmarks.reporting.drawing import spread_out
from cowshed_benchmarks.reporting.headline import chart, markdown
from cowshed_benchmarks.reporting.page import page
from cowshed_benchmarks.reporting.palette import COLOURS, styles
from cowshed_benchmarks.results import OUT_OF_TIME, Run, Subject

from .conftest import Call, Store
from .scripted import SUBJECTS, WORKLOADS, scripted_run

#: Elements of HTML that are never closed.
_VOID = {"meta", "link", "br", "img", "input", "hr"}


class _Page(HTMLParser):
    """Walks a page: every element closed in its turn, and what is in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        """Return the attributes of all elements of a kind."""
        return [found for name, found in self.elements if name == tag]


@pytest.fixture(scope="module")
def run() -> Run:
    """A run of everybody, three rounds."""
    return scripted_run(3, rounds=3)


@pytest.fixture(scope="module")
def text(run: Run) -> str:
    """Its page."""
    return page(run)


@pytest.fixture(scope="module")
def parsed(text: str) -> _Page:
    """Its page, walked through."""
    return _Page(text)


def test_the_page_is_whole_and_every_identity_in_it_is_one(text: str, parsed: _Page) -> None:
    assert text.startswith("<!DOCTYPE html>")
    assert parsed.open == []
    identities = [found["id"] for _, found in parsed.elements if "id" in found]
    assert len(identities) == len(set(identities))
    known = set(identities)
    for _, found in parsed.elements:
        for name in ("href", "aria-labelledby"):
            for reference in found.get(name, "").split():
                if name == "aria-labelledby" or reference.startswith("#"):
                    assert reference.removeprefix("#") in known
    for reference in re.findall(r"url\(#([^)]+)\)", text):
        assert reference in known


def test_the_page_asks_nobody_for_anything(text: str, parsed: _Page) -> None:
    assert not parsed.all("script")
    assert not parsed.all("img")
    assert not parsed.all("iframe")
    for _, found in parsed.elements:
        for name in ("src", "href", "xlink:href", "data", "action", "srcset"):
            assert found.get(name, "#").startswith(("#", "data:"))
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_the_answers_come_in_their_order(parsed: _Page) -> None:
    assert [found["id"] for found in parsed.all("section")] == [
        "pick",
        "growth",
        "peers",
        "details",
    ]


def test_the_page_is_for_light_and_dark_and_for_phones(text: str, parsed: _Page) -> None:
    assert "@media (prefers-color-scheme:dark)" in text
    assert {"width=device-width,initial-scale=1"} <= {
        found.get("content") for found in parsed.all("meta")
    }
    # No chart has a colour of its own that dark would not change.
    body = text[text.index("<body>") :]
    assert not re.search(r"#[0-9a-f]{6}\b", body)


def test_every_chart_says_what_it_shows_to_who_cannot_see(text: str) -> None:
    charts = re.findall(r'<div class="chart">(<svg.*?</svg>)', text, flags=re.DOTALL)
    peers = [one for one in SUBJECTS if one.kind != "driver"]
    scaled = [one for one in WORKLOADS if one.parameter]
    assert len(charts) == 2 * len(scaled) + len(peers)  # time and disk of each that grows
    for drawn in charts:
        assert 'role="img"' in drawn
        assert len(re.findall(r"<desc [^>]*>[^<]{40,}</desc>", drawn)) == 1


def test_every_sample_is_accounted_for(run: Run, parsed: _Page) -> None:
    rows = [found for found in parsed.all("tr") if "data-ok" in found]
    for outcome in ("ok", "failed", "skipped"):
        shown = sum(int(found[f"data-{outcome}"]) for found in rows)
        assert shown == sum(one.outcome == outcome for one in run.samples)
        assert shown > 0
    tables = [found for found in parsed.all("details") if "missing" not in found.get("class", "")]
    assert len(tables) == len(run.workloads)


def test_every_median_stands_in_the_details(run: Run, text: str) -> None:
    details = text[text.index('<section id="details">') :]
    for line in lines(run, MEASURES).values():
        if line.values:
            assert f">{quantity(line.key.measure, line.median)}<" in details


def test_removals_say_how_much_had_come_and_how_much_of_it_the_disk_has_back(run: Run) -> None:
    samples = [
        attrs.evolve(one, extra={"brought": 4000.0 * one.operations}, disk=-3000 * one.operations)
        if (one.workload, one.outcome) == ("remove-containers", "ok")
        else one
        for one in run.samples
    ]
    text = page(attrs.evolve(run, samples=tuple(samples)))
    assert '<th scope="col" class="number">had come</th>' in text
    assert re.search(r">4\.00 kB<.*?>75%<", text)


def test_failures_are_shown_as_failures_with_their_reason_escaped(text: str) -> None:
    assert "exit status 1: too many layers: &lt;nothing&gt; &amp; more" in text
    assert "<nothing>" not in text
    assert "✕ failed at 128 layers" in text


def test_what_a_stranger_wrote_into_a_run_stays_text() -> None:
    bad = '<script>alert("x")</script>'
    run = scripted_run(rounds=1)
    workload = attrs.evolve(run.workloads[0], title=bad, question=bad)
    subjects = (attrs.evolve(run.subjects[0], durable=bad, version=bad), *run.subjects[1:])
    run = attrs.evolve(
        run,
        workloads=(workload, *run.workloads[1:]),
        subjects=subjects,
        versions={bad: bad},
        options={bad: bad},
        command=(bad,),
    )
    text = page(run)
    assert "<script" not in text
    assert _Page(text).open == []


@pytest.mark.filterwarnings("error")
def test_names_in_any_script_and_with_any_sign_are_drawn_as_they_are() -> None:
    strange = '牛舎 $x^2$ "<&>"'
    run = scripted_run(rounds=2)
    run = attrs.evolve(
        run,
        subjects=(attrs.evolve(run.subjects[0], name=strange), *run.subjects[1:]),
        samples=tuple(
            attrs.evolve(one, subject=strange) if one.subject == run.subjects[0].name else one
            for one in run.samples
        ),
    )
    text = page(run)
    assert _Page(text).open == []
    assert text.count("牛舎 $x^2$") > 50
    ElementTree.fromstring(chart(run))


# -- which driver -----------------------------------------------------------------------------


def _choice(run: Run, title: str) -> Choice:
    (found,) = [one for one in choices(run, lines(run, MEASURES)) if one.title == title]
    return found


def test_the_pick_follows_the_samples_and_not_the_name() -> None:
    title = "Checkpoint and roll back"
    run = scripted_run(rounds=7)
    found = _choice(run, title)
    assert (found.picks, found.runner_up) == (("chunk-dedup",), "overlayfs")
    assert found.behind is not None
    assert found.behind.low <= 20 / 3 <= found.behind.high * 1.1
    slowed = scripted_run(rounds=7, slower={"chunk-dedup": 1000})
    assert _choice(slowed, title).picks == ("overlayfs",)
    names = {"chunk-dedup": "floppy-disks"}
    renamed = attrs.evolve(
        run,
        subjects=tuple(
            attrs.evolve(one, name=names.get(one.name, one.name)) for one in run.subjects
        ),
        samples=tuple(
            attrs.evolve(one, subject=names.get(one.subject, one.subject)) for one in run.samples
        ),
    )
    assert _choice(renamed, title).picks == ("floppy-disks",)


def test_drivers_that_cannot_be_told_apart_share_the_pick() -> None:
    # 1.0 and 1.0 ms to remove a container.
    assert set(_choice(scripted_run(rounds=7), "Remove, and have the space back").picks) == {
        "chunk-dedup",
        "overlayfs",
    }


def test_a_driver_that_fails_at_a_part_is_not_picked_and_the_reason_is_given() -> None:
    run = scripted_run(rounds=3)
    broken = tuple(
        attrs.evolve(one, outcome="failed", reason="disk full", wall=None)
        if (one.subject, one.workload) == ("chunk-dedup", "fork")
        else one
        for one in run.samples
    )
    found = _choice(attrs.evolve(run, samples=broken), "Checkpoint and roll back")
    assert found.picks == ("overlayfs",)
    assert found.unable == {"chunk-dedup": "fork failed: disk full"}


def test_work_that_some_driver_had_no_time_for_decides_nothing() -> None:
    run = scripted_run(rounds=1)
    late = tuple(
        attrs.evolve(one, outcome="skipped", reason=f"{OUT_OF_TIME}, 95 s, was over", wall=None)
        if one.workload in ("diff", "fork") and one.subject != "naive-copy"
        else one
        for one in run.samples
    )
    run = attrs.evolve(run, samples=late)
    titles = {one.title for one in choices(run, lines(run, MEASURES))}
    assert "Checkpoint and roll back" not in titles
    reasons = _choice(run, "Find changes, commit, export").reasons
    assert len(reasons) == 1
    assert reasons[0].startswith("Commit a container: ")


def test_a_size_that_one_driver_alone_managed_decides_nothing_if_two_managed_a_smaller() -> None:
    run = scripted_run(rounds=1)
    few = tuple(
        attrs.evolve(one, outcome="skipped", reason="it would take too long", wall=None)
        if (one.workload, one.parameter) == ("create", 1000) and one.subject != "naive-copy"
        else one
        for one in run.samples
    )
    found = _choice(attrs.evolve(run, samples=few), "Make containers by the thousand")
    assert found.picks == ("overlayfs",)
    assert found.reasons[0].startswith("Create containers, 100 containers: ")


def test_the_best_peer_stands_beside_the_pick_with_how_much_both_can_do() -> None:
    found = _choice(scripted_run(rounds=5), "Fetch images and use them")
    assert found.peer == "containerd"
    assert found.beside is not None
    # (2.5/1.2 · 1.1/0.3 · 30/20) ** (1/3)
    assert found.beside.estimate == pytest.approx(2.25, rel=0.1)
    assert found.shared == (3, 3)


# -- runs that have little --------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_run_of_few_rounds_has_a_page_too(rounds: int) -> None:
    parsed = _Page(page(scripted_run(rounds=rounds)))
    assert len(parsed.all("section")) == 4


def test_a_run_in_which_everything_failed_has_a_page_that_says_so() -> None:
    run = scripted_run(rounds=1)
    broken = tuple(
        attrs.evolve(one, outcome="failed", reason="no power", wall=None, cpu=None, disk=None)
        for one in run.samples
    )
    text = page(attrs.evolve(run, samples=broken))
    assert _Page(text).open == []
    assert f"{len(broken):,} failed" in text
    assert "No driver was measured" in text


def test_a_run_without_peers_or_samples_has_a_page() -> None:
    drivers = tuple(one for one in SUBJECTS if one.kind == "driver")
    assert "No peer was measured" in page(scripted_run(rounds=1, subjects=drivers))
    empty = attrs.evolve(scripted_run(rounds=1), samples=())
    assert _Page(page(empty)).open == []


def test_the_same_run_gives_the_same_page_every_time(run: Run, text: str) -> None:
    assert page(run) == text


# -- drawing ----------------------------------------------------------------------------------


def _luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_colour_of_text_can_be_read_on_its_ground_in_light_and_dark() -> None:
    for name in set(COLOURS) - {"paper", "rule", "panel"}:
        for at in (0, 1):
            pair = _luminance(COLOURS[name][at]), _luminance(COLOURS["paper"][at])
            contrast = (max(pair) + 0.05) / (min(pair) + 0.05)
            assert contrast >= 4.5, (name, contrast)


def test_subjects_differ_in_shape_where_they_share_a_colour() -> None:
    many = [Subject(name=f"d{at}", kind="driver", version="", durable="yes") for at in range(9)]
    looks = styles([*many, *SUBJECTS[5:]])
    drawn = [(one.colour, one.shape) for one in looks.values()]
    assert len(drawn) == len(set(drawn))


def test_labels_move_only_as_far_as_they_must() -> None:
    assert spread_out([10, 50, 90], 10, 0, 100) == [10, 50, 90]
    assert spread_out([50, 50, 90], 10, 0, 100) == [45, 55, 90]
    assert spread_out([0, 0, 0], 10, 0, 100) == [0, 10, 20]
    assert spread_out([99, 98, 100], 10, 0, 100) == [90, 80, 100]
    assert spread_out([], 10, 0, 100) == []
    crowded = spread_out([5.0] * 11, 20, 0, 100)
    assert crowded == sorted(crowded)
    assert (crowded[0], crowded[-1]) == (0, 100)


# -- headline ---------------------------------------------------------------------------------


def test_the_headline_table_has_a_row_for_each_subject_and_bold_where_it_is_best(run: Run) -> None:
    heading, _, *rows = [line for line in markdown(run).splitlines() if line.startswith("|")]
    columns = [one.strip() for one in heading.strip("|").split("|")]
    assert "disk for 8 versions" in columns
    assert "first byte in 500 MB" in columns
    assert len(rows) == len(SUBJECTS)
    cells = {
        row.split("|")[1].strip(): [one.strip() for one in row.split("|")[2:-1]] for row in rows
    }
    first = [row[0] for row in cells.values()]
    assert first.count(cells["`chunk-dedup`"][0]) == 1
    assert cells["`chunk-dedup`"][0].startswith("**1.")
    assert not any(cell.startswith("**") for cell in cells["floor"])
    assert cells["umoci"][columns.index("fork") - 1] == "–"


def test_the_headline_takes_the_largest_size_that_most_drivers_managed(run: Run) -> None:
    few = [one for one in run.samples if one.parameter != 500 or one.subject == "reflink"]
    few = [one for one in few if one.workload != "fork" or one.subject == "overlayfs"]
    text = markdown(attrs.evolve(run, samples=tuple(few)))
    assert "first byte in 64 MB" in text
    assert "first byte in 500 MB" in markdown(run)
    assert "| fork |" in markdown(run)
    assert "fork" not in text


def test_the_headline_names_its_input_and_a_command_that_anybody_can_give(run: Run) -> None:
    command = ("cowshed", "bench", "--quick", "--out", "/home/me/run.json", "--minutes", "5")
    text = markdown(attrs.evolve(run, command=command))
    assert text.endswith("`cowshed bench --quick --minutes 5`.\n")
    assert "files of a scripted machine (55.0 MB in 4,100 entries)" in text


def test_the_headline_chart_is_an_svg_for_light_and_dark_that_stands_alone(run: Run) -> None:
    text = chart(run)
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme:dark" in text
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", text))
    assert used <= set(re.findall(r"--([a-z0-9-]+):", text))
    assert re.findall(r"https?://[^\"]+", text) == ["http://www.w3.org/2000/svg"]
    create = lines(run)[Key("overlayfs", "create", 1000, "wall")]
    assert quantity("wall", create.median) in text


# -- commands ---------------------------------------------------------------------------------


def test_report_writes_the_page_beside_the_run(call: Call, store: Store, run: Run) -> None:
    path = store("run.json", run)
    status, printed, error = call(report_command, path)
    html = Path(path).with_suffix(".html")
    assert (status, error, printed) == (0, "", f"Report: {html}\n")
    assert html.read_text().startswith("<!DOCTYPE html>")
    assert report_beside(run, Path(path)) == (html, "")


def test_report_writes_the_headline(call: Call, store: Store, run: Run, tmp_path: Path) -> None:
    path, target = store("run.json", run), tmp_path / "headline.svg"
    status, printed, _ = call(report_command, path, "--headline", str(target), "--markdown")
    assert status == 0
    assert printed.startswith("|")
    assert target.read_text().startswith("<svg ")
    assert not (tmp_path / "run.html").exists()


def test_report_refuses_in_one_line_what_it_cannot_do(
    call: Call, store: Store, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store("run.json", run)
    status, _, error = call(report_command, path, "--out", path)
    assert (status, "is the run itself" in error) == (1, True)
    status, _, error = call(report_command, path, "--out", str(tmp_path / "no" / "page.html"))
    assert (status, "No such file or directory" in error) == (1, True)
    status, _, error = call(report_command, str(tmp_path / "none.json"))
    assert (status, "none.json" in error) == (1, True)
    few = store("few.json", scripted_run(rounds=1, workloads=WORKLOADS[6:7]))
    status, _, error = call(report_command, few, "--markdown")
    assert (status, "headline" in error) == (1, True)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, _, error = call(report_command, path)
    assert (status, error) == (1, "reports need matplotlib: pip install 'cowshed[bench]'")
    assert report_beside(run, Path(path)) == (None, str(NotInstalledError("matplotlib")))
