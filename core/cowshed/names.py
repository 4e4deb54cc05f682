"""Names of images and containers: what is allowed, and what is made up when none is given."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence

from .errors import UsageError

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]+)?"
#: distribution-spec, "Pulling manifests", with the host part that every tool puts before it.
_IMAGE = rf"(?:{_HOST}/)?{_COMPONENT}(?:/{_COMPONENT})*(?::[\w][\w.-]{{0,127}})?"
_CONTAINER = "[a-zA-Z0-9][a-zA-Z0-9_.-]*"
_HEX = "[0-9a-f]{1,64}"

#: What ``image_name`` must not let pass for an ID: a stranger's archive names its images itself.
_LIKE_AN_ID = "[0-9a-f]{64}|sha(?:256|512)(?::.*)?"

MAX_NAME = 255

#: An image of this name is always there: no layers, an empty root.
SCRATCH = "scratch"

_LEFT = """
amber amused brave bright calm candid clever cosy curious dapper eager early earnest easy
elegant fair fearless fine fleet fond frank friendly gentle gifted glad golden grand happy
hardy honest humble jolly keen kind lively loyal lucid lucky mellow merry mild modest neat
nimble noble patient placid plucky polite proud quick quiet ready serene sharp silent
sleek smart solid spry stable steady stoic sturdy subtle sunny swift tender thrifty tidy
tranquil upbeat vivid warm wise witty zesty
""".split()
_RIGHT = """
agnesi alder allen antonelli babbage backus bartik bernerslee borg boole booth byron
clarke codd curry dijkstra easley engelbart euler fermat floyd forsythe franklin galois
gauss godel goldberg hamilton hamming hoare hopper huffman hypatia iverson jennings
johnson kahn kay kilburn knuth kolmogorov lamarr lamport lampson leibniz lempel liskov
lovelace matiyasevich mccarthy meitner merkle milner minsky naur neumann noether nygaard
perlis perlman rabin ritchie rivest sammet shannon shaw simon stallman strachey sutherland
tarjan thompson turing wheeler wilkes wirth yao zimmermann ziv zuse
""".split()


def image_name(text: str) -> str:
    """Return a full image name, with ``:latest`` where no tag is given.

    Raises:
        UsageError: it isn't a valid name.
    """
    if re.fullmatch(_LIKE_AN_ID, text):
        raise UsageError(f"invalid image name {text!r}: it could be taken for an ID")
    if len(text) > MAX_NAME or not re.fullmatch(_IMAGE, text, re.A) or text == SCRATCH:
        raise UsageError(
            f"invalid image name {text!r}: use lower-case letters, digits and . _ - / "
            "with an optional :tag"
        )
    return text if ":" in text.rpartition("/")[2] else f"{text}:latest"


def container_name(text: str) -> str:
    """Return ``text`` if it can name a container.

    Raises:
        UsageError: it can't.
    """
    if len(text) > MAX_NAME or not re.fullmatch(_CONTAINER, text):
        raise UsageError(
            f"invalid container name {text!r}: use letters and digits, and after the first "
            "also _ . -"
        )
    return text


def is_id_prefix(text: str) -> bool:
    """Say whether ``text`` can be the beginning of an ID in hex."""
    return bool(re.fullmatch(_HEX, text))


def new_id() -> str:
    """Return a fresh container ID: 64 random hex digits, as Docker's."""
    return os.urandom(32).hex()


def made_up_name(taken: Callable[[str], bool]) -> str:
    """Return a name such as ``calm_hopper`` that isn't taken."""
    name = f"{_any_of(_LEFT)}_{_any_of(_RIGHT)}"
    while taken(name):
        # Four hex digits on top of some 7,000 pairs: 10,000 containers find theirs at once.
        name = f"{_any_of(_LEFT)}_{_any_of(_RIGHT)}_{os.urandom(2).hex()}"
    return name


def _any_of(words: Sequence[str]) -> str:
    # The module random takes 3 ms to import.
    return words[int.from_bytes(os.urandom(4), "big") % len(words)]
