"""Sizes, ages and names as people see them."""

from __future__ import annotations

import pytest

from cowshed.cli.output import age, age_of_text, escaped, one_line, size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (12_345_678, "12.3MB"),
        (999_999, "1MB"),
        (-5, "-5B"),
    ],
)
def test_sizes_have_three_digits_and_powers_of_a_thousand(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "Less than a second ago"),
        (1, "1 second ago"),
        (59, "59 seconds ago"),
        (60, "About a minute ago"),
        (3600, "About an hour ago"),
        (47 * 3600, "47 hours ago"),
        (3 * 86400, "3 days ago"),
        (21 * 86400, "3 weeks ago"),
        (90 * 86400, "3 months ago"),
        (3 * 365 * 86400, "3 years ago"),
    ],
)
def test_ages_read_as_docker_says_them(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_a_time_that_is_none_is_not_available() -> None:
    assert age_of_text("", 0) == "N/A"
    assert age_of_text("yesterday", 0) == "N/A"
    assert age_of_text("1970-01-01T00:00:00.123456789Z", 10) == "9 seconds ago"


def test_terminal_escapes_and_undecodable_bytes_are_shown_as_escapes() -> None:
    assert escaped("a\x1b[31m\udcff\n\u202e") == "a\\x1b[31m\\xff\\n\\u202e"
    assert escaped("Grüße …") == "Grüße …"
    assert one_line("RUN a \\\n\tb\x07", 9) == "RUN a \\ …"
