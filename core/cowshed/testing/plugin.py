"""A pytest plugin for driver authors: ``--thorough``, and a summary by groups of promises.

Enable it by ``-p cowshed.testing.plugin``, or at the top of a ``conftest.py``:

    pytest_plugins = ["cowshed.testing.plugin"]
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from .kit import GROUPS, THOROUGH, Kit

_PROPERTY = "cowshed group"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--thorough``."""
    parser.getgroup("cowshed").addoption(
        "--thorough",
        action="store_true",
        help="conformance kit: more examples, longer chains, every crash point, for minutes "
        f"instead of seconds ({THOROUGH}=1)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Tell the kit, in this process and in all that it starts."""
    if config.getoption("thorough"):
        os.environ[THOROUGH] = "1"


def pytest_itemcollected(item: pytest.Item) -> None:
    """Note the group of each of the kit's tests where reports carry it along, also from xdist."""
    parent = getattr(item, "cls", None)
    if isinstance(parent, type) and issubclass(parent, Kit):
        name = getattr(item, "originalname", item.name)
        for part in parent.__mro__:
            if name in vars(part) and issubclass(part, Kit) and part.group:
                item.user_properties.append((_PROPERTY, part.group))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many promises of each group are kept."""
    counts: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed", "skipped", "error"):
        for report in terminalreporter.getreports(outcome):
            # A module that can't be collected has no properties.
            for name, group in getattr(report, "user_properties", ()):
                if name == _PROPERTY and isinstance(group, str):
                    counts.setdefault(group, Counter())[outcome] += 1
    if not counts:
        return
    terminalreporter.section("promises")
    width = max(map(len, counts))
    # In the order of the groups, not of the tests: that is another in every version of pytest.
    for group in sorted(counts, key=lambda name: (*GROUPS, name).index(name)):
        shown = ", ".join(f"{count} {outcome}" for outcome, count in counts[group].items())
        terminalreporter.line(f"{group:{width}}  {shown}")
