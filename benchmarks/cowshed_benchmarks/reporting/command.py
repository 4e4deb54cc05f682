"""``cowshed bench report``: the page of a run, and the headline for a README."""

from __future__ import annotations

from pathlib import Path

import click

from cowshed.cli.output import line
from cowshed.cli.session import Session, pass_session
from cowshed.errors import CowshedError


@click.command("report")
@click.argument("run_file", metavar="RUN.json", type=click.Path())
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where the page goes.  [default: RUN.html]",
)
@click.option(
    "--headline",
    type=click.Path(path_type=Path),
    metavar="FILE.svg",
    help="Write the headline chart there instead of a page.",
)
@click.option(
    "--markdown", "as_markdown", is_flag=True, help="Print the headline table instead of a page."
)
@pass_session
def report_command(
    session: Session,
    run_file: str,
    out: Path | None,
    headline: Path | None,
    as_markdown: bool,
) -> None:
    """Make one self-contained HTML page of a run: which driver to pick, how costs grow, how we
    stand beside each peer, and all figures.

    --json: {page}.
    """
    from ..results import load
    from . import require_libraries, write_report, write_whole

    run = load(run_file)
    if headline is None and not as_markdown:
        target = out or Path(run_file).with_suffix(".html")
        if target.exists() and target.samefile(run_file):
            raise CowshedError(f"{target} is the run itself; write the page elsewhere, with --out")
        write_report(run, target)
        if session.json:
            session.print({"page": str(target)})
        elif not session.quiet:
            line(f"Report: {target}")
        return
    from .headline import chart, markdown, panels

    if not panels(run):
        raise CowshedError(f"{run_file} has no driver's figure of the headline's workloads")
    if headline is not None:
        require_libraries()
        write_whole(headline, chart(run))
    if as_markdown:
        line(markdown(run).rstrip())
