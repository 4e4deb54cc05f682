"""Reporting a run: one HTML page, a headline chart and table, a table in the terminal.

The page and charts need matplotlib and Jinja2, which only come with ``cowshed[bench]``: whoever
stores images shouldn't have to install 80 MB to draw.
"""

from __future__ import annotations

from pathlib import Path

from cowshed.errors import CowshedError

from ..results import Run


class NotInstalledError(CowshedError):
    """A library that draws is missing."""

    def __init__(self, library: str) -> None:
        self.library = library
        super().__init__(f"reports need {library}: pip install 'cowshed[bench]'")


def require_libraries() -> None:
    """Check that what draws can be imported.

    Raises:
        NotInstalledError: it can't; the message says what to install.
    """
    from importlib.util import find_spec

    for module, library in (("matplotlib", "matplotlib"), ("jinja2", "Jinja2")):
        if find_spec(module) is None:
            raise NotInstalledError(library)


def write_report(run: Run, path: Path) -> None:
    """Write the page, whole or not at all."""
    require_libraries()
    from .page import page

    write_whole(path, page(run))


def write_whole(path: Path, text: str) -> None:
    """Write a file aside and put it in its place."""
    import os

    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def report_beside(run: Run, json_path: Path) -> tuple[Path | None, str]:
    """Write the page next to a run's JSON; return its path, or none and in one line why not."""
    path = json_path.with_suffix(".html")
    try:
        write_report(run, path)
    except NotInstalledError as error:
        return None, str(error)
    return path, ""
